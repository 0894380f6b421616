"""Many raters at once over HTTP: no vote is lost or doubled, and sides stay balanced."""

from __future__ import annotations

from collections import Counter

import pytest

from tests.served_process import served_process
from tests.study_load import books, invite, make_study, rate_at_once, researcher


@pytest.mark.slow
@pytest.mark.timeout(300)
def test_twenty_raters_at_once_lose_and_double_nothing(service_settings: None) -> None:
    counts = {"harmless-base": 150, "helpful-base": 150}
    with served_process() as service, researcher(service.url) as http:
        gold = [{"prompt": f"{n}?", "better": "yes", "worse": "no"} for n in range(8)]
        study = make_study(http, counts, raters_per_pair=3, repeats=0.1, gold=gold, tutorial=2)
        load = rate_at_once(service.url, study["id"], invite(http, study, 20), pause=0.05)
        found = books(http, study["id"])
    assert found.votes == len(load.votes)
    assert found.choices == Counter(load.votes.values())
    assert len(found.of_pair) == 300
    assert set(found.of_pair.values()) == {3}
    assert found.worst_balance <= 1
