"""``README.md`` of a model folder: what it was made from and how, for people and for model hubs.

A card is decided by its stage's inputs alone, so that a resumed run writes the same bytes: it has no dates,
durations, paths or names of jobs. Evaluation comes later and is not in it: a model's folder never changes.
"""

from __future__ import annotations

import json
import string
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import yaml

from deft_engine.canonical import sha256_file
from deft_engine.data.samples import read_index
from deft_engine.model_source import ModelSource
from deft_engine.types import Sample

_LONGEST = 200  # characters of a name
_ENTITIES = {"<": "&lt;", ">": "&gt;", "&": "&amp;"}
_OF_THE_CLOCK = {"seconds"}  # of a stage's result
_TITLE = {"policy": "A language model", "reward_model": "A reward model"}
_TASK = {"policy": "text-generation", "reward_model": "text-classification"}
_AUTO_CLASS = {"policy": "AutoModelForCausalLM", "reward_model": "AutoModelForSequenceClassification"}
_LIMITS = {
    "policy": (
        "It was moved towards the preferences in its data, their errors and biases included. Nothing here "
        "shows that its answers are true or safe."
    ),
    "reward_model": (
        "A reward compares answers to one prompt. Its zero and its scale mean nothing by themselves, and a "
        "policy trained against it will find its errors."
    ),
}


@dataclass(frozen=True, slots=True)
class TrainedData:
    """Which samples were there, and which were trained on."""

    sha256: str
    subsets: Mapping[str, tuple[int, int]]
    """Subset -> samples of the dataset, and those of them that were trained on."""

    @classmethod
    def of(cls, samples_file: Path, trained: Iterable[Sample]) -> TrainedData:
        """Of a ``samples.parquet`` and the samples taken from it."""
        used = Counter(sample.subset for sample in trained)
        there = Counter(read_index(samples_file).subsets)
        return cls(sha256_file(samples_file), {name: (there[name], used[name]) for name in sorted(there)})


@dataclass(frozen=True, slots=True)
class ModelCard:
    """All that a card tells."""

    kind: Literal["policy", "reward_model"]
    template: str
    base: ModelSource
    spec: Mapping[str, Any]
    """The stage's, in JSON form."""
    input_ids: Mapping[str, str]
    """Input of the stage -> identity: a fingerprint, a digest or a name with its version."""
    data: TrainedData
    result: Mapping[str, Any]
    """The stage's."""
    versions: Mapping[str, str]

    def write(self, folder: Path) -> None:
        """Write the card into a model's folder."""
        (folder / "README.md").write_text(self.render(), encoding="utf-8")

    def render(self) -> str:
        """YAML front matter and Markdown; what others have named stands in it as text."""
        method = escaped(self.spec["method"]["name"])
        parts = [
            self._front_matter(),
            f"# {_TITLE[self.kind]} trained by {method}\n",
            "Made by DEFT. This card was written when training ended and is the same for the same inputs.\n",
            self._use(),
            self._recipe(),
            self._data(),
            self._training(),
            "## Evaluation\n\nFigures come after training and are not here: `results.json` and `report.html` "
            "of the job have them, each with its n and signature.\n",
            "## Versions\n\n" + _table(("package", "version"), sorted(self.versions.items())),
            f"## Limits\n\n{_LIMITS[self.kind]} Sequences of more than "
            f"{self.spec['training']['max_length']} tokens were cut in training. What holds for the base "
            "model, its licence included, holds here.\n",
        ]
        return "\n".join(parts)

    def _front_matter(self) -> str:
        tags = ["deft", self.kind.replace("_", "-"), self.spec["method"]["name"]]
        found: dict[str, Any] = {
            "library_name": "transformers",
            "pipeline_tag": _TASK[self.kind],
            "tags": tags + ["lora"] * (self.spec["lora"] is not None),
        }
        if not self.base.local:
            found["base_model"] = self.base.location
        return f"---\n{yaml.safe_dump(found, allow_unicode=False)}---\n"

    def _use(self) -> str:
        auto_class = _AUTO_CLASS[self.kind]
        adapter = (
            "\nThe LoRA adapter is merged into these weights. It also lies beside them, in the artifacts "
            "`adapter/...`, for `peft.PeftModel.from_pretrained` on the base model.\n"
            if self.spec["lora"] is not None
            else ""
        )
        return (
            "## Use\n\n```python\n"
            f"from transformers import {auto_class}, AutoTokenizer\n\n"
            f'model = {auto_class}.from_pretrained(".")\n'
            'tokenizer = AutoTokenizer.from_pretrained(".")\n'
            "```\n\n"
            f"Prompts were rendered by DEFT's template `{self.template}`, and every response ended in one "
            f"end-of-text token.\n{adapter}"
        )

    def _recipe(self) -> str:
        reward = self.spec.get("distribution_reward")
        rows: list[tuple[str, Any]] = [
            ("base model", self.input_ids.get("model", "")),
            ("method", self.spec["method"]["name"]),
            ("seed", self.spec["training"]["seed"]),
        ]
        if self.kind == "policy":
            rows += [
                ("levels", ", ".join(self.spec["levels"]) or "all data"),
                ("omega asked", json.dumps(reward["omega"]) if reward else "no distribution reward"),
                ("omega used", self.result["omega"]),
            ]
        spec = json.dumps(self.spec, indent=1, sort_keys=True)  # ASCII, and no line of it can end the block
        return f"## Recipe\n\n{_table(('', ''), rows)}\nThe whole stage:\n\n```json\n{spec}\n```\n"

    def _data(self) -> str:
        total, used = (sum(counts) for counts in zip(*self.data.subsets.values(), strict=True))
        rows = [(name, there, trained) for name, (there, trained) in self.data.subsets.items()]
        inputs = [(name, identity) for name, identity in sorted(self.input_ids.items()) if name != "model"]
        return (
            "## Data\n\n"
            + _table(("subset", "samples", "trained on"), [*rows, ("Total", total, used)])
            + f"\nSHA-256 of the samples as read: `{self.data.sha256}`. Inputs by their fingerprints:\n\n"
            + _table(("input", "fingerprint"), inputs)
        )

    def _training(self) -> str:
        figures = {name: value for name, value in self.result.items() if name not in _OF_THE_CLOCK}
        warnings = figures.pop("warnings")
        final = {f"{name} (last step)": value for name, value in figures.pop("final").items()}
        table = _table(("figure", "value"), sorted((figures | final).items()))
        told = "".join(f"\n* {escaped(warning, longest=None)}\n" for warning in warnings)
        return f"## Training\n\n{table}{told}"


def escaped(text: str, longest: int | None = _LONGEST) -> str:
    """Text that Markdown shows as it is, in a table's cell too; what is not printable becomes its code."""
    cut = text if longest is None or len(text) <= longest else f"{text[:longest]}..."
    return "".join(map(_escaped_character, cut))


def _escaped_character(character: str) -> str:
    if character in _ENTITIES:
        return _ENTITIES[character]
    if not character.isprintable():
        return f"\\\\u\\{{{ord(character):x}\\}}"
    return f"\\{character}" if character in string.punctuation and character not in "-,." else character


def _table(head: tuple[str, ...], rows: Iterable[tuple[Any, ...]]) -> str:
    lines = [head, ("---",) * len(head), *(tuple(map(_cell, row)) for row in rows)]
    return "".join(f"| {' | '.join(line)} |\n" for line in lines)


def _cell(value: Any) -> str:
    if value is None:
        return "-"
    return f"{value:.6g}" if isinstance(value, float) else escaped(str(value))
