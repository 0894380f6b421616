"""Divergence and perplexity against full log-softmaxes in float64, one sequence at a time."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import scipy.stats
import torch
from transformers import AutoModelForCausalLM

from deft_engine import logps, resumable
from deft_engine.data.generations import write_generations
from deft_engine.divergence import token_divergences
from deft_engine.errors import Interrupted, ModelError
from deft_engine.evaluation import run
from deft_engine.evaluators import Divergence, Perplexity
from deft_engine.events import EventWriter
from deft_engine.models import load_policy, save_model
from deft_engine.run import StageContext, StopRequest
from deft_engine.sample_scores import read_sample_scores
from deft_engine.stages import EvaluateSpec
from deft_engine.tokenizer import load_tokenizer
from deft_engine.types import Generation, Message
from tests.unit.engine.moved import save_moved
from tests.unit.engine.stage_folders import StopAtCheck
from tests.unit.engine.test_reference import NEVER

TINY = "builtin:tiny"
ANSWERS = [("Yes, gladly.", "No."), ("", "A longer answer, with words."), ("No. " * 20, "x"), ("fine", "ok")]
GENERATIONS = [
    Generation(f"s{i}", "ab"[i % 2], (Message("user", "Why? " * (i + 1)),), response, reference)
    for i, (response, reference) in enumerate(ANSWERS)
]
SPEC = EvaluateSpec(evaluators=(Divergence(), Perplexity()), dtype="float32", template="hh")


@pytest.fixture(scope="module")
def moved(tmp_path_factory: pytest.TempPathFactory) -> str:
    """The tiny model, moved a little."""
    return save_moved(tmp_path_factory.mktemp("moved"))


def evaluate(folder: Path, stop: StopRequest = NEVER, **inputs: str) -> dict[str, Any]:
    (folder / "out").mkdir(parents=True, exist_ok=True)
    (folder / "work").mkdir(exist_ok=True)
    write_generations(folder / "generations.jsonl", GENERATIONS)
    given = {"generations": str(folder / "generations.jsonl"), **inputs}
    with EventWriter(folder / "events.jsonl") as events:
        run(StageContext(SPEC, given, folder / "out", folder / "work", events, stop))
    results: dict[str, Any] = json.loads((folder / "out" / "results.json").read_bytes())
    return results


def predictions(uri: str, generation: Generation, text: str) -> tuple[torch.Tensor, list[int]]:
    """``[tokens, vocab]``: log-probabilities of what follows the prompt, and the tokens that do."""
    tokenizer = load_tokenizer(TINY)
    folder = uri.removeprefix("path:")
    model = load_policy(uri, "float32") if uri == TINY else AutoModelForCausalLM.from_pretrained(folder)
    prompt = f"\n\nHuman: {generation.prompt[0].content}\n\nAssistant:"
    before = [tokenizer.bos_token_id, *tokenizer(prompt, add_special_tokens=False)["input_ids"]]
    own = [*tokenizer(f" {text}", add_special_tokens=False)["input_ids"], tokenizer.eos_token_id]
    with torch.no_grad():
        logits = model.double()(input_ids=torch.tensor([before + own])).logits[0]
    return torch.log_softmax(logits, dim=-1)[len(before) - 1 : -1], own


def test_divergence_is_scipy_s_entropy_of_full_predictions(tmp_path: Path, moved: str) -> None:
    total = evaluate(tmp_path, model=moved, reference_model=TINY)["total"]["divergence"]
    expected = []
    for generation in GENERATIONS:
        p, q = (predictions(uri, generation, generation.response)[0].exp() for uri in (moved, TINY))
        expected.append(scipy.stats.entropy(p.numpy(), q.numpy(), axis=-1))
    each = [tokens.mean() for tokens in expected]
    assert min(each) > 1e-3
    assert total["value"] == pytest.approx(np.mean(each), rel=1e-4)
    assert total["n"] == 4
    assert total["extra"]["tokens"] == sum(map(len, expected))
    assert total["extra"]["of_answer"] == pytest.approx(np.mean([t.sum() for t in expected]), rel=1e-4)
    assert "KL(policy||reference)" in total["signature"]
    assert "tokenizer:" in total["signature"]
    scores = read_sample_scores(tmp_path / "out" / "sample_scores.parquet")
    assert scores.values["divergence"] == pytest.approx(each, rel=1e-4)


def test_perplexity_is_that_of_the_references_pooled_over_tokens(tmp_path: Path, moved: str) -> None:
    results = evaluate(tmp_path, model=moved, reference_model=TINY)
    losses = []
    for generation in GENERATIONS:
        logp, own = predictions(moved, generation, generation.reference)
        losses.append(-logp[range(len(own)), own].numpy())
    expected = np.exp(np.concatenate(losses).mean())
    assert results["total"]["perplexity"]["value"] == pytest.approx(expected, rel=1e-5)
    assert results["total"]["perplexity"]["extra"] == {"tokens": sum(map(len, losses))}
    of_b = np.exp(np.concatenate(losses[1::2]).mean())
    assert results["subsets"]["b"]["perplexity"]["value"] == pytest.approx(of_b, rel=1e-5)
    sums = read_sample_scores(tmp_path / "out" / "sample_scores.parquet").values["perplexity"]
    assert sums == pytest.approx(np.array([[x.sum(), len(x)] for x in losses]), rel=1e-5)


def test_a_model_does_not_diverge_from_itself(tmp_path: Path) -> None:
    assert evaluate(tmp_path, model=TINY, reference_model=TINY)["total"]["divergence"]["value"] == 0.0


def test_chunks_of_the_vocabulary_s_predictions_change_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    chance = torch.Generator().manual_seed(1)
    heads = [torch.nn.Linear(8, 50, dtype=torch.float64) for _ in range(2)]
    ours, theirs = (torch.randn(11, 8, generator=chance, dtype=torch.float64) for _ in range(2))
    with torch.no_grad():
        whole = token_divergences(ours, theirs, *heads)
        monkeypatch.setattr(logps, "CHUNK_ELEMENTS", 100)  # two rows
        widest = 0

        def watched(module: torch.nn.Module, args: Any, output: torch.Tensor) -> None:
            nonlocal widest
            widest = max(widest, output.numel())

        heads[0].register_forward_hook(watched)
        assert token_divergences(ours, theirs, *heads).tolist() == pytest.approx(whole.tolist(), abs=1e-12)
        assert widest == 100
        p, q = (torch.softmax(h(x), dim=-1).numpy() for h, x in zip(heads, (ours, theirs), strict=True))
    assert whole.tolist() == pytest.approx(scipy.stats.entropy(p, q, axis=-1).tolist(), abs=1e-12)


def test_interrupted_measuring_ends_with_the_same_figures(
    tmp_path: Path, moved: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(resumable, "WINDOW", 2)
    expected = evaluate(tmp_path / "undisturbed", model=moved, reference_model=TINY)
    for checks in (0, 1, 1):  # of four windows
        with pytest.raises(Interrupted):
            evaluate(tmp_path / "x", StopAtCheck(checks), model=moved, reference_model=TINY)
    assert evaluate(tmp_path / "x", model=moved, reference_model=TINY) == expected


def test_what_cannot_be_measured_is_an_error_with_a_remedy(
    tmp_path: Path, moved: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(ModelError, match="reference model is missing"):
        evaluate(tmp_path / "a", model=moved)
    digests = iter("ab")
    monkeypatch.setattr("deft_engine.measures.tokenizer_sha256", lambda _: next(digests))
    with pytest.raises(ModelError, match="different tokenizers"):
        evaluate(tmp_path / "b", model=moved, reference_model=TINY)
    broken = load_policy(TINY, "float32")
    with torch.no_grad():
        next(iter(broken.parameters())).fill_(float("nan"))
    monkeypatch.undo()
    save_model(broken, load_tokenizer(TINY), tmp_path / "broken", "policy", "hh")
    with pytest.raises(ModelError, match="not finite"):
        evaluate(tmp_path / "c", model=str(tmp_path / "broken"), reference_model=TINY)
