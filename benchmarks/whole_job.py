"""A whole DEFT-DPO job beside its peers, put together from other results: ``python benchmarks/whole_job.py``.

Nothing runs here: it would take half a day by the peers. The rates are those of ``reward_scoring.json``,
``token_counting.json`` and ``dpo_step.json``, which must be of one machine and one model; starts of processes
are left out on all sides; bfloat16 is there where that machine is fast at it. The job: ``--pairs`` pairs, of
which the reward model scores the better response alone (all that the levels need where l = 2), Q_diff is
counted, and ``--share`` of them are trained on for ``--epochs`` epochs. Beside it the same job by a pipeline
that scores both responses, the tokenizer and TRL, each as shipped, and DPO by TRL on all pairs. Writes
``results/whole_job.json``.
"""

from __future__ import annotations

import json
from typing import Any

from measuring import RESULTS, parser, write

PARTS = ("reward_scoring", "token_counting", "dpo_step")
SIDES = {"float32": ("deft", "trl as shipped, float32"), "bfloat16": ("deft, bfloat16", "trl as shipped")}
Result = dict[str, Any]


def read() -> dict[str, Result]:
    """The results, of one machine and one model."""
    missing = [name for name in PARTS if not (RESULTS / f"{name}.json").exists()]
    if missing:
        raise SystemExit(f"no result of {', '.join(missing)} yet: run benchmarks/{missing[0]}.py first")
    found = {name: json.loads((RESULTS / f"{name}.json").read_text(encoding="utf-8")) for name in PARTS}
    for key in ("cpu", "cores", "instructions", "model"):
        values = {str(result[key]) for result in found.values()}
        if len(values) > 1:
            raise SystemExit(f"{', '.join(PARTS)}: not of one {key}, but of {sorted(values)}")
    return found


def better_alone(scoring: Result) -> float:
    """What part of a pair's tokens, its prompt once, remains where only one response is scored."""
    own, once = (scoring["tokens"][name] for name in ("with every response's own", "with every prompt once"))
    if scoring["responses"] != 2 * scoring["samples"]:
        raise SystemExit("reward_scoring.json is not of pairs: run it with --data of pairs")
    prompts, responses = own - once, 2 * once - own
    return float((prompts + responses / 2) / once)


def parts(found: dict[str, Result], asked: Any, dtype: str) -> dict[str, dict[str, float]]:
    """Seconds of scoring, counting and training, by us and by the peers."""
    scoring, counting, step = (found[name] for name in PARTS)
    ours, trl = SIDES[dtype]
    trained = asked.pairs * asked.share * asked.epochs

    def scored(side: str) -> float:
        return float(asked.pairs * scoring["seconds"][side]["median"] / scoring["samples"])

    def counted(side: str) -> float:
        return float(asked.pairs * counting["seconds"][side]["median"] / counting["samples"])

    def stepped(side: str, pairs: float) -> float:
        return float(pairs * step["seconds"][side]["median"] / step["pairs"])

    return {
        "deft": {
            "score": scored(ours) * better_alone(scoring),
            "count": counted("stage"),
            "train": stepped(ours, trained),
        },
        "the same job by TRL and a pipeline": {
            "score": scored("pipeline as shipped"),
            "count": counted("tokenizer"),
            "train": stepped(trl, trained),
        },
        "TRL on all pairs": {"train": stepped(trl, asked.pairs * asked.epochs)},
    }


def main() -> None:
    """Put together, print and write."""
    made = parser(__doc__, "whole_job")
    made.add_argument("--pairs", type=int, default=6814)
    made.add_argument("--share", type=float, default=0.0373, help="trained on: Level A")
    made.add_argument("--epochs", type=int, default=2)
    asked = made.parse_args()
    found = read()
    measured = [dtype for dtype, (_, trl) in SIDES.items() if trl in found["dpo_step"]["seconds"]]
    seconds = {dtype: parts(found, asked, dtype) for dtype in measured}
    totals = {dtype: {name: sum(each.values()) for name, each in of.items()} for dtype, of in seconds.items()}
    write(
        asked.out,
        {
            **{key: found["dpo_step"][key] for key in ("cpu", "cores", "instructions", "versions", "model")},
            "pairs": asked.pairs,
            "share": asked.share,
            "epochs": asked.epochs,
            "seconds": {
                dtype: {
                    name: {part: round(value, 1) for part, value in each.items()} for name, each in of.items()
                }
                for dtype, of in seconds.items()
            },
            "times_as_fast": {
                dtype: {name: round(value / of["deft"], 2) for name, value in of.items() if name != "deft"}
                for dtype, of in totals.items()
            },
        },
    )


if __name__ == "__main__":
    main()
