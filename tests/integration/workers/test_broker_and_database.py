"""Messages lost and doubled, and a database that is away for a while."""

from __future__ import annotations

from pathlib import Path

import psycopg
import pytest
import redis
import sqlalchemy as sa

from app.db.models import Artifact, Attempt
from app.db.session import get_engine, transaction
from app.embedded.valkey import EmbeddedValkey
from app.queue import get_celery, ring, waiting_messages
from app.settings import get_settings
from app.store import get_store
from tests.orchestration_world import events, job, run, runs
from tests.worker_world import (
    engine_of,
    finished,
    losses,
    submit,
    trained_step,
    training_job,
    until,
    worker,
)

STEPS = 24


def grade_job(digest: str) -> dict[str, object]:
    return {
        "kind": "grade",
        "dataset": digest,
        "model": {"base": "tiny"},
        "deft": {"a": 25, "c": 25, "grader": {"name": "random"}},
    }


def test_a_job_survives_a_flushed_broker_and_ten_copies_of_each_message(
    service: redis.Redis, digest: str, log: Path
) -> None:
    job_id = submit(grade_job(digest))
    assert waiting_messages("cpu") == 1
    service.flushdb()
    with worker(log):
        until(lambda: run(job_id, "import").attempt == 1)
        service.flushdb()
        for run_id in runs(job_id).values():
            for _ in range(10):
                ring(run_id, "cpu")
        assert finished(job_id) == "succeeded"
    with transaction() as session:
        attempts = session.scalars(sa.select(Attempt)).all()
        artifacts = session.scalars(sa.select(Artifact)).all()
    assert sorted(attempt.stage_run_id for attempt in attempts) == sorted(runs(job_id).values())
    assert {artifact.name for artifact in artifacts} >= {
        "samples.parquet",
        "ledger.jsonl",
        "scores.parquet",
        "levels.parquet",
        "grading.json",
        "qdiff.safetensors",
        "manifest.json",
    }
    for artifact in artifacts:
        assert get_store().get(artifact.sha256).stat().st_size == artifact.size
    result = job(job_id).result
    assert result is not None
    assert result["import"]["samples"] == 48
    assert sum(result["grade"]["levels"].values()) == 48


@pytest.mark.slow
def test_a_broker_that_is_killed_and_started_again_loses_no_job(
    digest: str, log: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with EmbeddedValkey(tmp_path / "valkey") as broker:
        monkeypatch.setenv("DEFT_REDIS_URL", broker.url)
        get_settings.cache_clear()
        get_celery.cache_clear()
        with worker(log):
            before = submit(grade_job(digest))
            until(lambda: run(before, "import").attempt == 1)
            assert broker.process is not None
            broker.process.kill()
            broker.process.wait()
            meanwhile = submit(training_job(digest, steps=1))
            until(lambda: "broker_unreachable" in log.read_text())
            broker.launch()
            assert finished(before) == finished(meanwhile) == "succeeded"


def test_bad_and_missing_data_fail_with_the_place_and_are_not_tried_again(log: Path, tmp_path: Path) -> None:
    path = tmp_path / "bad.jsonl"
    path.write_text("this is no JSON\n" * 3)
    bad, missing = submit(grade_job(get_store().put(path))), submit(grade_job("0" * 64))
    with worker(log):
        assert finished(bad) == finished(missing) == "failed"
    for job_id, told in ((bad, "line 1"), (missing, "is not in the store")):
        error = job(job_id).error
        assert error is not None
        assert error["message"].startswith("stage import: ")
        assert told in error["message"]
        assert not error["retryable"]
        assert run(job_id, "import").attempt == 1


def test_the_engine_goes_on_while_the_database_is_away_and_nothing_is_lost(
    digest: str, log: Path, database_url: str, server_url: str
) -> None:
    name = sa.make_url(database_url).database
    admin = sa.make_url(server_url).set(drivername="postgresql").render_as_string(hide_password=False)
    with worker(log), psycopg.connect(admin, autocommit=True) as server:
        job_id = submit(training_job(digest, steps=STEPS))
        until(lambda: trained_step(job_id, 7))
        engine = engine_of(runs(job_id)["train"])
        get_engine().dispose()
        server.execute(f'ALTER DATABASE "{name}" ALLOW_CONNECTIONS false')
        server.execute("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = %s", [name])
        until(lambda: "database_unreachable" in log.read_text())
        until(lambda: not engine.is_running())  # it trains to its end meanwhile
        server.execute(f'ALTER DATABASE "{name}" ALLOW_CONNECTIONS true')
        assert finished(job_id) == "succeeded"
    assert run(job_id, "train").attempt == 1
    assert [step for step, _ in losses(job_id)] == list(range(1, STEPS + 1))
    numbers = [event.seq for event in events(job_id)]
    assert numbers == list(range(1, len(numbers) + 1))
