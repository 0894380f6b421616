"""imported generations, and data sets of the hub"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql

revision = "0005"
down_revision = "0004"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.add_column("datasets", sa.Column("answers_dataset_id", sa.String(), nullable=True))
    op.create_foreign_key(
        op.f("fk_datasets_answers_dataset_id_datasets"),
        "datasets",
        "datasets",
        ["answers_dataset_id"],
        ["id"],
    )
    op.add_column("datasets", sa.Column("hub", postgresql.JSONB(astext_type=sa.Text()), nullable=True))
    op.create_index(op.f("ix_datasets_answers_dataset_id"), "datasets", ["answers_dataset_id"])


def downgrade() -> None:
    op.execute("DELETE FROM datasets WHERE answers_dataset_id IS NOT NULL")
    op.drop_index(op.f("ix_datasets_answers_dataset_id"), table_name="datasets")
    op.drop_constraint(op.f("fk_datasets_answers_dataset_id_datasets"), "datasets", type_="foreignkey")
    op.drop_column("datasets", "hub")
    op.drop_column("datasets", "answers_dataset_id")
