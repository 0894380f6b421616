"""What is planned to evaluate and to choose an epoch."""

from typing import Any

import pytest

from deft_engine.errors import SpecError
from deft_engine.plan import Made, Plan
from deft_engine.planning import plan_job
from deft_engine.specs import job_spec_adapter
from deft_engine.stages import Queue
from tests.unit.plans import ALIGN, Names, plan_of


def _last(plan: Plan) -> Any:
    return plan.stages[-1]


def test_an_epoch_is_chosen_by_the_grader_on_the_eval_dataset_unless_others_are_named() -> None:
    def validated(**validation: Any) -> tuple[dict[str, Any], list[str]]:
        plan = plan_of(validation=validation)
        (train,) = (stage for stage in plan.stages if stage.stage == "train")
        return train.inputs, plan.warnings

    inputs, warnings = validated()
    assert inputs["validation_reward_model"] == Names().model("judge", None, "")
    generate = next(stage for stage in plan_of(validation={}).stages if stage.stage == "generate")
    assert inputs["validation_samples"] == generate.inputs["samples"]
    assert any("epoch" in warning for warning in warnings)
    inputs, warnings = validated(dataset="held out", reward_model="third-judge")
    assert inputs["validation_reward_model"] == Names().model("third-judge", None, "")
    assert inputs["validation_samples"] not in (generate.inputs["samples"], inputs["samples"])
    assert not any("epoch" in warning for warning in warnings)


@pytest.mark.parametrize(
    ("changes", "pointer"),
    [
        ({"eval_dataset": None, "evaluation": None}, "/validation/dataset"),
        ({"deft": None}, "/validation/reward_model"),
        ({"deft": {"grader": {"name": "random"}}}, "/validation/reward_model"),
    ],
)
def test_an_epoch_cannot_be_chosen_by_nothing(changes: dict[str, Any], pointer: str) -> None:
    with pytest.raises(SpecError) as refused:
        plan_of(validation={}, **changes)
    assert refused.value.pointer == pointer


@pytest.mark.parametrize("resources", [{"launcher": "fsdp"}, {"deepspeed": {"zero_stage": 3}}])
def test_a_divided_model_is_not_validated(resources: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match="validation needs the whole model"):
        plan_of(validation={}, resources={"processes": 2, **resources})


def test_a_given_eval_dataset_is_evaluated_on_unless_evaluation_is_null() -> None:
    spec = {key: value for key, value in ALIGN.items() if key != "evaluation"}
    job = job_spec_adapter.validate_python(spec)
    assert job.model_dump()["evaluation"]["bleu"] is True
    assert _last(plan_job(job, Names())).stage == "evaluate"

    preset = job_spec_adapter.validate_python({**spec, "preset": "deft-dpo"})
    assert preset.model_dump()["evaluation"]["max_new_tokens"] == 128

    names = Names()
    assert _last(plan_of(names, evaluation=None)).stage == "train"
    assert "/eval_dataset" in names.pointers  # a wrong name is told all the same


def test_an_evaluation_of_nothing_is_refused() -> None:
    with pytest.raises(SpecError) as caught:
        plan_of(evaluation={"bleu": False})
    assert caught.value.pointer == "/evaluation"


def test_an_evaluation_looks_at_models_only_where_a_figure_is_made_of_them() -> None:
    plain = _last(plan_of(evaluation={"distinct_n": True}))
    assert plain.inputs.keys() == {"generations"}
    assert plain.queue is Queue.CPU
    looking = _last(plan_of(evaluation={"divergence": {}, "perplexity": True}))
    trained = next(stage for stage in plan_of().stages if stage.stage == "train")
    assert looking.inputs["model"] == Made(trained.fingerprint, "model")
    assert looking.inputs["reference_model"] == trained.inputs["model"], "what the job trained from"
    assert looking.queue is Queue.GPU
    named = _last(plan_of(evaluation={"divergence": {"reference": "other"}}))
    assert named.inputs["reference_model"].uri == "path:/other"
    names = [evaluator["name"] for evaluator in looking.spec["evaluators"]]
    assert names == ["bleu", "divergence", "perplexity", "length"]


EVALUATE: dict[str, Any] = {"kind": "evaluate", "eval_dataset": "test", "model": {"base": "base"}}
ASKED = {"endpoint": {"url": "https://api.example.com/v1", "model": "big"}}


@pytest.mark.parametrize(
    ("changes", "pointer", "words"),
    [
        ({"evaluation": {"divergence": {}}}, "/evaluation/divergence/reference", "needs a reference"),
        ({"model": ASKED, "evaluation": {"perplexity": True}}, "/evaluation/perplexity", "loaded here"),
        (
            {"model": ASKED, "evaluation": {"divergence": {"reference": "base"}}},
            "/evaluation/divergence",
            "loaded here",
        ),
    ],
)
def test_figures_of_predictions_need_the_models(changes: dict[str, Any], pointer: str, words: str) -> None:
    with pytest.raises(SpecError, match=words) as refused:
        plan_job(job_spec_adapter.validate_python(EVALUATE | changes), Names())
    assert refused.value.pointer == pointer


def test_a_reward_model_is_evaluated_on_scores_that_others_may_share() -> None:
    asked = EVALUATE | {"model": {"reward_model": "judge"}, "evaluation": {"reward_model": "other-judge"}}
    names = Names()
    plan = plan_job(job_spec_adapter.validate_python(asked), names)
    assert [stage.stage for stage in plan.stages] == ["import", "score", "score", "reward_quality"]
    assert names.pointers == ["/eval_dataset", "/model/reward_model", "/evaluation/reward_model"]
    judge = {"grader": {"name": "reward_model", "model": "judge", "scope": "all"}, "rank_by": "reward"}
    graded = plan_of(dataset="test", deft=judge)
    scored = next(stage for stage in graded.stages if stage.stage == "score")
    assert scored.fingerprint == plan.stages[1].fingerprint, "scored once"
    assert plan.stages[-1].queue is Queue.CPU


@pytest.mark.parametrize("figure", ["divergence", "perplexity", "distinct_n"])
def test_a_reward_model_has_no_figures_of_answers(figure: str) -> None:
    given = {"divergence": {"reference": "base"}, "perplexity": True, "distinct_n": True}[figure]
    asked = EVALUATE | {"model": {"reward_model": "judge"}, "evaluation": {figure: given}}
    with pytest.raises(SpecError, match="gives none") as refused:
        plan_job(job_spec_adapter.validate_python(asked), Names())
    assert refused.value.pointer == f"/evaluation/{figure}"


def test_imported_answers_stand_where_a_model_would_answer() -> None:
    imported = plan_job(
        job_spec_adapter.validate_python(EVALUATE | {"model": {"generations": "theirs"}}), Names()
    )
    assert [stage.stage for stage in imported.stages] == [
        "import", "import_generations", "generate", "evaluate",
    ]  # fmt: skip
    of_model = plan_job(job_spec_adapter.validate_python(EVALUATE), Names())
    ours, theirs = imported.stages[2], of_model.stages[1]
    assert ours.inputs["samples"] == theirs.inputs["samples"]
    assert ours.spec == theirs.spec, "an experiment compares what is chosen alike"
    asked = EVALUATE | {"model": {"generations": "theirs"}, "evaluation": {"perplexity": True}}
    with pytest.raises(SpecError, match="loaded here"):
        plan_job(job_spec_adapter.validate_python(asked), Names())
