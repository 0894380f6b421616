"""``builtin:tiny``: a Llama of 1.1 million parameters with random, seeded weights and its own tokenizer.

The tokenizer is a byte-level BPE of 2,048 tokens, without loss on any text, made by
``examples/build_tiny_tokenizer.py``.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import torch
    from transformers import PreTrainedModel, PreTrainedTokenizerFast

TOKENIZER_FILE = Path(__file__).with_name("tokenizer.json")
VOCABULARY = 2048
POSITIONS = 1024
SPECIAL_TOKENS = {"pad_token": "<pad>", "bos_token": "<bos>", "eos_token": "<eos>"}
"""Their ids are 0, 1 and 2."""

_SEED = 20_260


def tiny_tokenizer() -> PreTrainedTokenizerFast:
    """The tokenizer of ``builtin:tiny``; it starts a text with BOS."""
    from transformers import PreTrainedTokenizerFast

    return PreTrainedTokenizerFast(
        tokenizer_file=str(TOKENIZER_FILE),
        model_max_length=POSITIONS,
        clean_up_tokenization_spaces=False,
        **SPECIAL_TOKENS,
    )


def tiny_policy(dtype: torch.dtype) -> PreTrainedModel:
    """The same weights on every call; the caller's random state is left alone."""
    import torch
    from transformers import LlamaConfig, LlamaForCausalLM

    pad, bos, eos = range(len(SPECIAL_TOKENS))
    config = LlamaConfig(
        vocab_size=VOCABULARY,
        hidden_size=128,
        intermediate_size=384,
        num_hidden_layers=4,
        num_attention_heads=4,
        num_key_value_heads=4,
        max_position_embeddings=POSITIONS,
        tie_word_embeddings=True,
        pad_token_id=pad,
        bos_token_id=bos,
        eos_token_id=eos,
    )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(_SEED)
        model: PreTrainedModel = LlamaForCausalLM(config)
    return model.to(dtype)
