"""the design of a study: systems, places, gold, repeats, exclusion"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0003"
down_revision = "0002"
branch_labels = None
depends_on = None

_KIND = sa.Enum("pair", "gold", "tutorial", name="kind", native_enum=False, create_constraint=True, length=20)
_PURPOSE = sa.Enum(
    "pair", "repeat", "gold", "tutorial", name="purpose", native_enum=False, create_constraint=True, length=20
)
_STANDING = sa.Enum(
    "open", "voted", "skipped", "released", name="standing", native_enum=False, create_constraint=True,
    length=20,
)  # fmt: skip

_STUDIES = sa.table("studies", *map(sa.column, ("id", "a_job_id", "b_job_id")))
_SYSTEMS = sa.table("study_systems", *map(sa.column, ("study_id", "position", "job_id")))


def upgrade() -> None:
    _systems()
    _design()
    _items()
    _assignments()
    _places()
    op.add_column("annotators", sa.Column("excluded_at", sa.DateTime(timezone=True), nullable=True))


def downgrade() -> None:
    op.execute("DELETE FROM assignments WHERE purpose <> 'pair'")
    op.execute("DELETE FROM study_items WHERE kind <> 'pair'")
    # What an older version has no place for: studies of more than two systems.
    op.execute("DELETE FROM studies WHERE id IN (SELECT study_id FROM study_systems WHERE position = 2)")
    op.drop_column("annotators", "excluded_at")
    op.drop_table("study_places")
    op.drop_index("ix_assignments_open", table_name="assignments")
    op.drop_constraint(op.f("uq_assignments_annotator_id_item_id_purpose"), "assignments", type_="unique")
    op.create_unique_constraint(
        op.f("uq_assignments_annotator_id_item_id"), "assignments", ["annotator_id", "item_id"]
    )
    op.drop_column("assignments", "standing")
    op.drop_column("assignments", "purpose")
    op.drop_constraint(
        op.f("uq_study_items_study_id_kind_sample_id_system_a_system_b"), "study_items", type_="unique"
    )
    op.create_unique_constraint(
        op.f("uq_study_items_study_id_sample_id"), "study_items", ["study_id", "sample_id"]
    )
    for column in ("system_b", "system_a", "kind"):
        op.drop_column("study_items", column)
    for column in ("tutorial", "gold_share", "gold", "repeats", "raters_per_pair", "pairs_per_prompt"):
        op.drop_column("studies", column)
    for position, column in enumerate(("a_job_id", "b_job_id")):
        op.add_column("studies", sa.Column(column, sa.String(), nullable=True))
        of_study = (_SYSTEMS.c.study_id == _STUDIES.c.id) & (_SYSTEMS.c.position == position)
        op.execute(sa.update(_STUDIES).where(of_study).values({column: _SYSTEMS.c.job_id}))
        op.alter_column("studies", column, nullable=False)
        op.create_foreign_key(op.f(f"fk_studies_{column}_jobs"), "studies", "jobs", [column], ["id"])
    op.drop_table("study_systems")


def _systems() -> None:
    op.create_table(
        "study_systems",
        sa.Column("study_id", sa.String(), nullable=False),
        sa.Column("position", sa.Integer(), autoincrement=False, nullable=False),
        sa.Column("job_id", sa.String(), nullable=False),
        sa.ForeignKeyConstraint(
            ["study_id"], ["studies.id"], name=op.f("fk_study_systems_study_id_studies"), ondelete="CASCADE"
        ),
        sa.ForeignKeyConstraint(["job_id"], ["jobs.id"], name=op.f("fk_study_systems_job_id_jobs")),
        sa.PrimaryKeyConstraint("study_id", "position", name=op.f("pk_study_systems")),
    )
    for position, column in enumerate(("a_job_id", "b_job_id")):
        rows = sa.select(_STUDIES.c.id, sa.literal(position), _STUDIES.c[column])
        op.execute(sa.insert(_SYSTEMS).from_select(["study_id", "position", "job_id"], rows))
        op.drop_column("studies", column)


def _design() -> None:
    """As the studies that there are were made: each pair for one rater (paper), or for all (rigorous)."""
    _add("studies", sa.Column("pairs_per_prompt", sa.Integer(), nullable=False), "1")
    op.add_column("studies", sa.Column("raters_per_pair", sa.Integer(), nullable=True))
    op.execute("UPDATE studies SET raters_per_pair = 1 WHERE protocol = 'paper'")
    for name in ("repeats", "gold_share"):
        _add("studies", sa.Column(name, sa.Float(), nullable=False), "0")
    for name in ("gold", "tutorial"):
        _add("studies", sa.Column(name, sa.Integer(), nullable=False), "0")


def _items() -> None:
    _add("study_items", sa.Column("kind", _KIND, nullable=False), "pair")
    _add("study_items", sa.Column("system_a", sa.Integer(), nullable=False), "0")
    _add("study_items", sa.Column("system_b", sa.Integer(), nullable=False), "1")
    op.drop_constraint(op.f("uq_study_items_study_id_sample_id"), "study_items", type_="unique")
    op.create_unique_constraint(
        op.f("uq_study_items_study_id_kind_sample_id_system_a_system_b"),
        "study_items",
        ["study_id", "kind", "sample_id", "system_a", "system_b"],
    )


def _assignments() -> None:
    _add("assignments", sa.Column("purpose", _PURPOSE, nullable=False), "pair")
    _add("assignments", sa.Column("standing", _STANDING, nullable=False), "open")
    op.execute(
        "UPDATE assignments SET standing = 'voted' WHERE id IN "
        "(SELECT assignment_id FROM votes WHERE undone_at IS NULL)"
    )
    op.drop_constraint(op.f("uq_assignments_annotator_id_item_id"), "assignments", type_="unique")
    op.create_unique_constraint(
        op.f("uq_assignments_annotator_id_item_id_purpose"),
        "assignments",
        ["annotator_id", "item_id", "purpose"],
    )
    op.create_index(
        "ix_assignments_open",
        "assignments",
        ["annotator_id"],
        postgresql_where=sa.text("standing = 'open'"),
    )


def _places() -> None:
    op.create_table(
        "study_places",
        sa.Column("item_id", sa.String(), nullable=False),
        sa.Column("study_id", sa.String(), nullable=False),
        sa.Column("subset", sa.String(), nullable=False),
        sa.Column("held", sa.Integer(), nullable=False),
        sa.ForeignKeyConstraint(
            ["item_id"],
            ["study_items.id"],
            name=op.f("fk_study_places_item_id_study_items"),
            ondelete="CASCADE",
        ),
        sa.PrimaryKeyConstraint("item_id", name=op.f("pk_study_places")),
    )
    op.create_index(op.f("ix_study_places_study_id_subset"), "study_places", ["study_id", "subset"])
    op.execute(
        "INSERT INTO study_places (item_id, study_id, subset, held) "
        "SELECT i.id, i.study_id, i.subset, (SELECT count(*) FROM assignments a WHERE a.item_id = i.id) "
        "FROM study_items i"
    )


def _add(table: str, column: sa.Column[object], for_old_rows: str) -> None:
    column.server_default = sa.DefaultClause(for_old_rows)
    op.add_column(table, column)
    op.alter_column(table, column.name, server_default=None)
