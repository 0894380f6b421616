"""How many decimals of a figure people are shown."""

_COARSE = {"reward", "reward_raw", "bleu", "bleu_pro_char", "length", "perplexity"}
"""Percents, characters and the like; the others are shares and nats, mostly below 1."""


def decimals(figure: str) -> int:
    """Of a value of this figure, and of a difference of two."""
    return 2 if figure in _COARSE else 4
