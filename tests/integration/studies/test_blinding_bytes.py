"""Nothing that a rater receives tells which system wrote an answer, but the answers themselves."""

from __future__ import annotations

import json
import re
from collections import Counter, defaultdict
from collections.abc import Iterator
from datetime import timedelta
from typing import Any

from fastapi.testclient import TestClient
from scipy.stats import binomtest
from sqlalchemy import select
from sqlalchemy.orm import Session

from app.db.models import Annotator, ApiKey, Assignment, Choice, Role, StudyItem
from app.db.session import transaction
from app.ids import new_id
from app.keys import create_key, hash_secret
from app.main import create_app
from app.studies.answers import Ballot, vote
from app.studies.assignments import next_pair
from tests.study_world import MODEL, Rater, Row, Service, evaluated_job

# Words that would name a side, a system or an order; none of them may reach a rater.
FORBIDDEN = (
    "a_is_left", "is_left", "response_a", "response_b", "a_job", "b_job", "job_", "stu_item", "itm_",
    "winner", "system-a", "system_a", "secret-method", MODEL, "sample_id", "harmless-base", "helpful-base",
    '"position"', "manifest", "seed", "dpo", "deft-", "baseline",
)  # fmt: skip


def neutral_rows(word: str, counts: dict[str, int]) -> list[Row]:
    """Answers that differ between the systems in one word of equal length, and in nothing else."""
    return [
        Row(
            f"{subset}-{number:04d}",
            subset,
            [{"role": "user", "content": f"Ask {number}"}],
            f"{word} {number}.",
        )
        for subset, size in counts.items()
        for number in range(size)
    ]


def neutral_study(service: Service, counts: dict[str, int], protocol: str = "paper") -> dict[str, Any]:
    a = evaluated_job(neutral_rows("ochre", counts), name="secret-method-a")
    b = evaluated_job(neutral_rows("umber", counts), name="secret-method-b")
    body = {"name": "hidden name", "a": a, "b": b, "per_subset": 1000, "protocol": protocol}
    answer = service.http.post("/studies", json=body, headers=service.researcher)
    assert answer.status_code == 201, answer.text
    study: dict[str, Any] = answer.json()
    return study


def everything_received(rater: Rater) -> Iterator[tuple[str, str]]:
    """What each answer brought to a rater's browser over a whole study: (where, headers and body)."""

    def told(answer: Any) -> tuple[str, str]:
        headers = "\n".join(f"{name}: {value}" for name, value in answer.headers.items())
        return str(answer.request.url), f"{answer.status_code}\n{headers}\n\n{answer.text}"

    page = rater.http.get(rater.link)
    yield told(page)
    for path in re.findall(r'(?:href|src)="(/[^"]+)"', page.text):
        yield told(rater.http.get(path))
    yield told(rater.http.get("/annotate"))
    first = None
    while (answer := rater.next()).status_code != 204:
        yield told(answer)
        first = first or answer.json()["id"]
        yield told(rater.vote(answer.json()["id"], "left"))
    yield told(answer)
    yield told(rater.vote(first, "right"))
    yield told(rater.undo(first))
    yield told(rater.undo(first))
    yield told(rater.http.get(f"/studies/{rater.study}", headers=rater.headers))


def test_no_byte_names_a_system_a_side_or_an_order(service: Service) -> None:
    study = neutral_study(service, {"harmless-base": 4, "helpful-base": 4})
    rater = service.rater(study)
    with transaction() as session:
        hidden = [
            study["a"], study["b"], study["manifest_sha256"], "hidden name",
            *session.scalars(select(StudyItem.id)), *session.scalars(select(StudyItem.sample_id)),
        ]  # fmt: skip
    pages = list(everything_received(rater))
    assert len(pages) > 20
    for where, content in pages:
        for word in (*FORBIDDEN, *hidden):
            # The rater's own link and study id, and words of the criteria, are theirs to see.
            assert word.lower() not in content.lower(), (word, where)


def test_pairs_differ_by_texts_alone(service: Service) -> None:
    """Same fields in the same order, headers of the same names and lengths, whichever system stands left."""
    rater = service.rater(neutral_study(service, {"x": 20}))
    forms: dict[bool, set[Any]] = {True: set(), False: set()}
    for _ in range(20):
        answer = rater.next()
        pair = answer.json()
        shape = (
            tuple(json.loads(answer.text)),
            tuple((name, len(value)) for name, value in answer.headers.items() if name != "content-length"),
            len(pair["id"]),
            len(answer.content) - len(json.dumps(pair["prompt"])) - len(pair["left"] + pair["right"])
            - len(str(pair["done"])),
        )  # fmt: skip
        forms[pair["left"].startswith("ochre")].add(shape)
        rater.vote(pair["id"], "tie")
    assert forms[True] == forms[False]
    assert len(forms[True]) == 1
    assert tuple(next(iter(forms[True]))[0]) == ("id", "prompt", "left", "right", "criteria", "done", "total")


def test_sides_are_balanced_at_every_moment_per_rater_and_subset(service: Service) -> None:
    counts = {"x": 9, "y": 8}
    study = neutral_study(service, counts)
    for subset, size in counts.items():
        rater = service.rater(study, subset, [subset])
        lefts = 0
        for dealt in range(1, size + 1):
            pair = rater.pair()
            lefts += pair["left"].startswith("ochre")
            assert abs(lefts - (dealt - lefts)) <= 1
            rater.vote(pair["id"], "left")


def test_a_thousand_assignments_are_balanced_and_tell_no_side(service: Service) -> None:
    """Neither id, nor place in the order, nor number of the prompt, nor the pair before tells the side."""
    study = neutral_study(service, {"x": 50, "y": 50, "unrated": 1}, "rigorous")
    guesses: dict[str, list[bool]] = defaultdict(list)
    for number in range(10):
        with transaction() as session:
            rater = invite(session, study["id"], f"rater {number}", ["x", "y"])
            dealt = list(rate_all(session, rater))
            lefts: Counter[str] = Counter()
            rights: Counter[str] = Counter()
            for place, one in enumerate(dealt):
                subset, sample_id = one.item.subset, one.item.sample_id
                (lefts if one.a_is_left else rights)[subset] += 1
                assert abs(lefts[subset] - rights[subset]) <= 1
                guesses["first letter of the id"].append((one.id[4] < "h") == one.a_is_left)
                guesses["last letter of the id"].append((one.id[-1] < "h") == one.a_is_left)
                guesses["parity of the place"].append((place % 2 == 0) == one.a_is_left)
                guesses["half of the study"].append((place < 50) == one.a_is_left)
                guesses["parity of the sample"].append((int(sample_id[-1]) % 2 == 0) == one.a_is_left)
                if place > 0 and lefts[subset] != rights[subset]:
                    # the first of a block of two: the same side as the pair before it, or not
                    guesses["the pair before"].append(dealt[place - 1].a_is_left == one.a_is_left)
    assert len(guesses["half of the study"]) == 1000
    for hint, right in guesses.items():
        assert binomtest(sum(right), len(right)).pvalue > 1e-6, (hint, sum(right), len(right))


def invite(session: Session, study_id: str, name: str, subsets: list[str]) -> str:
    """An annotator without going through HTTP; returns the id."""
    key, text = create_key(session, name=name, role=Role.ANNOTATOR)
    annotator = Annotator(
        id=new_id("ann"),
        study_id=study_id,
        key_id=key.id,
        link_hash=hash_secret(text),
        name=name,
        subsets=subsets,
    )
    session.add(annotator)
    session.flush()
    return annotator.id


def rate_all(session: Session, annotator_id: str) -> Iterator[Assignment]:
    """Vote on every pair, as a rater does, and tell what was dealt, in order."""
    while (pair := next_pair(session, annotator_id, timedelta(minutes=30))) is not None:
        yield session.get_one(Assignment, pair.id)
        vote(session, annotator_id, pair.id, Ballot(Choice.TIE))
        session.flush()


def test_link_logs_in_with_a_strict_cookie_and_reads_nothing_else(service: Service) -> None:
    study = neutral_study(service, {"x": 3})
    rater = service.rater(study)
    with TestClient(create_app()) as browser:
        page = browser.get(rater.link)
        assert page.status_code == 200
        cookie = page.headers["set-cookie"].lower()
        assert "httponly" in cookie
        assert "samesite=strict" in cookie
        policy = page.headers["content-security-policy"]
        assert "default-src 'none'" in policy
        assert "script-src 'self'" in policy
        assert "unsafe" not in policy
        assert page.headers["referrer-policy"] == "no-referrer"
        assert page.headers["cache-control"] == "no-store"
        own = {"Sec-Fetch-Site": "same-origin"}
        nearby = {"Sec-Fetch-Site": "cross-site"}
        address = f"/studies/{study['id']}/assignments:next"
        assert browser.post(address, headers=nearby).status_code == 403
        assert browser.post(address, headers=own).status_code == 200
        for path in ("/studies", f"/studies/{study['id']}", f"/studies/{study['id']}/results", "/keys"):
            assert browser.get(path).status_code == 404, path


def test_wrong_revoked_and_missing_links_say_what_to_do(service: Service) -> None:
    rater = service.rater(neutral_study(service, {"x": 3}))
    with TestClient(create_app()) as browser:
        assert browser.get("/annotate/wrong").status_code == 404
        missing = browser.get("/annotate")
        assert missing.status_code == 401
        assert "Open your personal link again" in missing.text
    with transaction() as session:
        key_id = session.scalars(select(Annotator.key_id).where(Annotator.id == rater.id)).one()
        key = session.get_one(ApiKey, key_id)
        key.revoked_at = key.created_at
    with TestClient(create_app()) as browser:
        assert browser.get(rater.link).status_code == 404
    assert rater.next().status_code == 401
