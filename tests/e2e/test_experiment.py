"""One request makes the paper's Table 3: jobs, figures, report. Figures are recomputed from artifacts."""

from __future__ import annotations

import io
import json
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest
import scipy.stats

from deft_client.models import Dataset, Job
from tests.e2e.e2e_data import DEFT_A, EVALUATED, TRAINING
from tests.whole_service import JOB_SECONDS, WholeService

pytestmark = [pytest.mark.slow, pytest.mark.timeout(1800)]


def test_the_preset_of_table_3_runs_to_a_report(
    whole_service: WholeService, train_data: Dataset, eval_data: Dataset, reward_model: Job
) -> None:
    service, client = whole_service, whole_service.client.experiments
    judge = f"job:{reward_model.id}"
    sent = client.create(
        {
            "name": "Table 3",
            "preset": "paper-table-3",
            "dataset": train_data.id,
            "eval_dataset": eval_data.id,
            "seeds": [1, 2],
            "base": {
                "model": {"base": "tiny"},
                "deft": {"a": DEFT_A, "grader": {"name": "reward_model", "model": judge}},
                "training": TRAINING,
                "evaluation": {"reward_model": judge, "samples": EVALUATED, "max_new_tokens": 8},
            },
        }
    )
    ended = client.wait(sent.id, timeout=4 * JOB_SECONDS)
    assert ended.status == "succeeded"
    found = client.results(sent.id)
    assert found["complete"]
    rewards = {arm.name: np.array([rewards_of(service, job.id) for job in arm.jobs]) for arm in ended.arms}
    for arm in found["arms"]:
        figure, values = arm["total"]["reward"], rewards[arm["name"]]
        assert figure["value"] == pytest.approx(values.mean())
        assert figure["sd"] == pytest.approx(values.mean(axis=1).std(ddof=1))
        near(figure["interval"], values.mean(axis=0))
        if arm["baseline"]:
            gains = (values - rewards[arm["baseline"]]).mean(axis=0)
            assert figure["difference"]["value"] == pytest.approx(gains.mean(), abs=1e-9)
            near(figure["difference"]["interval"], gains)
        assert arm["cost"]["cpu_seconds"] > 0
        assert arm["cost"]["peak_memory_bytes"] > 2**24
        assert (arm["cost"]["trained_share"] == 1) == arm["name"].endswith("D^A")
    page = service.http.get(f"/experiments/{sent.id}/report.html").text
    assert all(arm.name in page for arm in ended.arms)
    assert "unfinished" not in page


def rewards_of(service: WholeService, job_id: str) -> list[float]:
    """100 sigmoid of each answer's raw reward; their mean must be what the job itself says."""
    result: dict[str, Any] = json.loads(service.http.get(f"/jobs/{job_id}/artifacts/results.json").text)
    answer = service.http.get(f"/jobs/{job_id}/artifacts/sample_scores.parquet")

    raw = pq.read_table(io.BytesIO(answer.content)).column("reward_raw").to_numpy()
    percent = 100 / (1 + np.exp(-raw))
    assert result["total"]["reward"]["value"] == pytest.approx(percent.mean())
    return [float(value) for value in percent]


def near(found: list[float], values: np.ndarray) -> None:
    if np.ptp(values) == 0:
        assert found == pytest.approx([values[0]] * 2)
        return
    expected = scipy.stats.bootstrap((values,), np.mean, method="percentile", rng=np.random.default_rng(1))
    low, high = expected.confidence_interval
    assert abs(found[0] - low) < 0.2 * (high - low)
    assert abs(found[1] - high) < 0.2 * (high - low)
