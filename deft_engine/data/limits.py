"""Caps on what an upload may cost to read, from the environment (docs/operations.md lists them)."""

from __future__ import annotations

import os
from dataclasses import dataclass
from typing import Self


@dataclass(frozen=True)
class ReadLimits:
    """How large an upload may be once unpacked; the service's settings have the same names and defaults."""

    max_unpacked_bytes: int = 40 * 2**30
    max_gzip_ratio: float = 200.0
    """Largest ratio of unpacked to packed bytes (gzip, Parquet), beyond the first ``ratio_grace_bytes``."""
    max_line_bytes: int = 32 * 2**20
    ratio_grace_bytes: int = 64 * 2**20

    @classmethod
    def from_environment(cls) -> Self:
        """From ``DEFT_MAX_UNPACKED_BYTES``, ``DEFT_MAX_GZIP_RATIO`` and ``DEFT_MAX_LINE_BYTES``."""
        return cls(
            max_unpacked_bytes=int(os.environ.get("DEFT_MAX_UNPACKED_BYTES", cls.max_unpacked_bytes)),
            max_gzip_ratio=float(os.environ.get("DEFT_MAX_GZIP_RATIO", cls.max_gzip_ratio)),
            max_line_bytes=int(os.environ.get("DEFT_MAX_LINE_BYTES", cls.max_line_bytes)),
        )
