"""Safetensors files whose bytes depend on their content alone (the library's order of metadata varies)."""

from __future__ import annotations

import json
import struct
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import numpy.typing as npt


def write_safetensors(
    path: Path, tensors: Mapping[str, npt.NDArray[np.float64]], metadata: Mapping[str, str]
) -> None:
    """Write float64 tensors by name, sorted, behind a header with sorted keys."""
    header: dict[str, object] = {"__metadata__": dict(metadata)}
    blocks: list[bytes] = []
    end = 0
    for name in sorted(tensors):
        block = np.ascontiguousarray(tensors[name], dtype="<f8").tobytes()
        header[name] = {
            "dtype": "F64",
            "shape": list(tensors[name].shape),
            "data_offsets": [end, end + len(block)],
        }
        blocks.append(block)
        end += len(block)
    encoded = json.dumps(header, sort_keys=True, separators=(",", ":")).encode()
    encoded += b" " * (-len(encoded) % 8)  # data starts at a multiple of 8
    with path.open("wb") as file:
        file.write(struct.pack("<Q", len(encoded)) + encoded)
        file.writelines(blocks)
