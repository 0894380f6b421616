"""The embedded PostgreSQL survives what machines do to it, and leaves nothing behind."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import psutil
import psycopg
import pytest
import sqlalchemy as sa

from app.embedded.account import ROOTS_PLACE, open_to, place_for, server_account
from app.embedded.postgres import EmbeddedPostgres
from app.embedded.process import Account, EmbeddedError

as_root = pytest.mark.skipif(os.geteuid() != 0, reason="only root has to run PostgreSQL as somebody else")

HOLDS_A_SERVER = """
import sys
from pathlib import Path
from app.embedded.postgres import EmbeddedPostgres
server = EmbeddedPostgres(Path(sys.argv[1]))
server.start()
print("up", flush=True)
sys.stdin.read()
"""


def execute(url: str, statement: str) -> list[tuple[object, ...]]:
    engine = sa.create_engine(url, poolclass=sa.NullPool, isolation_level="AUTOCOMMIT")
    with engine.connect() as connection:
        result = connection.execute(sa.text(statement))
        return [tuple(row) for row in result] if result.returns_rows else []


def servers_in(folder: Path) -> list[psutil.Process]:
    found = []
    for process in psutil.process_iter(["name"]):
        try:
            if process.info["name"] == "postgres" and str(folder) in process.cwd():
                found.append(process)
        except psutil.Error:
            continue
    return found


def test_committed_rows_survive_a_kill_of_server_and_backend(home: Path) -> None:
    with EmbeddedPostgres(home / "postgres") as server:
        execute(server.url, "CREATE TABLE kept (n int)")
        execute(server.url, "INSERT INTO kept SELECT generate_series(1, 1000)")
        plain = sa.make_url(server.url).set(drivername="postgresql").render_as_string(hide_password=False)
        busy = psycopg.connect(plain)
        busy.execute("INSERT INTO kept VALUES (-1)")  # not committed
        assert server.process is not None
        server.process.kill()
        server.process.wait()
        assert (home / "postgres" / "data" / "postmaster.pid").exists()
        server.stop()
        busy.close()
        server.start()
        assert execute(server.url, "SELECT count(*), min(n) FROM kept") == [(1000, 1)]


def test_a_stale_pid_file_that_names_a_living_stranger_does_not_keep_it_down(home: Path) -> None:
    server = EmbeddedPostgres(home / "postgres")
    with server:
        pass
    stale = home / "postgres" / "data" / "postmaster.pid"
    stale.write_text(f"{os.getpid()}\n{stale.parent}\n")
    with server:
        assert execute(server.url, "SELECT 1") == [(1,)]


def test_nothing_runs_after_stop_and_after_the_death_of_its_parent(home: Path) -> None:
    parent = subprocess.Popen(
        [sys.executable, "-c", HOLDS_A_SERVER, str(home / "postgres")],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    )
    assert parent.stdout is not None
    assert parent.stdout.readline() == b"up\n"
    running = servers_in(home)
    assert running
    parent.send_signal(signal.SIGKILL)
    parent.communicate()
    _, alive = psutil.wait_procs(running, timeout=10)
    assert alive == []
    with EmbeddedPostgres(home / "postgres") as server:
        assert execute(server.url, "SELECT 1") == [(1,)]
    assert servers_in(home) == []


def test_strangers_are_refused_and_the_password_is_private(home: Path) -> None:
    with EmbeddedPostgres(home / "postgres") as server:
        address = sa.make_url(server.url)
        assert address.host is None  # a socket, no port
        with pytest.raises(sa.exc.OperationalError, match="password authentication failed"):
            execute(address.set(password="guess").render_as_string(hide_password=False), "SELECT 1")
        password = server.place / "password"
        assert password.stat().st_mode & 0o777 == 0o600
        assert (server.place / "data").stat().st_mode & 0o077 == 0
        assert execute(server.url, "SHOW data_checksums") == [("on",)]


def test_a_second_server_on_the_same_folder_is_refused_and_harms_nothing(home: Path) -> None:
    with EmbeddedPostgres(home / "postgres") as server:
        second = EmbeddedPostgres(home / "postgres")
        with pytest.raises(EmbeddedError, match="used by another process"):
            second.start()
        second.stop()
        assert execute(server.url, "SELECT 1") == [(1,)]


def test_data_of_another_major_version_is_named_and_left_alone(home: Path) -> None:
    server = EmbeddedPostgres(home / "postgres")
    with server:
        pass
    version = home / "postgres" / "data" / "PG_VERSION"
    version.write_text("9\n")
    with pytest.raises(EmbeddedError, match="is of PostgreSQL 9"):
        server.start()
    assert version.read_text() == "9\n"


def test_a_long_path_gets_its_socket_elsewhere(home: Path) -> None:
    folder = home / ("long" * 30) / "postgres"
    folder.parent.mkdir(mode=0o711)
    with EmbeddedPostgres(folder) as server:
        assert execute(server.url, "SELECT 1") == [(1,)]
        socket = Path(sa.make_url(server.url).query["host"])  # type: ignore[arg-type]
        assert socket.stat().st_mode & 0o777 == 0o700
    assert not socket.exists()


@as_root
def test_below_a_private_folder_of_root_the_data_lies_elsewhere(home: Path) -> None:
    (home / "private").mkdir(mode=0o700)
    server = EmbeddedPostgres(home / "private" / "below" / "postgres")
    assert server.place.parent == ROOTS_PLACE
    try:
        with server:
            execute(server.url, "CREATE TABLE kept (n int)")
        with server:
            assert execute(server.url, "SELECT count(*) FROM kept") == [(0,)]
    finally:
        server.remove()
    assert not server.place.exists()


@as_root
def test_a_private_home_lets_the_server_pass_and_nobody_else(home: Path) -> None:
    home.chmod(0o700)
    account = server_account()
    open_to(home, account)
    assert home.stat().st_mode & 0o777 == 0o710
    with EmbeddedPostgres(home / "postgres") as server:
        assert server.place == home / "postgres"
        assert execute(server.url, "SELECT 1") == [(1,)]


@as_root
def test_root_runs_it_as_somebody_else() -> None:
    account = server_account()
    assert account is not None
    assert account.uid != 0


def test_an_ordinary_user_keeps_the_data_where_it_was_asked_for(home: Path) -> None:
    (home / "private").mkdir(mode=0o700)
    assert place_for(home / "private" / "postgres", None) == home / "private" / "postgres"
    if os.geteuid() == 0:
        stranger = Account(uid=65534, gid=65534, name="nobody")
        assert place_for(home / "postgres", stranger) == home / "postgres"
        assert place_for(home / "private" / "postgres", stranger) != home / "private" / "postgres"
