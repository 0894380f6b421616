"""Both ways to attend over a packed row equal attention with a dense mask, in value and gradient."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor
from torch.nn.functional import scaled_dot_product_attention

from deft_engine import attention_by_products as module
from deft_engine.attention_by_products import attention_by_products
from deft_engine.data.collate import Segments
from deft_engine.packed_attention import PackedLayout, attention_by_kernel

SEGMENTS = (Segments(0, 5, (3, 7, 1)), Segments(16, 1, (2,)), Segments(19, 9, (4, 4)))
TOKENS, SCALE = 36, 0.3


def visible() -> Tensor:
    """``[tokens, tokens]``, written from what the layout means: who belongs to which sample and response."""
    sample, response = torch.full((TOKENS,), -1), torch.full((TOKENS,), -1)
    for number, segment in enumerate(SEGMENTS):
        stop = segment.start + segment.prompt
        sample[segment.start : stop] = number
        for place, length in enumerate(segment.responses):
            sample[stop : stop + length], response[stop : stop + length] = number, place
            stop += length
    of_prompt = response == -1
    same = (sample[:, None] == sample[None]) & (of_prompt[None] | (response[:, None] == response[None]))
    return same & torch.ones(TOKENS, TOKENS, dtype=torch.bool).tril()


def dense(query: Tensor, key: Tensor, value: Tensor) -> Tensor:
    groups = query.shape[0] // key.shape[0]
    key, value = key.repeat_interleave(groups, dim=0), value.repeat_interleave(groups, dim=0)
    return scaled_dot_product_attention(query, key, value, attn_mask=visible(), scale=SCALE).transpose(0, 1)


def by_products(query: Tensor, key: Tensor, value: Tensor) -> Tensor:
    return attention_by_products(query, key, value, SEGMENTS, SCALE)


def by_kernel(query: Tensor, key: Tensor, value: Tensor) -> Tensor:
    """As on a GPU."""
    return attention_by_kernel(query[None], key[None], value[None], PackedLayout(SEGMENTS), SCALE)[0]


either_way = pytest.mark.parametrize("attention", [by_products, by_kernel])
Attention = Callable[[Tensor, Tensor, Tensor], Tensor]


def tensors(heads: int, key_value_heads: int, dtype: torch.dtype = torch.float64) -> list[Tensor]:
    generator = torch.Generator().manual_seed(heads)
    shapes = ((heads, 4), (key_value_heads, 4), (key_value_heads, 6))
    return [
        torch.randn(h, TOKENS, dim, generator=generator, dtype=torch.float64).to(dtype).requires_grad_()
        for h, dim in shapes
    ]


@pytest.mark.parametrize("heads", [(4, 4), (6, 2), (3, 1)])
@pytest.mark.parametrize(
    ("attention", "rows"), [(by_products, 1), (by_products, 4), (by_products, 128), (by_kernel, 128)]
)
def test_value_and_gradient_equal_dense_attention(
    attention: Attention, heads: tuple[int, int], rows: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "_ROWS", rows)
    given = tensors(*heads)
    weights = torch.randn(TOKENS, heads[0], 6, dtype=torch.float64)

    found, expected = attention(*given), dense(*given)

    torch.testing.assert_close(found, expected, rtol=0, atol=1e-12)
    gradients = torch.autograd.grad((found * weights).sum(), given)
    for mine, theirs in zip(gradients, torch.autograd.grad((expected * weights).sum(), given), strict=True):
        torch.testing.assert_close(mine, theirs, rtol=0, atol=1e-12)


def test_a_second_derivative_is_refused() -> None:
    given = tensors(2, 2)
    attended = by_products(*given)
    first, *_ = torch.autograd.grad(attended.square().sum(), given, create_graph=True)

    with pytest.raises(RuntimeError, match="once_differentiable"):
        first.sum().backward()


@either_way
def test_other_samples_and_other_responses_are_not_seen(attention: Attention) -> None:
    query, key, value = (tensor.detach() for tensor in tensors(2, 2))
    before = attention(query, key, value)

    key[:, 5:8], value[:, 5:8] = 100.0, 100.0  # the first response of the first sample

    changed = (attention(query, key, value) != before).flatten(1).any(1)
    assert changed.nonzero().flatten().tolist() == [5, 6, 7]


def test_bfloat16_is_as_close_as_torchs_kernel() -> None:
    given = tensors(6, 2, torch.bfloat16)
    exact = dense(*(tensor.double() for tensor in given))

    def error(found: Tensor) -> float:
        return (found.detach().double() - exact.detach()).abs().mean().item()

    assert error(by_products(*given)) < 2 * error(dense(*given))


def test_autocast_lowers_what_comes_in_float32() -> None:
    given = tensors(2, 2, torch.float32)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        found = by_products(given[0], given[1], given[2].bfloat16())

    assert found.dtype == torch.bfloat16
    found.sum().backward()
    assert [tensor.grad is not None and tensor.grad.dtype for tensor in given] == [torch.float32] * 3
