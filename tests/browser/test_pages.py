"""A researcher in Chromium on the whole service: log in, upload, send a job, watch it, read what it made.

Every name and text of this data is an attack: it must show as text, and nothing of it may run.
"""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from playwright.sync_api import Page, expect

from deft_client.demo_data import generate
from deft_client.models import Dataset, Job
from tests.browser.watched import Watched
from tests.whole_service import JOB_SECONDS, WholeService

pytestmark = [pytest.mark.browser, pytest.mark.timeout(900)]  # the whole of a job runs meanwhile

ATTACK = "<img src=x onerror=alert(1)>"
ROWS, STEPS, EVALUATED = 40, 100, 8
OPEN, FIRST = 2, 6  # of the generations
BROKEN_LINE = 3
MILLISECONDS = 1000
PLOTLY_STYLE = re.compile(r"error: (Applying|Refused to apply) inline style .*style-src", re.S)
CONTROLS = "a[href], button, input:not([type=hidden]), select, textarea, summary"
POSITION = "controls => [...document.querySelectorAll(controls)].indexOf(document.activeElement)"
VISIBLE = """nodes => nodes.flatMap((node, position) =>
    node.checkVisibility() && !node.disabled ? [position] : [])"""


@pytest.fixture(scope="module")
def hostile_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Ranked rows whose subsets, prompts and responses are attacks, and one line that is no JSON."""
    lines = []
    for row in generate(ROWS, seed=9):
        prompt = (
            [{"role": "user", "content": row["prompt"]}] if isinstance(row["prompt"], str) else row["prompt"]
        )
        hostile = {
            **row,
            "subset": f"{row['subset']} {ATTACK}",
            "prompt": [{**message, "content": f"{ATTACK} {message['content']}"} for message in prompt],
            "responses": [{**each, "text": f"{each['text']} {ATTACK}"} for each in row["responses"]],
        }
        lines.append(json.dumps(hostile))
    lines.insert(BROKEN_LINE - 1, ATTACK)
    path = tmp_path_factory.mktemp("hostile") / f"{ATTACK}.jsonl".replace("/", "")
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")
    return path


def job_spec(dataset_id: str) -> dict[str, Any]:
    """DEFT-DPO with enough steps to watch it."""
    return {
        "kind": "align",
        "name": ATTACK,
        "dataset": dataset_id,
        "preset": "deft-dpo",
        "model": {"base": "tiny"},
        "deft": {"a": 20},
        "training": {"max_steps": STEPS, "learning_rate": 1e-3, "max_length": 128},
        "evaluation": {"samples": EVALUATED, "max_new_tokens": 8},
    }


@pytest.fixture(scope="module")
def dataset(whole_service: WholeService, hostile_file: Path) -> Dataset:
    return whole_service.dataset(hostile_file)


@pytest.fixture(scope="module")
def job(whole_service: WholeService, dataset: Dataset) -> Job:
    """The job that the first test sent; its stages are reused."""
    return whole_service.run(job_spec(dataset.id))


@pytest.fixture
def log_in(
    whole_service: WholeService, browse: Callable[..., Watched]
) -> Callable[..., tuple[Watched, Page]]:
    """Opens a page's address in a fresh context by way of the login page."""

    def open_page(path: str, **options: object) -> tuple[Watched, Page]:
        watched = browse(base_url=whole_service.url, **options)
        page = watched.open(whole_service.url + path)
        page.get_by_label("API key").fill(whole_service.key)
        page.keyboard.press("Enter")
        expect(page.get_by_role("button", name="Log out")).to_be_visible()
        assert page.url == whole_service.url + path
        return watched, page

    return open_page


def assert_quiet(watched: Watched, service: WholeService, *, charts: int = 0) -> None:
    """No text ran as markup, no other host was asked, and the console has only what Plotly leaves there."""
    assert [line for line in watched.console if not PLOTLY_STYLE.match(line)] == []
    assert len(watched.console) <= charts
    assert watched.hosts == {service.url.removeprefix("http://")}
    assert not any(url.endswith("/x") for url in watched.urls)


def wait_for_points(page: Page, chart: str, least: int) -> int:
    """Points of a chart's first curve, once there are so many."""
    handle = page.wait_for_function(
        """([chart, least]) => {
            const plot = document.querySelector(`.plot[aria-label="${chart}"]`);
            return plot?.data && plot.data[0].x.length >= least && plot.data[0].x.length;
        }""",
        arg=[chart, least],
        timeout=JOB_SECONDS * MILLISECONDS,
    )
    return int(handle.json_value())


def test_from_the_login_to_the_results(
    whole_service: WholeService, browse: Callable[..., Watched], hostile_file: Path
) -> None:
    watched = browse()
    page = watched.open(whole_service.url)
    page.get_by_label("API key").fill("deft_wrong")
    page.get_by_role("button", name="Log in").click()
    expect(page.get_by_role("alert")).to_contain_text("unknown")
    assert len(watched.console) == 1  # the browser's own line on the 401
    watched.console.clear()
    page.get_by_label("API key").fill(whole_service.key)
    page.get_by_role("button", name="Log in").click()

    page.locator("summary", has_text="Upload").click()
    page.get_by_label("JSONL, JSON array or Parquet, plain or .gz").set_input_files(hostile_file)
    page.get_by_label("Name", exact=True).first.fill(ATTACK)
    page.get_by_role("button", name="Upload").click()
    row = page.locator("#dataset-rows tr", has_text=ATTACK).first
    expect(row.locator(".status")).to_have_text("ready", timeout=JOB_SECONDS * MILLISECONDS)
    assert row.locator("td").all_inner_texts()[3:5] == [str(ROWS), "1"]
    dataset_id = row.locator("code").inner_text()

    page.locator("summary", has_text="New job").click()
    page.get_by_label("Spec").fill(json.dumps({**job_spec(dataset_id), "method": {"name": ATTACK}}))
    page.get_by_role("button", name="Send").click()
    expect(page.locator("#job-error")).to_contain_text("/method/name")
    assert [line for line in watched.console if "422" not in line] == []
    watched.console.clear()
    page.get_by_label("Spec").fill(json.dumps(job_spec(dataset_id)))
    page.get_by_role("button", name="Estimate only").click()
    expect(page.locator("#estimate")).to_contain_text(f'"steps": {STEPS}')
    page.get_by_role("button", name="Send").click()
    page.wait_for_url("**/dashboard")

    first = wait_for_points(page, "Loss", 2)
    training = page.locator("#stages li", has_text="train")
    expect(training.locator(".status")).to_have_text("running")
    assert 0 < float(training.locator("progress").get_attribute("value") or 0) < 1
    assert first < STEPS
    assert wait_for_points(page, "Loss", first + 1) > first  # without a reload
    expect(page.locator("#status")).to_have_text("succeeded", timeout=JOB_SECONDS * MILLISECONDS)
    assert wait_for_points(page, "Loss", STEPS) == STEPS
    for chart in ("Rewards", "Margin", "Accuracy", "Distribution reward", "Learning rate"):
        assert wait_for_points(page, chart, STEPS) == STEPS
    page.locator("#log summary").click()
    expect(page.locator("#log-lines")).to_contain_text("training on")
    assert_quiet(watched, whole_service, charts=20)


def test_a_finished_job_shows_what_it_made(
    whole_service: WholeService, log_in: Callable[..., tuple[Watched, Page]], dataset: Dataset, job: Job
) -> None:
    watched, page = log_in(f"/jobs/{job.id}/dashboard")
    assert dataset.subsets is not None
    assert job.result is not None
    expect(page.get_by_role("heading", level=1)).to_have_text(ATTACK)
    expect(page.locator("#generation-list dl")).to_have_count(FIRST)
    assert page.locator("#stages .status").all_inner_texts() == ["succeeded"] * len(job.stages)

    header = page.locator("#results-table th").all_inner_texts()
    assert header[:2] == ["Subset", "n"]
    assert set(header[2:]) == set(job.result["evaluate"]["total"])
    total = page.locator("#results-table tr", has_text="Total").locator("td").all_inner_texts()
    assert total[1] == str(EVALUATED)
    assert float(total[header.index("length")]) == pytest.approx(
        job.result["evaluate"]["total"]["length"]["value"], abs=0.01
    )
    for figure in header[2:]:
        expect(page.locator("#signatures")).to_contain_text(f"{figure}: ")
    expect(page.locator("#warnings")).to_contain_text("evaluated on the training data")

    expect(page.locator("#histograms .plot")).to_have_count(len(dataset.subsets))
    counted: Counter[str] = Counter()
    for traces in page.locator("#histograms .plot").evaluate_all("all => all.map(plot => plot.data)"):
        counted.update({trace["name"]: sum(trace["y"]) for trace in traces})
    assert counted == Counter(job.result["grade"]["levels"])

    for side in ("positive", "negative"):
        rows = page.locator(f"#{side} tr")
        assert rows.count() >= 10
        figures = [float(text) for text in rows.locator(".number").all_inner_texts()]
        assert all(figure > 0 for figure in figures) == (side == "positive")
        assert [abs(f) for f in figures] == sorted((abs(f) for f in figures), reverse=True)
        widths = rows.locator("i").evaluate_all("bars => bars.map(bar => bar.offsetWidth)")
        assert widths[0] > 0
        assert widths == sorted(widths, reverse=True)

    rated = page.locator("#generation-list dl").first
    assert ATTACK in rated.locator("dt").first.inner_text()
    assert rated.locator("dd").first.inner_text().startswith(f"user: {ATTACK} ")
    page.locator("#artifacts summary").click()
    with page.expect_download() as download:
        page.get_by_role("link", name="levels.parquet").click()
    assert Path(download.value.path()).read_bytes()[:4] == b"PAR1"
    assert page.locator("img").count() == 0
    assert_quiet(watched, whole_service, charts=20)


def test_generations_are_folded_and_unfold_by_keyboard(
    log_in: Callable[..., tuple[Watched, Page]], job: Job
) -> None:
    _, page = log_in(f"/jobs/{job.id}/dashboard")
    rows = page.locator("#generation-list details")
    expect(rows).to_have_count(FIRST)
    assert rows.evaluate_all("all => all.map(row => row.open)") == [True] * OPEN + [False] * (FIRST - OPEN)
    for row in rows.all()[OPEN:]:
        expect(row.locator("dl")).not_to_be_visible()
        box = row.bounding_box()
        assert box is not None
        assert box["height"] < 40  # one line, however long the prompt is
    rows.nth(OPEN).locator("summary").press("Enter")
    expect(rows.nth(OPEN).locator("dl")).to_be_visible()
    more = page.get_by_role("button", name="More generations")
    more.press("Enter")
    expect(rows).to_have_count(EVALUATED)
    expect(rows.nth(FIRST).locator("summary")).to_be_focused()
    expect(more).not_to_be_visible()
    page.keyboard.press("Enter")
    expect(rows.nth(FIRST).locator("dl")).to_be_visible()


def test_a_dataset_s_rows_by_subset_and_level(
    whole_service: WholeService, log_in: Callable[..., tuple[Watched, Page]], dataset: Dataset, job: Job
) -> None:
    watched, page = log_in(f"/datasets/{dataset.id}/view")
    assert dataset.subsets is not None
    assert job.result is not None
    expect(page.locator("#ledger td")).to_have_count(3)
    assert page.locator("#ledger td").all_inner_texts()[:2] == [str(BROKEN_LINE), "invalid_json"]
    assert dict(row.locator("td").all_inner_texts() for row in page.locator("#subsets tr").all()) == {
        name: str(size) for name, size in dataset.subsets.items()
    }
    expect(page.locator("#samples dl")).to_have_count(10)
    assert page.locator("#samples dd").first.inner_text().startswith(f"user: {ATTACK} ")
    page.get_by_role("button", name="More samples").click()
    expect(page.locator("#samples dl")).to_have_count(20)

    page.get_by_label("Level", exact=True).select_option("A")
    level_a = job.result["grade"]["levels"]["A"]
    expect(page.locator("#samples dl")).to_have_count(min(10, level_a))
    subset = max(dataset.subsets, key=lambda name: dataset.subsets[name])  # type: ignore[index]
    page.get_by_label("Subset", exact=True).select_option(subset)
    expect(page.locator("#samples dl")).to_have_count(job.result["grade"]["subsets"][subset]["A"])
    assert all(subset in title for title in page.locator("#samples dl > dt:first-child").all_inner_texts())
    assert page.locator("img").count() == 0
    assert_quiet(watched, whole_service)


def test_the_keyboard_reaches_every_control(
    log_in: Callable[..., tuple[Watched, Page]], dataset: Dataset, job: Job
) -> None:
    _, page = log_in("/")
    for path, ready in pages(dataset, job).items():
        page.goto(path)
        expect(page.locator(ready).first).to_be_attached()
        page.keyboard.press("Tab")
        expect(page.locator(":focus")).to_have_text("Skip to content")
        for summary in page.locator("summary").all():
            summary.press("Enter")
        page.locator(".skip").focus()
        reached = set()
        for _ in range(2 * page.locator(CONTROLS).count()):  # parts that scroll take the focus, too
            reached.add(page.evaluate(POSITION, CONTROLS))
            page.keyboard.press("Tab")
        visible = page.locator(CONTROLS).evaluate_all(VISIBLE)
        assert set(visible) <= reached, (path, set(visible) - reached)


def test_a_list_that_is_read_again_keeps_the_focus(
    whole_service: WholeService, log_in: Callable[..., tuple[Watched, Page]], dataset: Dataset, job: Job
) -> None:
    _, page = log_in("/")
    link = page.locator(f"#job-rows a[href='/jobs/{job.id}/dashboard']")
    link.focus()
    again = whole_service.client.jobs.create(job_spec(dataset.id))  # all reused: it ends at once
    expect(page.locator(f"#job-rows a[href='/jobs/{again.id}/dashboard']")).to_be_visible()
    expect(link).to_be_focused()


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_a_phone_s_width_in_light_and_dark(
    log_in: Callable[..., tuple[Watched, Page]], dataset: Dataset, job: Job, scheme: str, tmp_path: Path
) -> None:
    _, page = log_in("/", color_scheme=scheme, viewport={"width": 360, "height": 640})
    for number, (path, ready) in enumerate(pages(dataset, job).items()):
        page.goto(path)
        expect(page.locator(ready).first).to_be_attached()
        page.screenshot(path=tmp_path / f"{scheme}-{number}.png", full_page=True)
        assert page.evaluate("document.documentElement.scrollWidth") <= 360, path
        colours = page.evaluate(
            "() => ['color', 'backgroundColor'].map(name => getComputedStyle(document.body)[name])"
        )
        text, ground = (sum(int(part) for part in re.findall(r"\d+", colour)[:3]) for colour in colours)
        assert (text > ground) == (scheme == "dark")


def pages(dataset: Dataset, job: Job) -> dict[str, str]:
    """Each page's path, and what is there when it has drawn itself."""
    return {
        "/": "#job-rows a",
        f"/jobs/{job.id}/dashboard": "#generation-list dl",
        f"/datasets/{dataset.id}/view": "#samples dl",
    }


@pytest.mark.slow
def test_an_experiment_is_watched_and_read(
    whole_service: WholeService, log_in: Callable[..., tuple[Watched, Page]], dataset: Dataset
) -> None:
    spec = job_spec(dataset.id)
    base = {name: spec[name] for name in ("model", "deft", "evaluation")}
    arms = [{"name": f"DPO {ATTACK}", "preset": "dpo"}, {"name": "DEFT-DPO", "preset": "deft-dpo"}]
    sent = whole_service.client.experiments.create(
        {
            "name": ATTACK,
            "dataset": dataset.id,
            "eval_dataset": dataset.id,
            "base": {**base, "training": {"max_steps": 4, "max_length": 128}},
            "arms": arms,
            "seeds": [1],
            "baseline": arms[0]["name"],
        }
    )
    watched, page = log_in(f"/experiments/{sent.id}/view", viewport={"width": 390, "height": 800})
    expect(page.locator("#arm-rows tr")).to_have_count(2)
    expect(page.locator("#status")).to_have_text("succeeded", timeout=JOB_SECONDS * MILLISECONDS)
    expect(page.locator("#results-table tbody tr")).to_have_count(2)
    expect(page.locator("#difference-table")).to_contain_text(f"to {arms[0]['name']}")
    expect(page.locator("#charts .chart")).not_to_have_count(0)
    expect(page.locator("#pairs .pair")).to_have_count(5)
    page.get_by_role("button", name="More prompts").click()
    expect(page.locator("#pairs .pair")).to_have_count(EVALUATED)
    expect(page.locator("#cancel")).to_be_hidden()
    assert page.evaluate("document.documentElement.scrollWidth <= innerWidth")
    assert_quiet(watched, whole_service, charts=page.locator("#charts .chart").count())
    page.goto(whole_service.url + "/")
    expect(page.locator("#experiment-rows")).to_contain_text(ATTACK)
    page.goto(f"{whole_service.url}/experiments/{sent.id}/report.html")
    expect(page.get_by_role("heading", name="Results", exact=True)).to_be_visible()
