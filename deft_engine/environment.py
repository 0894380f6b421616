"""The environment of an engine's process, which must be set before it starts."""

from __future__ import annotations

from collections.abc import Mapping

ENGINE_DEFAULTS = {
    # Threads of a parallel region sleep while they wait for one another. Spinning, torch's default, is faster
    # for small steps on free cores, but many times slower where other processes want them (docs/log.md).
    "OMP_WAIT_POLICY": "PASSIVE",
    "GOMP_SPINCOUNT": "0",
}
"""What is set unless the user's environment says otherwise."""

_LAUNCHERS = {
    "RANK",
    "WORLD_SIZE",
    "LOCAL_RANK",
    "LOCAL_WORLD_SIZE",
    "GROUP_RANK",
    "MASTER_ADDR",
    "MASTER_PORT",
}


def engine_environment(environment: Mapping[str, str]) -> dict[str, str]:
    """``environment`` for an engine: with the defaults, without what a launcher around the caller has set.

    Otherwise the engines of a service that torchrun or a cluster's launcher started would wait for ranks that
    never come.
    """
    kept = {name: value for name, value in environment.items() if name not in _LAUNCHERS}
    return ENGINE_DEFAULTS | kept
