"""Supervised fine-tuning on the best response (eq 9)."""

from __future__ import annotations

from typing import ClassVar, Literal

from deft_engine.base import Spec


class SFT(Spec):
    """Negative log-likelihood of y_1: its sum over tokens (the paper, eq 9) or its mean."""

    needs_reference: ClassVar[bool] = False

    name: Literal["sft"] = "sft"
    reduction: Literal["sum", "mean"] = "sum"
    """``sum`` over the tokens of a response, as eq 9; ``mean`` divides by their number."""
