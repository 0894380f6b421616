"""Opaque ids with a prefix that says what they name."""

from __future__ import annotations

import secrets
from typing import Literal

Prefix = Literal["ds", "gen", "job", "run", "art", "exp", "stu", "itm", "asg", "ann", "key", "req"]

_ALPHABET = "0123456789abcdefghijkmnpqrstvwxyz"
_LENGTH = 20  # 100 bits


def new_id(prefix: Prefix) -> str:
    """A fresh id such as ``job_5x0c...``; random, so that it tells nothing about order."""
    return f"{prefix}_" + "".join(secrets.choice(_ALPHABET) for _ in range(_LENGTH))
