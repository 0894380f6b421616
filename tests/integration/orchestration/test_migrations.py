from __future__ import annotations

from pathlib import Path

import sqlalchemy as sa
from alembic import command
from alembic.autogenerate import compare_metadata
from alembic.config import Config
from alembic.migration import MigrationContext

from app.db.models import Base

MIGRATIONS = Path(__file__).resolve().parents[3] / "migrations"


def config_on(connection: sa.Connection) -> Config:
    config = Config()
    config.set_main_option("script_location", str(MIGRATIONS))
    config.attributes["connection"] = connection
    return config


def shape(connection: sa.Connection) -> dict[str, tuple[list[str], list[str], list[str]]]:
    """Of every table: columns, indexes, check constraints."""
    inspector = sa.inspect(connection)
    return {
        table: (
            sorted(f"{column['name']} {column['type']}" for column in inspector.get_columns(table)),
            sorted(str(index["name"]) for index in inspector.get_indexes(table)),
            sorted(str(check["name"]) for check in inspector.get_check_constraints(table)),
        )
        for table in inspector.get_table_names()
        if table != "alembic_version"
    }


def test_the_migrated_database_is_what_the_models_say(database_url: str) -> None:
    engine = sa.create_engine(database_url, poolclass=sa.NullPool)
    with engine.connect() as connection:
        context = MigrationContext.configure(connection, opts={"compare_type": True})
        assert compare_metadata(context, Base.metadata) == []
        migrated = shape(connection)
        command.downgrade(config_on(connection), "base")
        connection.commit()
        assert shape(connection) == {}
        Base.metadata.create_all(connection)
        assert shape(connection) == migrated


def test_down_and_up_again(database_url: str) -> None:
    engine = sa.create_engine(database_url, poolclass=sa.NullPool)
    with engine.connect() as connection:
        before = shape(connection)
        command.downgrade(config_on(connection), "base")
        command.upgrade(config_on(connection), "head")
        connection.commit()
        assert shape(connection) == before


def test_a_study_of_before_keeps_its_raters_work(database_url: str) -> None:
    """0003: systems in rows of their own, standing of assignments and held places; and all of it back."""
    engine = sa.create_engine(database_url, poolclass=sa.NullPool)
    with engine.connect() as connection:
        config = config_on(connection)
        command.downgrade(config, "0002")
        for statement in _STUDY_OF_BEFORE:
            connection.execute(sa.text(statement))
        before = _old_study(connection)
        command.upgrade(config, "0003")
        asked = "SELECT job_id FROM study_systems WHERE study_id = 's' ORDER BY position"
        assert connection.scalars(sa.text(asked)).all() == ["job_a", "job_b"]
        asked = "SELECT id, standing, purpose FROM assignments ORDER BY id"
        assert [tuple(row) for row in connection.execute(sa.text(asked))] == [
            ("asg_1", "voted", "pair"), ("asg_2", "open", "pair"),
        ]  # fmt: skip
        asked = "SELECT item_id, subset, held FROM study_places ORDER BY item_id"
        assert [tuple(row) for row in connection.execute(sa.text(asked))] == [
            ("itm_1", "x", 1), ("itm_2", "x", 1), ("itm_3", "y", 0),
        ]  # fmt: skip
        assert connection.scalar(sa.text("SELECT raters_per_pair FROM studies")) == 1
        command.downgrade(config, "0002")
        assert _old_study(connection) == before


_STUDY_OF_BEFORE = (
    "INSERT INTO jobs (id, kind, name, status, spec, warnings, event_seq) "
    "SELECT id, 'grade', id, 'succeeded', '{}', '[]', 0 FROM unnest(ARRAY['job_a', 'job_b']) AS id",
    "INSERT INTO studies "
    "(id, name, a_job_id, b_job_id, per_subset, protocol, criteria, seed, manifest_sha256) "
    "VALUES ('s', 'n', 'job_a', 'job_b', 2, 'paper', 'c', 1, 'h')",
    "INSERT INTO study_items "
    "(id, study_id, sample_id, subset, position, prompt, response_a, response_b) "
    "SELECT 'itm_' || n, 's', 'q' || n, CASE WHEN n < 3 THEN 'x' ELSE 'y' END, n, '[]', 'a', 'b' "
    "FROM generate_series(1, 3) AS n",
    "INSERT INTO api_keys (id, name, role, hash, hint) VALUES ('k', 'k', 'annotator', 'h', 'h')",
    "INSERT INTO annotators (id, study_id, key_id, link_hash, name, subsets) VALUES "
    "('ann', 's', 'k', 'l', 'Ada', '[\"x\"]')",
    "INSERT INTO assignments (id, annotator_id, item_id, a_is_left, lease_until) SELECT 'asg_' || n, 'ann', "
    "'itm_' || n, true, now() FROM generate_series(1, 2) AS n",
    "INSERT INTO votes (assignment_id, choice, late) VALUES ('asg_1', 'left', false)",
)


def _old_study(connection: sa.Connection) -> list[tuple[object, ...]]:
    rows: list[tuple[object, ...]] = []
    for table in ("studies", "study_items", "annotators", "assignments", "votes"):
        found = connection.execute(sa.text(f"SELECT * FROM {table} ORDER BY 1")).mappings()
        rows += [(table, *sorted((name, str(value)) for name, value in row.items())) for row in found]
    return rows
