"""The whole service on this machine: database, broker, API and workers, from one home folder."""

from __future__ import annotations

import json
import logging
import os
import socket
import sys
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from functools import partial
from http import HTTPStatus
from pathlib import Path
from signal import SIGKILL

from app.embedded.account import open_to, server_account
from app.embedded.postgres import EmbeddedPostgres
from app.embedded.prepare import prepare
from app.embedded.process import EmbeddedError, exclusive, private_folder, spawn
from app.embedded.signals import Signals, Stopped
from app.embedded.supervisor import Child, Supervisor, end_recorded, write_whole
from app.embedded.valkey import EmbeddedValkey
from app.queue import get_celery
from app.settings import get_settings

log = logging.getLogger("deft.up")

_READY_SECONDS = 60.0
_PING_SECONDS = 0.5
_WILDCARDS = ("0.0.0.0", "::")  # noqa: S104 (compared, not bound)
_QUEUES = {"cpu": 2, "gpu": 1}
_SERVERS, _PROGRAMS = 1, 2  # tiers


@dataclass(frozen=True)
class Home:
    """The folder of one service; everything it keeps lies here."""

    root: Path

    @property
    def logs(self) -> Path:
        """A file per process."""
        return self.root / "logs"

    @property
    def models(self) -> Path:
        """Where local models may lie unless DEFT_MODEL_ROOTS says otherwise."""
        return self.root / "models"

    @property
    def admin_key(self) -> Path:
        """The key made on first start, mode 600."""
        return self.root / "admin.key"

    @property
    def service(self) -> Path:
        """There while the service is ready: ``url``, ``pid``, ``admin_key_file``."""
        return self.root / "service.json"

    @property
    def processes(self) -> Path:
        """The children that run, for the next start after a SIGKILL."""
        return self.root / "processes.json"

    @contextmanager
    def held(self) -> Iterator[None]:
        """Be the only service on this home.

        Raises:
            EmbeddedError: another one runs, or the folder can't be written.
        """
        try:
            self.root.mkdir(parents=True, exist_ok=True, mode=0o700)
            for folder in (self.logs, self.models):
                private_folder(folder)
        except OSError as error:
            raise EmbeddedError(
                f"cannot use {self.root} as home: {error.strerror}; choose another --home"
            ) from error
        message = (
            f"a service already runs on {self.root}: stop it, see {self.service}, or choose another --home"
        )
        with exclusive(self.root / "lock", message):
            end_recorded(self.processes)
            self.service.unlink(missing_ok=True)
            yield


def run_service(home: Home, host: str, port: int) -> None:
    """Run until a signal asks to stop; afterwards no process and no port is left.

    Raises:
        EmbeddedError: the service does not come up; what was started is stopped again.
    """
    with home.held(), Signals() as signals, _bound(host, port) as listener, ExitStack() as servers:
        supervisor = Supervisor(home.processes, signals)
        try:
            for variable, server in _servers(home):
                servers.enter_context(server)
                supervisor.start(_server_child(server))
                os.environ[variable] = server.url
                signals.check()
            prepare(home.admin_key)
            signals.check()
            url = _start_programs(home, supervisor, listener, host)
            _announce(home, url)
            supervisor.watch()
        except Stopped:
            pass
        finally:
            home.service.unlink(missing_ok=True)
            log.info("stopping")
            supervisor.stop()


def _servers(home: Home) -> list[tuple[str, EmbeddedPostgres | EmbeddedValkey]]:
    """The servers that the environment does not name, each with the variable that shall hold its address."""
    os.environ["DEFT_HOME"] = str(home.root)
    os.environ.setdefault("DEFT_MODEL_ROOTS", str(home.models))
    servers: list[tuple[str, EmbeddedPostgres | EmbeddedValkey]] = []
    if "DEFT_DATABASE_URL" not in os.environ:
        open_to(home.root, server_account())
        servers.append(("DEFT_DATABASE_URL", EmbeddedPostgres(home.root / "postgres")))
    if "DEFT_REDIS_URL" not in os.environ:
        servers.append(("DEFT_REDIS_URL", EmbeddedValkey(home.root / "valkey")))
    return servers


def _server_child(server: EmbeddedPostgres | EmbeddedValkey) -> Child:
    return Child(
        name=server.folder.name,
        launch=server.launch,
        log=server.log,
        tier=_SERVERS,
        stop_signal=server.stop_signal,
        grace_seconds=server.stop_seconds,
        process=server.process,
    )


def _start_programs(home: Home, supervisor: Supervisor, listener: socket.socket, host: str) -> str:
    """Start API and workers and wait until all answer; the service's address."""
    web = [sys.executable, "-m", "app.embedded.web", str(listener.fileno())]
    supervisor.start(_program("api", web, home, grace_seconds=5.0, pass_fds=(listener.fileno(),)))
    grace = get_settings().stop_grace_seconds + 5.0
    for queue, threads in _QUEUES.items():
        supervisor.start(
            _program(f"worker-{queue}", _worker_command(queue, threads), home, grace_seconds=grace)
        )
    url = _address(listener, host)
    supervisor.wait_until("the API", partial(_answers, f"{url}/readyz"), _READY_SECONDS)
    supervisor.wait_until("a worker", _workers_answer, _READY_SECONDS)
    return url


def _worker_command(queue: str, threads: int) -> list[str]:
    """The command of a Celery worker for one queue."""
    celery = [sys.executable, "-m", "celery", "-A", "workers.celery_app", "worker", "--loglevel", "INFO"]
    alone = ["--without-mingle", "--without-gossip"]  # workers need not know each other; a second is saved
    return [*celery, *alone, "-P", "threads", "-Q", queue, "-c", str(threads), "-n", f"{queue}@%h"]


def _program(
    name: str, command: list[str], home: Home, *, grace_seconds: float, pass_fds: tuple[int, ...] = ()
) -> Child:
    path = home.logs / f"{name}.log"
    launch = partial(spawn, command, log=path, end_signal=SIGKILL, pass_fds=pass_fds)
    return Child(name=name, launch=launch, log=path, tier=_PROGRAMS, grace_seconds=grace_seconds)


@contextmanager
def _bound(host: str, port: int) -> Iterator[socket.socket]:
    """A socket that has its address but does not listen yet: nobody is served before an admin key exists."""
    try:
        family, kind, _, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
        listener = socket.socket(family, kind)
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind(address)
    except OSError as error:
        raise EmbeddedError(
            f"cannot listen on {host} port {port}: {error.strerror}; "
            "choose another --host or --port (0 picks a free one)"
        ) from error
    with listener:
        yield listener


def _address(listener: socket.socket, host: str) -> str:
    port = listener.getsockname()[1]
    if host in _WILDCARDS:
        host = "127.0.0.1" if listener.family == socket.AF_INET else "::1"
    return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"


def _answers(url: str) -> bool:
    try:
        with urllib.request.urlopen(url, timeout=2.0) as answer:  # noqa: S310 (our own address)
            return bool(answer.status == HTTPStatus.OK)
    except (urllib.error.URLError, OSError):
        return False


def _workers_answer() -> bool:
    replies = get_celery().control.broadcast("ping", reply=True, timeout=_PING_SECONDS, limit=len(_QUEUES))
    return len(replies or []) >= len(_QUEUES)


def _announce(home: Home, url: str) -> None:
    service = {"url": url, "pid": os.getpid(), "admin_key_file": str(home.admin_key)}
    write_whole(home.service, json.dumps(service, indent=1) + "\n")
    log.info("ready at %s, home %s", url, home.root)
    print(f"DEFT is ready at {url} (home {home.root}); Ctrl-C stops it.", flush=True)
