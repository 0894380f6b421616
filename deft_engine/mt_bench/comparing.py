"""Pairwise judging: which of two models' answers is better, asked in both orders.

A verdict that does not survive the exchange of the two is a tie, as in FastChat; how often that happened, and
how often the answer that stood first won, is told beside it.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

from deft_engine.endpoints.client import ChatClient
from deft_engine.endpoints.spec import EndpointSpec
from deft_engine.mt_bench.cases import Case, answers_to, read_cases
from deft_engine.mt_bench.files import Answers, read_answers, written_id
from deft_engine.mt_bench.grading import PROMPT_VERSION, comparison_request, read_preference
from deft_engine.mt_bench.output import write_judgments
from deft_engine.run import StageContext
from deft_engine.stages import JudgeSpec

Outcome = Literal["win", "tie", "loss", "unparsed"]
_OUTCOMES: dict[tuple[str, str], Outcome] = {("A", "B"): "win", ("B", "A"): "loss", ("C", "C"): "tie"}
"""(verdict with our answer as A, verdict with it as B) -> how it did; any other pair is no agreement."""


@dataclass(frozen=True, slots=True)
class _Compared:
    """A case with its rival's answers and both judgments: ours as A, then ours as B."""

    case: Case
    rival: Answers
    judgments: tuple[str, str]

    @property
    def verdicts(self) -> tuple[str | None, str | None]:
        """A, B, C (a tie), or None where a judgment has no verdict."""
        return read_preference(self.judgments[0]), read_preference(self.judgments[1])

    @property
    def outcome(self) -> Outcome:
        """For the answers that are judged, against their rival."""
        first, second = self.verdicts
        if first is None or second is None:
            return "unparsed"
        return _OUTCOMES.get((first, second), "tie")


def compare(context: StageContext[JudgeSpec]) -> dict[str, Any]:
    """Write ``judgments.jsonl`` and ``mt_bench.json`` of the inputs ``answers`` and ``against``.

    Raises:
        DataError: a file cannot be read, or a turn has no answer.
        EndpointError: a judgment cannot be had; those that came are kept and not asked for again.
    """
    cases = read_cases(context)
    against = read_answers(context.path("against"), context.work, "against")
    rivals = [answers_to(case.question, against, "against") for case in cases]
    tokens = context.spec.max_new_tokens
    requests = [
        comparison_request(case.question, sides, case.references, case.turn, tokens)
        for case, rival in zip(cases, rivals, strict=True)
        for sides in ((case.answers, rival), (rival, case.answers))
    ]
    with ChatClient.open(context) as client:
        texts = [answer.text for answer in client.collect(requests, context.events)]
        usage = client.usage
    pairs = zip(texts[::2], texts[1::2], strict=True)
    compared = [_Compared(*each) for each in zip(cases, rivals, pairs, strict=True)]
    judge = EndpointSpec.from_uri(context.inputs["endpoint"]).model
    results = _summary(compared, judge)
    write_judgments(context, (_row(one, judge) for one in compared), results)
    return {**results, "endpoint": usage}


def _summary(compared: Sequence[_Compared], judge: str) -> dict[str, Any]:
    categories = sorted({one.case.question.category for one in compared})
    turns = sorted({one.case.turn for one in compared})
    total = _figure(compared)
    warnings = []
    if total["unparsed"]:
        warnings.append(
            f"{total['unparsed']} of {len(compared)} comparisons lack a verdict and count nowhere"
        )
    if total["inconsistent"]:
        warnings.append(
            f"{total['inconsistent']} of {len(compared)} comparisons changed with the order and count as ties"
        )
    return {
        "model": compared[0].case.answers.model,
        "against": compared[0].rival.model,
        "judge": judge,
        "signature": f"mt_bench|pairwise|both orders|judge:{judge}|temp:0|prompt:v{PROMPT_VERSION}",
        "total": total,
        "turns": {
            str(turn + 1): _figure([one for one in compared if one.case.turn == turn]) for turn in turns
        },
        "categories": {
            name: _figure([one for one in compared if one.case.question.category == name])
            for name in categories
        },
        "without_reference": sum(one.case.lacks_reference for one in compared),
        "warnings": warnings,
    }


def _figure(compared: Sequence[_Compared]) -> dict[str, Any]:
    """``value``: wins and half the ties over the ``n`` comparisons with two verdicts."""
    outcomes = Counter(one.outcome for one in compared)
    decided = [one.verdicts for one in compared if one.outcome != "unparsed"]
    firsts = Counter(verdict for verdicts in decided for verdict in verdicts)
    n, strict = len(decided), firsts["A"] + firsts["B"]
    return {
        "value": (outcomes["win"] + outcomes["tie"] / 2) / n if n else None,
        "n": n,
        "wins": outcomes["win"],
        "ties": outcomes["tie"],
        "losses": outcomes["loss"],
        "inconsistent": sum(verdicts not in _OUTCOMES for verdicts in decided),
        "unparsed": outcomes["unparsed"],
        "first_wins": firsts["A"] / strict if strict else None,
    }


def _row(compared: _Compared, judge: str) -> dict[str, Any]:
    case = compared.case
    return {
        "question_id": written_id(case.question.id),
        "model_1": case.answers.model,
        "model_2": compared.rival.model,
        "judge": [judge, f"deft-pair-v{PROMPT_VERSION}"],
        "category": case.question.category,
        "turn": case.turn + 1,
        "g1_judgment": compared.judgments[0],
        "g2_judgment": compared.judgments[1],
        "outcome": compared.outcome,
    }
