from dataclasses import replace
from typing import Any

import pytest

from deft_engine.errors import SpecError
from deft_engine.plan import DatasetRef, External, Made, plan_dataset, plan_stage
from deft_engine.planning import plan_job
from deft_engine.specs import job_spec_adapter
from deft_engine.stages import STAGES, GradeSpec, ImportSpec, Queue
from tests.unit.plans import ALIGN, Names, by_stage, plan_of


def test_an_align_job_has_its_stages_in_an_order_that_can_run() -> None:
    plan = plan_of()
    assert [stage.stage for stage in plan.stages] == [
        "import", "score", "grade", "distribution", "reference", "train", "import", "generate", "evaluate",
    ]  # fmt: skip
    made: set[str] = set()
    for stage in plan.stages:
        for source in stage.inputs.values():
            assert isinstance(source, External) or source.fingerprint in made
            if isinstance(source, Made):
                maker = next(s.stage for s in plan.stages if s.fingerprint == source.fingerprint)
                assert source.output in STAGES[maker].outputs
        made.add(stage.fingerprint)


def test_the_same_spec_has_the_same_fingerprints() -> None:
    assert by_stage(plan_of()) == by_stage(plan_of(name="another name for people"))


def test_another_method_runs_no_second_score() -> None:
    dpo, sft = by_stage(plan_of()), by_stage(plan_of(method={"name": "sft"}))
    for stage in ("import", "score", "grade", "distribution"):
        assert dpo[stage] == sft[stage]
    assert dpo["train"] != sft["train"]
    assert "reference" not in sft


def test_another_a_grades_again_without_scoring() -> None:
    judge = ALIGN["deft"]["grader"]
    first, second = (by_stage(plan_of(deft={"a": a, "grader": judge})) for a in (5, 6))
    assert first["score"] == second["score"]
    for stage in ("grade", "distribution", "reference", "train", "generate", "evaluate"):
        assert first[stage] != second[stage]


def test_other_thresholds_count_again_without_grading() -> None:
    deft = ALIGN["deft"] | {"thresholds": {"a_positive": 0.7}}
    first, second = by_stage(plan_of()), by_stage(plan_of(deft=deft))
    assert first["grade"] == second["grade"]
    assert first["distribution"] != second["distribution"]


def test_other_generation_settings_train_nothing_again() -> None:
    first = by_stage(plan_of())
    second = by_stage(plan_of(evaluation={"reward_model": "other-judge", "max_new_tokens": 9}))
    assert first["train"] == second["train"]
    assert first["generate"] != second["generate"]


def test_names_do_not_matter_but_contents_do() -> None:
    renamed = plan_of(
        Names(**{"base2": "digest of base", "judge2": "digest of judge"}),
        model={"base": "base2"},
        deft={"grader": {"name": "reward_model", "model": "judge2"}},
    )
    assert by_stage(renamed) == by_stage(plan_of())
    changed = by_stage(plan_of(Names(judge="new weights")))
    assert changed["score"] != by_stage(plan_of())["score"]
    assert changed["import"] == by_stage(plan_of())["import"]


def test_every_field_of_a_grade_spec_changes_its_fingerprint() -> None:
    inputs: dict[str, Any] = {"samples": External("u", "s"), "scores": External("u", "r")}
    specs = [
        GradeSpec(a=1, c=2, rank_by="auto"),
        GradeSpec(a=2, c=2, rank_by="auto"),
        GradeSpec(a=1, c=3, rank_by="auto"),
        GradeSpec(a=1, c=2, rank_by="reward"),
    ]
    assert len({plan_stage("grade", spec, inputs).fingerprint for spec in specs}) == len(specs)


def test_a_new_version_of_a_stage_is_a_new_fingerprint(monkeypatch: pytest.MonkeyPatch) -> None:
    before = by_stage(plan_of())
    monkeypatch.setitem(STAGES, "score", replace(STAGES["score"], version=STAGES["score"].version + 1))
    after = by_stage(plan_of())
    assert before["score"] != after["score"]
    assert before["import"] == after["import"]


@pytest.mark.parametrize(
    ("deft", "responses"),
    [
        ({}, "first"),
        ({"rank_by": "annotation"}, "first"),
        ({"rank_by": "reward"}, "all"),
    ],
)
def test_only_needed_responses_are_scored(deft: dict[str, Any], responses: str) -> None:
    plan = plan_of(deft=ALIGN["deft"] | deft)
    (score,) = [stage for stage in plan.stages if stage.stage == "score"]
    assert score.spec["responses"] == responses
    everything = plan_of(deft={"grader": {"name": "reward_model", "model": "judge", "scope": "all"}} | deft)
    (score,) = [stage for stage in everything.stages if stage.stage == "score"]
    assert score.spec["responses"] == "all"


def test_the_plain_method_grades_nothing() -> None:
    plan = plan_of(deft=None)
    assert set(by_stage(plan)) == {"import", "reference", "train", "generate", "evaluate"}
    (train,) = [stage for stage in plan.stages if stage.stage == "train"]
    assert train.inputs.keys() == {"samples", "model", "reference"}
    assert train.spec["levels"] == []


def test_an_omega_of_zero_needs_no_distribution_reward() -> None:
    plan = plan_of(deft=ALIGN["deft"] | {"omega": 0})
    (train,) = [stage for stage in plan.stages if stage.stage == "train"]
    assert train.spec["distribution_reward"] is None
    assert "qdiff" not in train.inputs


def test_one_dataset_for_training_and_evaluation_is_imported_once_and_warned_of() -> None:
    plan = plan_of(eval_dataset=None)
    assert len(by_stage(plan)["import"]) == 1
    assert any("training data" in warning for warning in plan.warnings)
    assert list(plan.stages[-1].spec["warnings"]) == plan.warnings


def test_the_same_reward_model_in_both_places_is_warned_of() -> None:
    for name in ("judge", "twin"):
        plan = plan_of(Names(twin="digest of judge"), evaluation={"reward_model": name})
        assert any("r_eval is r_train" in warning for warning in plan.warnings)
    assert not plan_of().warnings
    assert not plan_of(deft=None).warnings


def test_names_are_resolved_with_their_place_in_the_spec() -> None:
    names = Names()
    plan_of(names)
    assert set(names.pointers) == {
        "/dataset", "/eval_dataset", "/model/base", "/deft/grader/model", "/evaluation/reward_model",
    }  # fmt: skip


def test_work_without_a_model_never_waits_for_a_device() -> None:
    queues = {stage.stage: stage.queue for stage in plan_of(deft={"grader": {"name": "random"}}).stages}
    assert queues["score"] == queues["grade"] == queues["distribution"] == Queue.CPU
    assert queues["train"] == queues["generate"] == Queue.GPU
    (score,) = [stage for stage in plan_of().stages if stage.stage == "score"]
    assert score.queue == Queue.GPU


def test_wrong_inputs_are_a_bug_that_is_told() -> None:
    with pytest.raises(ValueError, match="stage grade takes"):
        plan_stage("grade", GradeSpec(a=1, c=1, rank_by="auto"), {"samples": External("u", "s")})


def test_an_upload_read_otherwise_is_another_dataset() -> None:
    upload = External("upload:1", "1")
    read = [plan_dataset(DatasetRef(upload, ImportSpec(format=f))) for f in ("auto", "ranked")]
    assert read[0].fingerprint != read[1].fingerprint


def test_reward_model_and_evaluate_jobs_have_their_stages() -> None:
    reward = plan_job(
        job_spec_adapter.validate_python({"kind": "reward_model", "dataset": "d", "model": {"base": "b"}}),
        Names(),
    )
    assert [stage.stage for stage in reward.stages] == ["import", "train_reward"]
    evaluate = plan_job(
        job_spec_adapter.validate_python({"kind": "evaluate", "eval_dataset": "d", "model": {"base": "b"}}),
        Names(),
    )
    assert [stage.stage for stage in evaluate.stages] == ["import", "generate", "evaluate"]


def test_a_method_that_needs_rewards_has_all_and_is_ranked_by_them() -> None:
    method = {"name": "pro", "variant": "reference"}
    graded, plain = plan_of(method=method), plan_of(method=method, deft=None)
    specs = {stage.stage: stage.spec for stage in graded.stages}
    assert specs["score"]["responses"] == "all"
    assert (specs["grade"]["rank_by"], specs["train"]["rank_by"]) == ("auto", "reward")
    assert next(s for s in plain.stages if s.stage == "train").spec["rank_by"] == "reward"
    without = {stage.stage: stage.spec for stage in plan_of(method={"name": "pro"}).stages}
    assert (without["score"]["responses"], without["train"]["rank_by"]) == ("first", "auto")


def test_ranking_by_annotation_is_refused_where_the_method_ranks_by_reward() -> None:
    deft = ALIGN["deft"] | {"rank_by": "annotation"}
    with pytest.raises(SpecError, match="ranks by reward") as caught:
        plan_of(method={"name": "pro", "variant": "reference"}, deft=deft)
    assert caught.value.pointer == "/deft/rank_by"
    assert "auto or reward" in caught.value.hint
    plan_of(method={"name": "pro"}, deft=deft)
    deft = ALIGN["deft"] | {"grader": {"name": "length"}}
    with pytest.raises(SpecError, match="those of the grader length do not") as caught:
        plan_of(method={"name": "pro", "variant": "reference"}, deft=deft)
    assert caught.value.pointer == "/deft/grader"
    plan_of(method={"name": "pro"}, deft=deft)


GRADERS: list[tuple[dict[str, Any], str, str, set[str]]] = [
    # grader, responses, score, pointers of its models
    ({"name": "random"}, "best", "first", set()),
    ({"name": "length"}, "best", "first", set()),
    ({"name": "distribution"}, "best", "first", set()),
    ({"name": "distribution", "difference": True}, "ends", "margin", set()),
    ({"name": "scores"}, "all", "best", set()),
    ({"name": "margin"}, "all", "margin", set()),
    ({"name": "margin", "model": "judge"}, "all", "margin", {"model"}),
    ({"name": "implicit", "policy": "tuned"}, "ends", "closeness", {"policy"}),
    ({"name": "implicit", "policy": "tuned", "direction": "high"}, "ends", "margin", {"policy"}),
    ({"name": "implicit", "policy": "tuned", "reference": "r"}, "ends", "closeness", {"policy", "reference"}),
]


@pytest.mark.parametrize(
    ("grader", "responses", "score", "fields"), GRADERS, ids=[str(g.values()) for g, *_ in GRADERS]
)
def test_each_grader_is_planned_with_its_models(
    grader: dict[str, Any], responses: str, score: str, fields: set[str]
) -> None:
    names = Names()
    plan = plan_of(names, deft={"grader": grader})
    stages = {stage.stage: stage for stage in plan.stages}
    assert stages["score"].spec["responses"] == responses
    assert stages["grade"].spec["score"] == score
    asked = {pointer for pointer in names.pointers if pointer.startswith("/deft")}
    assert asked == {f"/deft/grader/{field}" for field in fields}
    named = {str(value) for value in grader.values()} & {"judge", "tuned", "r"}
    identities = {source.identity for source in stages["score"].inputs.values()}
    assert {f"digest of {name}" for name in named} <= identities
    assert not named & {str(value) for value in stages["score"].spec["grader"].values()}
    order = [stage.stage for stage in plan.stages]
    ranked_by_people = grader["name"] in ("random", "length", "distribution", "implicit")
    assert (order.index("distribution") < order.index("score")) == ranked_by_people
    assert stages["train"].spec["rank_by"] == ("annotation" if ranked_by_people else "auto")


def test_graders_that_do_not_rank_share_one_q_diff() -> None:
    counted = {
        by_stage(plan_of(deft={"a": 7, "grader": grader}))["distribution"][0]
        for grader in ({"name": "random"}, {"name": "length"}, {"name": "distribution"})
    }
    assert len(counted) == 1
    plan = plan_of(deft={"grader": {"name": "distribution"}})
    (score,) = [stage for stage in plan.stages if stage.stage == "score"]
    assert score.inputs["qdiff"] == Made(counted.pop(), "qdiff.safetensors")
    assert score.inputs["model"].identity == "digest of base"
    assert score.queue == Queue.GPU


def test_a_margin_scores_nothing_again_that_its_reward_model_scored() -> None:
    everything = {"name": "reward_model", "model": "judge", "scope": "all"}
    first = by_stage(plan_of(deft={"grader": everything}))
    second = by_stage(plan_of(deft={"grader": {"name": "margin", "model": "judge"}}))
    assert first["score"] == second["score"]
    assert first["grade"] != second["grade"]
    same_judge = plan_of(deft={"grader": {"name": "margin", "model": "other-judge"}})
    assert any("r_eval is r_train" in warning for warning in same_judge.warnings)


@pytest.mark.parametrize(
    ("grader", "dtype"),
    [
        ({"name": "reward_model", "model": "judge"}, "bfloat16"),
        ({"name": "margin", "model": "judge"}, "bfloat16"),
        ({"name": "distribution"}, "bfloat16"),
        ({"name": "margin"}, "auto"),
        ({"name": "length"}, "auto"),
    ],
)
def test_a_model_that_grades_computes_as_the_job_says(grader: dict[str, Any], dtype: str) -> None:
    plan = plan_of(model={"base": "base", "dtype": "bfloat16"}, deft={"grader": grader})
    (score,) = [stage for stage in plan.stages if stage.stage == "score"]
    assert score.spec["dtype"] == dtype


def test_the_other_direction_scores_nothing_again() -> None:
    low, high = (
        by_stage(plan_of(deft={"grader": {"name": "implicit", "policy": "t", "direction": d}}))
        for d in ("low", "high")
    )
    assert low["score"] == high["score"]
    assert low["grade"] != high["grade"]


def test_rewards_that_do_not_rank_cannot_be_asked_to() -> None:
    with pytest.raises(ValueError, match="grader length does not tell which of two responses is better"):
        plan_of(deft={"rank_by": "reward", "grader": {"name": "length"}})


def test_processes_change_the_fingerprint_of_training_alone() -> None:
    alone, both = (plan_of(resources={"processes": processes}) for processes in (1, 2))
    fingerprints, of_both = by_stage(alone), by_stage(both)
    for name in ("score", "grade", "distribution", "reference"):
        assert of_both[name] == fingerprints[name]
    assert of_both["train"] != fingerprints["train"]
    specs = {planned.stage: planned.spec for planned in both.stages}
    assert specs["train"]["engine"] == "ddp"
    assert all(specs[name]["processes"] == 2 for name in ("score", "reference", "generate"))


def test_ways_of_saying_the_same_resources_are_one_recipe() -> None:
    fingerprints = [
        by_stage(plan_of(resources={"processes": 2, **said}))["train"]
        for said in (
            {"deepspeed": {}},
            {"launcher": "deepspeed"},
            {"launcher": "deepspeed", "deepspeed": {"zero_stage": 2}},
        )
    ]
    assert fingerprints[0] == fingerprints[1] == fingerprints[2]


@pytest.mark.parametrize(
    ("resources", "remedy"),
    [
        ({"processes": 2, "launcher": "single"}, "processes to 1"),
        ({"launcher": "fsdp", "deepspeed": {"zero_stage": 3}}, "deepspeed to null"),
    ],
)
def test_resources_that_contradict_themselves_are_refused(resources: dict[str, Any], remedy: str) -> None:
    with pytest.raises(ValueError, match=remedy):
        plan_of(resources=resources)
