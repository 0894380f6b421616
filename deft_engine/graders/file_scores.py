"""Rewards that came with the file."""

from __future__ import annotations

from typing import ClassVar, Literal

from deft_engine.base import Spec


class FileScores(Spec):
    """The scores in the uploaded file; a sample without them is an error that names its line."""

    needs_model: ClassVar[bool] = False

    name: Literal["scores"] = "scores"
