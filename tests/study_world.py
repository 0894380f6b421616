"""Studies for tests: two jobs as a worker leaves them when they were evaluated, and people who use them."""

from __future__ import annotations

import json
import secrets
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from fastapi.testclient import TestClient

from app.db.models import (
    Artifact,
    Job,
    JobStage,
    JobStatus,
    Role,
    StageInput,
    StageRun,
    StageStatus,
)
from app.db.session import transaction
from app.ids import new_id
from app.keys import create_key
from app.settings import get_settings
from deft_engine.store import LocalStore

SUBSETS = ("harmless-base", "helpful-base", "helpful-online", "helpful-rejection")
MODEL = "acme/wonder-7b"


@dataclass(frozen=True, slots=True)
class Row:
    """A line of ``generations.jsonl``."""

    sample_id: str
    subset: str
    prompt: list[dict[str, str]]
    response: str


def rows(counts: Mapping[str, int], system: str) -> list[Row]:
    """``counts[subset]`` prompts of each subset; the response tells the system by a word of its own."""
    return [
        Row(
            sample_id=f"{subset}-{number:04d}",
            subset=subset,
            prompt=[
                {"role": "user", "content": f"Question {number} of {subset}?"},
                {"role": "assistant", "content": "What do you mean?"},
                {"role": "user", "content": "You know it.\n\nTell me <b>now</b>."},
            ],
            response=f"{system} says {number} about {subset}.\n  Indented <script>alert(1)</script> line.",
        )
        for subset, size in counts.items()
        for number in range(size)
    ]


def evaluated_job(
    answers: list[Row], *, name: str, dataset: str = "set", status: JobStatus = JobStatus.SUCCEEDED
) -> str:
    """A job whose ``generate`` stage answered the samples of ``dataset``; returns its id."""
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "generations.jsonl"
        file.write_text("".join(json.dumps(_line(row), ensure_ascii=False) + "\n" for row in answers))
        size = file.stat().st_size
        sha256 = LocalStore(get_settings().store_root).put(file)
    job_id, run_id = new_id("job"), new_id("run")
    with transaction() as session:
        spec = {"kind": "evaluate", "model": {"base": MODEL}}
        session.add(Job(id=job_id, kind="evaluate", name=name, status=status, spec=spec, warnings=[]))
        session.add(
            StageRun(
                id=run_id, stage="generate", queue="gpu", fingerprint=secrets.token_hex(32), spec={},
                status=StageStatus.SUCCEEDED, max_attempts=3,
            )
        )  # fmt: skip
        session.flush()
        session.add(
            StageInput(stage_run_id=run_id, name="samples", identity=dataset, uri=f"upload:{dataset}")
        )
        session.add(StageInput(stage_run_id=run_id, name="model", identity=name, uri=f"hub:{MODEL}"))
        session.add(
            Artifact(
                id=new_id("art"), stage_run_id=run_id, name="generations.jsonl", sha256=sha256, size=size,
                media_type="application/jsonl",
            )
        )  # fmt: skip
        session.add(JobStage(job_id=job_id, position=0, stage_run_id=run_id))
    return job_id


def job_without_evaluation() -> str:
    """A succeeded job that generated nothing."""
    job_id = new_id("job")
    with transaction() as session:
        session.add(
            Job(id=job_id, kind="grade", name="graded", status=JobStatus.SUCCEEDED, spec={}, warnings=[])
        )
    return job_id


def api_key(role: Role) -> str:
    """The text of a new key."""
    with transaction() as session:
        return create_key(session, name=role.value, role=role)[1]


def _line(row: Row) -> dict[str, object]:
    return {
        "sample_id": row.sample_id,
        "subset": row.subset,
        "prompt": row.prompt,
        "response": row.response,
        "reference": "a reference",
    }


@dataclass(frozen=True)
class Service:
    """Requests by role."""

    http: TestClient
    researcher: dict[str, str]
    viewer: dict[str, str]

    def study(self, counts: dict[str, int], **fields: Any) -> dict[str, Any]:
        """A study of two new jobs with ``counts[subset]`` prompts."""
        jobs = {
            side: evaluated_job(rows(counts, f"system-{side}"), name=f"secret-method-{side}") for side in "ab"
        }
        asked = {"name": "duel", **jobs, **fields}
        answer = self.http.post("/studies", json=asked, headers=self.researcher)
        assert answer.status_code == 201, answer.text
        return answer.json()

    def rater(self, study: dict[str, Any], name: str = "Ada", subsets: list[str] | None = None) -> Rater:
        """An invited annotator, by default of all subsets."""
        asked = {"name": name, "subsets": subsets or list(study["subsets"])}
        answer = self.http.post(f"/studies/{study['id']}/annotators", json=asked, headers=self.researcher)
        assert answer.status_code == 201, answer.text
        invited = answer.json()
        headers = {"Authorization": f"Bearer {invited['key']}"}
        return Rater(self.http, study["id"], invited["id"], invited["link"], headers)


@dataclass(frozen=True)
class Rater:
    """What a rater can do, by key."""

    http: TestClient
    study: str
    id: str
    link: str
    headers: dict[str, str]

    def next(self, after: str | None = None) -> Any:
        """The response to :next."""
        asked = {} if after is None else {"after": after}
        path = f"/studies/{self.study}/assignments:next"
        return self.http.post(path, params=asked, headers=self.headers)

    def pair(self, after: str | None = None) -> dict[str, Any]:
        """The next pair."""
        answer = self.next(after)
        assert answer.status_code == 200, answer.text
        return answer.json()

    def last(self) -> Any:
        """The response to :last."""
        return self.http.get(f"/studies/{self.study}/assignments:last", headers=self.headers)

    def vote(self, assignment: str, choice: str, **more: object) -> Any:
        """The response to a vote."""
        body = {"choice": choice, **more}
        return self.http.post(f"/assignments/{assignment}", json=body, headers=self.headers)

    def skip(self, assignment: str, reason: str, **more: object) -> Any:
        """The response to a skip."""
        body = {"reason": reason, **more}
        return self.http.post(f"/assignments/{assignment}/skip", json=body, headers=self.headers)

    def undo(self, assignment: str) -> Any:
        """The response to an undo."""
        return self.http.post(f"/assignments/{assignment}/undo", headers=self.headers)
