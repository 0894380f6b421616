"""rules for raters, when results are read, planned interim looks, judges"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql

revision = "0006"
down_revision = "0005"
branch_labels = None
depends_on = None

_JSON = postgresql.JSONB(astext_type=sa.Text())


def upgrade() -> None:
    op.add_column("studies", sa.Column("exclusion", _JSON, server_default="{}", nullable=False))
    op.add_column("studies", sa.Column("results", sa.String(), server_default="open", nullable=False))
    op.add_column("studies", sa.Column("interim_looks", sa.Integer(), server_default="0", nullable=False))
    op.add_column(
        "studies", sa.Column("boundary", sa.String(), server_default="obrien_fleming", nullable=False)
    )
    op.create_table(
        "study_looks",
        sa.Column("study_id", sa.String(), nullable=False),
        sa.Column("number", sa.Integer(), nullable=False),
        sa.Column("wins", sa.Integer(), nullable=False),
        sa.Column("ties", sa.Integer(), nullable=False),
        sa.Column("losses", sa.Integer(), nullable=False),
        sa.Column("p_value", sa.Float(), nullable=True),
        sa.Column("alpha", sa.Float(), nullable=False),
        sa.Column("created_at", sa.DateTime(timezone=True), server_default=sa.text("now()"), nullable=False),
        sa.ForeignKeyConstraint(
            ["study_id"], ["studies.id"], name=op.f("fk_study_looks_study_id_studies"), ondelete="CASCADE"
        ),
        sa.PrimaryKeyConstraint("study_id", "number", name=op.f("pk_study_looks")),
    )

    op.create_table(
        "study_verdicts",
        sa.Column("study_id", sa.String(), nullable=False),
        sa.Column("judge", sa.String(), nullable=False),
        sa.Column("item_id", sa.String(), nullable=False),
        sa.Column("a_first", sa.String(), nullable=False),
        sa.Column("b_first", sa.String(), nullable=False),
        sa.ForeignKeyConstraint(
            ["study_id"], ["studies.id"], name=op.f("fk_study_verdicts_study_id_studies"), ondelete="CASCADE"
        ),
        sa.ForeignKeyConstraint(
            ["item_id"],
            ["study_items.id"],
            name=op.f("fk_study_verdicts_item_id_study_items"),
            ondelete="CASCADE",
        ),
        sa.PrimaryKeyConstraint("study_id", "judge", "item_id", name=op.f("pk_study_verdicts")),
    )


def downgrade() -> None:
    op.drop_table("study_verdicts")
    op.drop_table("study_looks")
    for column in ("boundary", "interim_looks", "results", "exclusion"):
        op.drop_column("studies", column)
