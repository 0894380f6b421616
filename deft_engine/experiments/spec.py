"""What a user may ask for as one experiment: arms, seeds, and what all arms have in common."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import Field, field_validator, model_validator

from deft_engine.base import DatasetName, Name, Spec, Text
from deft_engine.experiments.presets import fill_from_experiment_preset, load_experiment_preset
from deft_engine.presets import load_preset

Fields = dict[str, Any]
"""Some fields of an object of an align job; they are checked when the arm's job is made."""

MOST_ARMS = 50
MOST_JOBS = 200
Seed = Annotated[int, Field(ge=0, le=2**32 - 1)]


class JobFields(Spec):
    """Fields of an align job; those of objects such as ``training`` may be given in part."""

    preset: Text | None = None
    model: Fields | None = None
    method: Fields | None = None
    deft: Fields | None = None
    training: Fields | None = None
    evaluation: Fields | None = None
    resources: Fields | None = None

    @field_validator("preset")
    @classmethod
    def _preset_exists(cls, name: str | None) -> str | None:
        if name is not None:
            load_preset(name)
        return name


class Arm(JobFields):
    """A row of the table: what its jobs have that the base has not."""

    name: Name
    kind: Literal["align", "evaluate"] = "align"
    """``evaluate``: a model as it is (the paper's 0-shot rows); it is run once, whatever the seeds."""
    dataset: DatasetName | None = None
    """Trained on instead of the experiment's (the paper's D_2 and D_3)."""
    baseline: Name | None = None
    """The arm that this one is compared with, instead of the experiment's baseline."""


class ExperimentSpec(Spec):
    """Arms x seeds, evaluated alike on one dataset."""

    name: Name = "untitled"
    preset: Text | None = None
    """Gives arms, and what else is not given. Arms that are given come before the preset's; one with the
    name of a preset's arm is laid over it."""
    dataset: DatasetName
    eval_dataset: DatasetName
    base: JobFields = JobFields()
    """What all arms have. What an arm is stays its own: a base's ``deft`` makes no plain arm a DEFT arm, and
    its ``method`` no arm another method's."""
    arms: tuple[Arm, ...] = Field(min_length=1, max_length=MOST_ARMS)
    seeds: tuple[Seed, ...] = Field((1, 2, 3), min_length=1, max_length=MOST_JOBS)
    """``training.seed`` of each arm's jobs."""
    baseline: Name | None = None
    """The arm that the others are compared with."""

    @model_validator(mode="before")
    @classmethod
    def _fill(cls, data: Any) -> Any:
        return fill_from_experiment_preset(data) if isinstance(data, dict) else data

    @field_validator("preset")
    @classmethod
    def _preset_exists(cls, name: str | None) -> str | None:
        if name is not None:
            load_experiment_preset(name)
        return name

    @field_validator("seeds")
    @classmethod
    def _seeds_differ(cls, seeds: tuple[int, ...]) -> tuple[int, ...]:
        twice = next((seed for number, seed in enumerate(seeds) if seed in seeds[:number]), None)
        if twice is not None:
            raise ValueError(f"names seed {twice} twice; a seed run again gives the same model")
        return seeds

    def resolved(self) -> dict[str, Any]:
        """As JSON, with what the preset gave; what was not given to an arm or the base is left out."""
        return self.model_dump(mode="json", include={"name", "seeds", "baseline"}) | self.model_dump(
            mode="json", exclude_unset=True
        )

    @classmethod
    def of_resolved(cls, resolved: dict[str, Any]) -> ExperimentSpec:
        """From what ``resolved`` gave; a preset that has changed since then changes nothing."""
        given = {name: value for name, value in resolved.items() if name != "preset"}
        return cls.model_validate(given).model_copy(update={"preset": resolved.get("preset")})

    def baseline_of(self, arm: Arm) -> str | None:
        """The name of the arm that ``arm`` is compared with; the baseline itself has none."""
        name = arm.baseline or self.baseline
        return None if name == arm.name else name

    def seeds_of(self, arm: Arm) -> tuple[int | None, ...]:
        """The seeds that an arm is run with."""
        return self.seeds if arm.kind == "align" else (None,)
