"""The commands and health checks of docker-compose.yml, run by hand against this session's servers."""

from __future__ import annotations

import os
import secrets
import shlex
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa
import stamina
import yaml

ROOT = Path(__file__).resolve().parents[3]
SERVICES: dict[str, Any] = yaml.safe_load((ROOT / "docker-compose.yml").read_text())["services"]
PORT_INSIDE = "8000"


@pytest.fixture
def environment(server_url: str, redis_url: str, tmp_path: Path) -> Iterator[dict[str, str]]:
    """What a container gets, for an empty database of this session's server."""
    name = f"deft_compose_{secrets.token_hex(4)}"
    admin = sa.create_engine(server_url, isolation_level="AUTOCOMMIT", poolclass=sa.NullPool)
    with admin.connect() as connection:
        connection.execute(sa.text(f'CREATE DATABASE "{name}"'))
    own = {
        "DEFT_HOME": str(tmp_path / "home"),
        "DEFT_DATABASE_URL": sa.make_url(server_url).set(database=name).render_as_string(hide_password=False),
        "DEFT_REDIS_URL": redis_url,
        "DEFT_MODEL_ROOTS": "/models",
        "DEFT_PUBLIC_URL": "",
        "DEFT_LOG_JSON": "true",
        "DEFT_ENDPOINT_HOSTS": "",
    }
    assert set(own) == set(SERVICES["api"]["environment"])
    yield {**os.environ, **own, "HOSTNAME": socket.gethostname()}
    with admin.connect() as connection:
        connection.execute(sa.text(f'DROP DATABASE "{name}" WITH (FORCE)'))


@pytest.fixture
def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as probe:
        return int(probe.getsockname()[1])


def by_hand(command: list[str], port: int) -> list[str]:
    """A container's command for this machine: our interpreter, another port, ``$$`` as Compose reads it."""
    python, *rest = command
    assert python == "python"
    return [sys.executable, *(part.replace(PORT_INSIDE, str(port)).replace("$$", "$") for part in rest)]


def health_check(service: str, port: int) -> list[str]:
    kind, *test = SERVICES[service]["healthcheck"]["test"]
    if kind == "CMD":
        return by_hand(test, port)
    assert kind == "CMD-SHELL"
    text = test[0].replace("$$", "$")
    assert text.startswith("python ")
    return ["sh", "-c", shlex.quote(sys.executable) + text.removeprefix("python")]


def healthy(service: str, port: int, environment: dict[str, str], process: subprocess.Popen[bytes]) -> bool:
    for attempt in stamina.retry_context(
        on=subprocess.CalledProcessError, attempts=30, timeout=90, wait_max=1.0
    ):
        with attempt:
            assert process.poll() is None, f"{service} ended"
            subprocess.run(health_check(service, port), env=environment, check=True, capture_output=True)
    return True


@pytest.mark.timeout(240)
def test_each_service_starts_and_becomes_healthy(
    environment: dict[str, str], free_port: int, tmp_path: Path
) -> None:
    migrate = by_hand(SERVICES["migrate"]["command"], free_port)
    first = subprocess.run(migrate, env=environment, check=True, capture_output=True, text=True)
    key_file = tmp_path / "home" / "admin.key"
    assert key_file.read_text().strip() in first.stdout
    again = subprocess.run(migrate, env=environment, check=True, capture_output=True, text=True)
    assert "Admin key" not in again.stdout

    assert SERVICES["worker-train"]["command"] == SERVICES["worker-gpu"]["command"]
    assert SERVICES["worker-train"]["healthcheck"] == SERVICES["worker-gpu"]["healthcheck"]
    running = {
        name: subprocess.Popen(
            by_hand(SERVICES[name]["command"], free_port),
            env=environment,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        for name in ("api", "worker-cpu", "worker-train")
    }
    try:
        for name, process in running.items():
            assert healthy(name, free_port, environment, process)
        for process in running.values():
            process.terminate()
        for name, process in running.items():
            assert process.wait(timeout=30) in (0, -15), name
    finally:
        for process in running.values():
            process.kill()
            process.wait()
