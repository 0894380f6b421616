"""The README's client example, as it is written there, against a running service."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from deft_client.demo_data import write_jsonl
from tests.conftest import ROOT
from tests.whole_service import WholeService


def test_the_readmes_client_example_runs(
    whole_service: WholeService,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    (example,) = re.findall(r"```python\n(.*?)```", (ROOT / "README.md").read_text(encoding="utf-8"), re.S)
    assert "http://127.0.0.1:8000" in example
    example = example.replace("http://127.0.0.1:8000", whole_service.url).replace(
        "deft_...", whole_service.key
    )
    write_jsonl(tmp_path / "preferences.jsonl", 64, seed=3)
    monkeypatch.chdir(tmp_path)
    exec(compile(example, "README.md", "exec"), {})
    printed = capsys.readouterr().out
    assert "signature" in printed.splitlines()[-1]
    assert (tmp_path / "aligned-model" / "config.json").exists()
    assert (tmp_path / "aligned-model" / "model.safetensors").stat().st_size > 100_000
