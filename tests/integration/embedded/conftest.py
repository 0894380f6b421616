"""Homes that the embedded servers' user can reach, so that nothing is left outside them."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest


@pytest.fixture
def home() -> Iterator[Path]:
    """A folder with a short path; pytest's own lie below one that only root may enter."""
    folder = Path(tempfile.mkdtemp(prefix="deft-test-"))
    os.chmod(folder, 0o711)
    yield folder
    shutil.rmtree(folder)
