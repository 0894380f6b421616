"""From a request to jobs: presets, what the base may change of an arm, and what is refused."""

from __future__ import annotations

from collections import Counter
from typing import Any

import pytest
from pydantic import ValidationError

from deft_engine.experiments.arms import InvalidExperiment, jobs_of
from deft_engine.experiments.presets import experiment_preset_names, load_experiment_preset
from deft_engine.experiments.spec import ExperimentSpec
from deft_engine.planning import plan_job
from deft_engine.spec_sections import GradShare
from deft_engine.specs import AlignJob, EvaluateJob
from tests.orchestration_world import Names

GRADER = {"name": "reward_model", "model": "tiny"}
BASE = {"model": {"base": "tiny"}, "deft": {"grader": GRADER}, "training": {"max_steps": 2}}


def experiment(**fields: Any) -> ExperimentSpec:
    return ExperimentSpec.model_validate({"dataset": "d", "eval_dataset": "e", "base": BASE} | fields)


def align_jobs(**fields: Any) -> dict[str, AlignJob]:
    """The first seed's job of each arm, by the arm's name."""
    spec = experiment(**fields)
    found = {}
    for job in jobs_of(spec):
        assert isinstance(job.spec, AlignJob)
        found.setdefault(spec.arms[job.arm].name, job.spec)
    return found


def refused(**fields: Any) -> list[tuple[str, str]]:
    with pytest.raises(InvalidExperiment) as caught:
        jobs_of(experiment(**fields))
    return [(fault.pointer, fault.code) for fault in caught.value.faults]


@pytest.mark.parametrize("name", experiment_preset_names())
def test_every_preset_makes_jobs_whose_arms_differ(name: str) -> None:
    spec = experiment(preset=name)
    jobs = jobs_of(spec)
    assert len(jobs) == 3 * len(spec.arms)
    assert set(load_experiment_preset(name)) <= {"arms", "baseline", "base", "seeds"}
    without_seed = {
        job.spec.model_copy(update={"name": "", "preset": None}).model_dump_json()
        for job in jobs
        if job.seed == 1
    }
    assert len(without_seed) == len(spec.arms)
    assert ExperimentSpec.of_resolved(spec.resolved()) == spec


def test_table_3_is_each_method_without_its_parts() -> None:
    jobs = align_jobs(preset="paper-table-3")
    for method in ("PRO", "DPO"):
        whole, all_data, no_reward = (jobs[f"DEFT-{method}{less}"] for less in ("", " - D^A", " - R_dis"))
        assert whole.deft is not None
        assert whole.method.name == method.lower()
        assert all_data == whole.model_copy(
            update={"name": all_data.name, "deft": whole.deft.model_copy(update={"levels": ("A", "B", "C")})}
        )
        assert no_reward == whole.model_copy(
            update={"name": no_reward.name, "deft": whole.deft.model_copy(update={"omega": 0})}
        )


def test_a_base_leaves_what_an_arm_is() -> None:
    arms = [
        {"name": "plain", "preset": "dpo"},
        {"name": "deft", "preset": "deft-pro", "deft": {"a": 20}},
        {"name": "own", "deft": None, "method": {"name": "sft"}},
        {"name": "no preset"},
    ]
    method = {"name": "dpo", "beta": 0.5}
    jobs = align_jobs(arms=arms, base={**BASE, "method": method, "training": {"epochs": 4}})
    assert [job.method.name for job in jobs.values()] == ["dpo", "pro", "sft", "dpo"]
    assert jobs["plain"].method.beta == jobs["no preset"].method.beta == 0.5  # type: ignore[union-attr]
    assert [job.deft is None for job in jobs.values()] == [True, False, True, False]
    deft = jobs["deft"].deft
    assert deft is not None
    assert (deft.a, deft.c, deft.grader.name, deft.omega) == (
        20,
        12.5,
        "reward_model",
        GradShare(grad_share=0.03),
    )
    assert [job.training.epochs for job in jobs.values()] == [4, 4, 4, 4]  # the base over presets
    assert jobs["deft"].training.learning_rate == 5e-6  # presets where the base is silent


def test_seeds_change_the_training_alone_and_a_model_as_it_is_is_run_once() -> None:
    arms = [{"name": "DPO", "preset": "dpo"}, {"name": "0-shot", "kind": "evaluate"}]
    spec = experiment(arms=arms, seeds=[5, 6])
    jobs = jobs_of(spec)
    assert [(job.arm, job.seed) for job in jobs] == [(0, 5), (0, 6), (1, None)]
    assert [job.spec.training.seed for job in jobs[:2]] == [5, 6]  # type: ignore[union-attr]
    assert jobs[0].spec.evaluation == jobs[1].spec.evaluation == jobs[2].spec.evaluation
    assert isinstance(jobs[2].spec, EvaluateJob)


def test_arms_are_added_to_a_preset_s_or_laid_over_one() -> None:
    given = [
        {"name": "RRHF", "preset": "rrhf"},
        {"name": "DPO", "training": {"epochs": 7}},
        {"name": "DPO on D3", "preset": "dpo", "dataset": "d3", "baseline": "DPO"},
    ]
    jobs = align_jobs(preset="paper-table-2", arms=given)
    assert list(jobs) == ["RRHF", "DPO", "DPO on D3", "SFT", "PRO", "DEFT-PRO", "DEFT-DPO"]
    assert (jobs["DPO"].training.epochs, jobs["DPO"].method.name) == (7, "dpo")
    assert {name: job.dataset for name, job in jobs.items() if job.dataset != "d"} == {"DPO on D3": "d3"}


def test_eleven_arms_score_and_grade_once() -> None:
    methods = ("sft", "rrhf", "pro", "dpo")
    deft = [{"name": f"DEFT {m} {n}", "preset": f"deft-{m}", "deft": {"levels": levels}}
            for m in methods if m != "rrhf" for n, levels in enumerate((["A"], ["A", "B", "C"]))]  # fmt: skip
    arms = [*deft, *({"name": m, "preset": m} for m in methods)]
    arms.append({"name": "no reward", "preset": "deft-dpo", "deft": {"omega": 0}})
    base = {**BASE, "deft": {"grader": {**GRADER, "scope": "all"}}}
    jobs = jobs_of(experiment(arms=arms, base=base, seeds=[1, 2, 3]))
    stages = {stage.fingerprint: stage.stage for job in jobs for stage in plan_job(job.spec, Names()).stages}
    counts = Counter(stages.values())
    assert len(arms) == 11
    assert (counts["score"], counts["grade"], counts["distribution"], counts["import"]) == (1, 1, 1, 2)
    assert counts["train"] == counts["generate"] == counts["evaluate"] == 33
    assert counts["reference"] == 2  # of Level A, and of all data (levels A, B, C name the same samples)


TWO = [{"name": "a", "preset": "dpo"}, {"name": "b", "preset": "sft"}]
REFUSED = [
    ({"preset": "paper-table-2", "arms": [TWO[0], TWO[0]]}, [("/arms/1/name", "value_error")]),
    ({"preset": "paper-table-2", "arms": [{"name": "PRO", "deft": {"a": 0}}]},
     [("/arms/0/deft/a", "greater_than")]),
    ({"arms": [*TWO, TWO[0]]}, [("/arms/2/name", "value_error")]),
    ({"arms": TWO, "baseline": "c"}, [("/baseline", "unknown_baseline")]),
    ({"arms": [{**TWO[0], "baseline": "c"}]}, [("/arms/0/baseline", "unknown_baseline")]),
    ({"arms": TWO, "seeds": list(range(101))}, [("/seeds", "too_many_jobs")]),
    ({"arms": [{**TWO[0], "training": {"seed": 1}}]}, [("/arms/0/training/seed", "value_error")]),
    ({"arms": TWO, "base": {**BASE, "training": {"seed": 1}}}, [("/base/training/seed", "value_error")] * 2),
    ({"arms": [{**TWO[0], "training": {"epochs": 0}}]}, [("/arms/0/training/epochs", "greater_than_equal")]),
    ({"arms": [{**TWO[0], "training": {"epoch": 1}}]}, [("/arms/0/training/epoch", "extra_forbidden")]),
    ({"arms": TWO[:1], "base": {"model": {}, "training": {"speed": 1}}},
     [("/base/model/base", "missing"), ("/base/training/speed", "extra_forbidden")]),
    ({"arms": TWO[:1], "base": {}}, [("/base/model", "missing")]),
    ({"arms": [{"name": "a", "kind": "evaluate", "deft": None}]}, [("/arms/0/deft", "value_error")]),
    ({"arms": [*TWO, {"name": "c", "preset": "dpo", "evaluation": {"samples": 3}}]},
     [("/arms/2/evaluation", "evaluations_differ")]),
    ({"arms": TWO, "base": {**BASE, "evaluation": None}}, [("/base/evaluation", "value_error")]),
    ({"arms": [{**TWO[0], "evaluation": None}]}, [("/arms/0/evaluation", "value_error")]),
]  # fmt: skip


@pytest.mark.parametrize(("fields", "expected"), REFUSED)
def test_what_cannot_be_compared_or_run_is_refused_with_its_place(
    fields: dict[str, Any], expected: list[tuple[str, str]]
) -> None:
    assert refused(**fields) == expected


@pytest.mark.parametrize(
    ("fields", "place"),
    [
        ({"arms": [{"name": "a", "speed": 1}]}, ("arms", 0, "speed")),
        ({"arms": [{"name": "a", "preset": "dop"}]}, ("arms", 0, "preset")),
        ({"arms": []}, ("arms",)),
        ({"arms": [{"preset": "dpo"}]}, ("arms", 0, "name")),
        ({"preset": "paper-table-9"}, ("preset",)),
        ({"preset": ["paper-table-2"]}, ("preset",)),
        ({"arms": TWO, "seeds": [1, 1]}, ("seeds",)),
        ({"arms": TWO, "base": {"dataset": "d"}}, ("base", "dataset")),
    ],
)
def test_fields_that_an_experiment_does_not_have(fields: dict[str, Any], place: tuple[object, ...]) -> None:
    with pytest.raises(ValidationError) as caught:
        experiment(**fields)
    assert place in [error["loc"] for error in caught.value.errors()]


@pytest.mark.parametrize(
    "model", [{"endpoint": {"url": "https://api.example.com/v1", "model": "m"}}, {"generations": "gen_x"}]
)
def test_an_arm_that_names_its_model_in_another_way_than_the_base_has_nothing_of_the_base_s(
    model: dict[str, Any],
) -> None:
    spec = experiment(arms=[{"name": "theirs", "kind": "evaluate", "model": model}], baseline=None)
    (job,) = jobs_of(spec)
    found = job.spec.model_dump(mode="json", exclude_unset=True)["model"]
    assert found.keys() == model.keys()
