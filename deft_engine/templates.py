"""Prompts as token ids: the chat forms ``hh``, ``oasst`` and the tokenizer's own.

=========  =====================================================================================
``hh``     ``\\n\\nHuman: Q\\n\\nAssistant:`` and a response of `` A`` (Anthropic HH-RLHF)
``oasst``  ``<|prompter|>Q<|endoftext|><|assistant|>`` and a response of ``A`` (OpenAssistant)
``chat``   the tokenizer's chat template with its generation prompt, and a response of ``A``
=========  =====================================================================================

Text of users never becomes a special token under ``hh`` and ``oasst``, and never in a response.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Literal

from deft_engine.errors import ModelError
from deft_engine.model_source import OASST_REWARD_MODEL, ModelSource, locate, model_type, read_card
from deft_engine.spec_sections import Template
from deft_engine.time_limit import TooSlow, cpu_time_limit
from deft_engine.types import Message

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

FixedTemplate = Literal["chat", "hh", "oasst"]

_HH_TAGS = {"system": "\n\nSystem: ", "user": "\n\nHuman: ", "assistant": "\n\nAssistant: "}
_HH_ANSWER = "\n\nAssistant:"
_OASST_TAGS = {"system": "<|system|>", "user": "<|prompter|>", "assistant": "<|assistant|>"}
_CHAT_SECONDS = 10.0  # of a processor, for one prompt; a usual template takes less than a thousandth
TURN_TAGS = {"hh": ("\n\nHuman:", "\n\nAssistant:"), "oasst": (), "chat": ()}
"""Template -> texts that begin a new turn; where they are special tokens, generation ends at EOS alone."""


def resolve_template(template: Template, uri: str, tokenizer: PreTrainedTokenizerBase) -> FixedTemplate:
    """The template to use for the model at ``uri``.

    ``auto``: what its ``deft.json`` says, else ``oasst`` for a reward model of OpenAssistant, ``chat`` where
    the tokenizer has a chat template, ``hh`` for all others.

    Raises:
        ModelError: the tokenizer lacks what the template needs.
    """
    if template == "auto":
        source = locate(uri)
        template = read_card(source).get("template") or _usual_template(source, tokenizer)
    if template == "chat" and not tokenizer.chat_template:
        raise ModelError(
            f"{uri}: the tokenizer has no chat template", hint='set model.template to "hh" or "auto"'
        )
    if template == "oasst":
        _oasst_ids(tokenizer)
    if template not in ("chat", "hh", "oasst"):
        raise ModelError(f"{uri}: unknown template {template!r}", hint="use chat, hh or oasst")
    return template


def render_prompt(
    tokenizer: PreTrainedTokenizerBase, messages: Sequence[Message], template: FixedTemplate
) -> list[int]:
    """Token ids of a prompt up to where the answer begins, with BOS at most once.

    Raises:
        ModelError: the chat template refuses these messages (for example a system turn).
    """
    if template == "chat":
        ids = _chat(tokenizer, messages)
    elif template == "oasst":
        ids = _bos(tokenizer) + _oasst(tokenizer, messages)
    else:
        text = "".join(_HH_TAGS[message.role] + message.content for message in messages) + _HH_ANSWER
        ids = _bos(tokenizer) + encode_text(tokenizer, text)
    while len(ids) > 1 and ids[0] == ids[1] == tokenizer.bos_token_id:
        del ids[0]
    return ids


def render_response(tokenizer: PreTrainedTokenizerBase, text: str, template: FixedTemplate) -> list[int]:
    """Token ids of a response as its own segment, without EOS; ``hh`` puts the space after the tag back."""
    return encode_text(tokenizer, f" {text}" if template == "hh" else text)


def encode_text(tokenizer: PreTrainedTokenizerBase, text: str) -> list[int]:
    """Token ids of a user's text: nothing added, and ``<eos>`` written in it stays text."""
    ids: list[int] = tokenizer(text, add_special_tokens=False, split_special_tokens=True)["input_ids"]
    return ids


def cut_prompt(ids: list[int], limit: int, tokenizer: PreTrainedTokenizerBase) -> list[int]:
    """The last ``limit`` tokens of a prompt; a leading BOS stays."""
    if len(ids) <= limit:
        return ids
    if limit > 1 and ids[0] == tokenizer.bos_token_id:
        return [ids[0], *ids[len(ids) - limit + 1 :]]
    return ids[len(ids) - limit :]


def _usual_template(source: ModelSource, tokenizer: PreTrainedTokenizerBase) -> FixedTemplate:
    if model_type(source) == OASST_REWARD_MODEL:
        return "oasst"
    return "chat" if tokenizer.chat_template else "hh"


def _bos(tokenizer: PreTrainedTokenizerBase) -> list[int]:
    """BOS where the tokenizer itself begins a text with it."""
    first: list[int] = tokenizer("a")["input_ids"][:1]
    return first if first == [tokenizer.bos_token_id] else []


def _chat(tokenizer: PreTrainedTokenizerBase, messages: Sequence[Message]) -> list[int]:
    turns = [{"role": message.role, "content": message.content} for message in messages]
    try:
        with cpu_time_limit(_CHAT_SECONDS):
            text = tokenizer.apply_chat_template(turns, tokenize=False, add_generation_prompt=True)
    except TooSlow as error:
        raise ModelError(
            f"the tokenizer's chat template does not come to an end: {error}",
            hint='mend chat_template in the model\'s folder, or set model.template to "hh"',
        ) from error
    except Exception as error:  # a template may raise anything
        raise ModelError(
            f"the tokenizer's chat template refuses a prompt with the roles "
            f"{', '.join(message.role for message in messages)}: {error}",
            hint='set model.template to "hh"',
        ) from error
    ids: list[int] = tokenizer(text, add_special_tokens=False)["input_ids"]
    return ids


def _oasst(tokenizer: PreTrainedTokenizerBase, messages: Sequence[Message]) -> list[int]:
    tags, end = _oasst_ids(tokenizer)
    ids: list[int] = []
    for message in messages:
        ids += [tags[message.role], *encode_text(tokenizer, message.content), end]
    return [*ids, tags["assistant"]]


def _oasst_ids(tokenizer: PreTrainedTokenizerBase) -> tuple[dict[str, int], int]:
    vocabulary = tokenizer.get_vocab()
    missing = [tag for role, tag in _OASST_TAGS.items() if role != "system" and tag not in vocabulary]
    if missing:
        raise ModelError(
            f"the tokenizer has no token {' or '.join(missing)}",
            hint='the template "oasst" is for OpenAssistant models; use "hh" or "auto"',
        )
    tags = {role: vocabulary.get(tag, vocabulary["<|prompter|>"]) for role, tag in _OASST_TAGS.items()}
    return tags, int(tokenizer.eos_token_id)
