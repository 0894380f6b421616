"""Wrong requests from outside: each is refused with its place and the remedy, and nothing is created."""

from __future__ import annotations

from typing import Any

import pytest

from deft_client.errors import Invalid
from deft_client.models import Dataset
from tests.whole_service import WholeService

pytestmark = pytest.mark.timeout(600)


@pytest.mark.parametrize(
    ("change", "pointer", "words"),
    [
        ({"method": {"name": "dpp"}}, "/method/name", ["dpp", "sft", "dpo"]),
        ({"deft": {"a": 60, "c": 50}}, "/deft", ["a + c is 110", "lower a or c"]),
        ({"model": {"base": "/etc"}}, "/model/base", ["/etc", "DEFT_MODEL_ROOTS"]),
        ({"model": {"base": "../../etc"}}, "/model/base", ["../../etc"]),
        ({"model": {"base": "job:job_none"}}, "/model/base", ["job:job_none", "no such job"]),
        ({"preset": "deft-dppo"}, "/preset", ["deft-dppo", "deft-dpo"]),
        ({"dataset": "ds_none"}, "/dataset", ["ds_none"]),
        ({"kind": "alin"}, "/kind", ["alin", "align"]),
        ({"training": {"epoch": 2}}, "/training/epoch", ["epoch"]),
    ],
)
def test_a_wrong_job(
    whole_service: WholeService, train_data: Dataset, change: dict[str, Any], pointer: str, words: list[str]
) -> None:
    jobs = whole_service.client.jobs
    before = jobs.list(limit=100).data
    spec = {"kind": "align", "dataset": train_data.id, "model": {"base": "tiny"}, **change}
    with pytest.raises(Invalid) as refused:
        jobs.create(spec)
    assert refused.value.status == 422
    assert [error.pointer for error in refused.value.errors] == [pointer]
    assert all(word in str(refused.value) for word in words), str(refused.value)
    assert [job.id for job in jobs.list(limit=100).data] == [job.id for job in before]
