"""Whoever opens a page gets a page, also when something is wrong; whoever asks the API gets a problem."""

from __future__ import annotations

import pytest
from fastapi.testclient import TestClient

from app.cookies import RATER_COOKIE
from app.db.models import Role
from app.main import create_app
from app.web import pages
from tests.api_world import Api, headers_for

BROWSER = {"Accept": "text/html,application/xhtml+xml,*/*;q=0.8", "Sec-Fetch-Site": "same-origin"}


@pytest.fixture
def logged_in(api: Api) -> TestClient:
    key = api.researcher["Authorization"].removeprefix("Bearer ")
    api.http.post("/login", data={"key": key}, headers=BROWSER, follow_redirects=False)
    return api.http


@pytest.mark.parametrize("path", ["/jobs/job_x/dashboard", "/datasets/ds_x/view", "/studies/stu_x/view"])
def test_a_page_of_nothing_says_so_as_a_page(logged_in: TestClient, path: str) -> None:
    answer = logged_in.get(path, headers=BROWSER)
    assert answer.status_code == 404
    assert answer.headers["content-type"].startswith("text/html")
    assert "script-src 'self'" in answer.headers["content-security-policy"]
    assert "<h1>Not found</h1>" in answer.text
    assert "_x&#39;; list them" in answer.text
    assert '<a href="/">' in answer.text
    assert answer.headers["x-request-id"] in answer.text
    as_problem = logged_in.get(path)
    assert as_problem.headers["content-type"] == "application/problem+json"


def test_a_script_reads_pages_with_its_key(api: Api) -> None:
    dataset = f"/datasets/{api.dataset()['id']}/view"
    for path in ("/", dataset):
        answer = api.get(path)
        assert (answer.status_code, answer.headers["content-type"]) == (200, "text/html; charset=utf-8")
    rater = headers_for(Role.ANNOTATOR)
    for headers, path, status in [
        (api.viewer, dataset, 200),
        (api.viewer, "/studies/stu_x/view", 403),
        (api.researcher, "/studies/stu_x/view", 404),
        (rater, dataset, 404),
        (rater, "/", 404),
        ({"Authorization": "Bearer deft_wrong"}, "/", 401),
        ({"Authorization": "Basic eDp5"}, "/", 303),
    ]:
        assert api.http.get(path, headers=headers, follow_redirects=False).status_code == status, path


@pytest.mark.parametrize("path", ["/jobs/%00/dashboard", "/datasets/%00/view"])
def test_a_page_of_no_name_says_so_too(logged_in: TestClient, path: str) -> None:
    assert logged_in.get(path, headers=BROWSER).status_code == 404


def test_an_address_with_nothing_and_one_that_is_no_text(api: Api) -> None:
    nothing = api.http.get("/nothing-here/<b>", headers=BROWSER)
    assert (nothing.status_code, "<h1>Not Found</h1>" in nothing.text) == (404, True)
    assert api.http.get("/nothing-here").json()["code"] == "not_found"
    assert "<h1>The request is not valid</h1>" in api.http.get("/studies/%00/view", headers=BROWSER).text
    wrong_method = api.http.post("/login/", headers=BROWSER)
    assert wrong_method.status_code == 404


def test_only_who_is_logged_in_sees_the_researcher_s_frame(logged_in: TestClient) -> None:
    framed = ['<header class="site">', "Log out", 'href="/#datasets"']
    page = logged_in.get("/nothing-here", headers=BROWSER).text
    assert [text in page for text in framed] == [True] * 3
    logged_in.cookies.clear()
    logged_in.cookies.set(RATER_COOKIE, "somebody's")
    for path in ("/nothing-here", "/annotate/x/y", "/studies/%00/view"):
        page = logged_in.get(path, headers=BROWSER).text
        assert "<h1>" in page
        assert [text in page for text in framed] == [False] * 3, path
        assert '<a href="/login">' in page


def test_a_refusal_is_a_page(api: Api) -> None:
    key = api.viewer["Authorization"].removeprefix("Bearer ")
    api.http.post("/login", data={"key": key}, headers=BROWSER, follow_redirects=False)
    answer = api.http.get("/studies/stu_x/view", headers=BROWSER)
    assert (answer.status_code, "<h1>Not allowed</h1>" in answer.text) == (403, True)


def test_the_api_answers_browsers_as_it_answers_scripts(logged_in: TestClient) -> None:
    for path in ("/jobs/job_x", "/datasets?limit=0"):
        assert logged_in.get(path, headers=BROWSER).headers["content-type"] == "application/problem+json"


def test_a_defect_is_a_page_that_says_nothing_of_the_inside(
    service_settings: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(*_: object, **__: object) -> None:
        raise RuntimeError("the inside")

    monkeypatch.setattr(pages, "_for_reader", broken)
    with TestClient(create_app(), raise_server_exceptions=False) as http:
        answer = http.get("/", headers=BROWSER)
        assert (answer.status_code, "the inside" in answer.text) == (500, False)
        assert "<h1>Something went wrong in the service</h1>" in answer.text
        assert answer.headers["x-request-id"] in answer.text
        assert http.get("/").json()["code"] == "internal_error"
