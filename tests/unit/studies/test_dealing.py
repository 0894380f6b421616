"""When gold and repeats are due."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from app.db.models import Purpose
from app.studies.dealing import due


@given(
    rater=st.text(min_size=1, max_size=8),
    purpose=st.sampled_from([Purpose.GOLD, Purpose.REPEAT]),
    share=st.floats(0.01, 0.5),
)
def test_there_is_one_in_each_block_wherever_a_rater_stops(
    rater: str, purpose: Purpose, share: float
) -> None:
    told = [due(rater, purpose, share, pairs) for pairs in range(200)]
    assert told[0] == 0
    assert told == sorted(told)
    assert all(abs(count - pairs * share) < 1 for pairs, count in enumerate(told))


def test_the_place_in_a_block_is_each_rater_s_own_and_any() -> None:
    def first(rater: str, purpose: Purpose) -> int:
        return next(pairs for pairs in range(12) if due(rater, purpose, 0.1, pairs) == 1)

    places = [first(f"ann_{number}", Purpose.GOLD) for number in range(3000)]
    for place in range(1, 11):  # 300 expected, standard deviation 16.4; five of those on either side
        assert 218 < places.count(place) < 382
    both = [first(f"ann_{number}", Purpose.REPEAT) == place for number, place in enumerate(places)]
    assert 218 < sum(both) < 382


def test_no_share_is_never_due() -> None:
    assert [due("ann", Purpose.REPEAT, 0.0, pairs) for pairs in (0, 1, 1000)] == [0, 0, 0]


def test_a_block_s_end_is_exact() -> None:
    assert due("ann", Purpose.GOLD, 0.25, 40) == 10
    assert due("ann", Purpose.GOLD, 0.1, 30) == 3
