import json
import math
import warnings
from collections.abc import Sequence
from pathlib import Path

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from nltk.translate.bleu_score import sentence_bleu
from transformers import AutoModelForSequenceClassification

from deft_engine.data.generations import write_generations
from deft_engine.errors import DataError, ModelError
from deft_engine.evaluation import run
from deft_engine.evaluators import EVALUATORS, Bleu, DistinctN, Evaluator, Length, Rated, Reward, TokenSum
from deft_engine.evaluators.bleu import char_bleu
from deft_engine.events import EventWriter, read_events
from deft_engine.models import new_reward_model, save_model
from deft_engine.run import StageContext, StopRequest
from deft_engine.stages import EvaluateSpec
from deft_engine.tokenizer import load_tokenizer
from deft_engine.types import Generation, Message


def _generation(response: str, reference: str, subset: str = "x", name: str = "s") -> Generation:
    return Generation(name, subset, (Message("user", "Why?"),), response, reference)


def _rated(pairs: Sequence[tuple[str, str]], rewards: Sequence[float | None] = ()) -> list[Rated]:
    padded = list(rewards) + [None] * (len(pairs) - len(rewards))
    return [Rated(_generation(*pair), reward) for pair, reward in zip(pairs, padded, strict=True)]


@pytest.mark.parametrize("evaluator", [kind() for kind in EVALUATORS], ids=lambda e: e.name)
def test_every_evaluator_keeps_the_contract(evaluator: Evaluator) -> None:
    answers = [
        answer._replace(divergence=TokenSum(0.5, 4, "t"), reference_logp=TokenSum(-8.0, 4, "t"))
        for answer in _rated([("a cat sat here", "a cat"), ("", "nothing"), ("x", "y")], [1.0, 0.0, -1.0])
    ]
    scores = evaluator(answers)
    assert tuple(scores) == evaluator.figures
    for score in scores.values():
        assert score.n == 3
        assert score.value is not None
        assert math.isfinite(score.value)
        assert score.signature
        assert score.reason == ""
    assert len({score.signature for score in scores.values()}) == len(scores)
    for name, values in evaluator.per_answer(answers).items():
        assert scores[name].value == pytest.approx(sum(values) / 3)  # type: ignore[arg-type]
    assert evaluator(answers) == scores
    for empty in evaluator([]).values():
        assert (empty.value, empty.n) == (None, 0)
        assert empty.reason
        assert empty.signature
    assert type(evaluator).model_validate_json(evaluator.model_dump_json()) == evaluator
    measured = set(type(evaluator).needs)
    assert measured <= set(Rated._fields)
    for score in evaluator([Rated(answers[0].generation)]).values():
        assert (score.value is None) == bool(measured), "a figure of what was not measured"


def test_distinct_n_by_hand() -> None:
    scores = DistinctN()(_rated([("the cat, the dog", "r"), ("The cat", "r"), ("", "r")]))
    # 13a: the cat , the dog | The cat |
    assert scores["distinct_1"].value == 5 / 7
    assert scores["distinct_2"].value == 5 / 5
    assert scores["distinct_3"].value == 3 / 3
    assert scores["distinct_1"].extra == {"ngrams": 7}
    assert all("tok:13a" in score.signature for score in scores.values())
    repeated = DistinctN()(_rated([("yes yes yes yes", "r")] * 2))
    assert [score.value for score in repeated.values()] == [1 / 8, 1 / 6, 1 / 4]
    assert DistinctN()(_rated([("two words", "r")]))["distinct_3"].reason == "no answer has 3 words"


def test_the_reward_is_the_mean_of_percent_sigmoids() -> None:
    rewards = [-800.0, -1.5, 0.0, 2.0, 800.0]
    scores = Reward()(_rated([("a", "b")] * 5, rewards))
    expected = 100 * (0 + 1 / (1 + math.exp(1.5)) + 0.5 + 1 / (1 + math.exp(-2.0)) + 1) / 5
    assert scores["reward"].value == pytest.approx(expected, abs=1e-12)
    assert scores["reward_raw"].value == pytest.approx(0.1)


@pytest.mark.parametrize(
    ("rewards", "reason"), [([1.0, None], "1 answers have no reward"), ([1.0, math.nan], "not finite")]
)
def test_a_reward_that_is_missing_or_no_number_is_a_reason_not_a_figure(
    rewards: list[float | None], reason: str
) -> None:
    score = Reward()(_rated([("a", "b")] * 2, rewards))["reward"]
    assert score.value is None
    assert reason in score.reason


def test_corpus_bleu_carries_sacrebleu_s_signature() -> None:
    scores = Bleu()(_rated([("the cat sat on the mat", "the cat sat on the mat"), ("no", "yes")]))
    assert "tok:13a" in scores["bleu"].signature
    assert "smooth:exp" in scores["bleu"].signature
    # 7 words against 7; matches 6/7, 5/5, 4/4, 3/3 (one-word answers have no higher n-grams)
    assert scores["bleu"].value == pytest.approx(100 * (6 / 7) ** 0.25)


def _nltk(reference: str, hypothesis: str) -> float:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # about orders without a match
        return float(sentence_bleu([reference], hypothesis))


@pytest.mark.parametrize(
    ("reference", "hypothesis"),
    [
        ("a good answer", "a good answer"),
        ("a good answer", ""),
        ("abc", "abc"),
        ("a good answer", "a"),
        ("a good answer", "zzzz"),
        ("a good answer, and a long one", "a good"),
        ("ab", "a good answer"),
        ("aaaa", "aaaaaaaaaa"),
        ("naïve — 数", "naïve 数数"),
    ],
)
def test_pro_char_is_what_nltk_gives_for_strings(reference: str, hypothesis: str) -> None:
    assert char_bleu(reference, hypothesis) == pytest.approx(_nltk(reference, hypothesis), rel=1e-12, abs=0)


@given(st.text("ab c", min_size=1, max_size=30), st.text("ab c", max_size=30))
def test_pro_char_is_what_nltk_gives_for_any_strings(reference: str, hypothesis: str) -> None:
    assert char_bleu(reference, hypothesis) == pytest.approx(_nltk(reference, hypothesis), rel=1e-12, abs=0)


def test_lengths_are_characters_and_words() -> None:
    score = Length()(_rated([("two words", "r"), ("", "r")]))["length"]
    assert (score.value, score.extra) == (4.5, {"words": 1.0})


def _context(
    folder: Path, spec: EvaluateSpec, generations: list[Generation], **inputs: str
) -> StageContext[EvaluateSpec]:
    write_generations(folder / "generations.jsonl", generations)
    for name in ("out", "work"):
        (folder / name).mkdir()
    inputs["generations"] = str(folder / "generations.jsonl")
    events = EventWriter(folder / "events.jsonl")
    return StageContext(spec, inputs, folder / "out", folder / "work", events, StopRequest())


def test_the_total_is_over_samples_and_warnings_pass_through(tmp_path: Path) -> None:
    generations = [
        _generation("same text", "same text", "small", "s0"),
        *[_generation("nothing alike", "QQQ", "large", f"s{i}") for i in range(1, 4)],
    ]
    spec = EvaluateSpec(evaluators=(Bleu(), Length()), warnings=("r_eval is r_train",))
    returned = run(_context(tmp_path, spec, generations))
    results = json.loads((tmp_path / "out" / "results.json").read_bytes())
    assert results == returned
    assert list(results["subsets"]) == ["large", "small"]
    assert results["subsets"]["small"]["bleu_pro_char"]["value"] == 100.0
    assert results["subsets"]["large"]["bleu_pro_char"]["value"] == 0.0
    assert results["total"]["bleu_pro_char"] == {
        "value": 25.0,
        "n": 4,
        "signature": results["subsets"]["small"]["bleu_pro_char"]["signature"],
        "reason": "",
    }
    assert results["warnings"] == ["r_eval is r_train"]
    events = [event for _, event in read_events(tmp_path / "events.jsonl", 0)]
    assert [e["message"] for e in events if e["type"] == "log"] == ["r_eval is r_train"]
    (metrics,) = [e["values"] for e in events if e["type"] == "metrics"]
    assert metrics == {"eval/bleu": results["total"]["bleu"]["value"]}


def test_no_generations_is_an_error_with_a_remedy(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="no generations"):
        run(_context(tmp_path, EvaluateSpec(evaluators=(Bleu(),)), []))


def test_a_reward_without_a_model_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="reward model is missing"):
        run(_context(tmp_path, EvaluateSpec(evaluators=(Reward(),)), [_generation("a", "b")]))


def test_rewards_come_from_the_model_s_score_at_the_last_token(tmp_path: Path) -> None:
    tokenizer = load_tokenizer("builtin:tiny")
    save_model(
        new_reward_model("builtin:tiny", "float32"), tokenizer, tmp_path / "judge", "reward_model", "hh"
    )
    generations = [
        _generation("Yes, gladly.", "r", "a", "s0"),
        _generation("", "r", "b", "s1"),
        _generation("No. " * 20, "r", "b", "s2"),
    ]
    spec = EvaluateSpec(evaluators=(Reward(),))
    results = run(_context(tmp_path, spec, generations, reward_model=str(tmp_path / "judge")))

    judge = AutoModelForSequenceClassification.from_pretrained(tmp_path / "judge")
    raw = []
    for generation in generations:
        text = f"\n\nHuman: Why?\n\nAssistant: {generation.response}"
        prompt, answer = text[: text.index("Assistant:") + 10], f" {generation.response}"
        ids = [
            tokenizer.bos_token_id,
            *tokenizer(prompt, add_special_tokens=False)["input_ids"],
            *tokenizer(answer, add_special_tokens=False)["input_ids"],
            tokenizer.eos_token_id,
        ]
        with torch.no_grad():
            hidden = judge.model(torch.tensor([ids])).last_hidden_state[0, -1]
            raw.append(float(judge.score(hidden)))
    assert results["total"]["reward_raw"]["value"] == pytest.approx(sum(raw) / 3, abs=1e-5)
    percent = [100 / (1 + math.exp(-r)) for r in raw]
    assert results["total"]["reward"]["value"] == pytest.approx(sum(percent) / 3, abs=1e-4)
    assert results["subsets"]["b"]["reward"]["value"] == pytest.approx(sum(percent[1:]) / 2, abs=1e-4)
    events = [event for _, event in read_events(tmp_path / "events.jsonl", 0)]
    curves = [e["values"] for e in events if e["type"] == "metrics" and "eval/reward" in e["values"]]
    assert curves == [{"eval/reward": results["total"]["reward"]["value"]}]
