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
