"""From ``POST /jobs`` to the first step of training: ``python benchmarks/first_step.py``.

Starts the whole service on this machine, with the extra ``smollm2``, and sends it SFT jobs that differ in
nothing but their seed; the first, which also fills caches, is not counted. In turn with them, a process that
does no more than it must: import torch and transformers, and load the same model from its safetensors. Writes
``results/first_step.json``: medians of the seconds until the job's event that says "step 0" (all is loaded,
training begins) and of the process.
"""

from __future__ import annotations

import tempfile
from pathlib import Path

from measuring import alternate, in_process, machine, median, parser, seconds, write
from service_speed import small_dataset, submit

from deft_client.client import DeftClient
from deft_client.demo_service import temporary_service
from deft_client.models import Dataset
from deft_engine.models import load_policy

LEAST = """
import sys
import torch
from transformers import AutoModelForCausalLM

AutoModelForCausalLM.from_pretrained(sys.argv[1], dtype=torch.float32)
print("{}")
"""
MODEL = "smollm2"


def write_model(folder: Path) -> None:
    """The model as ``from_pretrained`` takes it at its fastest."""
    load_policy(f"builtin:{MODEL}", "float32").save_pretrained(folder)


def first_step(client: DeftClient, dataset: Dataset, seed: int) -> float:
    """Seconds from a job's creation to its step 0."""
    job = submit(client, dataset, seed, MODEL, steps=1)
    begun = [
        (event.time - job.created_at).total_seconds()
        for event in client.jobs.events(job.id)  # to the job's end, so that jobs do not meet
        if event.type == "progress" and event.data["stage"] == "train" and event.time is not None
    ]
    if not begun:
        raise SystemExit(f"no progress in the events of {job.id}")
    return begun[0]


def main() -> None:
    """Measure, print and write."""
    made = parser(__doc__, "first_step")
    made.add_argument("--rounds", type=int, default=5)
    asked = made.parse_args()
    here = machine()
    with temporary_service(keep=False) as service, tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        write_model(folder / "model")
        dataset = small_dataset(service.client)
        seeds = iter(range(asked.rounds + 1))
        first_step(service.client, dataset, next(seeds))
        least = ["-c", LEAST, str(folder / "model")]
        found = alternate(
            {
                "job": lambda: first_step(service.client, dataset, next(seeds)),
                "import and load": lambda: seconds(lambda: in_process(least)),
            },
            asked.rounds,
        )
    medians = {name: median(values, 2) for name, values in found.items()}
    over = round(medians["job"] - medians["import and load"], 2)
    write(asked.out, {**here, "model": MODEL, "seconds": medians, "over_import_and_load": over, "all": found})


if __name__ == "__main__":
    main()
