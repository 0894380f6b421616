"""A classifier gets all that a rater's browser receives and how long it took, but the texts; it guesses."""

from __future__ import annotations

import json
import math
import random
import re
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import httpx
import pytest
from scipy.stats import binomtest
from sklearn.ensemble import HistGradientBoostingClassifier
from sklearn.feature_extraction import DictVectorizer
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import StratifiedKFold, cross_val_predict
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from tests.serving import serving
from tests.study_world import Row, Service, evaluated_job

VARIABLE = ("x-request-id", "date", "content-length")  # looked at by their characters or lengths
MODELS: dict[str, Callable[[], Any]] = {
    "linear": lambda: make_pipeline(StandardScaler(), LogisticRegression(C=0.1, max_iter=2000)),
    "trees": lambda: HistGradientBoostingClassifier(max_depth=3, max_iter=40),
}


@dataclass(frozen=True)
class Dealt:
    """What came with a pair, and which system stood left."""

    features: dict[str, float | str]
    a_is_left: bool


def study_of(service: Service, size: int) -> dict[str, Any]:
    """Answers that differ in length tenfold, in letters beyond ASCII and in what JSON escapes."""

    def answers(word: str, times: int) -> list[Row]:
        return [
            Row(f"{subset}-{number:04d}", subset, [{"role": "user", "content": f"Ask {number}"}],
                f'{word} {number}.\n"quoted" é' * (times + number % 7))
            for subset in ("x", "y")
            for number in range(size // 2)
        ]  # fmt: skip

    jobs = {
        "a": evaluated_job(answers("ochre", 40), name="a"),
        "b": evaluated_job(answers("umber", 4), name="b"),
    }
    body = {"name": "n", **jobs, "per_subset": size, "protocol": "rigorous"}
    answer = service.http.post("/studies", json=body, headers=service.researcher)
    assert answer.status_code == 201, answer.text
    study: dict[str, Any] = answer.json()
    return study


def characters(name: str, text: str) -> dict[str, float | str]:
    return {f"{name}[{i}]": float(ord(character)) for i, character in enumerate(text)}


def received(name: str, answer: httpx.Response, seconds: float) -> dict[str, float | str]:
    """Every byte of an answer, but texts and their length, and how long it took."""
    headers = [(key.decode(), value.decode()) for key, value in answer.headers.raw]
    body = answer.text
    pair = answer.json()
    for field in ("left", "right", "prompt"):
        if field in pair:
            raw = json.dumps(pair[field], ensure_ascii=False, separators=(",", ":"))
            assert raw in body  # as the service writes it
            body = body.replace(raw, "", 1)
    body = body.replace(pair["id"], "", 1)
    announced = float(answer.headers["content-length"]) - len(answer.content) + len(body.encode())
    found: dict[str, float | str] = {
        f"{name} status": str(answer.status_code),
        f"{name} header names": " ".join(key for key, _ in headers),
        f"{name} fields": " ".join(pair),
        f"{name} rest of the body": re.sub(r"\d+", "0", body),
        f"{name} content-length without texts": announced,
        f"{name} time": math.log(seconds),
    }
    found |= {f"{name} {key}": value for key, value in headers if key not in VARIABLE}
    found |= characters(f"{name} request id", answer.headers["x-request-id"].removeprefix("req_"))
    found |= {f"{name} second": float(answer.headers["date"].split(":")[-1].split()[0])}
    return found


def rate(address: str, invited: dict[str, Any], study: str) -> Iterator[Dealt]:
    """A rater's whole study by HTTP, the next pair asked for ahead, as the page does."""
    with httpx.Client(
        base_url=address, headers={"Authorization": f"Bearer {invited['key']}"}, timeout=60
    ) as http:

        def timed(path: str, **more: Any) -> tuple[httpx.Response, float]:
            start = time.perf_counter()
            answer = http.post(path, **more)
            return answer, time.perf_counter() - start

        path = f"/studies/{study}/assignments:next"
        answer, took = timed(path)
        place = 0
        while answer.status_code == 200:
            pair = answer.json()
            features = received("pair", answer, took)
            features |= characters("id", pair["id"].removeprefix("asg_"))
            features |= {"done": float(pair["done"]), "place": float(place), "odd place": float(place % 2)}
            following, took = timed(path, params={"after": pair["id"]})
            voted, vote_took = timed(f"/assignments/{pair['id']}", json={"choice": "tie"})
            features |= received("vote", voted, vote_took)
            yield Dealt(features, pair["left"].startswith("ochre"))
            answer = following
            place += 1
        assert answer.status_code == 204


def collect(service: Service, raters: int, pairs: int) -> list[Dealt]:
    study = study_of(service, pairs)
    dealt: list[Dealt] = []
    with serving() as address:
        for number in range(raters):
            asked = {"name": f"rater {number}", "subsets": ["x", "y"]}
            answer = service.http.post(
                f"/studies/{study['id']}/annotators", json=asked, headers=service.researcher
            )
            dealt += rate(address, answer.json(), study["id"])
    assert len(dealt) == raters * pairs
    return dealt


def right_guesses(model: Any, dealt: list[Dealt]) -> int:
    """Of sides that the classifier did not see in training."""
    table = DictVectorizer(sparse=False).fit_transform([one.features for one in dealt])
    sides = [one.a_is_left for one in dealt]
    folds = StratifiedKFold(10, shuffle=True, random_state=1)
    return int(sum(cross_val_predict(model, table, sides, cv=folds) == sides))


def check(dealt: list[Dealt], hint: float) -> None:
    """At chance as it is; far above with one hint among the features that is right that often."""
    dice = random.Random(1)
    hinted = [
        Dealt(one.features | {"hint": float(one.a_is_left == (dice.random() < hint))}, one.a_is_left)
        for one in dealt
    ]
    for name, model in MODELS.items():
        right = right_guesses(model(), dealt)
        # 99.9%: a test of a thousand runs that fails one time by chance
        interval = binomtest(right, len(dealt)).proportion_ci(0.999, "wilson")
        assert interval.low <= 0.5 <= interval.high, (name, right, len(dealt))
        told = right_guesses(model(), hinted)
        assert binomtest(told, len(dealt)).pvalue < 0.05, (name, told, len(dealt))


def test_a_classifier_cannot_tell_the_side(service: Service) -> None:
    check(collect(service, raters=2, pairs=80), hint=0.9)


@pytest.mark.slow
def test_a_classifier_cannot_tell_the_side_of_a_thousand(service: Service) -> None:
    check(collect(service, raters=4, pairs=250), hint=2 / 3)
