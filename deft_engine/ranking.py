"""Which response of a sample counts as best and which as worst: the rule ``rank_by``."""

from __future__ import annotations

from collections.abc import Sequence

from deft_engine.stages import RankBy


def ranks_by_reward(responses: int, rank_by: RankBy) -> bool:
    """Whether a sample of so many responses is ordered by reward, and not as annotated.

    ``auto`` trusts people where they compared two responses, and the rewards where there are more.
    """
    return rank_by == "reward" or (rank_by == "auto" and responses > 2)


def ranked_order(rewards: Sequence[float | None] | None, responses: int, rank_by: RankBy) -> list[int]:
    """Indices into the annotated responses, best first; equal rewards keep the annotated order.

    Raises:
        ValueError: the order needs rewards, and one is missing.
    """
    order = list(range(responses))
    if not ranks_by_reward(responses, rank_by):
        return order
    known = [reward for reward in rewards or () if reward is not None]
    if len(known) != responses:
        raise ValueError(f"{len(known)} of {responses} responses have a reward; ranking by reward needs all")
    return sorted(order, key=lambda index: -known[index])
