"""Which library multiplies float32 matrices on a CPU: the faster one whose values are float32's.

On some CPUs (AMD's) what torch calls as shipped, MKL, reaches a fraction of what oneDNN does on the same
cores. torch calls oneDNN for float32 where products may be rounded to bfloat16; a CPU that has no unit for
such products computes them in float32 all the same. Whether this one does is looked at, not guessed: the
values of a few products decide first, then their time.

Time is noise, and the two libraries add in different orders. So the first choice stands for the machine, in a
file: a run that is stopped and goes on stays equal to the bit.
"""

from __future__ import annotations

import fcntl
import json
import platform
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, get_args

from deft_engine.cache import cache_folder

if TYPE_CHECKING:
    from torch import Tensor

Library = Literal["shipped", "onednn"]

_SHAPES = ((512, 576, 576), (512, 576, 1536), (384, 1536, 576))  # m, k, n: layers of a small model
_ERROR = 1e-5  # of a product, relative to its largest value; bfloat16 is off by about 3e-3
_FASTER = 1.2  # times; less is not worth another order of additions
_REPEATS = 9


@cache
def use_fastest() -> None:
    """Multiply by this machine's library from here on, in this process; measured once a machine."""
    _switch(_of_this_machine())


def in_use() -> Library | None:
    """What multiplies now; None in a process that does not."""
    if "torch" not in sys.modules:
        return None
    return "onednn" if _onednn().matmul.fp32_precision == "bf16" else "shipped"


@contextmanager
def multiplied_by(library: Library) -> Iterator[None]:
    """Within it, float32 products are made by ``library``."""
    before = in_use()
    _switch(library)
    try:
        yield
    finally:
        _switch(before or "shipped")


def cpu_name() -> str:
    """The CPU's name as the system gives it."""
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        return platform.processor() or platform.machine()
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.machine()


def faster() -> Library:
    """The library to take, by the values and the time of a few products."""
    import torch

    if not _onednn().is_available():
        return "shipped"
    generator = torch.Generator().manual_seed(0)
    best: dict[Library, float] = dict.fromkeys(get_args(Library), 0.0)
    with _one_thread():
        for m, k, n in _SHAPES:
            left = torch.randn(m, k, generator=generator)
            right = torch.randn(n, k, generator=generator).t()  # as a layer's weight lies
            with multiplied_by("onednn"):
                if not _is_float32(left, right):
                    return "shipped"
            times: dict[Library, list[float]] = {library: [] for library in best}
            for _ in range(_REPEATS):
                for library, measured in times.items():
                    with multiplied_by(library):
                        measured.append(_seconds(left, right))
            for library, measured in times.items():
                best[library] += min(measured)
    return "onednn" if best["shipped"] > _FASTER * best["onednn"] else "shipped"


@contextmanager
def _one_thread() -> Iterator[None]:
    """A thread that waits for another is slow where other processes work; one alone has moments of peace."""
    import torch

    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def _of_this_machine() -> Library:
    import torch

    machine = f"{cpu_name()}|torch {torch.__version__}"
    try:
        folder = cache_folder()
        kept = folder / "matrix_products.json"
        with (folder / "matrix_products.lock").open("w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)  # of several processes one measures and the others wait
            known = _readable(kept.read_text(encoding="utf-8")) if kept.exists() else {}
            if machine not in known:
                known[machine] = faster()
                partial = kept.with_suffix(".partial")
                partial.write_text(json.dumps(known, indent=2) + "\n", encoding="utf-8")
                partial.rename(kept)
            return known[machine]
    except OSError:  # no place to keep a choice: the one that is always the same
        return "shipped"


def _readable(text: str) -> dict[str, Library]:
    try:
        found = json.loads(text)
    except ValueError:
        return {}
    return {name: each for name, each in found.items() if each in get_args(Library)}


def _switch(library: Library) -> None:
    _onednn().matmul.fp32_precision = "bf16" if library == "onednn" else "none"


def _onednn() -> Any:
    """torch's module of settings, which has no types."""
    import torch

    return torch.backends.mkldnn


def _is_float32(left: Tensor, right: Tensor) -> bool:
    exact = left.double() @ right.double()
    return bool(((left @ right).double() - exact).abs().max() < _ERROR * exact.abs().max())


def _seconds(left: Tensor, right: Tensor) -> float:
    started = time.perf_counter()
    left @ right
    return time.perf_counter() - started
