from __future__ import annotations

from functools import cache
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from transformers import AutoModelForCausalLM, PreTrainedModel

from deft_engine import logps as module
from deft_engine.data.collate import collate
from deft_engine.data.tokenise import TokenisedSample
from deft_engine.errors import DataError, ModelError
from deft_engine.hidden_states import batch_layout, model_layout
from deft_engine.logps import ranked_logps, ranked_rewards
from tests.unit.engine.plain import (
    CONFIGS,
    PADDED,
    REWARD_MODELS,
    VOCABULARY,
    plain_logps,
    plain_rewards,
    random_policy,
    random_reward_model,
)

MODEL_TYPES = sorted(CONFIGS)

_policy = cache(random_policy)
_reward_model = cache(random_reward_model)

token = st.integers(3, VOCABULARY - 1)
response = st.lists(token, max_size=9).map(lambda ids: [*ids, 2])
tokenised = st.builds(
    TokenisedSample,
    id=st.just("s"),
    subset=st.just("x"),
    prompt=st.lists(token, min_size=1, max_size=12),
    responses=st.lists(response, min_size=1, max_size=4),
    truncated=st.just(0),
)
batches = st.lists(tokenised, min_size=1, max_size=4)


def exactness(model_type: str) -> float:
    """In float64; parts of the models that are not packed compute in float32 whatever their dtype."""
    return 1e-5 if model_type in PADDED else 1e-10


def gradients(model: PreTrainedModel, value: torch.Tensor) -> dict[str, torch.Tensor]:
    names, parameters = zip(*model.named_parameters(), strict=True)
    # Unequal weights, so that sums which cancel by chance are told apart.
    weights = torch.linspace(0.5, 1.5, value.numel(), dtype=value.dtype).view_as(value)
    found = torch.autograd.grad((value * weights).sum(), parameters, allow_unused=True)
    return {name: g for name, g in zip(names, found, strict=True) if g is not None}


def assert_equal_in_value_and_gradient(
    model: PreTrainedModel, ours: torch.Tensor, plain: torch.Tensor, tolerance: float
) -> None:
    torch.testing.assert_close(ours, plain, rtol=0, atol=tolerance)
    expected = gradients(model, plain)
    actual = gradients(model, ours)
    assert actual.keys() == expected.keys()
    for name, gradient in actual.items():
        scale = max(1.0, expected[name].abs().max().item())
        torch.testing.assert_close(
            gradient, expected[name], rtol=0, atol=tolerance * scale, msg=lambda m, n=name: f"{n}: {m}"
        )


@pytest.mark.parametrize("model_type", [name for name in MODEL_TYPES if name != "mamba"])  # is float32
@settings(max_examples=20, deadline=None)
@given(samples=batches)
def test_packed_equals_padded_in_float64(model_type: str, samples: list[TokenisedSample]) -> None:
    model = _policy(model_type, torch.float64)
    ours = ranked_logps(model, collate(samples)).policy
    assert_equal_in_value_and_gradient(model, ours, plain_logps(model, samples), exactness(model_type))


@pytest.mark.parametrize("model_type", MODEL_TYPES)
@settings(max_examples=10, deadline=None)
@given(samples=batches)
def test_packed_equals_padded_in_float32(model_type: str, samples: list[TokenisedSample]) -> None:
    model = _policy(model_type, torch.float32)
    ours = ranked_logps(model, collate(samples)).policy
    assert_equal_in_value_and_gradient(model, ours, plain_logps(model, samples), 1e-4)


@pytest.mark.parametrize("model_type", REWARD_MODELS)
@settings(max_examples=10, deadline=None)
@given(samples=batches)
def test_rewards_are_pooled_at_each_responses_last_token(
    model_type: str, samples: list[TokenisedSample]
) -> None:
    model = _reward_model(model_type, torch.float64)
    ours = ranked_rewards(model, collate(samples))
    assert_equal_in_value_and_gradient(model, ours, plain_rewards(model, samples), exactness(model_type))


def sample(prompt: int = 5, *responses: int) -> TokenisedSample:
    ids = [[3 + (index + rank) % 50 for index in range(n - 1)] + [2] for rank, n in enumerate(responses)]
    return TokenisedSample("s", "x", [3 + index % 50 for index in range(prompt)], ids, 0)


def test_a_batch_is_laid_out_as_documented() -> None:
    first = TokenisedSample("a", "x", [10, 11, 12], [[20, 2], [30, 31, 2]], 0)
    second = TokenisedSample("b", "x", [13, 14], [[40, 2], [2], [50, 2]], 1)
    batch = collate([first, second])
    assert batch.input_ids.tolist() == [10, 11, 12, 20, 2, 30, 31, 2, 13, 14, 40, 2, 2, 50, 2]
    assert batch.position_ids.tolist() == [0, 1, 2, 3, 4, 3, 4, 5, 0, 1, 2, 3, 2, 2, 3]
    assert batch.target_ids.tolist() == [20, 2, 30, 31, 2, 40, 2, 2, 50, 2]
    assert batch.predictors.tolist() == [2, 3, 2, 5, 6, 9, 10, 9, 9, 13]
    assert batch.cells.tolist() == [0, 0, 1, 1, 1, 3, 3, 4, 5, 5]
    assert batch.ends.tolist() == [[4, 7, 0], [11, 12, 14]]
    assert batch.lengths.tolist() == [[2, 3, 0], [2, 1, 2]]
    assert batch.mask.tolist() == [[True, True, False], [True, True, True]]
    assert (batch.tokens, batch.longest, batch.truncated) == (15, 6, (0, 1))


class _LargestTensor(TorchDispatchMode):
    """Records the most elements that any result of an operation has."""

    largest = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = func(*args, **(kwargs or {}))
        for leaf in tree_leaves(result):
            if isinstance(leaf, torch.Tensor):
                self.largest = max(self.largest, leaf.numel())
        return result


def test_no_tensor_of_tokens_by_vocabulary_lives(monkeypatch: pytest.MonkeyPatch) -> None:
    vocabulary = 5_003
    config = type(CONFIGS["llama"])(**{**CONFIGS["llama"].to_dict(), "vocab_size": vocabulary})
    model = AutoModelForCausalLM.from_config(config)
    monkeypatch.setattr(module, "CHUNK_ELEMENTS", 4 * vocabulary)
    batch = collate([sample(20, 30, 20), sample(10, 40)])
    targets = batch.target_ids.numel()
    head_elements = vocabulary * config.hidden_size
    assert head_elements < targets * vocabulary
    with _LargestTensor() as seen:
        ranked_logps(model, batch).policy.sum().backward()
    assert seen.largest <= head_elements  # the head's own gradient is the largest tensor there is
    with _LargestTensor() as seen_in_twin:
        plain_logps(model, [sample(20, 30, 20)])
    assert seen_in_twin.largest > targets * vocabulary  # the detector detects


def test_chunks_change_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    model = _policy("llama", torch.float64)
    batch = collate([sample(4, 7, 3), sample(2, 5)])
    whole = ranked_logps(model, batch).policy
    monkeypatch.setattr(module, "CHUNK_ELEMENTS", 2 * VOCABULARY)
    assert_equal_in_value_and_gradient(model, ranked_logps(model, batch).policy, whole, 1e-12)


def test_float32_stays_near_float64_over_a_large_vocabulary() -> None:
    head = torch.nn.Linear(16, 50_000, bias=False)
    with torch.no_grad():  # logits of standard deviation 5, as a language model's; log_softmax is off by 1e-3
        hidden = torch.randn(300, 16, generator=torch.Generator().manual_seed(1)) * 1.25
        head.weight.copy_(torch.randn(head.weight.shape, generator=torch.Generator().manual_seed(2)))
        targets = torch.arange(300) * 150
        logits = head(hidden)
        exact = torch.log_softmax(logits.double(), dim=-1)[torch.arange(300), targets].sum()
        ours = module._target_logps(hidden, targets, head).double().sum()
    assert ours.item() == pytest.approx(exact.item(), abs=3e-4)


def test_log_probabilities_are_float32_under_bfloat16() -> None:
    model = random_policy("llama", torch.bfloat16)
    logps = ranked_logps(model, collate([sample(4, 7, 3)]))
    assert logps.policy.dtype == logps.hidden_sum.dtype == torch.float32
    assert logps.hidden.dtype == torch.bfloat16


def test_the_models_own_attention_is_back_afterwards() -> None:
    model = _policy("llama", torch.float64)
    before = model.config._attn_implementation
    ids = torch.tensor([[3, 4, 5]])
    plain = model(ids).logits
    ranked_logps(model, collate([sample(4, 7)]))
    assert model.config._attn_implementation == before
    assert torch.equal(model(ids).logits, plain)


def test_reference_is_added_without_touching_the_rest() -> None:
    logps = ranked_logps(_policy("llama", torch.float64), collate([sample(4, 7, 3)]))
    with_reference = logps.with_reference(torch.tensor([[-1.0, -2.0]]))
    assert with_reference.reference is not None
    assert with_reference.reference.dtype == torch.float64
    assert with_reference.policy is logps.policy


@pytest.mark.parametrize("model_type", MODEL_TYPES)
def test_the_layout_is_found_by_a_probe(model_type: str) -> None:
    expected = "padded" if model_type in PADDED else "packed"
    assert model_layout(_policy(model_type, torch.float32)) == expected


def test_a_batch_beyond_the_window_and_a_checkpointed_model_take_the_padded_layout() -> None:
    windowed = _policy("mistral windowed", torch.float32)
    assert batch_layout(windowed, collate([sample(9, 7)])) == "packed"
    assert batch_layout(windowed, collate([sample(9, 8)])) == "padded"
    checkpointed = random_policy("llama", torch.float32).train()
    assert batch_layout(checkpointed, collate([sample(4, 7)])) == "packed"
    checkpointed.gradient_checkpointing_enable()
    assert batch_layout(checkpointed, collate([sample(4, 7)])) == "padded"


def test_the_probe_leaves_the_model_in_its_mode() -> None:
    model = random_policy("llama", torch.float32).train()
    ranked_logps(model, collate([sample(4, 7)]))
    assert model.training


def test_what_would_give_wrong_numbers_is_refused() -> None:
    with pytest.raises(DataError, match="130 tokens; the model has 128 positions"):
        ranked_logps(_policy("llama", torch.float64), collate([sample(100, 30)]))
    with pytest.raises(ModelError, match="no score head"):
        ranked_rewards(_policy("llama", torch.float64), collate([sample(4, 7)]))


def test_a_model_with_something_unknown_behind_its_head_is_refused() -> None:
    model = random_policy("llama", torch.float32)
    model.lm_head.register_forward_hook(lambda module, inputs, logits: logits)  # harmless
    ranked_logps(model, collate([sample(4, 7)]))
    other = random_policy("llama", torch.float32)
    forward = other.forward

    def biased(*args: Any, **kwargs: Any) -> Any:
        output = forward(*args, **kwargs)
        output.logits = output.logits + torch.arange(VOCABULARY)
        return output

    other.forward = biased
    with pytest.raises(ModelError, match="not its head's"):
        ranked_logps(other, collate([sample(4, 7)]))
