"""Decoding gives the tokens that transformers' ``generate`` gives to each prompt alone."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache
from typing import Any

import pytest
import torch
from transformers import AutoModelForCausalLM, GPTNeoConfig, PreTrainedModel

from deft_engine import decoding as module
from deft_engine.decoding import Decoding, PlainDecoding, SlotDecoding, decoding, length_batches
from tests.unit.engine.plain import CONFIGS, VOCABULARY, random_policy

NEW = 12
PROMPT_LENGTHS = (9, 3, 14, 1, 6, 3, 11)
PLAIN = {"gemma2", "mamba", "mistral windowed", "gpt_neo"}
"""Capped scores; a state that is no keys and values; a window that is passed; attention of its own."""


@cache
def policy(model_type: str) -> PreTrainedModel:
    if model_type != "gpt_neo":
        return random_policy(model_type, torch.float32)
    config = GPTNeoConfig(
        vocab_size=VOCABULARY, hidden_size=24, num_layers=2, attention_types=[[["global", "local"], 1]],
        num_heads=4, window_size=8, max_position_embeddings=128, pad_token_id=0, bos_token_id=1,
        eos_token_id=2,
    )  # fmt: skip
    torch.manual_seed(0)
    return AutoModelForCausalLM.from_config(config).eval()


def prompts() -> list[list[int]]:
    generator = torch.Generator().manual_seed(3)
    return [torch.randint(3, VOCABULARY, (n,), generator=generator).tolist() for n in PROMPT_LENGTHS]


def alone(model: PreTrainedModel, prompt: Sequence[int], ends: int) -> list[int]:
    """The oracle: one prompt, no padding, the library's own loop; up to and with the first ``ends``."""
    new: list[int] = model.generate(
        torch.tensor([prompt]), max_new_tokens=NEW, do_sample=False, eos_token_id=None, pad_token_id=0
    )[0, len(prompt) :].tolist()
    return new[: new.index(ends) + 1] if ends in new else new


def decoded(how: Decoding, ends: int) -> list[list[int]]:
    answers = dict(how.answers(prompts(), lambda new: new[-1] == ends, lambda: None))
    return [answers[index] for index in range(len(PROMPT_LENGTHS))]


@pytest.mark.parametrize("model_type", [*sorted(CONFIGS), "gpt_neo"])
def test_answers_are_those_of_generate(model_type: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "PROMPT_TOKENS", 20)
    model = policy(model_type)
    longest = max(PROMPT_LENGTHS) + NEW
    how = decoding(model, 3, longest, NEW, pad=0)
    assert how.name == ("plain" if model_type in PLAIN else "slots")
    unended = [alone(model, prompt, -1) for prompt in prompts()]
    ends = unended[0][4]  # a token that some of the answers come to
    assert decoded(how, ends) == [alone(model, prompt, ends) for prompt in prompts()]
    assert decoded(how, -1) == unended
    assert len({tuple(new) for new in unended}) > 3


def test_a_window_that_no_sequence_passes_does_not_matter() -> None:
    assert decoding(policy("mistral windowed"), 3, 16, NEW, pad=0).name == "slots"


def test_bfloat16_is_decoded_in_slots_too() -> None:
    model = random_policy("llama", torch.bfloat16)
    how = decoding(model, 3, 32, NEW, pad=0)
    assert how.name == "slots"
    assert [len(new) for new in decoded(how, -1)] == [NEW] * len(PROMPT_LENGTHS)


def test_a_model_whose_attention_is_off_by_one_is_run_plainly(monkeypatch: pytest.MonkeyPatch) -> None:
    model = random_policy("llama", torch.float32)
    attend = module.DecodingStep.of

    def blind(cache: Any, places: list[int], lengths: tuple[int, ...], like: torch.Tensor) -> Any:
        return attend(cache, [max(place - 1, 0) for place in places], lengths, like)

    monkeypatch.setattr(module.DecodingStep, "of", blind)
    assert isinstance(decoding(model, 3, 32, NEW, pad=0), PlainDecoding)


class _Scripted:
    """Answers end after a number of tokens that the prompt's first token says; records the rows of a step."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, lengths: Sequence[int]) -> None:
        self.rows: list[int] = []
        self.prompts = [[length] for length in lengths]
        monkeypatch.setattr(module, "output_head", lambda model: None)
        monkeypatch.setattr(module, "step_logits", self.step)

    def step(self, model: Any, head: Any, cache: Any, running: Any, begun: Any) -> torch.Tensor:
        tokens = [token - 1 for token, _ in running] + [prompt[0] - 1 for prompt in begun]
        self.rows.append(len(tokens))
        return torch.nn.functional.one_hot(torch.tensor(tokens), 20).float()

    def answer(self, slots: int) -> list[list[int]]:
        how = SlotDecoding(None, slots, 15)  # type: ignore[arg-type]
        answers = dict(how.answers(self.prompts, lambda new: new[-1] == 0, lambda: None))
        return [answers[index] for index in range(len(self.prompts))]


def test_a_free_slot_is_filled_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    lengths = [9, 1, 2, 1, 3, 1, 1]
    script = _Scripted(monkeypatch, lengths)
    assert script.answer(2) == [list(reversed(range(length))) for length in lengths]
    assert script.rows == [2] * 9  # 18 tokens in all; batches of two would take 9 + 2 + 3 + 1 steps
    script.rows.clear()
    script.answer(4)
    assert script.rows[:2] == [4, 4]
    assert sum(script.rows) == sum(lengths)  # rows that have ended cost nothing


def test_a_stop_is_heeded_between_tokens() -> None:
    calls = 0

    def interrupt() -> None:
        nonlocal calls
        calls += 1
        if calls == 3:
            raise KeyboardInterrupt

    for model_type in ("llama", "gemma2"):
        calls = 0
        how = decoding(policy(model_type), 8, 32, NEW, pad=0)
        with pytest.raises(KeyboardInterrupt):
            list(how.answers(prompts(), lambda new: False, interrupt))


def test_batches_go_from_long_to_short() -> None:
    lengths = [[0] * n for n in (3, 9, 1, 9, 5)]
    assert list(length_batches(lengths, 2)) == [[1, 3], [4, 0], [2]]
