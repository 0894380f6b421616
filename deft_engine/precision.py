"""bfloat16 the way it trains: float32 weights, bfloat16 arithmetic.

An update of 5e-7 is lost in a bfloat16 weight, which has 8 significant bits; so weights and the optimiser's
state stay float32 and only the forward and backward passes are cast.
"""

from __future__ import annotations

from contextlib import AbstractContextManager
from typing import Any

import torch

from deft_engine.models import DtypeName, device, resolve_dtype


def autocast(dtype: DtypeName) -> AbstractContextManager[Any]:
    """A context in which float32 models compute in bfloat16 where ``dtype`` resolves to it."""
    return torch.autocast(device().type, dtype=torch.bfloat16, enabled=resolve_dtype(dtype) == torch.bfloat16)


def emulates_bfloat16() -> bool:
    """Whether models run on a CPU without instructions for bfloat16, as one that has AVX2 alone."""
    return device().type == "cpu" and torch.backends.cpu.get_cpu_capability() == "AVX2"
