"""Whether a reward model's certainty can be believed: sigmoid(r_1 - r_2) against how often it is right.

Under Bradley-Terry (eq 1) the sigmoid of a margin is the probability that the one response is preferred. The
side that the model prefers has at least 1/2: its confidence. Which response stands first plays no part.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from deft_engine.types import Score

Floats = npt.NDArray[np.float64]

BINS = 10
_SIGNATURE = f"ece|sigmoid(margin)|confidence:0.5-1|bins:{BINS}|width:equal|ties:half|v:1"


def reliability(margins: Floats) -> list[dict[str, Any]]:
    """The reliability table: bins of confidence from 0.5 to 1, each with n, mean confidence and accuracy.

    Args:
        margins: ``[pairs]``: reward of the preferred response less that of the other.
    """
    confidence, right, place = _placed(margins)
    edges = np.linspace(0.5, 1.0, BINS + 1)
    return [
        {
            "low": float(edges[number]),
            "high": float(edges[number + 1]),
            "n": int(inside.sum()),
            "confidence": float(confidence[inside].mean()) if inside.any() else None,
            "accuracy": float(right[inside].mean()) if inside.any() else None,
        }
        for number in range(BINS)
        for inside in (place == number,)
    ]


def calibration_error(margins: Floats) -> Score:
    """Expected calibration error: how far a bin's accuracy is from its confidence, mean over pairs."""
    n = len(margins)
    if n == 0:
        return Score(None, 0, _SIGNATURE, "there are no pairs")
    rows = [row for row in reliability(margins) if row["n"]]
    error = sum(row["n"] * abs(row["accuracy"] - row["confidence"]) for row in rows) / n
    return Score(float(error), n, _SIGNATURE)


def _placed(margins: Floats) -> tuple[Floats, Floats, npt.NDArray[np.int64]]:
    """``[pairs]`` each: confidence, whether it was right (a tie by half), and the bin."""
    from scipy.special import expit

    confidence = np.asarray(expit(np.abs(margins)), dtype=np.float64)
    right = (np.sign(margins) + 1) / 2
    place = np.minimum(((confidence - 0.5) * 2 * BINS).astype(np.int64), BINS - 1)
    return confidence, right, place
