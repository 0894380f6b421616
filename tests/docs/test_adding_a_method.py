"""docs/adding-a-method.md is true as written: its code, its formula, and a job planned with it."""

from __future__ import annotations

import importlib.util
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from deft_engine.logps import RankedLogps
from tests.conftest import ROOT

PAGE = (ROOT / "docs" / "adding-a-method.md").read_text(encoding="utf-8")
(CODE,) = re.findall(r"```python\n(.*?)```", PAGE, re.S)
(DIFF,) = re.findall(r"```diff\n(.*?)```", PAGE, re.S)

PLAN_A_JOB = """
import sys
from deft_engine.plan import DatasetRef, External
from deft_engine.planning import plan_job
from deft_engine.specs import job_spec_adapter
from deft_engine.stages import ImportSpec

class Names:
    def dataset(self, name, pointer):
        return DatasetRef(External(f"upload:{name}", name), ImportSpec())

    def model(self, name, revision, pointer):
        return External(f"builtin:{name}", name)

job = {"kind": "align", "dataset": "d", "model": {"base": "tiny"}, "method": {"name": "ipo", "tau": 0.5}}
for deft in (None, {}):
    plan = plan_job(job_spec_adapter.validate_python(job | {"deft": deft}), Names())
    print(*[stage.stage for stage in plan.stages])
    print(plan.stages[-1].spec["method"], plan.stages[-1].spec["distribution_reward"] is not None)
assert "torch" not in sys.modules
"""


@pytest.fixture(scope="module")
def ipo(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Callable[..., Any]]:
    path = tmp_path_factory.mktemp("losses") / "ipo.py"
    path.write_text(CODE)
    spec = importlib.util.spec_from_file_location("ipo_of_the_page", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module  # where pydantic looks annotations up
    spec.loader.exec_module(module)
    loss: Callable[..., Any] = module.IPO
    return loss


def test_the_file_has_under_forty_lines() -> None:
    assert len(CODE.splitlines()) < 40


entry = st.tuples(st.floats(-60, -0.1), st.floats(-60, -0.1))


@given(
    table=st.lists(st.lists(entry, min_size=2, max_size=4), min_size=1, max_size=4), tau=st.floats(0.01, 2)
)
def test_value_and_gradient_are_the_formulas(
    ipo: Callable[..., Any], table: list[list[tuple[float, float]]], tau: float
) -> None:
    ranks = max(map(len, table))
    columns = torch.zeros(2, len(table), ranks, dtype=torch.float64)
    mask = torch.zeros(len(table), ranks, dtype=torch.bool)
    for row, sample in enumerate(table):
        columns[:, row, : len(sample)] = torch.tensor(sample, dtype=torch.float64).T
        mask[row, : len(sample)] = True
    policy, reference = columns[0].requires_grad_(), columns[1]
    hidden, cells = torch.zeros(0, 1), torch.zeros(0, dtype=torch.int64)
    loss = ipo(tau=tau)(RankedLogps(policy, mask.long(), mask, hidden, cells, reference)).loss
    (gradient,) = torch.autograd.grad(loss.sum(), policy)
    for row, sample in enumerate(table):
        # h(y_w, y_l) = log pi(y_w) ref(y_l) / (pi(y_l) ref(y_w)); the loss is (h - tau^-1 / 2)^2
        h = sample[0][0] + sample[-1][1] - sample[-1][0] - sample[0][1]
        assert loss[row].item() == pytest.approx((h - 0.5 / tau) ** 2, rel=1e-9, abs=1e-9)
        expected = [0.0] * ranks
        expected[0] = 2 * (h - 0.5 / tau)
        expected[len(sample) - 1] = -2 * (h - 0.5 / tau)
        assert gradient[row].tolist() == pytest.approx(expected, rel=1e-9, abs=1e-9)


def test_with_the_page_s_lines_a_job_is_planned(tmp_path: Path) -> None:
    package = shutil.copytree(ROOT / "deft_engine", tmp_path / "deft_engine")
    (package / "losses" / "ipo.py").write_text(CODE)
    listing = package / "losses" / "__init__.py"
    text = listing.read_text()
    for hunk in DIFF.split("@@\n"):
        before = "".join(line[1:] for line in hunk.splitlines(keepends=True) if line[0] in " -")
        after = "".join(line[1:] for line in hunk.splitlines(keepends=True) if line[0] in " +")
        assert text.count(before) == 1, before
        text = text.replace(before, after)
    listing.write_text(text)
    finished = subprocess.run(
        [sys.executable, "-c", PLAN_A_JOB],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(tmp_path)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert finished.returncode == 0, finished.stderr
    stages, method, deft_stages, deft_method = finished.stdout.splitlines()
    assert stages.split() == ["import", "reference", "train"]
    assert method == f"{ {'name': 'ipo', 'tau': 0.5} } False"
    assert deft_stages.split() == ["import", "score", "grade", "distribution", "reference", "train"]
    assert deft_method == f"{ {'name': 'ipo', 'tau': 0.5} } True"
