"""Fixtures of all tests. Servers: those named in the environment, else the embedded ones."""

from __future__ import annotations

import os
import secrets
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa
from alembic import command
from alembic.config import Config
from hypothesis import settings as hypothesis_settings

from deft_engine.environment import ENGINE_DEFAULTS
from tests.whole_service import WholeService, running

for name, value in ENGINE_DEFAULTS.items():  # torch is loaded in this process, too, and not yet
    os.environ.setdefault(name, value)

hypothesis_settings.register_profile("deft", deadline=None)  # a busy machine is no failure
hypothesis_settings.load_profile("deft")

ROOT = Path(__file__).resolve().parent.parent
SHARED_DATA = ROOT.parent / "shared" / "data"


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> object:
    """`pytest -n` divides the tests as units_of_work.py says."""
    from tests.units_of_work import ByServers

    config.option.loadscopereorder = False
    return ByServers(config, log)


@contextmanager
def server_folder() -> Iterator[Path]:
    """A folder that the servers' user can reach, too; pytest's own lie below one that only root may enter."""
    folder = Path(tempfile.mkdtemp(prefix="deft-test-"))
    folder.chmod(0o711)
    yield folder
    shutil.rmtree(folder)


@pytest.fixture
def home() -> Iterator[Path]:
    """A fresh home for a service or a server of its own."""
    with server_folder() as folder:
        yield folder


@pytest.fixture(scope="session")
def whole_service() -> Iterator[WholeService]:
    """The whole service as its own processes, for the tests from outside; started when first asked for."""
    with server_folder() as folder, running(folder) as service:
        yield service


@pytest.fixture(scope="session")
def server_url() -> Iterator[str]:
    """A PostgreSQL server on which this session may create databases."""
    named = os.environ.get("DEFT_TEST_DATABASE_URL")
    if named:
        yield named
        return
    from app.embedded.postgres import EmbeddedPostgres

    with server_folder() as folder, EmbeddedPostgres(folder / "postgres") as server:
        with _admin(server.url).connect() as connection:  # its data need not survive: a fifth of the time
            connection.execute(sa.text("ALTER SYSTEM SET fsync = off"))
            connection.execute(sa.text("SELECT pg_reload_conf()"))
        yield server.url


@pytest.fixture(scope="session")
def redis_url() -> Iterator[str]:
    """A Redis database that nobody else uses during this session."""
    named = os.environ.get("DEFT_TEST_REDIS_URL")
    if named:
        yield named
        return
    from app.embedded.valkey import EmbeddedValkey

    with server_folder() as folder, EmbeddedValkey(folder / "valkey") as server:
        yield server.url


def _admin(server_url: str) -> sa.Engine:
    return sa.create_engine(server_url, isolation_level="AUTOCOMMIT", poolclass=sa.NullPool)


@pytest.fixture(scope="session")
def template_database(server_url: str) -> Iterator[str]:
    """A migrated, empty database; tests copy it, which takes some 50 ms."""
    name = f"deft_template_{secrets.token_hex(4)}"
    admin = _admin(server_url)
    with admin.connect() as connection:
        connection.execute(sa.text(f'CREATE DATABASE "{name}"'))
    url = sa.make_url(server_url).set(database=name)
    engine = sa.create_engine(url, poolclass=sa.NullPool)
    config = Config()
    config.set_main_option("script_location", str(ROOT / "migrations"))
    with engine.connect() as connection:
        config.attributes["connection"] = connection
        command.upgrade(config, "head")
        connection.commit()
    yield name
    with admin.connect() as connection:
        connection.execute(sa.text(f'DROP DATABASE "{name}" WITH (FORCE)'))


@pytest.fixture
def database_url(server_url: str, template_database: str) -> Iterator[str]:
    """A fresh migrated database for one test."""
    name = f"deft_test_{secrets.token_hex(6)}"
    admin = _admin(server_url)
    with admin.connect() as connection:
        connection.execute(sa.text(f'CREATE DATABASE "{name}" TEMPLATE "{template_database}"'))
    yield sa.make_url(server_url).set(database=name).render_as_string(hide_password=False)
    with admin.connect() as connection:
        connection.execute(sa.text(f'DROP DATABASE "{name}" WITH (FORCE)'))


@pytest.fixture
def service_settings(
    database_url: str, redis_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[None]:
    """This process's settings, engine and broker on fresh ones, forgotten afterwards."""
    from app import queue, settings
    from app.db import session

    monkeypatch.setenv("DEFT_HOME", str(tmp_path / "home"))
    monkeypatch.setenv("DEFT_DATABASE_URL", database_url)
    monkeypatch.setenv("DEFT_REDIS_URL", redis_url)
    caches = (settings.get_settings, queue.get_celery, session.get_engine, session._factory)
    for cached in caches:
        cached.cache_clear()
    yield
    session.get_engine().dispose()
    for cached in caches:
        cached.cache_clear()


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """Real preference data beside the repository; tests that need it skip where it is absent."""
    if not SHARED_DATA.is_dir():
        pytest.skip(f"no real data at {SHARED_DATA}: put the data sets there to run this test")
    return SHARED_DATA
