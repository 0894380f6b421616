"""Losses: each a small frozen model whose fields are its hyper-parameters and which can be called.

DEFT is not a loss: it is ``omega > 0`` in the training spec, added to any of these (eq 18).
"""

from typing import Annotated

from pydantic import Field

from deft_engine.losses.dpo import DPO
from deft_engine.losses.output import LossOutput
from deft_engine.losses.policy_loss import PolicyLoss
from deft_engine.losses.pro import PRO
from deft_engine.losses.reward import BradleyTerry
from deft_engine.losses.rrhf import RRHF
from deft_engine.losses.sft import SFT

POLICY_LOSSES = (SFT, DPO, RRHF, PRO)
"""Every loss that trains a policy; a new method is one file and one entry here."""

Method = Annotated[SFT | DPO | RRHF | PRO, Field(discriminator="name")]

__all__ = ["DPO", "POLICY_LOSSES", "PRO", "RRHF", "SFT", "BradleyTerry", "LossOutput", "Method", "PolicyLoss"]
