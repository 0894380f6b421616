"""The float32 matrix products of a benchmark's side: as torch ships them, or by the faster library.

On AMD, MKL reaches less than half of what oneDNN does. Where oneDNN would compute in bfloat16 (AMX), the two
are no longer the same arithmetic and nothing is switched.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Literal

import torch

Library = Literal["shipped", "onednn"]


@contextmanager
def matrix_products(library: Library) -> Iterator[None]:
    """Within it, float32 products are made by ``library``."""
    settings = torch.backends.mkldnn.matmul
    before = settings.fp32_precision
    settings.fp32_precision = "bf16" if library == "onednn" else before
    try:
        if library == "onednn" and not _is_float32():
            settings.fp32_precision = before
        yield
    finally:
        settings.fp32_precision = before


def _is_float32() -> bool:
    left, right = torch.randn(256, 256), torch.randn(256, 256)
    error = (left @ right).double() - left.double() @ right.double()
    return bool(error.abs().max() < 1e-3)  # bfloat16 is off by about 0.1
