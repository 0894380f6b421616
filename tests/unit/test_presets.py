import pytest
from pydantic import ValidationError

from deft_engine.losses import DPO, POLICY_LOSSES
from deft_engine.presets import fill_from_preset, load_preset, preset_names
from deft_engine.spec_sections import GradShare
from deft_engine.specs import AlignJob, job_spec_adapter

BASE = {"kind": "align", "dataset": "d", "model": {"base": "tiny"}}


def _align(**fields: object) -> AlignJob:
    job = job_spec_adapter.validate_python(BASE | fields)
    assert isinstance(job, AlignJob)
    return job


@pytest.mark.parametrize("name", preset_names())
def test_every_preset_makes_a_valid_align_job(name: str) -> None:
    job = _align(preset=name)
    preset = load_preset(name)
    assert job.method.name == preset["method"]["name"]
    assert (job.deft is None) == (preset["deft"] is None)
    assert job.training.learning_rate == pytest.approx(float(preset["training"]["learning_rate"]))
    assert set(preset) <= set(AlignJob.model_fields)


@pytest.mark.parametrize("name", preset_names())
def test_presets_have_the_paper_s_a1_settings(name: str) -> None:
    job = _align(preset=name)
    assert job.training.max_length == 512
    assert job.training.gradient_accumulation == 1
    assert job.evaluation is not None
    assert job.evaluation.max_new_tokens == 128
    if job.method.name == "dpo":
        assert (job.training.learning_rate, job.training.epochs) == (5e-7, 1)
        assert (job.method.beta, job.method.sft_weight) == (0.1, 0.05)
        assert (job.method.pairs, job.method.label_smoothing) == ("best_worst", 0)
    if job.method.name in ("pro", "rrhf"):
        assert (job.training.learning_rate, job.training.epochs) == (5e-6, 2)
    if job.method.name == "pro":
        assert (job.method.variant, job.method.sft_weight) == ("paper", 0.05)
    if job.deft is not None:
        assert (job.deft.a, job.deft.c) == (3.73, 12.5)


@pytest.mark.parametrize(("method", "omega"), [("dpo", 2.5e-6), ("pro", 2.5e-5)])
def test_only_the_preset_named_after_the_paper_keeps_its_omega(method: str, omega: float) -> None:
    paper, everyday = _align(preset=f"paper-deft-{method}").deft, _align(preset=f"deft-{method}").deft
    assert paper is not None
    assert everyday is not None
    assert paper.omega == omega
    assert everyday.omega == GradShare(grad_share=0.03)


@pytest.mark.parametrize("method", [loss.model_fields["name"].default for loss in POLICY_LOSSES])
def test_every_method_has_a_preset_in_plain_and_in_deft_form(method: str) -> None:
    assert _align(preset=method).deft is None
    assert _align(preset=f"deft-{method}").deft is not None
    assert {_align(preset=name).method.name for name in (method, f"deft-{method}")} == {method}


def test_a_preset_fills_only_those_fields_that_the_kind_has() -> None:
    job = job_spec_adapter.validate_python({"kind": "grade", "dataset": "d", "preset": "deft-dpo"})
    assert job.kind == "grade"
    assert job.deft.a == 3.73


def test_what_is_given_wins_also_when_it_is_null() -> None:
    job = _align(
        preset="deft-dpo", deft={"a": 10}, training={"batch_size": 2}, method={"beta": 0.5}, evaluation=None
    )
    assert job.deft is not None
    assert (job.deft.a, job.deft.c) == (10, 12.5)
    assert (job.training.batch_size, job.training.learning_rate) == (2, 5e-7)
    assert isinstance(job.method, DPO)
    assert (job.method.beta, job.method.sft_weight) == (0.5, 0.05)
    assert job.evaluation is None
    assert _align(preset="deft-dpo", deft=None).deft is None


def test_another_method_takes_nothing_from_the_preset_s_method() -> None:
    job = _align(preset="deft-dpo", method={"name": "sft"})
    assert job.method.model_dump() == {"name": "sft", "reduction": "sum"}


def test_an_unknown_preset_is_refused_with_the_names() -> None:
    with pytest.raises(ValidationError, match=r"'deft-ppo' is unknown; the presets are .*deft-dpo"):
        _align(preset="deft-ppo")


def test_the_resolved_spec_validates_again_to_itself() -> None:
    job = _align(preset="deft-dpo")
    assert job_spec_adapter.validate_python(job.model_dump(mode="json")) == job


def test_filling_leaves_the_request_and_the_preset_alone() -> None:
    given = {"preset": "deft-dpo", "deft": {"a": 9}}
    fill_from_preset(given, AlignJob.model_fields)
    assert given == {"preset": "deft-dpo", "deft": {"a": 9}}
    assert load_preset("deft-dpo")["deft"]["a"] == 3.73


def test_a_reward_model_keeps_its_learning_rate_whatever_else_is_given() -> None:
    spec = {"kind": "reward_model", "dataset": "d", "model": {"base": "tiny"}}
    for training in ({}, {"max_steps": 3}):
        job = job_spec_adapter.validate_python({**spec, "training": training})
        assert job.model_dump()["training"]["learning_rate"] == 1e-5
