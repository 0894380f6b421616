"""What a training leaves behind: the model's folder with its card, and with LoRA the adapter beside it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from deft_engine.lora import save_adapter
from deft_engine.model_card import ModelCard, TrainedData
from deft_engine.model_source import locate
from deft_engine.models import Kind, save_model
from deft_engine.run import StageContext, versions
from deft_engine.stages import TrainRewardSpec, TrainSpec
from deft_engine.templates import FixedTemplate
from deft_engine.training_data import RankedSample

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase


def write_trained_model(
    context: StageContext[TrainSpec] | StageContext[TrainRewardSpec],
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    kind: Kind,
    template: FixedTemplate,
    samples: Sequence[RankedSample],
    result: Mapping[str, Any],
) -> None:
    """Write ``model/``, and ``adapter/`` where ``model`` is a LoRA wrapping, which is merged and used up.

    Of several processes the first one writes.

    Args:
        samples: What was trained on.
        result: The stage's.
    """
    if not context.world.first:
        return
    base = locate(context.inputs["model"])
    spec = context.spec.model_dump(mode="json")
    if context.spec.lora is not None:
        save_adapter(model, context.out / "adapter", base)
    details = {"recipe": spec} | ({"omega": result["omega"]} if "omega" in result else {})
    save_model(model, tokenizer, context.out / "model", kind, template, details)
    data = TrainedData.of(context.path("samples"), (ranked.sample for ranked in samples))
    card = ModelCard(kind, template, base, spec, context.input_ids, data, result, versions())
    card.write(context.out / "model")
