"""Environment variables of an engine's process that must be set before it starts."""

from __future__ import annotations

ENGINE_DEFAULTS = {
    # Threads of a parallel region sleep while they wait for one another. Spinning, torch's default, is faster
    # for small steps on free cores, but many times slower where other processes want them (docs/log.md).
    "OMP_WAIT_POLICY": "PASSIVE",
    "GOMP_SPINCOUNT": "0",
}
"""What is set unless the user's environment says otherwise."""
