"""Policies and reward models: loading without remote code, and saving."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Literal

import torch
from safetensors import SafetensorError, safe_open
from torch import nn
from transformers import (
    AutoModelForCausalLM,
    AutoModelForSequenceClassification,
    PretrainedConfig,
    PreTrainedModel,
    PreTrainedTokenizerBase,
)

import deft_engine.oasst_reward  # noqa: F401  # teaches transformers that layout
from deft_engine.builtin.tiny import tiny_policy
from deft_engine.errors import ModelError
from deft_engine.gguf_cache import forget_quantization, unpacked
from deft_engine.matrix_products import use_fastest
from deft_engine.model_source import (
    CARD,
    OASST_REWARD_MODEL,
    ModelSource,
    locate,
    model_type,
    read_card,
    refuse_remote_code,
    reported,
)
from deft_engine.templates import FixedTemplate

Kind = Literal["policy", "reward_model"]
DtypeName = Literal["auto", "float32", "bfloat16", "float64"]

_HEAD_SEED = 20_260
_KIND_NAMES = {"policy": "a language model", "reward_model": "a reward model"}


def device() -> torch.device:
    """Where models run: the first CUDA device if there is one, else the CPU."""
    return torch.device("cuda" if torch.cuda.is_available() else "cpu")


def resolve_dtype(name: DtypeName) -> torch.dtype:
    """``auto``: float32 on a CPU, bfloat16 on a device that has it."""
    if name == "auto":
        return (
            torch.bfloat16 if torch.cuda.is_available() and torch.cuda.is_bf16_supported() else torch.float32
        )
    dtype: torch.dtype = getattr(torch, name)
    return dtype


def core_model(model: PreTrainedModel) -> PreTrainedModel:
    """The transformers model inside a LoRA wrapping; others as they are."""
    unwrap = getattr(model, "get_base_model", None)
    return unwrap() if unwrap else model


def trainable(model: nn.Module) -> dict[str, nn.Parameter]:
    """Name -> parameter that training moves, tied ones once."""
    return {name: p for name, p in model.named_parameters() if p.requires_grad}


@contextmanager
def as_it_computes(core: PreTrainedModel) -> Iterator[None]:
    """Within it, a model is looked at: no dropout, no gradient, no autocast; its mode is back afterwards."""
    was_training = core.training
    core.eval()
    try:
        with torch.no_grad(), torch.autocast(core.device.type, enabled=False):
            yield
    finally:
        core.train(was_training)


def positions(model: PreTrainedModel) -> int:
    """Tokens that a sequence may have; 2**31 for a model that does not count them (a recurrent one)."""
    found: int | None = getattr(model.config.get_text_config(), "max_position_embeddings", None)
    return found or 2**31


def load_policy(uri: str, dtype: DtypeName) -> PreTrainedModel:
    """A causal language model on the CPU, in evaluation mode.

    Args:
        uri: A folder, ``builtin:tiny``, ``builtin:smollm2`` or ``hub:<id>@<revision>``.

    Raises:
        ModelError: it is not there, is incomplete or of another kind, or would need remote code.
    """
    source = locate(uri)
    use_fastest()
    if source.builtin:
        return tiny_policy(resolve_dtype(dtype)).eval()
    return _load(AutoModelForCausalLM, unpacked(source), "policy", dtype)


def load_reward_model(uri: str, dtype: DtypeName) -> PreTrainedModel:
    """A sequence-classification model with one label, on the CPU, in evaluation mode.

    Raises:
        ModelError: as ``load_policy``; a score head that is missing is never made up.
    """
    source = locate(uri)
    if source.builtin or source.gguf_file:
        raise ModelError(
            f"{uri} is a language model, not a reward model",
            hint="train a reward model from it with a job of kind reward_model",
        )
    use_fastest()
    model = _load(AutoModelForSequenceClassification, source, "reward_model", dtype)
    if model.config.num_labels != 1:
        raise ModelError(
            f"{uri} has {model.config.num_labels} labels; a reward model has one",
            hint="name a model that gives a single score",
        )
    return model


def new_reward_model(uri: str, dtype: DtypeName) -> PreTrainedModel:
    """A reward model on a policy's backbone, its head seeded and small (std 1 / sqrt(hidden + 1)).

    Raises:
        ModelError: as ``load_policy``, or there is no classification form of the architecture.
    """
    policy = load_policy(uri, dtype)
    policy.config.num_labels = 1
    with reported(locate(uri), "a reward model's backbone"), torch.device("meta"):
        model: PreTrainedModel = AutoModelForSequenceClassification.from_config(policy.config)
    setattr(model, model.base_model_prefix, policy.base_model)
    model.config = policy.config  # one object, as in any loaded model: the attention reads the backbone's
    model.score = _score_head(policy.config.hidden_size, policy.dtype)
    return model.eval()


def save_model(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    folder: Path,
    kind: Kind,
    template: FixedTemplate,
    details: Mapping[str, Any] | None = None,
) -> None:
    """Write a folder that ``from_pretrained`` loads: safetensors, tokenizer and ``deft.json``.

    LoRA adapters are merged into the weights, after which ``model`` is used up.

    Args:
        details: JSON values for ``deft.json``: how the model was made.
    """
    merge = getattr(model, "merge_and_unload", None)
    plain: PreTrainedModel = merge() if merge else model
    folder.mkdir(parents=True, exist_ok=True)
    plain.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    card = {"kind": kind, "template": template, **(details or {})}
    (folder / CARD).write_text(json.dumps(card, indent=2, sort_keys=True) + "\n", encoding="utf-8")


def _load(auto_class: Any, source: ModelSource, kind: Kind, dtype: DtypeName) -> PreTrainedModel:
    from_elsewhere = "reward_model" if model_type(source) == OASST_REWARD_MODEL else kind
    made_as = read_card(source).get("kind", from_elsewhere)
    if made_as != kind:
        raise ModelError(
            f"{source.uri} is {_KIND_NAMES.get(made_as, made_as)}, not {_KIND_NAMES[kind]}",
            hint=f"name {_KIND_NAMES[kind]} here",
        )
    with reported(source, _KIND_NAMES[kind]):
        if not source.local:
            config, _ = PretrainedConfig.get_config_dict(source.location, revision=source.revision)
            refuse_remote_code(source, config, "config.json")
        else:
            _refuse_broken_files(Path(source.location))
        model, report = auto_class.from_pretrained(
            source.location, dtype=resolve_dtype(dtype), output_loading_info=True, **source.arguments
        )
    absent = sorted(report["missing_keys"]) + sorted(str(key) for key in report["mismatched_keys"])
    if absent:
        raise ModelError(
            f"{source.uri} is not {_KIND_NAMES[kind]}: no fitting weights for {', '.join(absent[:3])}"
            + (f" and {len(absent) - 3} more" if len(absent) > 3 else ""),
            hint="DEFT never fills in random weights; name a complete model of the right kind",
        )
    if source.gguf_file is not None:
        forget_quantization(model)
    loaded: PreTrainedModel = model.eval()
    return loaded


def _refuse_broken_files(folder: Path) -> None:
    """Raise ``ModelError`` where a safetensors file is truncated or its header does not fit its data."""
    for path in sorted(folder.glob("*.safetensors")):
        try:
            with safe_open(path, framework="pt"):  # reads and checks the header alone
                continue
        except SafetensorError as error:
            raise ModelError(
                f"{path} is not a whole safetensors file: {error}", hint="copy or convert the model again"
            ) from error


def _score_head(hidden: int, dtype: torch.dtype) -> nn.Linear:
    head = nn.Linear(hidden, 1, bias=False, dtype=dtype)
    generator = torch.Generator().manual_seed(_HEAD_SEED)
    with torch.no_grad():
        weights = torch.randn(head.weight.shape, generator=generator) / (hidden + 1) ** 0.5
        head.weight.copy_(weights)
    return head
