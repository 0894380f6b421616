"""The card of a model: true, the same for the same inputs, and safe whatever the data calls itself."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import yaml
from markdown_it import MarkdownIt

from deft_engine.losses import SFT
from deft_engine.model_card import ModelCard, TrainedData, escaped
from deft_engine.model_source import ModelSource
from deft_engine.run import EXIT_SUCCEEDED
from deft_engine.spec_sections import LoraSpec, TrainingSpec
from deft_engine.stages import TrainSpec
from tests.unit.engine.stage_folders import make_samples, make_stage, result_of, run_stage

HOSTILE = (
    "</td><script>alert(1)</script>|x| **b** `c` [a](javascript:alert(1)) ![i](//evil/x.png) <a@b.c> &amp; "
    "https://evil.example #1 @someone\n---\nlicense: mit\n\u202egnp.exe\u200b \\| ~~~"
)


def spec(lora: LoraSpec | None = None) -> TrainSpec:
    return TrainSpec(
        method=SFT(), training=TrainingSpec(batch_size=8, max_length=128, learning_rate=1e-3, seed=9),
        distribution_reward=None, levels=(), rank_by="annotation", dtype="auto", lora=lora, template="auto",
    )  # fmt: skip


def card_of(subsets: dict[str, tuple[int, int]], **fields: Any) -> str:
    result = {"steps": 3, "omega": None, "seconds": 1.0, "final": {"loss": 0.25}, "warnings": [HOSTILE]}
    defaults: dict[str, Any] = {
        "kind": "policy",
        "template": "hh",
        "base": ModelSource("hub:org/base@abc", "org/base", revision="abc", local=False),
        "spec": spec().model_dump(mode="json"),
        "input_ids": {"model": "hub:org/base@abc", "samples": "f" * 64},
        "data": TrainedData("a" * 64, subsets),
        "result": result,
        "versions": {"torch": "2.13.0"},
    }
    return ModelCard(**(defaults | fields)).render()


def parsed(text: str) -> tuple[dict[str, Any], list[Any]]:
    """The front matter, and the Markdown's tokens with those inside of a line among them."""
    _, matter, body = text.split("---\n", 2)
    blocks = MarkdownIt("commonmark", {"html": True}).enable("table").parse(body)
    return yaml.safe_load(matter), [inner for token in blocks for inner in (token, *(token.children or ()))]


def test_hostile_names_are_text() -> None:
    matter, tokens = parsed(card_of({HOSTILE: (5, 2), "plain": (1, 1)}))
    assert not {"html_block", "html_inline", "link_open", "image", "strong_open"} & {t.type for t in tokens}
    visible = HOSTILE.replace("\n", "\\u{a}").replace("\u202e", "\\u{202e}").replace("\u200b", "\\u{200b}")
    shown = ["".join(c.content for c in token.children) for token in tokens if token.type == "inline"]
    assert visible[:200] + ("..." if len(HOSTILE) > 200 else "") in shown
    assert visible in shown  # the warning
    assert set(matter) == {"library_name", "pipeline_tag", "tags", "base_model"}


def test_the_front_matter_says_what_is_known() -> None:
    matter, _ = parsed(card_of({"x": (5, 2)}))
    assert matter == {
        "library_name": "transformers",
        "pipeline_tag": "text-generation",
        "tags": ["deft", "policy", "sft"],
        "base_model": "org/base",
    }
    with_lora = spec(LoraSpec()).model_dump(mode="json")
    local, _ = parsed(card_of({"x": (5, 2)}, base=ModelSource("/m", "/m"), spec=with_lora))
    assert "base_model" not in local  # a folder has no name that others know
    assert "lora" in local["tags"]


@pytest.mark.parametrize(
    "text", ["", "plain", "*", "a_b", "1. x", "`", "\\", "\x00", "\u2028", "é", "x" * 300]
)
def test_escaping_in_a_cell(text: str) -> None:
    html = MarkdownIt("commonmark").enable("table").render(f"| h |\n|---|\n| {escaped(text)} |\n")
    assert html.count("<td>") == 1
    if text.isprintable() and len(text) <= 200:
        assert f"<td>{text}</td>" in html


def test_a_trainings_card_tells_recipe_data_and_result(tmp_path: Path) -> None:
    samples = [replace(sample, subset=f"part-{n % 2}") for n, sample in enumerate(make_samples(5))]
    cards = []
    for name in ("first", "second"):
        folder = make_stage(tmp_path / name, "train", spec(), samples)
        assert run_stage(folder) == EXIT_SUCCEEDED
        cards.append((folder / "out" / "model" / "README.md").read_text())
    assert cards[0] == cards[1]
    matter, tokens = parsed(cards[0])
    result = result_of(folder)
    lines = [line.replace("\\", "") for line in cards[0].splitlines()]
    assert "| part-0 | 3 | 3 |" in lines
    assert "| part-1 | 2 | 2 |" in lines
    assert "| Total | 5 | 5 |" in lines
    assert "| seed | 9 |" in lines
    assert f"| loss (last step) | {result['final']['loss']:.6g} |" in lines
    assert "| steps | 1 |" in lines
    assert not any("seconds" in line or str(tmp_path) in line for line in lines)
    recipe = json.loads(next(token.content for token in tokens if token.info == "json"))
    assert recipe == spec().model_dump(mode="json")
    assert matter["tags"] == ["deft", "policy", "sft"]
