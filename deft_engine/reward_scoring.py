"""Rewards of samples under a reward model: all responses of a prompt in one packed pass, resumable."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from deft_engine.data.collate import RankedBatch
from deft_engine.events import EventWriter
from deft_engine.graders.grader import Responses
from deft_engine.graders.scoring_context import Rewards
from deft_engine.logps import ranked_rewards
from deft_engine.models import DtypeName, device, load_reward_model, positions
from deft_engine.oasst_reward import OasstRewardModel
from deft_engine.response_scoring import Cut, ScoringPass, Tokenising, response_values
from deft_engine.run import StopRequest
from deft_engine.templates import resolve_template
from deft_engine.tokenizer import load_tokenizer
from deft_engine.types import Samples
from deft_engine.world import ALONE, World

if TYPE_CHECKING:
    from torch import Tensor
    from transformers import PreTrainedModel


def score_samples(
    model_uri: str,
    samples: Samples,
    responses: Responses,
    max_length: int,
    dtype: DtypeName,
    events: EventWriter,
    stop: StopRequest,
    work: Path,
    world: World = ALONE,
) -> Iterator[Rewards]:
    """One list of rewards per sample, in order, aligned with its responses as annotated.

    The same values whether or not it was interrupted in between.

    Args:
        model_uri: The reward model, as ``load_reward_model`` takes it.
        responses: Which of a sample's responses are scored; the others' reward is None.
        max_length: Tokens of prompt and response; see ``tokenise``, for OpenAssistant's models
            ``left_truncated``.
        dtype: Of the model's weights and products; what makes a reward of its last state is float32.
        work: Folder that keeps what is done.
        world: The processes that score together.

    Raises:
        ModelError: the model cannot be used.
        Interrupted: ``stop`` was set; the windows that are done are kept.
    """
    scorer = RewardScorer.load(model_uri, max_length, dtype)
    run = ScoringPass("rewards", events, stop, work, world)
    yield from response_values(samples, responses, scorer.tokenising, scorer.rewards, run)


@dataclass(frozen=True, slots=True)
class RewardScorer:
    """A reward model and how a sample becomes its input."""

    model: PreTrainedModel
    tokenising: Tokenising

    @classmethod
    def load(cls, model_uri: str, max_length: int, dtype: DtypeName) -> RewardScorer:
        """The reward model at ``model_uri``, on this machine's device.

        Raises:
            ModelError: the model cannot be used.
        """
        tokenizer = load_tokenizer(model_uri)
        template = resolve_template("auto", model_uri, tokenizer)
        model = load_reward_model(model_uri, dtype).to(device())
        limit = min(max_length, positions(model))
        cut: Cut = "left" if isinstance(model, OasstRewardModel) else "prompt"
        return cls(model, Tokenising(tokenizer, template, limit, cut))

    def rewards(self, batch: RankedBatch) -> Tensor:
        """``[batch, ranks]``, see ``ranked_rewards``."""
        return ranked_rewards(self.model, batch)
