"""Tokenizers: how one is loaded, and how two are told apart."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

from deft_engine.canonical import canonical_json, sha256_hex
from deft_engine.errors import ModelError
from deft_engine.gguf_cache import unpacked
from deft_engine.model_source import locate, reported

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

_DECIDES_IDS = ("added_tokens", "normalizer", "pre_tokenizer", "model")


def load_tokenizer(uri: str) -> PreTrainedTokenizerBase:
    """The tokenizer of a model: a folder, ``builtin:tiny``, ``builtin:smollm2`` or ``hub:<id>@<revision>``.

    It has an EOS token; its padding token is EOS where it came without one.

    Raises:
        ModelError: it cannot be loaded without remote code, is not a fast tokenizer, or has no EOS.
    """
    source = locate(uri)
    if source.builtin:
        from deft_engine.builtin.tiny import tiny_tokenizer

        return tiny_tokenizer()
    from transformers import AutoTokenizer

    source = unpacked(source)
    with reported(source, "a tokenizer"):
        tokenizer: PreTrainedTokenizerBase = AutoTokenizer.from_pretrained(
            source.location, **source.arguments
        )
    if not tokenizer.is_fast:
        raise ModelError(
            f"{uri}: the tokenizer has no fast form (tokenizer.json)",
            hint="convert it with transformers' convert_slow_tokenizer and save it beside the model",
        )
    if tokenizer.eos_token_id is None:
        raise ModelError(
            f"{uri}: the tokenizer has no end-of-text token",
            hint='set "eos_token" in tokenizer_config.json',
        )
    if tokenizer.pad_token_id is None:
        tokenizer.pad_token = tokenizer.eos_token
    return tokenizer


def tokenizer_sha256(tokenizer: PreTrainedTokenizerBase) -> str:
    """Hex SHA-256 of everything that decides a text's ids; equal before and after saving.

    Padding, truncation and the special tokens around a text are left out: they change no token of it.
    """
    content = json.loads(tokenizer.backend_tokenizer.to_str())
    return sha256_hex(canonical_json({key: content[key] for key in _DECIDES_IDS}))
