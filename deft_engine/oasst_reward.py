"""OpenAssistant's reward models: the GPT-NeoX backbone and a linear layer on the last token's state.

Their ``model_type`` is one that transformers does not know, and their own class is not part of the model, so
stock loading fails; loading them as ``gpt_neox`` silently makes up a head. Registered here, they load as any
sequence classifier does. They read prompts in the form ``oasst``, cut on the left by ``left_truncated``.
"""

from __future__ import annotations

from typing import Any, ClassVar

from torch import nn
from transformers import AutoConfig, AutoModelForSequenceClassification, GPTNeoXConfig
from transformers.models.gpt_neox.modeling_gpt_neox import GPTNeoXModel, GPTNeoXPreTrainedModel

from deft_engine.model_source import OASST_REWARD_MODEL


class OasstRewardConfig(GPTNeoXConfig):  # type: ignore[misc]  # transformers is not typed here
    """A GPT-NeoX configuration; ``pooling`` says which state is scored."""

    model_type = OASST_REWARD_MODEL

    pooling: str = "last"

    def __post_init__(self, **kwargs: Any) -> None:
        super().__post_init__(**{"num_labels": 1, **kwargs})


class OasstRewardModel(GPTNeoXPreTrainedModel):  # type: ignore[misc]
    """Backbone ``gpt_neox`` and head ``out_proj``; ``logps.ranked_rewards`` puts the two together."""

    config_class = OasstRewardConfig
    # buffers of the releases of transformers that these models were saved by; they are computed today
    _keys_to_ignore_on_load_unexpected: ClassVar[list[str]] = [
        r"attention\.bias$",
        r"attention\.masked_bias$",
        r"rotary_emb\.inv_freq$",
    ]

    def __init__(self, config: OasstRewardConfig) -> None:
        super().__init__(config)
        if config.pooling != "last":
            raise ValueError(f'"pooling" is {config.pooling!r} in config.json; only "last" is known')
        self.gpt_neox = GPTNeoXModel(config)
        self.out_proj = nn.Linear(config.hidden_size, 1)
        self.post_init()

    @property
    def score(self) -> nn.Linear:
        """The head, by the name that transformers' classifiers give it."""
        return self.out_proj


AutoConfig.register(OASST_REWARD_MODEL, OasstRewardConfig)
AutoModelForSequenceClassification.register(OasstRewardConfig, OasstRewardModel)
