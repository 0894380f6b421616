"""Stage ``generate``: answers by a model that is loaded, by an endpoint that is asked, or made elsewhere."""

from __future__ import annotations

from typing import Any

from deft_engine.run import StageContext
from deft_engine.stages import GenerateSpec


def run(context: StageContext[GenerateSpec]) -> dict[str, Any]:
    """Write ``generations.jsonl``; see the two modules for what may go wrong."""
    if "endpoint" in context.inputs:
        from deft_engine.endpoints.generation import run as ask

        return ask(context)
    if "generations" in context.inputs:
        from deft_engine.data.taken_generations import run as take

        return take(context)
    from deft_engine.generation import run as decode

    return decode(context)
