"""Low-rank adapters (peft): put on a model for training, and written beside the merged model."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from safetensors.torch import save_file
from transformers import PreTrainedModel

from deft_engine.errors import ModelError
from deft_engine.model_source import ADAPTER_CONFIG, ModelSource
from deft_engine.spec_sections import LoraSpec

_ADAPTER_WEIGHTS = "adapter_model.safetensors"


def add_lora(model: PreTrainedModel, spec: LoraSpec) -> PreTrainedModel:
    """Wrap a policy or reward model with low-rank adapters; only they (and a score head) are trained.

    Raises:
        ModelError: ``spec.target_modules`` names nothing in the model.
    """
    from peft import LoraConfig, TaskType, get_peft_model

    is_reward_model = hasattr(model, "score")
    modules = spec.target_modules if isinstance(spec.target_modules, str) else list(spec.target_modules)
    config = LoraConfig(
        r=spec.r,
        lora_alpha=spec.alpha,
        lora_dropout=spec.dropout,
        target_modules=modules,
        task_type=TaskType.SEQ_CLS if is_reward_model else TaskType.CAUSAL_LM,
    )
    try:
        wrapped: PreTrainedModel = get_peft_model(model, config)
    except ValueError as error:
        raise ModelError(
            f"LoRA cannot be added: {error}", hint='set model.lora.target_modules to "all-linear"'
        ) from error
    return wrapped


def save_adapter(model: PreTrainedModel, folder: Path, base: ModelSource) -> None:
    """Write the adapter alone (and a reward model's head), as ``peft.PeftModel.from_pretrained`` takes it.

    Equal weights give equal bytes. The base model is named where it has a name for everybody: on the hub.

    Args:
        model: A LoRA wrapping, not yet merged by ``save_model``.
        base: What it was put on.
    """
    from peft import get_peft_model_state_dict

    folder.mkdir(parents=True)
    weights = get_peft_model_state_dict(model, save_embedding_layers=False)
    tensors = {name: tensor.detach().cpu().contiguous() for name, tensor in weights.items()}
    save_file(tensors, folder / _ADAPTER_WEIGHTS, {"format": "pt"})
    config: dict[str, Any] = model.peft_config["default"].to_dict() | {
        "base_model_name_or_path": None if base.local else base.location,
        "revision": base.revision,
        "inference_mode": True,
    }
    text = json.dumps(config, indent=2, sort_keys=True, default=sorted)  # some of its values are sets
    (folder / ADAPTER_CONFIG).write_text(text + "\n", encoding="utf-8")
