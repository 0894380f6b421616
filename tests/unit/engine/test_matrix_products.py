"""The library of float32 matrix products: never another value, and one choice for a machine."""

import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

from deft_engine import matrix_products
from deft_engine.matrix_products import Library, faster, in_use, multiplied_by, use_fastest

START = """
from deft_engine import matrix_products
matrix_products.faster = lambda: {says!r}
matrix_products.use_fastest()
print(matrix_products.in_use())
"""


@pytest.fixture(autouse=True)
def _restored(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[None]:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    use_fastest.cache_clear()
    before = torch.backends.mkldnn.matmul.fp32_precision
    yield
    use_fastest.cache_clear()
    torch.backends.mkldnn.matmul.fp32_precision = before


def engine_that_finds(says: Library) -> str:
    """What another process takes, whose measurement would say ``says``."""
    started = subprocess.run(
        [sys.executable, "-c", START.format(says=says)], stdout=subprocess.PIPE, text=True, check=True
    )
    return started.stdout.strip()


def test_the_library_that_is_taken_computes_in_float32() -> None:
    use_fastest()
    generator = torch.Generator().manual_seed(3)
    for shape in ((64, 64), (577, 1537), (1000, 96)):
        left = torch.randn(300, shape[0], generator=generator)
        right = torch.randn(*shape, generator=generator)
        exact = left.double() @ right.double()
        assert ((left @ right).double() - exact).abs().max() < 1e-5 * exact.abs().max()


def test_one_that_rounds_is_refused_however_fast(monkeypatch: pytest.MonkeyPatch) -> None:
    product = torch.Tensor.__matmul__

    def rounding(left: torch.Tensor, right: torch.Tensor) -> torch.Tensor:
        if torch.backends.mkldnn.matmul.fp32_precision == "bf16" and left.dtype == torch.float32:
            return product(left.bfloat16(), right.bfloat16()).float()
        return product(left, right)

    monkeypatch.setattr(torch.Tensor, "__matmul__", rounding)
    monkeypatch.setattr(matrix_products, "_seconds", lambda *_: time_of(torch.backends.mkldnn.matmul))
    assert faster() == "shipped"


def time_of(settings: object) -> float:
    """As if oneDNN took no time."""
    return 1e-9 if getattr(settings, "fp32_precision") == "bf16" else 1.0  # noqa: B009


@pytest.mark.parametrize(("seconds", "expected"), [(0.9, "shipped"), (0.5, "onednn")])
def test_another_order_of_additions_must_be_worth_it(
    seconds: float, expected: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def clock(*_: object) -> float:
        return seconds if torch.backends.mkldnn.matmul.fp32_precision == "bf16" else 1.0

    monkeypatch.setattr(matrix_products, "_seconds", clock)
    monkeypatch.setattr(matrix_products, "_is_float32", lambda *_: True)
    assert faster() == expected


def test_the_first_choice_stands_for_the_machine() -> None:
    assert engine_that_finds("onednn") == "onednn"
    assert engine_that_finds("shipped") == "onednn"


def test_a_choice_of_another_machine_or_a_broken_file_is_none_of_ours(tmp_path: Path) -> None:
    kept = tmp_path / "deft" / "matrix_products.json"
    kept.parent.mkdir()
    kept.write_text('{"a Babbage engine|torch 0.1": "onednn"')
    assert engine_that_finds("shipped") == "shipped"
    kept.write_text(json.dumps({"a Babbage engine|torch 0.1": "onednn"}))
    assert engine_that_finds("shipped") == "shipped"
    assert json.loads(kept.read_text())["a Babbage engine|torch 0.1"] == "onednn"


def test_where_nothing_can_be_kept_nothing_changes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    occupied = tmp_path / "file"
    occupied.write_text("no folder")
    monkeypatch.setenv("XDG_CACHE_HOME", str(occupied))
    assert engine_that_finds("onednn") == "shipped"


def test_products_are_as_before_outside() -> None:
    use_fastest()
    before = torch.backends.mkldnn.matmul.fp32_precision
    for library in ("shipped", "onednn"):
        with multiplied_by(library):
            pass
        assert torch.backends.mkldnn.matmul.fp32_precision == before
    assert in_use() in ("shipped", "onednn")
