"""Runs migrations on the database of the settings, or on a connection handed over by a test."""

from __future__ import annotations

from alembic import context
from sqlalchemy import Connection, create_engine

from app.db.models import Base
from app.settings import get_settings


def run(connection: Connection) -> None:
    """Bring ``connection`` to the revision that was asked for."""
    context.configure(connection=connection, target_metadata=Base.metadata, compare_type=True)
    with context.begin_transaction():
        context.run_migrations()


given = context.config.attributes.get("connection")
if given is not None:
    run(given)
else:
    with create_engine(get_settings().database_url).connect() as opened:
        run(opened)
