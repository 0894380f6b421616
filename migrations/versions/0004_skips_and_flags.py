"""skips, flags of harm, time on the screen and how texts are shown"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0004"
down_revision = "0003"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.add_column("studies", sa.Column("texts", sa.String(), server_default="plain", nullable=False))
    op.add_column("votes", sa.Column("harmful", sa.Boolean(), server_default=sa.false(), nullable=False))
    op.add_column("votes", sa.Column("seconds", sa.Float(), nullable=True))
    op.create_table(
        "skips",
        sa.Column("id", sa.BigInteger(), sa.Identity(always=False), nullable=False),
        sa.Column("assignment_id", sa.String(), nullable=False),
        sa.Column("reason", sa.String(), nullable=False),
        sa.Column("harmful", sa.Boolean(), nullable=False),
        sa.Column("undone_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("created_at", sa.DateTime(timezone=True), server_default=sa.text("now()"), nullable=False),
        sa.ForeignKeyConstraint(
            ["assignment_id"],
            ["assignments.id"],
            name=op.f("fk_skips_assignment_id_assignments"),
            ondelete="CASCADE",
        ),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_skips")),
    )
    op.create_index(op.f("ix_skips_assignment_id"), "skips", ["assignment_id"])
    op.create_index(
        "uq_skips_standing",
        "skips",
        ["assignment_id"],
        unique=True,
        postgresql_where=sa.text("undone_at IS NULL"),
    )


def downgrade() -> None:
    op.drop_table("skips")
    op.drop_column("votes", "seconds")
    op.drop_column("votes", "harmful")
    op.drop_column("studies", "texts")
