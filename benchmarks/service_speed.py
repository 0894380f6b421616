"""How fast the service is: ``python benchmarks/service_speed.py [--megabytes 300]``.

Starts the whole service on this machine, as ``deft up`` does, and measures from outside: the start, a large
upload until its dataset is ready beside the time that parsing its lines takes, a job's first event and how
late its events arrive, submissions while a hundred jobs wait, a metric of a million points, and mixed reads.
Everything runs on the same cores, this script included. Writes ``results/service_speed.json``.
"""

from __future__ import annotations

import argparse
import json
import tempfile
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, suppress
from datetime import UTC, datetime
from functools import partial
from http.client import HTTPConnection
from itertools import count, cycle, islice
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import psycopg
from measuring import in_process, machine, parser, seconds, write

from app.embedded.postgres import EmbeddedPostgres
from deft_client.client import DeftClient
from deft_client.demo_data import write_jsonl
from deft_client.demo_service import DemoService, temporary_service
from deft_client.errors import JobFailed
from deft_client.models import Dataset, Job

ROWS, SEED = 2_000, 7
POINTS, QUEUED, SUBMITTED, QUERIES = 1_000_000, 100, 100, 200
READERS, READ_SECONDS = 8, 15.0


def quantiles(values: Sequence[float]) -> dict[str, float]:
    """Milliseconds."""
    return {f"p{q}": round(1000 * float(np.percentile(values, q)), 1) for q in (50, 95, 99)}


def large_file(folder: Path, megabytes: int) -> Path:
    """Generated rows again and again, each with an id of its own."""
    small, large = folder / "small.jsonl", folder / "large.jsonl"
    write_jsonl(small, ROWS, SEED)
    rows = [msgspec.json.decode(line) for line in small.read_bytes().splitlines()]
    size, numbers = 0, count()
    with large.open("wb") as file:
        for row in cycle(rows):
            size += file.write(msgspec.json.encode({**row, "id": f"row-{next(numbers)}"}) + b"\n")
            if size >= megabytes * 1_000_000:
                return large
    raise AssertionError


def parse(path: Path) -> None:
    """Every line to Python objects, and no more."""
    decode = msgspec.json.Decoder().decode
    with path.open("rb") as file:
        for line in file:
            decode(line)


def uploaded(client: DeftClient, path: Path) -> Dataset:
    """The dataset, ready."""
    return client.datasets.wait(client.datasets.upload(path, format="ranked").id, poll=0.05)


def upload(client: DeftClient, megabytes: int) -> dict[str, Any]:
    """A large file beside its parsing."""
    with tempfile.TemporaryDirectory() as name:
        path = large_file(Path(name), megabytes)
        parsing = min(seconds(partial(parse, path)) for _ in range(3))
        started = time.perf_counter()
        dataset = uploaded(client, path)
        taken = time.perf_counter() - started
    return {
        "megabytes": megabytes,
        "samples": dataset.samples,
        "seconds": round(taken, 1),
        "parsing_seconds": round(parsing, 2),
        "times_parsing": round(taken / parsing, 1),
    }


def small_dataset(client: DeftClient) -> Dataset:
    """What jobs train on."""
    with tempfile.TemporaryDirectory() as name:
        path = Path(name) / "rows.jsonl"
        write_jsonl(path, 64, SEED)
        return uploaded(client, path)


def submit(client: DeftClient, dataset: Dataset, seed: int, model: str = "tiny", steps: int = 30) -> Job:
    """A short training job; one of another seed is other work."""
    return client.jobs.create(
        {
            "kind": "align",
            "dataset": dataset.id,
            "model": {"base": model},
            "method": {"name": "sft"},
            "deft": None,
            "training": {"max_length": 64, "batch_size": 2, "max_steps": steps, "seed": seed},
        }
    )


def events(client: DeftClient, dataset: Dataset) -> tuple[dict[str, Any], Job]:
    """Of a job that is watched: when the engine's first comes, and how late all of them are."""
    job = submit(client, dataset, seed=1)
    late, first = [], None
    for event in client.jobs.events(job.id):
        if event.type in {"log", "metrics", "progress"} and event.data["stage"] == "train" and event.time:
            late.append((datetime.now(UTC) - event.time).total_seconds())
            first = first or (event.time - job.created_at).total_seconds()
    if first is None:
        raise SystemExit(f"no events of {job.id}")
    importing = seconds(lambda: in_process(["-c", "import torch; print('{}')"]))
    return {
        "first_event_seconds": round(first, 2),
        "import_torch_seconds": round(importing, 2),
        "first_event_over_import_seconds": round(first - importing, 2),
        "late_ms": quantiles(late),
    }, client.jobs.retrieve(job.id)


def submissions(client: DeftClient, dataset: Dataset) -> dict[str, float]:
    """Milliseconds of a submission while others wait; all are cancelled."""
    seeds = count(1000)
    jobs = [submit(client, dataset, next(seeds)) for _ in range(QUEUED)]
    waits = []
    for _ in range(SUBMITTED):
        waits.append(seconds(lambda: jobs.append(submit(client, dataset, next(seeds)))))
    for job in jobs:
        client.jobs.cancel(job.id)
    for job in jobs:
        with suppress(JobFailed):  # that is how a wait tells of a cancelled job
            client.jobs.wait(job.id)
    return quantiles(waits)


def large_metric(service: DemoService, job: Job) -> dict[str, Any]:
    """A query of a series of a finished stage; the first one reads it from the database."""
    run = next(stage.run for stage in job.stages if stage.name == "train")
    url = EmbeddedPostgres(service.home / "postgres").url.replace("+psycopg", "")
    with psycopg.connect(url) as connection:
        connection.execute(
            "INSERT INTO metrics SELECT %s, 'large', n, sin(n / 1000.0), now() FROM generate_series(1, %s) n",
            (run, POINTS),
        )
    query = partial(service.client.jobs.metrics, job.id, ["large"], max_points=500)
    first, *others = [seconds(query) for _ in range(1 + QUERIES)]
    return {"points": POINTS, "first_ms": round(1000 * first, 1), "ms": quantiles(others)}


def reads(service: DemoService, job: Job) -> dict[str, Any]:
    """Jobs, lists of jobs and metrics in turn, by readers in a process of their own who do not pause."""
    key = (service.home / "admin.key").read_text(encoding="utf-8").strip()
    paths = [f"/jobs/{job.id}", "/jobs?limit=20", f"/jobs/{job.id}/metrics?name=loss"]
    found = in_process([__file__, "--reader", json.dumps([service.url, key, paths])])
    waits = found["waits"]
    return {"readers": READERS, "per_second": round(len(waits) / READ_SECONDS, 1), "ms": quantiles(waits)}


def read(url: str, key: str, paths: Sequence[str]) -> list[float]:
    """Seconds of each answer to all readers, who take it as it comes: nobody parses it."""
    host = url.removeprefix("http://")
    until = time.perf_counter() + READ_SECONDS

    def reader(number: int) -> list[float]:
        waits = []
        with closing(HTTPConnection(host)) as connection:
            for path in islice(cycle(paths), number, None):
                started = time.perf_counter()
                if started > until:
                    break
                connection.request("GET", path, headers={"Authorization": f"Bearer {key}"})
                answer = connection.getresponse()
                answer.read()
                if answer.status != 200:
                    raise SystemExit(f"{path}: {answer.status}")
                waits.append(time.perf_counter() - started)
        return waits

    with ThreadPoolExecutor(READERS) as pool:
        return [wait for waits in pool.map(reader, range(READERS)) for wait in waits]


def main() -> None:
    """Measure, print and write."""
    made = parser(__doc__, "service_speed")
    made.add_argument("--megabytes", type=int, default=300)
    made.add_argument("--reader", type=json.loads, help=argparse.SUPPRESS)
    asked = made.parse_args()
    if asked.reader:
        print(json.dumps({"waits": read(*asked.reader)}))
        return
    found = machine()
    started = time.perf_counter()
    with temporary_service(keep=False) as service:
        found["start_seconds"] = round(time.perf_counter() - started, 1)
        found["upload"] = upload(service.client, asked.megabytes)
        dataset = small_dataset(service.client)
        found["events"], job = events(service.client, dataset)
        found["submission_ms"] = submissions(service.client, dataset)
        found["metric"] = large_metric(service, job)
        found["reads"] = reads(service, job)
    write(asked.out, found)


if __name__ == "__main__":
    main()
