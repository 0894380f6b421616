"""The stage ``distribution``: tokens of good and of bad responses, and their difference (section 3.2).

Q+ and Q- are the normalised token counts of the responses that :func:`select_responses` assigns to them, and
Q_diff = Q+ - Q- (eqs 13-15). Only the text of a response is counted, as training reads it: no EOS, and a
special token that a text spells out is ordinary text.
"""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from deft_engine.canonical import sha256_hex
from deft_engine.data.samples import SampleIndex, read_index, read_response_texts
from deft_engine.errors import DataError, ModelError
from deft_engine.grading import Levels, read_level_columns
from deft_engine.ranking import ranks_by_reward
from deft_engine.run import StageContext
from deft_engine.safetensors_writer import write_safetensors
from deft_engine.scores import ScoreTable, read_score_table, require_same_samples
from deft_engine.spec_sections import Scale, Thresholds
from deft_engine.stages import DistributionSpec, RankBy
from deft_engine.token_counter import TokenCounter

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

Mask = npt.NDArray[np.bool_]
Counts = npt.NDArray[np.int64]
Floats = npt.NDArray[np.float64]

_SHOWN_TOKENS = 40  # each way, in qdiff_tokens.json


@dataclass(frozen=True, slots=True)
class QDiff:
    """Q+, Q- and Q_diff, each ``[vocab]`` float64; Q+ and Q- sum to 1, Q_diff to 0."""

    q_pos: Floats
    q_neg: Floats
    q_diff: Floats
    tokenizer_sha256: str
    tokens_pos: int
    tokens_neg: int
    """Tokens that were counted into Q+ and into Q-."""

    def scaled(self, scale: Scale) -> Floats:
        """``[vocab]``; ``normalised``: Q_diff of eq 14, ``counts``: the difference of the counts."""
        if scale == "normalised":
            return self.q_diff
        return np.rint(self.q_pos * self.tokens_pos) - np.rint(self.q_neg * self.tokens_neg)


def run(context: StageContext[DistributionSpec]) -> dict[str, Any]:
    """Count the input ``samples``; write Q_diff and its foremost tokens.

    The inputs ``scores`` and ``levels`` say which responses count where; without them y_1 counts into Q+ and
    y_l into Q-, whatever their levels, as a pair's always do.

    Raises:
        DataError: the inputs do not belong together, a reward is missing, or Q+ or Q- has no token.
        ModelError: the tokenizer cannot be used.
    """
    from deft_engine.tokenizer import load_tokenizer, tokenizer_sha256

    samples = context.path("samples")
    index = read_index(samples)
    counted = np.repeat(counted_samples(index.ids, context.spec.percent), np.diff(index.offsets))
    positive, negative = (mask & counted for mask in _selected(context, index))
    tokenizer = load_tokenizer(context.inputs["tokenizer"])
    counter = TokenCounter(tokenizer, positive, negative)
    for responses in counter.count(read_response_texts(samples)):
        context.stop.check()
        context.events.progress(responses, len(positive))
    digest = tokenizer_sha256(tokenizer)
    qdiff = subtract(counter.positive_counts, counter.negative_counts, digest)
    counts = {
        "tokens_pos": qdiff.tokens_pos,
        "tokens_neg": qdiff.tokens_neg,
        "responses_pos": int(positive.sum()),
        "responses_neg": int(negative.sum()),
    }
    metadata = {"tokenizer_sha256": digest} | {name: str(count) for name, count in counts.items()}
    write_safetensors(
        context.out / "qdiff.safetensors",
        {"q_pos": qdiff.q_pos, "q_neg": qdiff.q_neg, "q_diff": qdiff.q_diff},
        metadata,
    )
    tokens = _foremost_tokens(qdiff, tokenizer)
    (context.out / "qdiff_tokens.json").write_text(json.dumps(tokens, ensure_ascii=False), encoding="utf-8")
    return counts | {
        side: [{"text": token["text"], "q_diff": token["q_diff"]} for token in ranked]
        for side, ranked in tokens.items()
    }


def _selected(context: StageContext[DistributionSpec], index: SampleIndex) -> tuple[Mask, Mask]:
    if "scores" not in context.inputs:
        return select_ends(index.offsets)
    table = read_score_table(context.path("scores"))
    require_same_samples(table.ids, index, "the scores")
    level_ids, levels = read_level_columns(context.path("levels"))
    require_same_samples(level_ids, index, "the levels")
    return select_responses(table, levels, context.spec.thresholds, context.spec.rank_by)


def counted_samples(ids: Sequence[str], percent: float) -> Mask:
    """Which samples ``[samples]`` are counted: the ``percent`` of them whose ids have the smallest hashes."""
    if percent == 100:
        return np.ones(len(ids), dtype=bool)
    wanted = math.ceil(percent / 100 * len(ids))
    hashes = [sha256_hex(sample_id.encode()) for sample_id in ids]
    counted = np.zeros(len(ids), dtype=bool)
    counted[np.argsort(hashes, kind="stable")[:wanted]] = True
    return counted


def load_qdiff(path: Path, tokenizer_sha256: str) -> QDiff:
    """Read a ``qdiff.safetensors``.

    Raises:
        ModelError: it was counted with another tokenizer.
    """
    from safetensors import safe_open

    with safe_open(path, framework="numpy") as file:
        metadata = file.metadata() or {}
        counted_with = metadata.get("tokenizer_sha256", "")
        if counted_with != tokenizer_sha256:
            raise ModelError(
                f"Q_diff was counted with another tokenizer (sha256 {counted_with[:12]}) than the model's "
                f"({tokenizer_sha256[:12]})",
                hint="run the distribution stage with the policy's own tokenizer",
            )
        q_pos, q_neg, q_diff = (file.get_tensor(name) for name in ("q_pos", "q_neg", "q_diff"))
    return QDiff(q_pos, q_neg, q_diff, counted_with, int(metadata["tokens_pos"]), int(metadata["tokens_neg"]))


def select_responses(
    table: ScoreTable, levels: Levels, thresholds: Thresholds, rank_by: RankBy
) -> tuple[Mask, Mask]:
    """Which responses ``[responses]`` count into Q+, and which into Q-.

    The best response of a sample always counts into Q+, the worst into Q-. A response between them, with its
    min-max reward (eq 15), counts into Q+ above the level's upper threshold and into Q- below its lower one,
    both strict. Where all rewards of a sample are equal, those between count into neither.

    Args:
        levels: ``[samples]`` "A", "B" or "C".

    Raises:
        DataError: a reward that this needs is missing; samples of two annotated responses need none.
    """
    starts, lengths = table.offsets[:-1], np.diff(table.offsets)
    owner = np.repeat(np.arange(len(lengths)), lengths)
    by_reward = np.where(lengths == 2, ranks_by_reward(2, rank_by), ranks_by_reward(3, rank_by))
    lowest, highest = (f.reduceat(table.rewards, starts) for f in (np.minimum, np.maximum))
    _require_rewards(table, np.isnan(lowest) & (by_reward | (lengths > 2)))

    # stable: equal rewards stay in annotated order
    order = np.lexsort((np.where(by_reward[owner], -table.rewards, 0.0), owner))
    positive = np.zeros(len(owner), dtype=bool)
    negative = np.zeros(len(owner), dtype=bool)
    positive[order[starts]] = True
    negative[order[table.offsets[1:] - 1]] = True

    spread = (highest - lowest)[owner]
    between = ~positive & ~negative & (spread > 0)
    relative = np.divide(table.rewards - lowest[owner], spread, out=np.zeros(len(owner)), where=between)
    level = levels[owner]
    above = ((level == "A") & (relative > thresholds.a_positive)) | (
        (level == "B") & (relative > thresholds.b_positive)
    )
    below = ((level == "B") & (relative < thresholds.b_negative)) | (
        (level == "C") & (relative < thresholds.c_negative)
    )
    return positive | (between & above), negative | (between & below)


def select_ends(offsets: Counts) -> tuple[Mask, Mask]:
    """Which responses ``[responses]`` are a sample's y_1 as annotated, and which its y_l."""
    positive = np.zeros(int(offsets[-1]), dtype=bool)
    negative = positive.copy()
    positive[offsets[:-1]] = True
    negative[offsets[1:] - 1] = True
    return positive, negative


def subtract(positive_counts: Counts, negative_counts: Counts, tokenizer_sha256: str) -> QDiff:
    """Q+, Q- (each normalised to sum 1) and Q_diff from token counts ``[vocab]``.

    What rounding leaves of the sum of Q_diff is taken off its smallest entry, whose own rounding is finest:
    the distribution reward rests on that sum being zero.

    Raises:
        DataError: one of the two has no token.
    """
    for name, counts in (("Q+", positive_counts), ("Q-", negative_counts)):
        if not counts.any():
            raise DataError(
                f"{name} is empty: its responses have no token",
                hint="check the responses' text and the tokenizer",
                code="empty_distribution",
            )
    q_pos = positive_counts / positive_counts.sum()
    q_neg = negative_counts / negative_counts.sum()
    q_diff = q_pos - q_neg
    smallest = np.where(q_diff == 0, np.inf, np.abs(q_diff)).argmin()
    q_diff[smallest] -= math.fsum(q_diff.tolist())
    return QDiff(
        q_pos, q_neg, q_diff, tokenizer_sha256, int(positive_counts.sum()), int(negative_counts.sum())
    )


def _require_rewards(table: ScoreTable, missing: Mask) -> None:
    if missing.any():
        first = int(missing.argmax())
        raise DataError(
            f'sample "{table.ids[first]}" (number {first + 1}) lacks a reward that its distribution needs',
            hint="set deft.grader.scope to all, or give every response a score",
            code="missing_score",
        )


def _foremost_tokens(qdiff: QDiff, tokenizer: PreTrainedTokenizerBase) -> dict[str, list[dict[str, Any]]]:
    """The tokens of largest and of smallest Q_diff, the foremost first; equal ones by id."""

    def describe(token: int) -> dict[str, Any]:
        text = tokenizer.decode([token])
        return {
            "id": token,
            "text": tokenizer.convert_ids_to_tokens(token) if "\N{REPLACEMENT CHARACTER}" in text else text,
            "q_diff": float(qdiff.q_diff[token]),
            "q_pos": float(qdiff.q_pos[token]),
            "q_neg": float(qdiff.q_neg[token]),
        }

    descending = np.argsort(-qdiff.q_diff, kind="stable")[:_SHOWN_TOKENS].tolist()
    ascending = np.argsort(qdiff.q_diff, kind="stable")[:_SHOWN_TOKENS].tolist()
    return {
        "top_positive": [describe(token) for token in descending if qdiff.q_diff[token] > 0],
        "top_negative": [describe(token) for token in ascending if qdiff.q_diff[token] < 0],
    }
