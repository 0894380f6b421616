"""What the losses on ranked lists share. Ranks are best first, and what is masked lies behind them."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from torch import Tensor


def worst(values: Tensor, mask: Tensor) -> Tensor:
    """``[batch]``: the last rank's value of each sample."""
    return values.gather(1, mask.sum(dim=1, keepdim=True) - 1).squeeze(1)


def pair_differences(values: Tensor, mask: Tensor) -> tuple[Tensor, Tensor]:
    """Value of i minus value of j for all pairs, i better than j ``[batch, pairs]``, and which exist."""
    import torch

    better, worse = torch.triu_indices(values.shape[1], values.shape[1], 1, device=values.device)
    return values[:, better] - values[:, worse], mask[:, better] & mask[:, worse]


def mean_over(values: Tensor, pairs: Tensor) -> Tensor:
    """``[batch]``: the mean over those pairs that exist; each row has one at least."""
    return values.masked_fill(~pairs, 0.0).sum(dim=1) / pairs.sum(dim=1)


def choice_losses(logits: Tensor, mask: Tensor) -> Tensor:
    """Round k of a ranking: its best out of the responses that are left (Plackett-Luce; eq 11).

    ``- log (exp(logits[k, k]) / sum_{i >= k} exp(logits[k, i]))``, stable for logits of any size.

    Args:
        logits: ``[batch, rounds, ranks]``, as many rounds as ranks; often the same row in all rounds.
        mask: ``[batch, ranks]`` bool.

    Returns:
        ``[batch, rounds]``; exactly 0, without a gradient, where nothing is left to choose from.
    """
    import torch

    ranks = logits.shape[2]
    left = torch.ones(ranks, ranks, dtype=torch.bool, device=logits.device).triu()  # [rounds, ranks]
    own = torch.eye(ranks, dtype=torch.bool, device=logits.device)  # no round is empty: no NaN in a gradient
    choices = (left & mask[:, None, :]) | own
    total = logits.masked_fill(~choices, -torch.inf).logsumexp(dim=2)
    return total - logits.diagonal(dim1=1, dim2=2)


def preference_metrics(rewards: Tensor, mask: Tensor) -> dict[str, Tensor]:
    """TRL's figures ``[batch]`` of the rewards that a model gives or implies; accuracy is over all pairs."""
    rewards = rewards.detach()
    differences, pairs = pair_differences(rewards, mask)
    best, last = rewards[:, 0], worst(rewards, mask)
    return {
        "rewards/chosen": best,
        "rewards/rejected": last,
        "rewards/accuracies": mean_over((differences > 0).to(rewards.dtype), pairs),
        "rewards/margins": best - last,
    }


def logp_metrics(policy: Tensor, mask: Tensor) -> dict[str, Tensor]:
    """TRL's figures ``[batch]`` of the best and the worst response's log-probabilities."""
    policy = policy.detach()
    return {"logps/chosen": policy[:, 0], "logps/rejected": worst(policy, mask)}
