"""The processes that train one model together: who this one is, and the few things that they agree on.

Figures and flags go over the CPU (gloo), so that no device waits for them. No torch at import.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

_PATIENCE = timedelta(days=7)
"""Some wait while another scores or saves; whoever dies takes the others along, so nobody waits in vain."""


@dataclass(frozen=True, slots=True)
class World:
    """``size`` processes of which this one is ``rank``; every method must be called by all of them."""

    rank: int = 0
    size: int = 1

    @property
    def first(self) -> bool:
        """Whether this process speaks and writes for all."""
        return self.rank == 0

    def sums(self, values: Sequence[float]) -> list[float]:
        """Each value added up over the processes, in float64."""
        if self.size == 1:
            return list(values)
        import torch

        total = torch.tensor(values, dtype=torch.float64)
        torch.distributed.all_reduce(total)
        return total.tolist()

    def any(self, flag: bool) -> bool:
        """Whether the flag is set anywhere."""
        return self.sums([float(flag)])[0] > 0

    def gather(self, value: Any) -> list[Any]:
        """Every process's value (anything that can be pickled), by rank."""
        if self.size == 1:
            return [value]
        import torch

        gathered: list[Any] = [None] * self.size
        torch.distributed.all_gather_object(gathered, value)
        return gathered

    def barrier(self) -> None:
        """Wait until all processes are here."""
        self.sums([0.0])


ALONE = World()


def join_world() -> World:
    """The world that torchrun has put this process into; connects it with the others.

    Each process takes the GPU of its local rank, where there are any.
    """
    import torch

    backend = "gloo"
    if torch.cuda.is_available():
        torch.cuda.set_device(int(os.environ["LOCAL_RANK"]))
        backend = "cpu:gloo,cuda:nccl"
    torch.distributed.init_process_group(backend, timeout=_PATIENCE)
    return World(torch.distributed.get_rank(), torch.distributed.get_world_size())


def lost_a_process(error: Exception) -> bool:
    """Whether an error only says that another process is gone, whose own error or death is the cause."""
    import torch

    return isinstance(error, torch.distributed.DistError) or "gloo" in str(error)
