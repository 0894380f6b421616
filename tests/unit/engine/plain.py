"""The plain padded twin: each response with its own prompt, standard attention, a full log-softmax.

Written from eqs 7 and 9; shares nothing with ``deft_engine.logps`` but its input type.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from transformers import (
    AutoModelForCausalLM,
    AutoModelForSequenceClassification,
    Gemma2Config,
    Gemma3TextConfig,
    GemmaConfig,
    GPT2Config,
    GPTNeoXConfig,
    GraniteConfig,
    LlamaConfig,
    MambaConfig,
    MistralConfig,
    PretrainedConfig,
    PreTrainedModel,
    Qwen2Config,
    Qwen3Config,
)

from deft_engine.data.tokenise import TokenisedSample

VOCABULARY = 61
_COMMON: dict[str, Any] = {
    "vocab_size": VOCABULARY,
    "hidden_size": 24,
    "intermediate_size": 40,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "max_position_embeddings": 128,
    "pad_token_id": 0,
    "bos_token_id": 1,
    "eos_token_id": 2,
}
_GROUPED = {**_COMMON, "num_key_value_heads": 2}
CONFIGS: dict[str, PretrainedConfig] = {
    "llama": LlamaConfig(**_GROUPED, tie_word_embeddings=True),
    "mistral": MistralConfig(**_GROUPED, sliding_window=None),
    "qwen2": Qwen2Config(**_GROUPED),
    "qwen3": Qwen3Config(**_GROUPED, head_dim=8),
    "gpt_neox": GPTNeoXConfig(**_COMMON),
    "gpt2": GPT2Config(
        vocab_size=VOCABULARY, n_embd=24, n_inner=40, n_layer=2, n_head=4, n_positions=128, pad_token_id=0,
        bos_token_id=1, eos_token_id=2, attn_pdrop=0.0, embd_pdrop=0.0, resid_pdrop=0.0,
    ),
    "gemma": GemmaConfig(**_GROUPED, head_dim=8),
    "gemma2": Gemma2Config(
        **_GROUPED, head_dim=8, query_pre_attn_scalar=8, sliding_window=64, attn_logit_softcapping=2.0,
        final_logit_softcapping=3.0,
    ),
    "gemma3_text": Gemma3TextConfig(**_GROUPED, head_dim=8, query_pre_attn_scalar=8, sliding_window=64),
    "granite": GraniteConfig(**_GROUPED, logits_scaling=4.0),
    "mistral windowed": MistralConfig(**_GROUPED, sliding_window=16),
    "mamba": MambaConfig(
        vocab_size=VOCABULARY, hidden_size=24, state_size=4, num_hidden_layers=2, pad_token_id=0,
        bos_token_id=1, eos_token_id=2,
    ),
}  # fmt: skip
"""Model types by the names that tests use."""

PADDED = {"gemma2", "mamba"}
"""Those whose every batch takes the padded layout."""

REWARD_MODELS = sorted(CONFIGS.keys() - {"granite", "mamba"})  # transformers has no classifier of these


def random_policy(model_type: str, dtype: torch.dtype) -> PreTrainedModel:
    """A small policy with weights large enough that a mistake shows."""
    return _randomise(AutoModelForCausalLM.from_config(CONFIGS[model_type]), dtype)


def random_reward_model(model_type: str, dtype: torch.dtype) -> PreTrainedModel:
    """A small reward model."""
    config = type(CONFIGS[model_type])(**{**CONFIGS[model_type].to_dict(), "num_labels": 1})
    return _randomise(AutoModelForSequenceClassification.from_config(config), dtype)


def _randomise(model: PreTrainedModel, dtype: torch.dtype) -> PreTrainedModel:
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.dim() > 1:
                parameter.copy_(torch.randn(parameter.shape, generator=generator) * 0.15)
    if dtype == torch.float64:
        _keep_float64(model)
    return model.to(dtype).eval()


def _keep_float64(model: PreTrainedModel) -> None:
    """transformers' RMSNorm rounds to float32 in any dtype; that would hide all below 1e-7."""
    for module in model.modules():
        if type(module).__name__.endswith("RMSNorm"):
            module.forward = partial(_rms_norm, module)


def _rms_norm(module: nn.Module, hidden: Tensor) -> Tensor:
    gemma = hasattr(module, "eps")  # its weight is the difference from 1
    epsilon, weight = (module.eps, 1 + module.weight) if gemma else (module.variance_epsilon, module.weight)
    return weight * hidden * torch.rsqrt(hidden.pow(2).mean(-1, keepdim=True) + epsilon)


def plain_logps(model: PreTrainedModel, samples: Sequence[TokenisedSample]) -> Tensor:
    """``[batch, ranks]``: sum over the response of log P(y_t | x, y_<t); 0 where there is no response."""
    rows = []
    ranks = max(len(sample.responses) for sample in samples)
    for sample in samples:
        ids, attention = _padded(sample)
        log_probabilities = torch.log_softmax(model(input_ids=ids, attention_mask=attention).logits, dim=-1)
        sums = []
        for index, response in enumerate(sample.responses):
            start = len(sample.prompt)
            terms = [log_probabilities[index, start + t - 1, token] for t, token in enumerate(response)]
            sums.append(torch.stack(terms).sum())
        rows.append(_filled(sums, ranks))
    return torch.stack(rows)


def plain_rewards(model: PreTrainedModel, samples: Sequence[TokenisedSample]) -> Tensor:
    """``[batch, ranks]``: the score head at the response's last token."""
    rows = []
    ranks = max(len(sample.responses) for sample in samples)
    for sample in samples:
        ids, attention = _padded(sample)
        hidden = model.base_model(input_ids=ids, attention_mask=attention).last_hidden_state
        scores = model.score(hidden)[..., 0]
        lasts = [len(sample.prompt) + len(response) - 1 for response in sample.responses]
        rows.append(_filled([scores[index, last] for index, last in enumerate(lasts)], ranks))
    return torch.stack(rows)


def _padded(sample: TokenisedSample) -> tuple[Tensor, Tensor]:
    sequences = [sample.prompt + response for response in sample.responses]
    width = max(map(len, sequences))
    ids = torch.tensor([sequence + [0] * (width - len(sequence)) for sequence in sequences])
    attention = torch.tensor([[1] * len(s) + [0] * (width - len(s)) for s in sequences])
    return ids, attention


def _filled(values: list[Tensor], ranks: int) -> Tensor:
    return torch.stack([*values, *[values[0].new_zeros(())] * (ranks - len(values))])
