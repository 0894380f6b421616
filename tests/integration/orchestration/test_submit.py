from __future__ import annotations

import json
from concurrent.futures import ThreadPoolExecutor

import pytest
from sqlalchemy import func, select

from app.db.graph import record_import
from app.db.models import Artifact, Dataset, DatasetStatus, Job, JobStage, StageRun
from app.db.session import transaction
from app.db.submit import submit_import
from app.store import get_store
from deft_engine.errors import SpecError
from deft_engine.plan import plan_dataset
from tests.orchestration_world import (
    DEFECT,
    Names,
    align,
    die,
    events,
    finish,
    job,
    move,
    plan_of,
    run,
    run_to_end,
    runs,
    statuses,
    submit,
    took,
)


def count_runs() -> int:
    with transaction() as session:
        return session.scalars(select(func.count()).select_from(StageRun)).one()


def reused(job_id: str) -> dict[str, bool]:
    with transaction() as session:
        rows = session.execute(
            select(StageRun.stage, JobStage.reused)
            .join(StageRun, StageRun.id == JobStage.stage_run_id)
            .where(JobStage.job_id == job_id)
        )
        return dict(rows.all())


def test_a_new_job_has_its_first_stage_ready_and_rung(rung: list[str]) -> None:
    job_id = submit(align())
    assert statuses(job_id) == {
        "import": "ready",
        "score": "waiting",
        "grade": "waiting",
        "distribution": "waiting",
        "train": "waiting",
    }
    assert rung == [runs(job_id)["import"]]
    assert job(job_id).status == "queued"
    assert not any(reused(job_id).values())


def test_stages_become_ready_when_all_their_inputs_are_made() -> None:
    job_id = submit(align())
    for stage, then_ready in (
        ("import", {"score"}),
        ("score", {"grade"}),
        ("grade", {"distribution"}),
        ("distribution", {"train"}),
    ):
        finish(took(runs(job_id)[stage]))
        assert {name for name, status in statuses(job_id).items() if status == "ready"} == then_ready
        assert job(job_id).status == "running"
    finish(took(runs(job_id)["train"]))
    assert job(job_id).status == "succeeded"


def test_another_method_shares_all_but_training(rung: list[str]) -> None:
    first = submit(align())
    run_to_end(first)
    rung.clear()
    second = submit(align(method={"name": "sft", "reduction": "mean"}))
    assert reused(second) == {
        "import": True,
        "score": True,
        "grade": True,
        "distribution": True,
        "train": False,
    }
    assert rung == [runs(second)["train"]]


def test_another_a_grades_again_without_scoring() -> None:
    first, second = submit(align()), submit(align(deft={"a": 10, "grader": {"name": "scores"}}))
    ours, theirs = runs(first), runs(second)
    assert {stage for stage in ours if ours[stage] == theirs[stage]} == {"import", "score"}


def test_an_equal_job_is_done_at_once() -> None:
    run_to_end(first := submit(align()))
    second = submit(align(name="again"))
    assert job(second).status == "succeeded"
    assert job(second).result == job(first).result
    assert [event.data for event in events(second) if event.type == "job.status"] == [
        {"status": "queued"},
        {"status": "succeeded"},
    ]


def test_without_reuse_all_stages_are_the_jobs_own() -> None:
    run_to_end(first := submit(align()))
    second = submit(align(), reuse=False)
    assert not set(runs(first).values()) & set(runs(second).values())
    third = submit(align(name="third"))
    assert runs(third) == runs(first)
    run_to_end(second)
    assert job(second).status == "succeeded"


def test_failed_work_is_not_joined() -> None:
    first = submit(align())
    die(took(runs(first)["import"]), DEFECT)
    second = submit(align())
    assert not set(runs(first).values()) & set(runs(second).values())
    assert statuses(second)["import"] == "ready"


def test_twenty_submissions_at_once_make_each_stage_once() -> None:
    with ThreadPoolExecutor(10) as pool:
        jobs = list(pool.map(lambda number: submit(align(name=f"copy {number}")), range(20)))
    assert len(jobs) == 20
    assert count_runs() == len(plan_of(align()).stages)
    assert len({runs(job_id)["train"] for job_id in jobs}) == 1


def test_a_model_made_by_another_job_is_waited_for() -> None:
    maker = submit(align())
    made = run(maker, "train").fingerprint
    user = submit({"kind": "evaluate", "eval_dataset": "ds_two", "model": {"base": f"job:{made}"}})
    finish(took(runs(user)["import"]))
    assert statuses(user)["generate"] == "waiting"
    run_to_end(maker)
    assert statuses(user)["generate"] == "ready"
    claimed = took(runs(user)["generate"])
    model = next(given for given in claimed.inputs if given.name == "model")
    assert set(model.files) == {"model/config.json"}


def test_a_model_of_a_failed_job_is_refused_and_nothing_is_left() -> None:
    with pytest.raises(SpecError, match="neither done nor under way"):
        submit({"kind": "evaluate", "eval_dataset": "ds_two", "model": {"base": "job:" + "0" * 64}})
    assert count_runs() == 0
    with transaction() as session:
        assert session.scalars(select(func.count()).select_from(Job)).one() == 0


def test_result_and_manifest_of_a_job() -> None:
    spec = align(eval_dataset="ds_two", evaluation={"samples": 4}, deft=None, name="table")
    job_id = submit(spec)
    run_to_end(job_id)  # the first import shadows the second in ``runs``
    with transaction() as session:
        for stage_run in session.scalars(select(StageRun).where(StageRun.status == "ready")).all():
            finish(took(stage_run.id))
    for stage in ("train", "generate"):
        if statuses(job_id)[stage] == "ready":
            finish(took(runs(job_id)[stage]))
    table = {"subsets": {"s": {}}, "total": {"bleu": {"value": 1.0}}, "warnings": ["small"]}
    finish(took(runs(job_id)["evaluate"]), table)
    result = job(job_id).result
    assert result is not None
    assert set(result) == {"import", "import_2", "train", "generate", "evaluate", "results", "warnings"}
    assert result["results"] == {"subsets": {"s": {}}, "total": {"bleu": {"value": 1.0}}}
    assert result["warnings"] == ["small"]
    with transaction() as session:
        own = session.scalars(select(Artifact).where(Artifact.job_id == job_id)).all()
    files = {artifact.name: get_store().get(artifact.sha256) for artifact in own}
    assert set(files) == {"manifest.json", "report.html"}
    content = json.loads(files["manifest.json"].read_bytes())
    assert "<li>small</li>" in files["report.html"].read_text()
    assert content["spec"]["name"] == "table"
    assert [stage["fingerprint"] for stage in content["stages"]] == [
        planned.fingerprint for planned in plan_of(spec).stages
    ]


def import_run(name: str) -> str:
    with transaction() as session:
        stage_run = submit_import(session, plan_dataset(Names().dataset(name, "")))
        dataset = Dataset(
            id=f"ds_{name}_{stage_run.id}", name=name, sha256="", size=1, requested_format="auto",
            import_run_id=stage_run.id, status=DatasetStatus.PROCESSING,
        )  # fmt: skip
        record_import(dataset, stage_run)
        session.add(dataset)
        return stage_run.id


def dataset_of(run_id: str) -> Dataset:
    with transaction() as session:
        return session.scalars(select(Dataset).where(Dataset.import_run_id == run_id)).one()


def test_the_import_sets_its_dataset_and_a_job_joins_it() -> None:
    run_id = import_run("ds_one")
    assert dataset_of(run_id).status == "processing"
    job_id = submit(align())
    assert runs(job_id)["import"] == run_id
    finish(took(run_id), {"rows": 3})
    assert (dataset_of(run_id).status, dataset_of(run_id).summary) == ("ready", {"rows": 3})
    assert statuses(job_id)["score"] == "ready"


def test_a_failed_import_makes_the_dataset_invalid() -> None:
    run_id = import_run("ds_one")
    die(took(run_id), DEFECT)
    assert (dataset_of(run_id).status, dataset_of(run_id).error) == ("invalid", DEFECT)


def test_cancelling_a_job_does_not_stop_an_import_that_a_dataset_needs() -> None:
    import_run("ds_one")
    job_id = submit(align())
    move(job_id, "cancel")
    assert job(job_id).status == "cancelled"
    assert statuses(job_id)["import"] == "ready"
