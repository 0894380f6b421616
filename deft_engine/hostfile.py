"""The hosts that a stage's processes may be spread over, as the operator lists them in DeepSpeed's hostfile.

``DEFT_HOSTFILE`` names the file: a line a host, ``name slots=N``, the host that this engine runs on first.
The stage's folder and the models must lie under the same paths on all of them.
"""

from __future__ import annotations

import os
import re
import shlex
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from deft_engine.errors import SpecError

HOSTFILE_VARIABLE = "DEFT_HOSTFILE"
SHELL_VARIABLE = "DEFT_REMOTE_SHELL"
"""What runs ``<shell> <host> sh -s`` on a host; by default ``ssh``, which must ask for no password."""

_LINE = re.compile(r"(?P<name>\S+)\s+slots=(?P<slots>[1-9]\d{0,3})")
_PASSED = ("OMP_", "GOMP_", "MALLOC_", "GLOO_", "NCCL_", "XDG_CACHE_HOME", "HF_", "PYTHONPATH", "DEFT_MAX_")


@dataclass(frozen=True, slots=True)
class Host:
    """A machine and the processes that it is to run."""

    name: str
    processes: int


def hosts_for(processes: int, environment: Mapping[str, str] = os.environ) -> list[Host]:
    """Hosts whose slots, in the file's order, are enough; empty where all run here.

    Raises:
        SpecError: the file cannot be read, or has too few slots.
    """
    path = environment.get(HOSTFILE_VARIABLE)
    if not path:
        return []
    hosts: list[Host] = []
    for host in _listed(Path(path)):
        wanted = processes - sum(taken.processes for taken in hosts)
        if wanted > 0:
            hosts.append(Host(host.name, min(host.processes, wanted)))
    found = sum(host.processes for host in hosts)
    if found < processes:
        raise SpecError(
            f"{processes} processes are asked for, and the hosts of {path} have {found} slots",
            hint="lower resources.processes, or let the operator add hosts to DEFT_HOSTFILE",
            pointer="/resources/processes",
        )
    return hosts


def remote_command(host: Host, environment: Mapping[str, str] = os.environ) -> list[str]:
    """What runs a script from its standard input on ``host``."""
    return [*shlex.split(environment.get(SHELL_VARIABLE) or "ssh"), host.name, "sh", "-s"]


def remote_script(command: list[str], environment: Mapping[str, str]) -> str:
    """``command`` in this folder, with what of the environment concerns an engine."""
    kept = {name: value for name, value in environment.items() if name.startswith(_PASSED)}
    exports = "".join(f"export {name}={shlex.quote(value)}\n" for name, value in sorted(kept.items()))
    return f"cd {shlex.quote(str(Path.cwd()))} || exit 1\n{exports}exec {shlex.join(command)} </dev/null\n"


def _listed(path: Path) -> list[Host]:
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise SpecError(
            f"the hostfile {path} cannot be read: {error}", hint=f"set {HOSTFILE_VARIABLE} to a file"
        ) from error
    hosts: list[Host] = []
    for number, line in enumerate(lines, start=1):
        text = line.partition("#")[0].strip()
        if not text:
            continue
        found = _LINE.fullmatch(text)
        if found is None or any(found["name"] == host.name for host in hosts):
            raise SpecError(
                f"{path} line {number}: {text!r} is not `host slots=N` of a host that is named once",
                hint="write a line for each host, the one that the worker runs on first",
            )
        hosts.append(Host(found["name"], int(found["slots"])))
    return hosts
