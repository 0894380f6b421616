"""``deft up`` as a process: ready, private, repaired after kills, and gone without a trace."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import httpx
import psutil
import pytest
import stamina

from tests.output_lines import lines_up_to

pytestmark = pytest.mark.timeout(180)


@dataclass(frozen=True)
class Up:
    """A running service."""

    process: subprocess.Popen[str]
    printed: list[str]
    url: str
    key: str

    @property
    def family(self) -> list[psutil.Process]:
        return psutil.Process(self.process.pid).children(recursive=True)

    def child(self, word: str) -> psutil.Process:
        """The child of the supervisor with ``word`` in its command line."""
        children = psutil.Process(self.process.pid).children()
        return next(child for child in children if any(word in part for part in child.cmdline()))

    def get(self, path: str) -> httpx.Response:
        return httpx.get(self.url + path, headers={"Authorization": f"Bearer {self.key}"}, timeout=10)

    def get_again(self, path: str) -> httpx.Response:
        """Ask until the answer is good; the supervisor needs a moment to repair things."""
        for attempt in stamina.retry_context(
            on=(httpx.HTTPError, AssertionError), attempts=200, timeout=60, wait_initial=0.1, wait_max=0.3
        ):
            with attempt:
                answer = self.get(path)
                assert answer.status_code == 200
        return answer


def command(home: Path, port: int = 0, host: str = "127.0.0.1") -> list[str]:
    where = ["--home", str(home), "--host", host, "--port", str(port)]
    return [sys.executable, "-m", "app.embedded", *where]


def without_servers() -> dict[str, str]:
    return {name: value for name, value in os.environ.items() if not name.startswith("DEFT_")}


@contextmanager
def up(home: Path, host: str = "127.0.0.1") -> Iterator[Up]:
    process = subprocess.Popen(
        command(home, host=host), stdout=subprocess.PIPE, text=True, env=without_servers()
    )
    try:
        assert process.stdout is not None
        printed = lines_up_to("DEFT is ready", process.stdout)
        service = json.loads((home / "service.json").read_text())
        assert service["pid"] == process.pid
        key = Path(service["admin_key_file"]).read_text().strip()
        yield Up(process, printed, service["url"], key)
    finally:
        process.terminate()
        process.wait(timeout=60)
        process.stdout.close()  # type: ignore[union-attr]


def gone(processes: list[psutil.Process]) -> bool:
    _, alive = psutil.wait_procs(processes, timeout=20)
    return alive == []


def test_it_serves_repairs_itself_and_leaves_nothing(home: Path) -> None:
    with up(home) as service:
        assert service.get("/readyz").status_code == 200
        assert service.get("/keys").status_code == 200
        assert httpx.get(service.url + "/keys").status_code == 401
        assert (home / "admin.key").stat().st_mode & 0o777 == 0o600
        assert any(service.key in line for line in service.printed)
        assert not any(service.key in log.read_text() for log in (home / "logs").iterdir())

        second = subprocess.run(
            command(home), capture_output=True, text=True, env=without_servers(), check=False
        )
        assert second.returncode == 1
        assert "a service already runs on" in second.stderr
        assert service.get("/readyz").status_code == 200

        for word in ("app.embedded.web", "postgres", "valkey"):
            killed = service.child(word)
            killed.kill()
            psutil.wait_procs([killed], timeout=10)
            assert service.get_again("/keys").status_code == 200
            assert service.get_again("/readyz").status_code == 200

        family = service.family
        service.process.send_signal(signal.SIGTERM)
        assert service.process.wait(timeout=60) == 0
        assert gone(family)
    assert not (home / "service.json").exists()
    assert not (home / "processes.json").exists()
    with pytest.raises(httpx.ConnectError):
        httpx.get(service.url)


def test_after_a_kill_nothing_runs_and_the_next_start_goes_on_with_the_same_key(home: Path) -> None:
    with up(home) as service:
        family = service.family
        service.process.kill()
        assert gone(family)
        key = service.key
    with up(home) as service:
        assert service.key == key
        assert service.get("/keys").status_code == 200
        assert not any("Admin key" in line for line in service.printed)


def test_a_port_in_use_is_told_before_anything_starts(home: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        result = subprocess.run(
            command(home, port), capture_output=True, text=True, env=without_servers(), check=False
        )
    assert result.returncode == 1
    assert f"cannot listen on 127.0.0.1 port {port}" in result.stderr
    assert "--port" in result.stderr
    assert not (home / "postgres").exists()


def test_a_home_that_is_a_file_is_named(home: Path) -> None:
    (home / "file").write_text("")
    result = subprocess.run(
        command(home / "file"), capture_output=True, text=True, env=without_servers(), check=False
    )
    assert result.returncode == 1
    assert f"cannot use {home / 'file'} as home" in result.stderr
    assert "Traceback" not in result.stderr


def test_a_server_that_is_named_but_away_is_an_error_with_the_variable(home: Path) -> None:
    nowhere = {"DEFT_DATABASE_URL": "postgresql+psycopg://nobody@127.0.0.1:1/nothing"}
    result = subprocess.run(
        command(home), capture_output=True, text=True, env={**without_servers(), **nowhere}, check=False
    )
    assert result.returncode == 1
    assert "DEFT_DATABASE_URL" in result.stderr
    assert "Traceback" not in result.stderr
    assert not (home / "admin.key").exists()
