"""What a stage's process has used of the machine."""

from __future__ import annotations

import resource
import sys
from typing import Any

_UNIT = 1 if sys.platform == "darwin" else 1024  # of ru_maxrss, in bytes


def process_usage() -> dict[str, Any]:
    """Of this process and of its ended children, so far.

    ``cpu_seconds`` counts all cores; ``peak_memory_bytes`` is the most that one process held at a time;
    ``peak_gpu_memory_bytes`` is there where CUDA was used.
    """
    own, children = resource.getrusage(resource.RUSAGE_SELF), resource.getrusage(resource.RUSAGE_CHILDREN)
    used: dict[str, Any] = {
        "cpu_seconds": round(sum(u.ru_utime + u.ru_stime for u in (own, children)), 3),
        "peak_memory_bytes": max(own.ru_maxrss, children.ru_maxrss) * _UNIT,
    }
    torch = sys.modules.get("torch")  # a stage without a model has not loaded it
    if torch is not None and torch.cuda.is_initialized():
        used["peak_gpu_memory_bytes"] = torch.cuda.max_memory_allocated()
    return used
