"""``report.html``: a job in one self-contained file, for somebody who knows the paper and not this project.

It is made from the job's manifest, the curves of its training and three small artifacts. The page loads
nothing, runs no script, and every text of a model or a user is escaped.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from functools import cache
from importlib.resources import files
from itertools import islice
from pathlib import Path
from typing import Any

import jinja2

from deft_engine.report_charts import HEIGHT, WIDTH, Curve, Points, curve, histogram
from deft_engine.report_radar import radar

REPORT = "report.html"
CURVES = (
    "loss", "rewards/margins", "rewards/accuracies", "logps/chosen", "logps/rejected", "deft/r_dis",
    "deft/grad_share", "grad_norm",
)  # fmt: skip
"""Metrics of a training that a report draws, in its order."""

REPORTED = ("grading.json", "qdiff_tokens.json", "generations.jsonl")
"""Artifacts that a report reads where the job has them."""

_WHOLE_FROM = 10_000  # a mean count of tokens is read as a number, not as a power of ten
_SHOWN_TOKENS = 20
_SHOWN_SAMPLES = 8
_SHOWN_CHARACTERS = 2_000  # of a prompt or an answer


@dataclass(frozen=True, slots=True)
class Answered:
    """A prompt with the model's answer and the annotated one."""

    subset: str
    prompt: str
    response: str
    reference: str


def render_report(
    manifest: Mapping[str, Any], curves: Mapping[str, Points], artifacts: Mapping[str, Path]
) -> str:
    """The page.

    Args:
        manifest: ``manifest.json`` of a job that succeeded.
        curves: Metric -> its points, for the names of ``CURVES`` that the job has.
        artifacts: Name -> file, of those of ``REPORTED`` that the job has.

    Raises:
        OSError: an artifact cannot be read.
    """
    stages = manifest["stages"]
    results = {stage["stage"]: stage["result"] or {} for stage in stages}
    return report_template("report.html.j2").render(
        name=manifest["spec"]["name"],
        kind=manifest["spec"]["kind"],
        job=manifest.get("job"),
        sentences=describe(manifest["spec"], results),
        warnings=all_warnings(manifest),
        imports=[stage["result"] for stage in stages if stage["stage"] == "import" and stage["result"]],
        grade=results.get("grade"),
        histograms=[histogram(*entry) for entry in _read_json(artifacts, "grading.json").items()],
        tokens=_token_tables(_read_json(artifacts, "qdiff_tokens.json")),
        training=results.get("train") or results.get("train_reward"),
        curves=_drawn(curves),
        evaluation=results.get("evaluate") or results.get("reward_quality"),
        calibration=results.get("reward_quality", {}).get("calibration"),
        judged=results.get("judge"),
        radar=radar(results.get("judge") or {}),
        samples=_samples(artifacts.get("generations.jsonl")),
        stages=[(stage, _seconds(stage)) for stage in stages],
        versions=stages[-1].get("versions", {}),
        spec=json.dumps(manifest["spec"], indent=2, ensure_ascii=False),
        width=WIDTH,
        height=HEIGHT,
    )


def describe(spec: Mapping[str, Any], results: Mapping[str, Any]) -> list[str]:
    """What the job did, in sentences: method, data, distribution reward."""
    match spec["kind"]:
        case "grade":
            return [_grading_sentence(spec["deft"])]
        case "reward_model":
            return [f"A reward model was trained from {spec['model']['base']} on ranked responses (eq 1)."]
        case "evaluate":
            return [_describe_evaluation(spec)]
        case "augment":
            what = "refined the references" if spec["mode"] == "reference" else "wrote a further response"
            return [f"{_endpoint_name(spec['endpoint'])} {what} for the samples of {spec['dataset']}."]
        case "judge":
            return _describe_judging(results.get("judge", {}))
        case _:
            return _describe_alignment(spec, results)


def _describe_judging(found: Mapping[str, Any]) -> list[str]:
    """MT-Bench: ratings by category and turn, or wins against another model."""
    if not found:
        return []
    if "against" in found:
        total = found["total"]
        return [
            f"{found['judge']} compared the answers of {found['model']} to MT-Bench with those of "
            f"{found['against']}, in both orders: {total['wins']} won, {total['ties']} tied, "
            f"{total['losses']} lost.",
            f"Signature: {found['signature']}.",
        ]
    by_turn = ", ".join(f"turn {turn}: {_rating(figure)}" for turn, figure in found["turns"].items())
    by_category = ", ".join(f"{name}: {_rating(figure)}" for name, figure in found["categories"].items())
    return [
        f"{found['judge']} graded the answers of {found['model']} to MT-Bench from 1 to 10: "
        f"{_rating(found['total'])} over all of {found['total']['n']} ratings ({by_turn}).",
        f"By category: {by_category}.",
        f"Signature: {found['signature']}.",
    ]


def answering_name(model: Mapping[str, Any]) -> str:
    """Who answers in a job of kind ``evaluate``."""
    if "generations" in model:
        return f"The model behind the imported generations {model['generations']}"
    return _endpoint_name(model["endpoint"]) if "endpoint" in model else str(model["base"])


def _describe_evaluation(spec: Mapping[str, Any]) -> str:
    if "reward_model" not in spec["model"]:
        how = "elsewhere" if "generations" in spec["model"] else "greedily"
        return f"{answering_name(spec['model'])} answered the prompts of {spec['eval_dataset']}, {how}."
    other = spec["evaluation"]["reward_model"]
    compared = f", and compared with {other}" if other else ""
    return (
        f"The reward model {spec['model']['reward_model']} ranked the annotated best response of each sample "
        f"of {spec['eval_dataset']} against the worst{compared}. Beside its accuracy stands that of the rule "
        '"the longer response wins".'
    )


def _rating(figure: Mapping[str, Any]) -> str:
    return "no rating" if figure["value"] is None else f"{figure['value']:.2f}"


def _describe_alignment(spec: Mapping[str, Any], results: Mapping[str, Any]) -> list[str]:
    method, deft = spec["method"]["name"].upper(), spec["deft"]
    base = spec["model"]["base"]
    if deft is None:
        return [f"{base} was trained by {method} on all samples, without DEFT: the plain method."]
    levels = " and ".join(deft["levels"])
    said = [
        f"{base} was trained by {method} in its DEFT form (eq 18) on the samples of level {levels}.",
        _grading_sentence(deft),
    ]
    omega = results.get("train", {}).get("omega")
    if omega is None:
        return [*said, "Without the distribution reward (omega is 0): the ablation of the paper's Table 3."]
    share = results.get("train", {}).get("grad_share")
    measured = f", measured as {share:.2g} of the base loss's gradient" if share is not None else ""
    return [*said, f"The distribution reward R_dis (eqs 16-17) had the weight omega = {omega:.3g}{measured}."]


def _endpoint_name(endpoint: Mapping[str, Any]) -> str:
    return f"{endpoint['model']} at {endpoint['url']}"


def _grading_sentence(deft: Mapping[str, Any]) -> str:
    grader = deft["grader"]
    by = {"scores": "the scores in the file", "reward_model": f"the reward model {grader.get('model')}"}
    return (
        f"Level A is the best {deft['a']:g} percent of each subset and level C the worst {deft['c']:g} "
        f"percent, by {by.get(grader['name'], 'the grader ' + grader['name'])} (section 3.1)."
    )


@cache
def report_template(name: str) -> jinja2.Template:
    """A report's template from ``deft_engine``, escaping every text, with the style that reports share."""
    environment = jinja2.Environment(autoescape=True, trim_blocks=True, lstrip_blocks=True)
    environment.undefined = jinja2.ChainableUndefined  # a stage that is reused may be of an earlier version
    environment.filters["figure"] = _figure
    environment.globals["style"] = _text("report.css")
    return environment.from_string(_text(name))


def _text(name: str) -> str:
    return files("deft_engine").joinpath(name).read_text("utf-8")


def _figure(value: float | int | str | jinja2.Undefined | None) -> str:
    """A number as people read it; an int whole, what is not there as a dash."""
    if value is None or isinstance(value, jinja2.Undefined):
        return "–"
    if isinstance(value, float):
        return f"{value:.4g}" if abs(value) < _WHOLE_FROM else f"{value:,.0f}"
    return f"{value:,}" if isinstance(value, int) else value


def _read_json(artifacts: Mapping[str, Path], name: str) -> dict[str, Any]:
    return json.loads(artifacts[name].read_bytes()) if name in artifacts else {}


def _token_tables(tokens: Mapping[str, Any]) -> list[tuple[str, list[tuple[str, float, float]]]]:
    """Title -> rows of (token, its Q_diff, the share of the table's largest |Q_diff|)."""
    tables = []
    for title, key in (("More in good answers", "top_positive"), ("More in bad answers", "top_negative")):
        rows = tokens.get(key, [])[:_SHOWN_TOKENS]
        largest = max((abs(row["q_diff"]) for row in rows), default=1.0)
        if rows:
            shown = [(json.dumps(row["text"], ensure_ascii=False)[1:-1], row["q_diff"]) for row in rows]
            tables.append((title, [(text, q_diff, abs(q_diff) / largest) for text, q_diff in shown]))
    return tables


def _drawn(curves: Mapping[str, Points]) -> list[Curve]:
    drawn = (curve(name, curves.get(name, ())) for name in CURVES)
    return [each for each in drawn if each is not None]


def _samples(path: Path | None) -> list[Answered]:
    """The first generations; they are a seeded random choice already."""
    if path is None:
        return []
    with path.open(encoding="utf-8") as lines:
        rows = [json.loads(line) for line in islice(lines, _SHOWN_SAMPLES)]
    return [
        Answered(
            row["subset"],
            shortened("\n\n".join(f"{turn['role']}: {turn['content']}" for turn in row["prompt"])),
            shortened(row["response"]),
            shortened(row["reference"]),
        )
        for row in rows
    ]


def shortened(text: str) -> str:
    """As much of a prompt or an answer as a report shows."""
    return text if len(text) <= _SHOWN_CHARACTERS else text[:_SHOWN_CHARACTERS] + " […]"


def all_warnings(manifest: Mapping[str, Any]) -> list[str]:
    """The plan's warnings and those of stages, each once."""
    told = [text for stage in manifest["stages"] for text in (stage["result"] or {}).get("warnings", ())]
    return list(dict.fromkeys([*manifest["warnings"], *told]))


def _seconds(stage: Mapping[str, Any]) -> float | None:
    if "finished_at" not in stage:
        return None
    started, finished = (datetime.fromisoformat(stage[key]) for key in ("started_at", "finished_at"))
    return (finished - started).total_seconds()
