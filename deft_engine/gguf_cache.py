"""GGUF models as ordinary model folders, unpacked once: reading GGUF takes half a minute, each time."""

from __future__ import annotations

import fcntl
import shutil
import tempfile
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING

from deft_engine.cache import cache_folder
from deft_engine.canonical import canonical_json, sha256_hex
from deft_engine.model_source import ModelSource, reported

if TYPE_CHECKING:
    from transformers import PreTrainedModel


def unpacked(source: ModelSource) -> ModelSource:
    """The same model and tokenizer as safetensors, from ``$XDG_CACHE_HOME/deft`` (``~/.cache/deft``).

    A source that is no GGUF file is returned as it is, and so is one for which the cache has no room.

    Raises:
        ModelError: the GGUF file cannot be read.
    """
    if source.gguf_file is None:
        return source
    try:
        return ModelSource(source.uri, str(_folder(source)))
    except OSError:
        return source


def forget_quantization(model: PreTrainedModel) -> None:
    """All weights of a GGUF model were dequantised: from here on it is a plain model."""
    model.hf_quantizer = None
    del model.config.quantization_config


def _folder(source: ModelSource) -> Path:
    root = cache_folder() / "gguf"
    root.mkdir(exist_ok=True)
    target = root / _key(source)
    with (root / ".lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)  # of several processes one unpacks and the others wait
        if not target.exists():
            building = Path(tempfile.mkdtemp(dir=root))
            try:
                _unpack(source, building)
                building.rename(target)
            finally:
                shutil.rmtree(building, ignore_errors=True)
    return target


def _key(source: ModelSource) -> str:
    """Changes with the file, and with the library that interprets it."""
    file = Path(source.location) / str(source.gguf_file)
    state = file.stat()
    identity = [str(file.resolve()), state.st_size, state.st_mtime_ns, version("transformers")]
    return sha256_hex(canonical_json(identity))[:32]


def _unpack(source: ModelSource, folder: Path) -> None:
    from transformers import AutoModelForCausalLM, AutoTokenizer

    with reported(source, "a GGUF model"):
        AutoTokenizer.from_pretrained(source.location, **source.arguments).save_pretrained(folder)
        model = AutoModelForCausalLM.from_pretrained(source.location, **source.arguments)
        forget_quantization(model)
        model.save_pretrained(folder)
