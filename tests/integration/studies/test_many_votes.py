"""Ten thousand votes: what a researcher's look at them costs, in time of a core whatever else runs."""

from __future__ import annotations

import random
import subprocess
import sys
import time
from datetime import UTC, datetime

import pytest
import sqlalchemy as sa

from app.db.models import Annotator, Assignment, Choice, ItemKind, Purpose, Standing, StudyItem, Vote
from app.db.session import transaction
from app.ids import new_id
from tests.study_world import Service

COUNTS = {"harmless-base": 2500, "helpful-base": 2500}
RATERS, RATERS_PER_PAIR = 50, 2


def fill(study: str) -> None:
    """Vote on every pair by some of the study's raters, straight into the tables."""
    dice = random.Random(1)
    with transaction() as session:
        raters = session.scalars(sa.select(Annotator.id).where(Annotator.study_id == study)).all()
        pairs = sa.select(StudyItem.id).where(StudyItem.study_id == study, StudyItem.kind == ItemKind.PAIR)
        dealt = [
            {
                "id": new_id("asg"),
                "annotator_id": rater,
                "item_id": item,
                "purpose": Purpose.PAIR,
                "standing": Standing.VOTED,
                "a_is_left": dice.random() < 0.5,
                "lease_until": datetime.now(UTC),
            }
            for item in session.scalars(pairs)
            for rater in dice.sample(raters, RATERS_PER_PAIR)
        ]
        session.execute(sa.insert(Assignment), dealt)
        votes = [{"assignment_id": one["id"], "choice": dice.choice(list(Choice))} for one in dealt]
        session.execute(sa.insert(Vote), [{**vote, "late": False} for vote in votes])


@pytest.mark.slow
def test_the_results_of_ten_thousand_votes_take_less_than_a_second_of_a_core(service: Service) -> None:
    study = service.study(COUNTS, per_subset=2500, protocol="rigorous", raters_per_pair=RATERS_PER_PAIR)
    for number in range(RATERS):
        service.rater(study, f"rater {number}")
    fill(study["id"])
    spent = []
    for _ in range(3):
        started = time.process_time()
        found = service.http.get(f"/studies/{study['id']}/results", headers=service.researcher).json()
        spent.append(time.process_time() - started)
    assert found["total"]["n"] == 10_000
    assert found["agreement"]["pairs"] == 5_000
    assert min(spent) < 1.0


def test_figures_of_votes_wait_for_no_import_of_scipy_stats() -> None:
    """It takes more than a second, during which the process answers nobody."""
    code = (
        "import sys\n"
        "from app.studies.statistics import Judgment, outcome\n"
        "votes = [Judgment(str(n % 9), 's', str(n % 5), 'left', 'ab'[n % 2], longer=n) for n in range(90)]\n"
        "found = outcome(votes)\n"
        "assert found.win_rate.interval and found.length_controlled.interval and found.sign_test.p_value\n"
        "sys.exit('scipy.stats' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
