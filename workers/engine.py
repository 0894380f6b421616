"""The worker's side of a supervised engine: start it, keep it, stop it."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Iterable, Mapping
from contextlib import suppress
from pathlib import Path

import psutil

from app.db.claims import ClaimedInput
from app.settings import Settings
from deft_engine.data.hub_dataset import URI_SCHEME as HUB_SCHEME
from deft_engine.endpoints.cache import CACHE_VARIABLE
from deft_engine.endpoints.hosts import HOSTS_VARIABLE
from deft_engine.endpoints.spec import URI_SCHEME, EndpointSpec
from deft_engine.environment import engine_environment
from deft_engine.hostfile import HOSTFILE_VARIABLE, SHELL_VARIABLE

_SERVICE_PREFIXES = ("DEFT_", "PG", "CELERY_", "REDIS_")
_LIMITS_PREFIX = "DEFT_MAX_"  # what an upload may cost to read
_HOSTS = (HOSTFILE_VARIABLE, SHELL_VARIABLE)


class SupervisedEngine:
    """An engine under ``workers.supervisor``; what both print goes to ``log``.

    ``environment``: what this stage needs besides ``service_engine_environment``.
    """

    def __init__(
        self, folder: Path, log: Path, *, silence: float, grace: float, environment: Mapping[str, str]
    ) -> None:
        command = [sys.executable, "-m", "workers.supervisor", str(folder)]
        command += ["--silence", str(silence), "--grace", str(grace)]
        with log.open("ab") as output:
            self._process = subprocess.Popen(
                command,
                stdin=subprocess.PIPE,
                stdout=output,
                stderr=subprocess.STDOUT,
                env={**service_engine_environment(), **environment},
                start_new_session=True,
                bufsize=0,
            )

    def wait(self, timeout: float) -> int | None:
        """The exit status if it ends in ``timeout`` seconds: the engine's own, or 128 + a signal's number."""
        try:
            status = self._process.wait(timeout)
        except subprocess.TimeoutExpired:
            return None
        assert self._process.stdin is not None
        self._process.stdin.close()
        if status >= 0:
            return status
        self._kill_session()
        return 128 - status

    def beat(self) -> None:
        """Tell the supervisor that the worker lives."""
        self._tell("beat\n")

    def stop(self, grace: float) -> None:
        """SIGTERM to the engine, SIGKILL to all that is left of it after ``grace`` seconds."""
        self._tell(f"stop {grace}\n")

    def _tell(self, line: str) -> None:
        assert self._process.stdin is not None
        with suppress(BrokenPipeError):  # it has ended; ``wait`` will say so
            self._process.stdin.write(line.encode())

    def _kill_session(self) -> None:
        """The supervisor was killed and could kill nothing: do it in its place."""
        for process in psutil.process_iter():
            with suppress(ProcessLookupError):
                if os.getsid(process.pid) == self._process.pid:
                    os.kill(process.pid, signal.SIGKILL)


def service_engine_environment() -> dict[str, str]:
    """The worker's environment without what opens the service's database, broker and settings."""
    kept = {
        name: value
        for name, value in os.environ.items()
        if name.startswith(_LIMITS_PREFIX) or name in _HOSTS or not name.startswith(_SERVICE_PREFIXES)
    }
    return {**engine_environment(kept), "PYTHONUNBUFFERED": "1"}


def endpoint_environment(inputs: Iterable[ClaimedInput], settings: Settings) -> dict[str, str]:
    """For a stage that asks endpoints: hosts, kept answers, and the keys that its inputs name, no others.

    For one that downloads from the hub: hosts.
    """
    given_uris = [given.uri for given in inputs if given.uri is not None]
    uris = [uri for uri in given_uris if uri.startswith(URI_SCHEME)]
    if not uris:
        asks_hub = any(uri.startswith(HUB_SCHEME) for uri in given_uris)
        return {HOSTS_VARIABLE: settings.endpoint_hosts} if asks_hub else {}
    names = [name for uri in uris if (name := EndpointSpec.from_uri(uri).api_key_env) is not None]
    return {
        HOSTS_VARIABLE: settings.endpoint_hosts,
        CACHE_VARIABLE: str(settings.endpoint_cache),
        **{name: os.environ[name] for name in names if name in os.environ},
    }
