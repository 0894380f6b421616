"""Stage ``reward_quality``: how well a reward model ranks held-out preference pairs, and what by.

A pair is a sample's annotated best response against its annotated worst: one pair a sample, so that pairs are
independent, as the intervals need. A tie is ranked wrongly, by the model and by the baseline alike.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.parquet as pq

from deft_engine.canonical import canonical_json
from deft_engine.data.samples import StoredSamples, read_index
from deft_engine.errors import DataError
from deft_engine.experiments.statistics import Bootstrap
from deft_engine.reward_calibration import calibration_error, reliability
from deft_engine.run import StageContext
from deft_engine.scores import read_score_table, require_same_samples
from deft_engine.stages import RewardQualitySpec
from deft_engine.types import Score

Floats = npt.NDArray[np.float64]
_CONFIDENCE = 0.95
_PAIRS = "pairs:best-worst|ties:wrong"
_NO_PAIRS = "there are no pairs"


@dataclass(frozen=True, slots=True)
class Pairs:
    """Preference pairs with their rewards and lengths, a row a sample."""

    ids: list[str]
    subsets: list[str]
    rewards: Floats
    """``[pairs, 2]``: of the preferred response and of the other."""
    lengths: Floats
    """``[pairs, 2]``, in characters."""
    others: Floats | None
    """``[pairs, 2]``: rewards of a second model."""

    def __len__(self) -> int:
        return len(self.ids)

    def of(self, subset: str) -> Pairs:
        """Those of a subset."""
        inside = np.array([name == subset for name in self.subsets], dtype=bool)
        return Pairs(
            [name for name, kept in zip(self.ids, inside, strict=True) if kept],
            [subset] * int(inside.sum()),
            self.rewards[inside],
            self.lengths[inside],
            None if self.others is None else self.others[inside],
        )


def run(context: StageContext[RewardQualitySpec]) -> dict[str, Any]:
    """Write ``results.json`` (figures per subset and in total, the reliability table, warnings) and
    ``sample_scores.parquet``, a row per pair.

    Raises:
        DataError: there is no pair, or scores are of other samples.
    """
    pairs = _read(context)
    if len(pairs) == 0:
        raise DataError("there are no pairs to rank", hint="evaluate on a dataset with samples")
    total = figures(pairs)
    beats = _beats_length(total["accuracy_gain"])
    results: dict[str, Any] = {
        "subsets": {name: _as_json(figures(pairs.of(name))) for name in sorted(set(pairs.subsets))},
        "total": _as_json(total),
        "calibration": reliability(_margins(pairs.rewards)),
        "beats_longer": beats,
        "warnings": [] if beats else [_warning(total)],
    }
    for warning in results["warnings"]:
        context.events.log(warning, level="warning")
    context.events.progress(len(pairs), len(pairs))
    (context.out / "results.json").write_bytes(canonical_json(results))
    _write_pairs(context, pairs)
    return results


def figures(pairs: Pairs) -> dict[str, Score]:
    """Accuracy, that of the baseline "longer wins", their difference, calibration, correlation with length;
    with a second model its agreement."""
    right, longer = _right(pairs.rewards), _right(pairs.lengths)
    found = {
        "accuracy": _share(right, f"accuracy|{_PAIRS}|wilson|v:1", _ties(pairs.rewards)),
        "longer_wins": _share(longer, f"accuracy|{_PAIRS}|of:longer-wins|wilson|v:1", _ties(pairs.lengths)),
        "accuracy_gain": _gain(right, longer),
        "calibration_error": calibration_error(_margins(pairs.rewards)),
        "length_correlation": _spearman(
            pairs.rewards, pairs.lengths, "reward-length|spearman|characters|over:both-responses|v:1"
        ),
    }
    if pairs.others is not None:
        same = np.sign(_margins(pairs.rewards)) == np.sign(_margins(pairs.others))
        found["agreement"] = _share(same, "agreement|same-preference|wilson|v:1", {})
        found["margin_correlation"] = _spearman(
            _margins(pairs.rewards), _margins(pairs.others), "margins|spearman|v:1"
        )
        found["other_accuracy"] = _share(
            _right(pairs.others), f"accuracy|{_PAIRS}|of:other|wilson|v:1", _ties(pairs.others)
        )
    return found


def _read(context: StageContext[RewardQualitySpec]) -> Pairs:
    index = read_index(context.path("samples"))
    samples = StoredSamples(context.path("samples"))
    lengths = [[float(len(s.chosen.text)), float(len(s.rejected.text))] for s in samples]
    others = _ends(context, "other_scores", index.ids) if "other_scores" in context.inputs else None
    return Pairs(
        ids=index.ids,
        subsets=index.subsets,
        rewards=_ends(context, "scores", index.ids),
        lengths=np.array(lengths, dtype=np.float64).reshape(-1, 2),
        others=others,
    )


def _ends(context: StageContext[RewardQualitySpec], name: str, ids: list[str]) -> Floats:
    """``[samples, 2]``: rewards of the annotated best and worst response."""
    table = read_score_table(context.path(name))
    require_same_samples(table.ids, read_index(context.path("samples")), "the scores")
    found = np.stack([table.rewards[table.offsets[:-1]], table.rewards[table.offsets[1:] - 1]], axis=1)
    if not np.isfinite(found).all():
        strange = int(np.isfinite(found).all(axis=1).argmin())
        raise DataError(
            f"sample {ids[strange]}: the reward model gave no finite reward",
            hint="look at the losses of the reward model's training",
        )
    return found


def _margins(rewards: Floats) -> Floats:
    """``[pairs]``: how much more the preferred response is given."""
    return rewards[:, 0] - rewards[:, 1]


def _right(values: Floats) -> npt.NDArray[np.bool_]:
    return values[:, 0] > values[:, 1]


def _ties(values: Floats) -> dict[str, float]:
    return {"ties": float((values[:, 0] == values[:, 1]).sum())}


def _share(right: npt.NDArray[np.bool_], signature: str, extra: dict[str, float]) -> Score:
    """A share with its Wilson interval."""
    n = len(right)
    if n == 0:
        return Score(None, 0, signature, _NO_PAIRS)
    from scipy.stats import binomtest  # takes longer to import than the rest of the service

    low, high = binomtest(int(right.sum()), n).proportion_ci(_CONFIDENCE, method="wilson")
    return Score(float(right.mean()), n, signature, extra=extra, interval=(float(low), float(high)))


def _gain(right: npt.NDArray[np.bool_], longer: npt.NDArray[np.bool_]) -> Score:
    """The model's accuracy less the baseline's, on the same pairs."""
    signature = "accuracy-longer_wins|paired|bootstrap:pairs|v:1"
    n = len(right)
    if n == 0:
        return Score(None, 0, signature, _NO_PAIRS)
    bootstrap = Bootstrap(n)
    at = bootstrap.columns(right.astype(np.float64) - longer.astype(np.float64))
    bootstrap.add(lambda sums: np.asarray(sums[..., at][..., 0] / n))
    (found,) = bootstrap.estimates()
    extra = {} if found.p_value is None else {"p_value": found.p_value}
    return Score(found.value, n, signature, extra=extra, interval=found.interval)


def _spearman(a: Floats, b: Floats, signature: str) -> Score:
    """Of all values of two arrays whose rows are pairs."""
    if a.size < 2 or np.ptp(a) == 0 or np.ptp(b) == 0:
        return Score(None, len(a), signature, "one of the two does not vary")
    from scipy.stats import spearmanr

    return Score(float(spearmanr(a.ravel(), b.ravel()).statistic), len(a), signature)


def _beats_length(gain: Score) -> bool:
    """Whether the interval of the difference lies above 0."""
    return gain.interval is not None and gain.interval[0] > 0


def _warning(total: dict[str, Score]) -> str:
    accuracy, longer, gain = (total[name] for name in ("accuracy", "longer_wins", "accuracy_gain"))
    low, high = gain.interval or (float("nan"), float("nan"))
    interval = f" (95% {100 * low:.1f} to {100 * high:.1f})" if gain.interval else ""
    return (
        f'the reward model is not shown to rank better than "longer wins": of {accuracy.n} held-out pairs it '
        f"ranks {100 * (accuracy.value or 0):.1f}% rightly, the longer response wins in "
        f"{100 * (longer.value or 0):.1f}%, a difference of {100 * (gain.value or 0):.1f} points{interval}"
    )


def _as_json(scores: dict[str, Score]) -> dict[str, dict[str, Any]]:
    return {name: score.as_json() for name, score in scores.items()}


def _write_pairs(context: StageContext[RewardQualitySpec], pairs: Pairs) -> None:
    right, longer = _right(pairs.rewards).astype(np.float64), _right(pairs.lengths).astype(np.float64)
    columns: dict[str, Sequence[str] | Floats] = {
        "sample_id": pairs.ids,
        "subset": pairs.subsets,
        "accuracy": right,
        "longer_wins": longer,
        "accuracy_gain": right - longer,
        "margin": _margins(pairs.rewards),
    }
    if pairs.others is not None:
        columns["other_margin"] = _margins(pairs.others)
    pq.write_table(pa.table(columns), context.out / "sample_scores.parquet", compression="zstd")
