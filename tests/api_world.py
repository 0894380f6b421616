"""The API for tests: callers by role, and a worker's part played in this process."""

from __future__ import annotations

import json
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import sqlalchemy as sa
from fastapi.testclient import TestClient

from app.db.claims import AttemptEnd, Claim, Output, claim, fail, succeed
from app.db.media_types import media_type
from app.db.models import JobStage, Role, StageRun, StageStatus
from app.db.session import transaction
from app.keys import create_key
from app.store import get_store
from deft_engine.run import StageRequest, StopRequest, execute
from workers.run_folder import RunFolder

ENDED = AttemptEnd(exit_code=0, log="printed by the process")
RANKED = [
    {"id": f"s{i}", "subset": "helpful" if i % 2 else "harmless", "prompt": f"Question {i}?",
     "responses": [{"text": f"Good answer {i}", "score": 1.0 + i}, {"text": f"Bad {i}", "score": -1.0}]}
    for i in range(8)
]  # fmt: skip


def jsonl(rows: list[dict[str, Any]]) -> bytes:
    """Rows as an upload."""
    return "".join(json.dumps(row) + "\n" for row in rows).encode()


def headers_for(role: Role) -> dict[str, str]:
    """The header of a new key of this role."""
    with transaction() as session:
        return {"Authorization": f"Bearer {create_key(session, name=role.value, role=role)[1]}"}


@dataclass(frozen=True)
class Api:
    """Requests as a researcher unless other headers are given."""

    http: TestClient
    researcher: dict[str, str]
    viewer: dict[str, str]
    admin: dict[str, str]

    def get(self, path: str, **more: Any) -> Any:
        """The response to a GET."""
        return self.http.get(path, headers={**self.researcher, **more.pop("headers", {})}, **more)

    def post(self, path: str, **more: Any) -> Any:
        """The response to a POST."""
        return self.http.post(path, headers={**self.researcher, **more.pop("headers", {})}, **more)

    def upload(self, content: bytes, **fields: str) -> dict[str, Any]:
        """A new dataset, not read yet."""
        answer = self.post("/datasets", files={"file": ("data.jsonl", content)}, data=fields)
        assert answer.status_code == 201, answer.text
        return answer.json()

    def dataset(self, rows: list[dict[str, Any]] | None = None) -> dict[str, Any]:
        """A dataset that was uploaded and read."""
        uploaded = self.upload(jsonl(RANKED if rows is None else rows))
        run_stages("import")
        return self.get(f"/datasets/{uploaded['id']}").json()

    def job(self, **spec: Any) -> dict[str, Any]:
        """A new job."""
        answer = self.post("/jobs", json=spec)
        assert answer.status_code == 201, answer.text
        return answer.json()

    def grade_job(self, dataset: str, **deft: Any) -> dict[str, Any]:
        """A new job that grades a dataset by the scores in its file."""
        deft = {"a": 25, "c": 25, "grader": {"name": "scores"}, **deft}
        return self.job(kind="grade", name="graded", dataset=dataset, model={"base": "tiny"}, deft=deft)


def run_stages(*stages: str) -> None:
    """Run, in this process, every stage run of these names that is ready; in the order given."""
    for stage in stages:
        with transaction() as session:
            ready = sa.select(StageRun.id).where(
                StageRun.stage == stage, StageRun.status == StageStatus.READY
            )
            run_ids = session.scalars(ready).all()
        for run_id in run_ids:
            _run(take(run_id))


def take(run_id: str) -> Claim:
    """Claim a ready stage run."""
    with transaction() as session:
        taken = claim(session, run_id, worker="test", lease_seconds=60)
    assert taken is not None
    return taken


def stage_run_of(job: Mapping[str, Any], stage: str) -> str:
    """The id of a job's stage run."""
    return next(entry["run"] for entry in job["stages"] if entry["name"] == stage)


def finish(taken: Claim, files: Mapping[str, bytes], result: dict[str, Any] | None = None) -> None:
    """End a claimed stage run with these files."""
    with tempfile.TemporaryDirectory() as folder:
        outputs = []
        for name, content in files.items():
            path = Path(folder) / "file"
            path.unlink(missing_ok=True)
            path.write_bytes(content)
            outputs.append(Output(name, get_store().put(path), len(content), media_type(name)))
        with transaction() as session:
            succeed(session, taken, result=result or {}, manifest={}, outputs=outputs, ended=ENDED)


def make_ready(job_id: str, stage: str) -> None:
    """Let a job's stage be claimed although its inputs are not made."""
    with transaction() as session:
        of_job = sa.select(JobStage.stage_run_id).where(JobStage.job_id == job_id)
        where = StageRun.id.in_(of_job) & (StageRun.stage == stage)
        session.execute(sa.update(StageRun).where(where).values(status=StageStatus.READY))


def _run(taken: Claim) -> None:
    """What a worker does with a claim, in the smallest form."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        request = StageRequest(
            stage=taken.stage,
            fingerprint=taken.fingerprint,
            attempt=taken.attempt,
            spec=taken.spec,
            inputs={entry.name: _local(entry) for entry in taken.inputs},
            input_ids={entry.name: entry.identity for entry in taken.inputs},
        )
        (folder / "stage.json").write_text(request.model_dump_json())
        execute(folder, StopRequest())
        manifest_file = folder / "manifest.json"
        if not manifest_file.exists():
            last = (folder / f"events-{taken.attempt}.jsonl").read_text().splitlines()[-1]
            error = {k: v for k, v in json.loads(last).items() if k not in ("seq", "time", "type")}
            kept = RunFolder(folder).store_ledger(get_store()) if "summary" in error else []
            with transaction() as session:
                fail(session, taken, error=error, ended=AttemptEnd(exit_code=1, log=""), outputs=kept)
            return
        manifest = json.loads(manifest_file.read_text())
        files = {name: (folder / "out" / name).read_bytes() for name in manifest["outputs"]}
        finish(taken, files, manifest["result"])


def _local(entry: Any) -> str:
    if entry.uri is None:
        return str(get_store().get(entry.files[entry.output]))
    scheme, _, rest = entry.uri.partition(":")
    return str(get_store().get(rest)) if scheme == "upload" else entry.uri


def refusal(api: Api, spec: dict[str, Any]) -> tuple[int, str, list[tuple[str, str]], str]:
    """How a job is refused: status, code, (pointer, code) of each place, and the text."""
    answer = api.post("/jobs", json=spec)
    assert answer.headers["content-type"] == "application/problem+json", answer.text
    problem = answer.json()
    places = [(error["pointer"], error["code"]) for error in problem["errors"]]
    return answer.status_code, problem["code"], places, problem["detail"]


def align(dataset: str, **fields: Any) -> dict[str, Any]:
    """The spec of an align job with the built-in model."""
    return {"kind": "align", "dataset": dataset, "model": {"base": "tiny"}, **fields}


def reward_model_job(api: Api, dataset: str) -> dict[str, Any]:
    """A new job that trains a reward model."""
    return api.job(kind="reward_model", name="r", dataset=dataset, model={"base": "tiny"})
