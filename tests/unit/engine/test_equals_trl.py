"""TRL as an oracle: the same weights and token ids give its losses, gradients and log-probabilities."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import PreTrainedModel

from deft_engine.builtin.tiny import tiny_policy, tiny_tokenizer
from deft_engine.data.collate import collate
from deft_engine.data.tokenise import TokenisedSample
from deft_engine.logps import ranked_logps, ranked_rewards
from deft_engine.losses import DPO, SFT
from deft_engine.losses.reward import BradleyTerry
from deft_engine.models import new_reward_model

pytestmark = pytest.mark.slow  # importing TRL takes longer than all else here

LOSS = 1e-5
LOGPS = 2e-4
GRADIENT = 1e-4  # of a parameter's gradient: norm of the difference over its norm
EOS = 2
ROW = {"prompt": "one", "chosen": "two", "rejected": "three"}  # trainers want data; theirs is not looked at


def pairs() -> list[TokenisedSample]:
    """Six pairs with prompts and responses of unequal lengths."""
    generator = torch.Generator().manual_seed(3)

    def ids(count: int) -> list[int]:
        return torch.randint(3, 2048, (count,), generator=generator).tolist()

    lengths = [(30, 12, 5), (3, 40, 41), (17, 1, 22), (64, 20, 20), (1, 7, 30), (25, 33, 2)]
    return [
        TokenisedSample(f"s{number}", "all", ids(prompt), [[*ids(better), EOS], [*ids(worse), EOS]], 0)
        for number, (prompt, better, worse) in enumerate(lengths)
    ]


def trained(seed: int) -> PreTrainedModel:
    """The built-in model after an update of some size."""
    model = tiny_policy(torch.float32)
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.02 * torch.randn(parameter.shape, generator=generator))
    return model


def dataset(row: dict[str, str]) -> Any:
    from datasets import Dataset

    return Dataset.from_list([row, row])


def arguments(folder: Path) -> dict[str, Any]:
    return {
        "output_dir": str(folder),
        "bf16": False,
        "gradient_checkpointing": False,
        "use_cpu": True,
        "report_to": "none",
    }


def gradients(model: PreTrainedModel, loss: torch.Tensor) -> dict[str, torch.Tensor]:
    model.zero_grad()
    loss.backward()
    return {name: p.grad.clone() for name, p in model.named_parameters() if p.grad is not None}


def assert_same_gradients(ours: dict[str, torch.Tensor], theirs: dict[str, torch.Tensor]) -> None:
    assert ours.keys() == theirs.keys()
    for name, expected in theirs.items():
        difference = (ours[name] - expected).norm() / expected.norm()
        assert difference < GRADIENT, f"{name}: {difference:.1e}"


def test_dpo(tmp_path: Path) -> None:
    from trl import DPOConfig, DPOTrainer

    policy, reference = trained(1).train(), trained(2)
    samples = pairs()
    trainer = DPOTrainer(
        policy,
        reference,
        DPOConfig(**arguments(tmp_path), beta=0.3),
        train_dataset=dataset(ROW),
        processing_class=tiny_tokenizer(),
    )
    inputs = trainer.data_collator(
        [
            {"prompt_ids": s.prompt, "chosen_ids": s.responses[0], "rejected_ids": s.responses[1]}
            for s in samples
        ]
    )
    loss = trainer.compute_loss(policy, inputs)
    theirs = gradients(policy, loss)
    chosen, rejected = trainer.compute_ref_log_probs(reference, inputs)

    batch = collate(samples)
    with torch.no_grad():
        of_reference = ranked_logps(reference, batch).policy
    logps = ranked_logps(policy, batch).with_reference(of_reference)
    output = DPO(beta=0.3, sft_weight=0)(logps)
    assert output.loss.mean().item() == pytest.approx(loss.item(), abs=LOSS)
    torch.testing.assert_close(of_reference, torch.stack([chosen, rejected], dim=1), rtol=0, atol=LOGPS)
    assert_same_gradients(gradients(policy, output.loss.mean()), theirs)
    recorded = {name: values[0] for name, values in trainer._metrics["train"].items()}
    for name, value in output.metrics.items():
        assert value.float().mean().item() == pytest.approx(recorded[name], abs=LOGPS), name


def test_sft(tmp_path: Path) -> None:
    from trl import SFTConfig, SFTTrainer

    policy = trained(1).train()
    samples = pairs()
    trainer = SFTTrainer(
        policy,
        SFTConfig(**arguments(tmp_path), completion_only_loss=True),
        train_dataset=dataset({"prompt": "one", "completion": "two"}),
        processing_class=tiny_tokenizer(),
    )
    rows = [
        {"input_ids": s.prompt + s.responses[0], "labels": [-100] * len(s.prompt) + s.responses[0]}
        for s in samples
    ]
    loss = trainer.compute_loss(policy, trainer.data_collator(rows))
    theirs = gradients(policy, loss)

    logps = ranked_logps(policy, collate(samples))
    tokens = logps.lengths[:, 0].sum()
    ours = SFT(reduction="sum")(logps).loss.sum() / tokens  # TRL's mean is over the tokens of the batch
    assert ours.item() == pytest.approx(loss.item(), abs=LOSS)
    assert_same_gradients(gradients(policy, ours), theirs)


@pytest.mark.parametrize("margin", [0.0, 0.5])
def test_reward(tmp_path: Path, margin: float) -> None:
    from trl import RewardConfig, RewardTrainer

    model = new_reward_model("builtin:tiny", "float32").train()
    samples = pairs()
    gaps = torch.linspace(0.1, 3.0, len(samples))
    trainer = RewardTrainer(
        model,
        RewardConfig(**arguments(tmp_path)),
        train_dataset=dataset({"chosen": "two", "rejected": "three"}),
        processing_class=tiny_tokenizer(),
    )
    rows = [
        {"chosen_ids": s.prompt + s.responses[0], "rejected_ids": s.prompt + s.responses[1]}
        | ({"margin": margin * gap.item()} if margin else {})
        for s, gap in zip(samples, gaps, strict=True)
    ]
    loss = trainer.compute_loss(model, trainer.data_collator(rows))
    theirs = gradients(model, loss)

    batch = collate(samples)
    annotated = torch.stack([gaps, torch.zeros_like(gaps)], dim=1)
    output = BradleyTerry(margin=margin)(ranked_rewards(model, batch), batch.mask, annotated)
    assert output.loss.mean().item() == pytest.approx(loss.item(), abs=LOSS)
    assert_same_gradients(gradients(model, output.loss.mean()), theirs)
