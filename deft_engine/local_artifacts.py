"""A local job's artifacts under their public names, its manifest and its report."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from deft_engine.canonical import canonical_json
from deft_engine.events import decode_number, read_events
from deft_engine.plan import Made, Plan, PlannedStage
from deft_engine.report import CURVES, REPORT, REPORTED, render_report
from deft_engine.report_charts import Points
from deft_engine.specs import Job

_INNER = {"import", "import_generations", "reference"}
"""Stages whose outputs are no artifacts of a job."""


def stage_folder(out: Path, stage: str, fingerprint: str) -> Path:
    """Where a stage of this fingerprint runs."""
    return out / "stages" / f"{stage}-{fingerprint[:12]}"


def local_inputs(planned: PlannedStage, plan: Plan, out: Path) -> dict[str, str]:
    """A stage's inputs as its process sees them: local paths, ``builtin:`` and ``hub:`` names."""
    stages = {stage.fingerprint: stage.stage for stage in plan.stages}
    found = {}
    for name, source in planned.inputs.items():
        if isinstance(source, Made):
            folder = stage_folder(out, stages[source.fingerprint], source.fingerprint)
            found[name] = str((folder / "out" / source.output).absolute())
        else:
            found[name] = source.uri.removeprefix("path:")
    return found


def publish(job: Job, plan: Plan, out: Path) -> dict[str, Any]:
    """Link the artifacts below ``out``, write ``manifest.json`` and ``report.html``; returns the manifest.

    Links of an earlier job in the same folder are removed; files that are no links of ours are left alone.
    """
    _remove_links(out)
    stages: list[dict[str, Any]] = []
    artifacts: dict[str, Any] = {}
    for planned in plan.stages:
        folder = stage_folder(out, planned.stage, planned.fingerprint)
        manifest = json.loads((folder / "manifest.json").read_bytes())
        stages.append({"folder": folder.relative_to(out).as_posix(), **manifest})
        if planned.stage in _INNER:
            continue
        artifacts |= manifest["outputs"]
        for target in sorted((folder / "out").iterdir()):
            os.symlink(target.relative_to(out), out / target.name)
    content = {
        "spec": job.model_dump(mode="json"),
        "warnings": plan.warnings,
        "artifacts": artifacts,
        "stages": stages,
    }
    partial = out / "manifest.json.partial"
    partial.write_bytes(canonical_json(content))
    partial.replace(out / "manifest.json")
    read = {name: out / name for name in REPORTED if name in artifacts}
    page = render_report(content, _curves(out, stages), read)
    (out / REPORT).write_text(page, encoding="utf-8")
    return content


def _curves(out: Path, stages: Sequence[Mapping[str, Any]]) -> dict[str, Points]:
    """What the job's training reported; of a step that was repeated after a resume, the last value."""
    found: dict[str, dict[int, float]] = {name: {} for name in CURVES}
    trained = (out / stage["folder"] for stage in stages if stage["stage"] in ("train", "train_reward"))
    for folder in trained:
        attempts = sorted(folder.glob("events-*.jsonl"), key=lambda path: int(path.stem.rpartition("-")[2]))
        for path in attempts:
            for _, event in read_events(path, 0):
                for name in CURVES if event["type"] == "metrics" else ():
                    if name in event["values"]:
                        found[name][event["step"]] = decode_number(event["values"][name])
    return {name: sorted(points.items()) for name, points in found.items() if points}


def _remove_links(out: Path) -> None:
    for path in out.iterdir():
        if path.is_symlink() and path.readlink().parts[:1] == ("stages",):
            path.unlink()
