"""What an evaluator sees."""

from __future__ import annotations

from typing import Literal, NamedTuple

from deft_engine.types import Generation, Score

Measure = Literal["reward", "divergence", "reference_logp"]
"""What models say of each answer; ``deft_engine.measures`` computes those that some evaluator needs."""


class TokenSum(NamedTuple):
    """A sum over the tokens of a text, its EOS included; ``tokens`` are those of ``tokenizer``."""

    total: float
    tokens: int
    tokenizer: str
    """Digest and template: what another tokenizer or template says is of other tokens."""


class Rated(NamedTuple):
    """A generation with what models say of it; null where it was not asked for."""

    generation: Generation
    reward: float | None = None
    """r_eval(x, y)."""
    divergence: TokenSum | None = None
    """KL(policy || reference) of the predictions of the answer's tokens, in nats."""
    reference_logp: TokenSum | None = None
    """Log-probability of the annotated best response under the policy, in nats."""


NO_SAMPLES = "there are no samples"


def no_value(n: int, signature: str, reason: str) -> Score:
    """A figure that could not be computed, with the reason."""
    return Score(None, n, signature, reason)


def unmeasured(answers: int, measured: int, signature: str) -> Score:
    """A figure of answers of which some were not measured, or of none."""
    reason = NO_SAMPLES if answers == 0 else f"{answers - measured} answers were not measured"
    return no_value(answers, signature, reason)
