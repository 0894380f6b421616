"""Where the engine keeps what it would otherwise work out again at each start."""

from __future__ import annotations

import os
from pathlib import Path


def cache_folder() -> Path:
    """``$XDG_CACHE_HOME/deft`` (``~/.cache/deft``), made if it is not there.

    Raises:
        OSError: it cannot be made.
    """
    folder = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "deft"
    folder.mkdir(parents=True, exist_ok=True)
    return folder
