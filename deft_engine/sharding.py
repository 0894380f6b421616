"""What DeepSpeed ZeRO and FSDP divide between processes, and how a whole model is put together again."""

from __future__ import annotations

import os
from collections.abc import Iterable
from contextlib import AbstractContextManager, nullcontext
from typing import TYPE_CHECKING, Any

import torch
from torch import nn

from deft_engine.errors import ModelError
from deft_engine.models import core_model
from deft_engine.spec_sections import Engine, TrainingSpec

if TYPE_CHECKING:
    from transformers import PreTrainedModel

_BUCKET_ELEMENTS = 50_000_000  # of a collective: 200 MB in float32


def deepspeed_config(engine: Engine, spec: TrainingSpec) -> dict[str, Any] | None:
    """DeepSpeed's configuration for a ZeRO engine; None for any other.

    Raises:
        ModelError: DeepSpeed is not installed.
    """
    if not engine.startswith("zero-"):
        return None
    _prepare_deepspeed()
    return {
        "train_micro_batch_size_per_gpu": "auto",  # Trainer's; nothing depends on it
        "gradient_accumulation_steps": spec.gradient_accumulation,
        "gradient_clipping": spec.max_grad_norm,
        "zero_optimization": {
            "stage": int(engine[-1]),
            "reduce_bucket_size": _BUCKET_ELEMENTS,
            "allgather_bucket_size": _BUCKET_ELEMENTS,
            "stage3_prefetch_bucket_size": _BUCKET_ELEMENTS,
        },
    }


def shard_fully(root: nn.Module, model: PreTrainedModel) -> None:
    """Divide every parameter below ``root`` between the processes (FSDP2), a group for each layer.

    Args:
        root: The module whose forward pass Trainer calls.
        model: The model in it, or its LoRA wrapping.
    """
    from torch.distributed.fsdp import fully_shard

    layers = set(core_model(model)._no_split_modules or ())
    for module in model.modules():
        if type(module).__name__ in layers:
            fully_shard(module)
    fully_shard(root)


def keep_whole(weight: torch.Tensor, engine: Any) -> None:
    """Have ZeRO-3 gather a weight once a step instead of at each use: the head sees every chunk of tokens.

    Args:
        weight: The head's; where it is tied, the embedding's as well.
        engine: DeepSpeed's.
    """
    weight.ds_persist = True  # type: ignore[attr-defined]
    engine.optimizer.persistent_parameters.append(weight)
    weight.all_gather()  # type: ignore[attr-defined]


def make_whole(model: nn.Module) -> None:
    """Replace divided parameters by whole ones, on every process; afterwards the model can only be saved."""
    whole: dict[int, nn.Parameter] = {}
    for module in list(model.modules()):
        for name, parameter in list(module._parameters.items()):
            if parameter is None:
                continue
            if id(parameter) not in whole:
                whole[id(parameter)] = nn.Parameter(_gathered(parameter), parameter.requires_grad)
            module._parameters[name] = whole[id(parameter)]


def local_part(parameter: torch.Tensor) -> torch.Tensor:
    """This process's part of an FSDP parameter; any other as it is."""
    from torch.distributed.tensor import DTensor

    return parameter.to_local() if isinstance(parameter, DTensor) else parameter


def _gathered(parameter: nn.Parameter) -> torch.Tensor:
    from torch.distributed.tensor import DTensor

    with torch.no_grad(), _zero3_gathered([parameter]):
        data = parameter.full_tensor() if isinstance(parameter, DTensor) else parameter.data
        return data.detach().clone()


def _zero3_gathered(parameters: Iterable[nn.Parameter]) -> AbstractContextManager[Any]:
    divided = [parameter for parameter in parameters if hasattr(parameter, "ds_id")]
    if not divided:
        return nullcontext()
    import deepspeed

    context: AbstractContextManager[Any] = deepspeed.zero.GatheredParameters(divided)
    return context


def _prepare_deepspeed() -> None:
    """On a CPU DeepSpeed has to be told so, and must not compile a kernel of its own at the first use."""
    if not torch.cuda.is_available():
        os.environ["DS_ACCELERATOR"] = "cpu"
    try:
        import deepspeed.ops
    except ImportError as error:
        raise ModelError(
            "resources ask for DeepSpeed, which is not installed",
            hint="pip install 'deft[deepspeed]' on the worker, or set resources.launcher to torchrun or fsdp",
            code="missing_dependency",
        ) from error
    deepspeed.ops.__compatible_ops__["deepspeed_shm_comm"] = False
