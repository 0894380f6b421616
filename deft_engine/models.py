"""Policies and reward models: loading without remote code, LoRA, and saving."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Literal

import torch
from torch import nn
from transformers import (
    AutoModelForCausalLM,
    AutoModelForSequenceClassification,
    PretrainedConfig,
    PreTrainedModel,
    PreTrainedTokenizerBase,
)

from deft_engine.builtin.tiny import tiny_policy
from deft_engine.errors import ModelError
from deft_engine.gguf_cache import forget_quantization, unpacked
from deft_engine.model_source import CARD, ModelSource, locate, read_card, refuse_remote_code, reported
from deft_engine.specs import LoraSpec
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


def save_model(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    folder: Path,
    kind: Kind,
    template: FixedTemplate,
    details: Mapping[str, Any] | None = None,
) -> None:
    """Write a folder that ``from_pretrained`` loads: safetensors, tokenizer, ``deft.json`` and a model card.

    LoRA adapters are merged into the weights, after which ``model`` is used up.

    Args:
        details: JSON values for ``deft.json`` and the card: how the model was made.
    """
    merge = getattr(model, "merge_and_unload", None)
    plain: PreTrainedModel = merge() if merge else model
    folder.mkdir(parents=True, exist_ok=True)
    plain.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    card = {"kind": kind, "template": template, **(details or {})}
    (folder / CARD).write_text(json.dumps(card, indent=2, sort_keys=True) + "\n", encoding="utf-8")
    (folder / "README.md").write_text(_readme(kind, template, details or {}), encoding="utf-8")


def _load(auto_class: Any, source: ModelSource, kind: Kind, dtype: DtypeName) -> PreTrainedModel:
    made_as = read_card(source).get("kind", kind)
    if made_as != kind:
        raise ModelError(
            f"{source.uri} is {_KIND_NAMES.get(made_as, made_as)}, not {_KIND_NAMES[kind]}",
            hint=f"name {_KIND_NAMES[kind]} here",
        )
    with reported(source, _KIND_NAMES[kind]):
        if not source.local:
            config, _ = PretrainedConfig.get_config_dict(source.location, revision=source.revision)
            refuse_remote_code(source, config, "config.json")
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


def _score_head(hidden: int, dtype: torch.dtype) -> nn.Linear:
    head = nn.Linear(hidden, 1, bias=False, dtype=dtype)
    generator = torch.Generator().manual_seed(_HEAD_SEED)
    with torch.no_grad():
        weights = torch.randn(head.weight.shape, generator=generator) / (hidden + 1) ** 0.5
        head.weight.copy_(weights)
    return head


def _readme(kind: Kind, template: FixedTemplate, details: Mapping[str, Any]) -> str:
    auto_class = "AutoModelForCausalLM" if kind == "policy" else "AutoModelForSequenceClassification"
    rows = "".join(f"| {name} | `{json.dumps(value)}` |\n" for name, value in sorted(details.items()))
    return (
        f"---\nlibrary_name: transformers\ntags: [deft, {kind}]\n---\n"
        f"# A {kind.replace('_', ' ')} made by DEFT\n\n"
        f"Prompts are rendered by the template `{template}`.\n\n"
        "```python\n"
        f"from transformers import AutoTokenizer, {auto_class}\n\n"
        f'model = {auto_class}.from_pretrained(".")\n'
        'tokenizer = AutoTokenizer.from_pretrained(".")\n'
        "```\n" + (f"\n| | |\n|---|---|\n{rows}" if rows else "")
    )
