"""Many raters at once, by HTTP: what they did, how long they waited, and whether the study has all of it."""

from __future__ import annotations

import asyncio
import csv
import io
import random
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import httpx

from app.db.models import Role
from tests.study_world import api_key, evaluated_job, rows

PATIENCE = 60.0
_LIMITS = httpx.Limits(keepalive_expiry=3.0)  # the server closes an idle connection after 5 seconds


@dataclass
class Load:
    """What simulated raters did: acknowledged votes by assignment, seconds of each request by its kind."""

    votes: dict[str, str] = field(default_factory=dict)
    waits: dict[str, list[float]] = field(default_factory=lambda: {"next": [], "vote": []})
    seconds: float = 0.0


def make_study(http: httpx.Client, counts: dict[str, int], **fields: Any) -> dict[str, Any]:
    """A study of two jobs with ``counts[subset]`` prompts."""
    jobs = {side: evaluated_job(rows(counts, f"system-{side}"), name=f"job {side}") for side in "ab"}
    body = {"name": "load", "per_subset": max(counts.values()), "protocol": "rigorous", **jobs, **fields}
    answer = http.post("/studies", json=body)
    assert answer.status_code == 201, answer.text
    study: dict[str, Any] = answer.json()
    return study


def invite(http: httpx.Client, study: dict[str, Any], raters: int) -> list[str]:
    """The keys of new raters of all subsets."""
    keys = []
    for number in range(raters):
        body = {"name": f"rater {number}", "subsets": list(study["subsets"])}
        answer = http.post(f"/studies/{study['id']}/annotators", json=body)
        assert answer.status_code == 201, answer.text
        keys.append(answer.json()["key"])
    return keys


def researcher(url: str) -> httpx.Client:
    """A client with a new researcher's key."""
    headers = {"Authorization": f"Bearer {api_key(Role.RESEARCHER)}"}
    return httpx.Client(base_url=url, headers=headers, timeout=PATIENCE)


def rate_at_once(url: str, study_id: str, keys: Sequence[str], pause: float) -> Load:
    """Every rater votes until nothing is left, after ``pause`` seconds on average with each pair."""
    load = Load()

    async def everybody() -> None:
        async with asyncio.TaskGroup() as group:
            for number, key in enumerate(keys):
                group.create_task(_rate(url, study_id, key, pause, random.Random(number), load))

    started = time.perf_counter()
    asyncio.run(everybody())
    load.seconds = time.perf_counter() - started
    return load


async def _rate(url: str, study_id: str, key: str, pause: float, dice: random.Random, load: Load) -> None:
    headers = {"Authorization": f"Bearer {key}"}
    async with httpx.AsyncClient(base_url=url, headers=headers, timeout=PATIENCE, limits=_LIMITS) as http:
        await asyncio.sleep(dice.random() * pause)  # nobody opens a link at the same instant
        while True:
            answer = await _timed(http, "next", f"/studies/{study_id}/assignments:next", {}, load)
            if answer.status_code == 204:
                return
            assert answer.status_code == 200, answer.text
            await asyncio.sleep(dice.expovariate(1 / pause) if pause else 0)
            assignment, choice = answer.json()["id"], dice.choice(["left", "tie", "right"])
            voted = await _timed(http, "vote", f"/assignments/{assignment}", {"choice": choice}, load)
            assert voted.status_code == 200, voted.text
            assert assignment not in load.votes
            load.votes[assignment] = choice


async def _timed(http: httpx.AsyncClient, kind: str, path: str, body: Any, load: Load) -> httpx.Response:
    started = time.perf_counter()
    answer = await http.post(path, json=body) if body else await http.post(path)
    load.waits[kind].append(time.perf_counter() - started)
    return answer


@dataclass(frozen=True)
class Books:
    """What a study's export says: votes in all, votes that count on each pair, and each rater's sides."""

    votes: int
    choices: Counter[str]
    of_pair: Counter[str]
    worst_balance: int  # of the counts of a on the left and on the right, over raters and subsets


def books(http: httpx.Client, study_id: str) -> Books:
    """Read the export, by plain loops."""
    table = list(csv.DictReader(io.StringIO(http.get(f"/studies/{study_id}/export.csv").text)))
    counted = [row for row in table if row["counted"] == "yes"]
    lead: Counter[tuple[str, str]] = Counter()
    for row in counted:
        lead[row["rater_id"], row["subset"]] += 1 if row["a_side"] == "left" else -1
    return Books(
        votes=len(table),
        choices=Counter(row["choice"] for row in table),
        of_pair=Counter(row["sample_id"] for row in counted),
        worst_balance=max(map(abs, lead.values()), default=0),
    )
