"""An experiment's table as CSV (long form, everything) and as LaTeX (the paper's form, booktabs)."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from app.experiments.results import ArmResults
from app.spreadsheets import csv_text
from deft_engine.evaluators import decimals
from deft_engine.experiments.results import TOTAL, Difference, Figure
from deft_engine.experiments.tables import shown_figures, significant

_HEADER = (
    "arm", "subset", "figure", "value", "sd_over_seeds", "low", "high", "n", "seeds", "baseline",
    "difference", "difference_low", "difference_high", "p_value", "p_holm", "trained_share", "trained_tokens",
    "seconds",    "signature", "reason",
)  # fmt: skip
_TEX = str.maketrans(
    {"\\": r"\textbackslash{}", "&": r"\&", "%": r"\%", "$": r"\$", "#": r"\#", "_": r"\_", "{": r"\{",
     "}": r"\}", "~": r"\textasciitilde{}", "^": r"\textasciicircum{}", "<": r"\textless{}",
     ">": r"\textgreater{}", "\n": " ", "\r": " "}
)  # fmt: skip


def results_csv(arms: Sequence[ArmResults]) -> str:
    """A row for each arm, subset and figure."""
    return csv_text(_HEADER, _rows(arms))


def results_tex(arms: Sequence[ArmResults]) -> str:
    """A table in the form of the paper's: BLEU and reward by subset, Total last; deviations over seeds."""
    figures = shown_figures(arms)
    subsets = sorted({name for arm in arms for name in arm.subsets})
    groups = [*subsets, TOTAL]
    width = len(figures)
    head = " & ".join(rf"\multicolumn{{{width}}}{{c}}{{{_tex(group)}}}" for group in groups)
    rules = " ".join(
        rf"\cmidrule(lr){{{3 + width * number}-{2 + width * (number + 1)}}}" for number in range(len(groups))
    )
    names = " & ".join(_tex(label) for _ in groups for _, label in figures)
    lines = [
        "% needs \\usepackage{booktabs}; mean over seeds, standard deviation over seeds after it",
        "% * differs from its baseline, p < 0.05 by a paired bootstrap over samples, corrected by Holm",
        rf"\begin{{tabular}}{{lr{'r' * (width * len(groups))}}}",
        r"\toprule",
        rf"Method & \% & {head} \\",
        rules,
        rf" & & {names} \\",
        r"\midrule",
        *(_tex_row(arm, groups, [name for name, _ in figures]) for arm in arms),
        r"\bottomrule",
        r"\end{tabular}",
    ]
    return "\n".join(lines) + "\n"


def _tex_row(arm: ArmResults, groups: Sequence[str], figures: Sequence[str]) -> str:
    share = "--" if arm.cost.trained_share is None else f"{100 * arm.cost.trained_share:.3g}"
    cells = [_tex_cell(name, _of(arm, group).get(name)) for group in groups for name in figures]
    return " & ".join([_tex(arm.name), share, *cells]) + r" \\"


def _tex_cell(name: str, figure: Figure | None) -> str:
    if figure is None or figure.value is None:
        return "--"
    digits = decimals(name)
    spread = "" if figure.sd is None else rf" {{\scriptsize$\pm${figure.sd:.{digits}f}}}"
    return f"{figure.value:.{digits}f}{spread}{'*' if significant(figure) else ''}"


def _tex(text: str) -> str:
    return text.translate(_TEX)


def _of(arm: ArmResults, group: str) -> dict[str, Figure]:
    return arm.total if group == TOTAL else arm.subsets.get(group, {})


def _rows(arms: Sequence[ArmResults]) -> Iterator[tuple[str | float | None, ...]]:
    for arm in arms:
        for subset, figures in [*arm.subsets.items(), (TOTAL, arm.total)]:
            for name, figure in figures.items():
                compared = figure.difference or Difference("", None, None, None, None, figure.n)
                yield (
                    arm.name, subset, name, figure.value, figure.sd, *(figure.interval or (None, None)),
                    figure.n, figure.seeds, compared.baseline, compared.value,
                    *(compared.interval or (None, None)), compared.p_value, compared.p_corrected,
                    arm.cost.trained_share, arm.cost.trained_tokens, arm.cost.seconds, figure.signature,
                    figure.reason or compared.reason,
                )  # fmt: skip
