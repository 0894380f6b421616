"""Model folders made to harm: each is refused with the place, and nothing outside of the folder is read."""

from __future__ import annotations

import json
import shutil
import struct
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file

from deft_engine import templates
from deft_engine.errors import ModelError
from deft_engine.models import load_policy, save_model
from deft_engine.templates import render_prompt
from deft_engine.time_limit import TooSlow, cpu_time_limit
from deft_engine.tokenizer import load_tokenizer
from deft_engine.types import Message

TINY = "builtin:tiny"
PROMPT = [Message("user", "Hi")]


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("whole") / "model"
    save_model(load_policy(TINY, "float32"), load_tokenizer(TINY), folder, "policy", "hh")
    return folder


@pytest.fixture
def folder(whole: Path, tmp_path: Path) -> Path:
    return shutil.copytree(whole, tmp_path / "model")


def header_of(content: bytes) -> tuple[dict[str, Any], bytes]:
    size = struct.unpack("<Q", content[:8])[0]
    return json.loads(content[8 : 8 + size]), content[8 + size :]


def with_header(header: dict[str, Any], data: bytes) -> bytes:
    encoded = json.dumps(header).encode()
    return struct.pack("<Q", len(encoded)) + encoded + data


def changed(content: bytes, **entry: Any) -> bytes:
    """With the entry of one tensor changed."""
    header, data = header_of(content)
    name = sorted(name for name in header if name != "__metadata__")[1]
    header[name] |= entry
    return with_header(header, data)


LIES = {
    "the header is longer than the file": lambda content: struct.pack("<Q", 2**40) + content[8:],
    "the header is no JSON": lambda content: content[:8] + b"(" + content[9:],
    "data behind the end": lambda content: changed(content, data_offsets=[2**40, 2**40 + 8]),
    "data of another size than the shape": lambda content: changed(content, shape=[2**31, 2**31]),
    "an unknown dtype": lambda content: changed(content, dtype="PICKLE"),
    "truncated data": lambda content: content[: len(content) // 2],
    "truncated header": lambda content: content[:20],
    "nothing": lambda content: b"",
}


@pytest.mark.parametrize("lie", LIES)
def test_a_safetensors_file_that_lies_or_is_cut_is_named(folder: Path, lie: str) -> None:
    weights = folder / "model.safetensors"
    weights.write_bytes(LIES[lie](weights.read_bytes()))
    with pytest.raises(ModelError, match=f"{weights} is not a whole safetensors file") as refusal:
        load_policy(str(folder), "float32")
    assert refusal.value.hint


def test_a_shard_outside_of_the_folder_is_never_read(folder: Path) -> None:
    (folder / "model.safetensors").rename(folder.parent / "secret.safetensors")
    save_file({"x": torch.zeros(1)}, folder / "model-00001-of-00001.safetensors")
    index = folder / "model.safetensors.index.json"
    for name in ("../secret.safetensors", str(folder.parent / "secret.safetensors"), "..", "absent"):
        index.write_text(json.dumps({"metadata": {}, "weight_map": {"model.norm.weight": name}}))
        with pytest.raises(ModelError, match=r"index\.json: .* no file of its folder"):
            load_policy(str(folder), "float32")
    for broken in ([], {"weight_map": ["x"]}, {"weight_map": {"x": 1}}, {}):
        index.write_text(json.dumps(broken))
        with pytest.raises(ModelError, match=r"index\.json"):
            load_policy(str(folder), "float32")


def test_an_adapter_would_bring_another_base_model_and_is_refused(folder: Path) -> None:
    config = {"peft_type": "LORA", "base_model_name_or_path": "/somewhere/else", "r": 4}
    (folder / "adapter_config.json").write_text(json.dumps(config))
    for load in (load_tokenizer, lambda uri: load_policy(uri, "float32")):
        with pytest.raises(ModelError, match="holds a LoRA adapter") as refusal:
            load(str(folder))
        assert "merged" in refusal.value.hint


ESCAPES = {
    "classes": "{{ ''.__class__.__mro__[1].__subclasses__() }}",
    "globals": "{{ cycler.__init__.__globals__.os.system('touch executed') }}",
    "format": "{{ '{0.__class__.__base__}'.format(messages) }}",
    "self": "{{ self._TemplateReference__context.environment }}",
    "mutation": "{{ messages.append(1) }}",
    "import": "{% import 'os' as os %}",
    "syntax": "{% for",
    "recursion": "{% macro m() %}{{ m() }}{% endmacro %}{{ m() }}",
    "range": "{% for i in range(10 ** 9) %}{% endfor %}",
}


@pytest.mark.parametrize("escape", ESCAPES)
def test_a_chat_template_stays_in_its_sandbox(
    folder: Path, escape: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (folder / "chat_template.jinja").write_text(ESCAPES[escape])
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ModelError, match="chat template refuses a prompt with the roles user"):
        render_prompt(load_tokenizer(str(folder)), PROMPT, "chat")
    assert not Path("executed").exists()


def test_a_chat_template_without_end_is_stopped(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    endless = "{% for i in range(99999) %}{% for j in range(99999) %}{{ i }}{% endfor %}{% endfor %}"
    (folder / "chat_template.jinja").write_text(endless)
    monkeypatch.setattr(templates, "_CHAT_SECONDS", 0.2)
    with pytest.raises(ModelError, match=r"does not come to an end: stopped after 0\.2 seconds"):
        render_prompt(load_tokenizer(str(folder)), PROMPT, "chat")


def test_a_time_limit_leaves_nothing_behind() -> None:
    def spin() -> int:
        return sum(1 for _ in range(10**9))

    with pytest.raises(TooSlow), cpu_time_limit(0.05):
        spin()
    with cpu_time_limit(0.05):
        pass
    assert sum(range(3_000_000)) > 0  # longer than the limit, outside of it
