"""A policy that is not its own reference."""

from pathlib import Path

import torch

from deft_engine.models import load_policy, save_model
from deft_engine.tokenizer import load_tokenizer


def save_moved(folder: Path) -> str:
    """The tiny model, every weight moved a little by a seed; returns the folder."""
    model = load_policy("builtin:tiny", "float32")
    generator = torch.Generator().manual_seed(4)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(torch.randn(parameter.shape, generator=generator) * 0.02)
    save_model(model, load_tokenizer("builtin:tiny"), folder, "policy", "hh")
    return str(folder)
