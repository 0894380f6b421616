"""The whole service as a person starts it, for tests from outside: database, broker, API and workers."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

import httpx
import psutil

from deft_client import DeftClient
from deft_client.models import Dataset, Job
from tests.output_lines import lines_up_to

JOB_SECONDS = 300.0  # a stage starts a process that loads torch; on a busy machine that takes its time


@dataclass(frozen=True)
class WholeService:
    """A running service, and how to reach it."""

    home: Path
    url: str
    key: str
    client: DeftClient
    http: httpx.Client

    def dataset(self, path: Path) -> Dataset:
        """Upload a file and wait until it has been read."""
        return self.client.datasets.wait(self.client.datasets.upload(path).id, timeout=JOB_SECONDS, poll=0.1)

    def run(self, spec: dict[str, object], *, reuse: bool = True) -> Job:
        """Send a job and wait until it has succeeded."""
        return self.ended(self.client.jobs.create(spec, reuse=reuse).id)

    def ended(self, job_id: str) -> Job:
        """Wait until a job has succeeded."""
        return self.client.jobs.wait(job_id, timeout=JOB_SECONDS, poll=0.2)


@contextmanager
def running(home: Path) -> Iterator[WholeService]:
    """``deft up`` on a free port; SIGTERM at the end, after which no process of it may be left."""
    command = [
        sys.executable,
        "-m",
        "app.embedded",
        "--home",
        str(home),
        "--host",
        "127.0.0.1",
        "--port",
        "0",
    ]
    environment = {name: value for name, value in os.environ.items() if not name.startswith("DEFT_")}
    process = subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, env=environment
    )
    try:
        assert process.stdout is not None
        said = lines_up_to("DEFT is ready", process.stdout)
        announced = home / "service.json"
        assert announced.exists(), f"the service did not start; it said:\n{''.join(said)}"
        service = json.loads(announced.read_text())
        assert service["pid"] == process.pid
        key = Path(service["admin_key_file"]).read_text().strip()
        with (
            DeftClient(service["url"], key) as client,
            httpx.Client(
                base_url=service["url"], headers={"Authorization": f"Bearer {key}"}, timeout=60.0
            ) as http,
        ):
            yield WholeService(home, service["url"], key, client, http)
    finally:
        family = psutil.Process(process.pid).children(recursive=True) if process.poll() is None else []
        process.send_signal(signal.SIGTERM)
        process.communicate(timeout=60)
    assert process.returncode == 0
    _, left = psutil.wait_procs(family, timeout=10)
    assert left == []
    assert using(home) == []


def using(home: Path) -> list[list[str]]:
    """Command lines of the processes that were told of this home, by argument, environment or folder."""
    found = []
    for process in psutil.process_iter():
        with suppress(psutil.Error):
            told = [*process.cmdline(), process.environ().get("DEFT_HOME", ""), process.cwd()]
            if any(str(home) in word for word in told):
                found.append(process.cmdline())
    return found
