"""Direct preference optimisation (eqs 5-6)."""

from __future__ import annotations

from typing import ClassVar, Literal

from pydantic import Field

from deft_engine.base import Spec


class DPO(Spec):
    """-log sigmoid of the scaled difference of log-ratios between y_1 and y_l, plus ``sft_weight`` x eq 9."""

    needs_reference: ClassVar[bool] = True

    name: Literal["dpo"] = "dpo"
    beta: float = Field(0.1, gt=0, le=100)
    """Strength of the pull to the reference (eq 6; Appendix A.1: 0.1)."""
    sft_weight: float = Field(0.05, ge=0, le=100)
    """Weight of the SFT term on y_1 (Appendix A.1: 5e-2)."""
