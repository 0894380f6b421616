"""A real worker's engine asks an endpoint: with its key and the operator's hosts, and no more."""

from __future__ import annotations

from pathlib import Path

import pytest

from app.db.models import Attempt
from app.db.session import transaction
from app.db.submit import submit_job
from app.settings import get_settings
from deft_engine.data.samples import write_samples
from deft_engine.plan import External, Plan
from deft_engine.specs import AugmentJob
from deft_engine.stages import AugmentSpec
from tests.chat_server import serving
from tests.orchestration_world import run, runs
from tests.unit.endpoints.stages import KEY, KEY_VARIABLE, endpoint, samples
from workers import run_stage


def test_an_engine_gets_what_its_endpoint_needs(
    service_settings: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DEFT_ENDPOINT_HOSTS", "127.0.0.1")
    monkeypatch.setenv(KEY_VARIABLE, KEY)
    get_settings.cache_clear()
    run_stage.shutting_down.clear()
    write_samples(tmp_path / "samples.parquet", samples(3))
    with serving(reply=lambda body: f"third, {KEY}") as server:
        asked = endpoint(server)
        spec = AugmentJob(dataset="ds_none", endpoint=asked)
        stage_spec = AugmentSpec.model_validate(spec.model_dump(include=set(AugmentSpec.model_fields)))
        plan = Plan()
        plan.add(
            "augment",
            stage_spec,
            {
                "samples": External(f"path:{tmp_path / 'samples.parquet'}", "digest"),
                "endpoint": External(asked.uri, asked.identity),
            },
        )
        with transaction() as session:
            job = submit_job(session, spec, plan, reuse=True, created_by=None, dataset_ids=[])
            job_id = job.id
        run_stage.run_stage(runs(job_id)["augment"])
        assert {headers["Authorization"] for headers in server.seen_headers} == {f"Bearer {KEY}"}
    ended = run(job_id, "augment")
    assert ended.status == "succeeded", ended.error
    assert ended.result is not None
    assert ended.result["dataset"].startswith("ds_")
    assert len(list(get_settings().endpoint_cache.glob("*/*.json"))) == 3
    with transaction() as session:
        attempt = session.get_one(Attempt, (ended.id, 1))
        assert KEY not in (attempt.log or "")
    for path in get_settings().home.rglob("*"):
        assert not path.is_file() or KEY.encode() not in path.read_bytes(), path
