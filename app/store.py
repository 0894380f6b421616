"""The service's artifact store."""

from __future__ import annotations

from app.settings import get_settings
from deft_engine.store import ArtifactStore, LocalStore


def get_store() -> ArtifactStore:
    """The store that the settings name: a folder in DEFT's home."""
    return LocalStore(get_settings().store_root)
