"""Stages that ask the played server, in folders of their own."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from deft_engine.base import Spec
from deft_engine.data.samples import write_samples
from deft_engine.endpoints.spec import EndpointSpec
from deft_engine.events import read_events
from deft_engine.stages import GenerateSpec
from deft_engine.types import Message, Response, Sample
from tests.chat_server import ChatServer

KEY = "sk-very-secret-0123456789"
KEY_VARIABLE = "DEFT_ENDPOINT_KEY_PLAYED"
GENERATION = GenerateSpec(
    max_new_tokens=16,
    max_prompt_length=64,
    samples=None,
    seed=1,
    batch_size=3,
    dtype="auto",
    template="auto",
)


def stage_folder(folder: Path, stage: str, spec: Spec, samples: list[Sample], endpoint: EndpointSpec) -> Path:
    """A folder that asks for a stage with an endpoint."""
    folder.mkdir(exist_ok=True)
    write_samples(folder / "samples.parquet", samples)
    inputs = {"samples": str(folder / "samples.parquet"), "endpoint": endpoint.uri}
    request = {
        "stage": stage,
        "fingerprint": "f" * 64,
        "attempt": 1 + len(list(folder.glob("events-*.jsonl"))),
        "spec": spec.model_dump(mode="json"),
        "inputs": inputs,
        "input_ids": {"samples": "id", "endpoint": endpoint.identity},
    }
    (folder / "stage.json").write_text(json.dumps(request))
    return folder


def samples(count: int) -> list[Sample]:
    return [
        Sample(f"s{n}", "odd" if n % 2 else "even",
               (Message("system", "Be kind."), Message("user", f"question {n}")),
               (Response(f"best {n}"), Response(f"worse {n}")), n + 1)
        for n in range(count)
    ]  # fmt: skip


def error_of(folder: Path) -> dict[str, Any]:
    """The error of the newest attempt."""
    newest = max(folder.glob("events-*.jsonl"), key=lambda path: int(path.stem.split("-")[1]))
    return [event for _, event in read_events(newest, 0)][-1]


def endpoint(server: ChatServer, **more: Any) -> EndpointSpec:
    return EndpointSpec.model_validate(server.spec(api_key_env=KEY_VARIABLE, **more))


def result_of(folder: Path) -> dict[str, Any]:
    """The result in the manifest."""
    result: dict[str, Any] = json.loads((folder / "manifest.json").read_bytes())["result"]
    return result
