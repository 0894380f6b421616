"""An experiment's results: as JSON, as tables for other programs, and as a report."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Literal

from fastapi import APIRouter, Request
from starlette.responses import Response

from app.api.artifacts import REPORT_POLICY
from app.api.dependencies import ViewerBeforehand, problems
from app.api.downloads import file_answers, send_made
from app.api.lookup import ExperimentId
from app.api.schemas import Answer
from app.db.models import JobStatus
from app.errors import not_found
from app.experiments.exports import results_csv, results_tex
from app.experiments.report import experiment_report
from app.experiments.results import ArmResults, ExperimentResults, experiment_results
from app.experiments.status import experiment_status
from deft_engine.experiments.statistics import CONFIDENCE, RESAMPLES

router = APIRouter(prefix="/experiments/{experiment_id}", tags=["experiments"])

_METHOD = (
    "intervals and p-values by a paired bootstrap over samples with seeds as blocks; "
    "p_corrected by Holm over the arms of a figure and subset"
)


class ResultsView(Answer):
    """The table. Figures are there as soon as a job of an arm is evaluated."""

    object: Literal["experiment.results"] = "experiment.results"
    experiment: str
    name: str
    status: JobStatus
    complete: bool
    """Every job is evaluated."""
    baseline: str | None
    arms: list[ArmResults]
    method: str
    confidence: float
    resamples: int
    warnings: list[str]


@router.get("/results", operation_id="experiment_results", responses=problems())
def get_results(experiment_id: ExperimentId, caller: ViewerBeforehand) -> ResultsView:
    """Per arm, by subset and over all samples: mean over seeds, deviation, interval, and the paired
    difference to the baseline."""
    found = _results_or_404(experiment_id)
    return ResultsView(
        experiment=found.experiment.id,
        name=found.experiment.name,
        status=experiment_status([place.job.status for place in found.experiment.jobs]),
        complete=found.complete,
        baseline=found.spec.baseline,
        arms=found.arms,
        method=_METHOD,
        confidence=CONFIDENCE,
        resamples=RESAMPLES,
        warnings=found.warnings,
    )


@router.get(
    "/results.csv",
    operation_id="experiment_results_csv",
    response_class=Response,
    responses=file_answers("text/csv"),
)
def get_results_csv(experiment_id: ExperimentId, request: Request, caller: ViewerBeforehand) -> Response:
    """Every figure, a row each; opens in a spreadsheet without running a formula."""
    return _download(request, experiment_id, "csv", "text/csv; charset=utf-8", results_csv)


@router.get(
    "/results.tex",
    operation_id="experiment_results_tex",
    response_class=Response,
    responses=file_answers("text/x-tex"),
)
def get_results_tex(experiment_id: ExperimentId, request: Request, caller: ViewerBeforehand) -> Response:
    """The table in the paper's form for LaTeX with booktabs."""
    return _download(request, experiment_id, "tex", "text/x-tex; charset=utf-8", results_tex)


@router.get(
    "/report.html",
    operation_id="experiment_report",
    response_class=Response,
    responses=file_answers("text/html"),
)
def get_report(
    experiment_id: ExperimentId, request: Request, caller: ViewerBeforehand, cases: bool = True
) -> Response:
    """The experiment in one self-contained page: method, tables, cost, findings, and cases unless
    ``cases=false``, which leaves no text of the data or the models in it."""
    page = experiment_report(_results_or_404(experiment_id), cases=cases)
    content = page.encode(errors="backslashreplace")
    headers = {"Content-Security-Policy": REPORT_POLICY}
    return send_made(request, content, "text/html; charset=utf-8", headers)


def _download(
    request: Request,
    experiment_id: str,
    extension: str,
    media_type: str,
    render: Callable[[Sequence[ArmResults]], str],
) -> Response:
    arms = _results_or_404(experiment_id).arms
    headers = {"Content-Disposition": f'attachment; filename="{experiment_id}.{extension}"'}
    return send_made(request, render(arms).encode(), media_type, headers)


def _results_or_404(experiment_id: str) -> ExperimentResults:
    found = experiment_results(experiment_id)
    if found is None:
        raise not_found("experiment", experiment_id)
    return found
