"""What a table in the paper's form shows: which figures, under which names."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Protocol

from deft_engine.experiments.results import Figure

ALPHA = 0.05
_HEADINGS = {"bleu": "BLEU", "reward": "Reward", "divergence": "Divergence", "perplexity": "Perplexity"}


class HasTotal(Protocol):
    """A row of a table."""

    @property
    def total(self) -> Mapping[str, Figure]: ...


def shown_figures(rows: Sequence[HasTotal]) -> list[tuple[str, str]]:
    """Figure and heading: corpus BLEU and reward as in Tables 2 and 3, beside them what alignment costs.

    Where there is none of these, what there is.

    One kind of BLEU alone: the other (``bleu_pro_char``) is no figure to stand beside it.
    """
    there = dict.fromkeys(name for row in rows for name in row.total)
    return [(name, heading) for name, heading in _HEADINGS.items() if name in there] or [
        (name, name) for name in there
    ]


def significant(figure: Figure) -> bool:
    """Whether the figure differs from the baseline's at the 5% level, corrected for the number of arms."""
    compared = figure.difference
    return compared is not None and compared.p_corrected is not None and compared.p_corrected < ALPHA
