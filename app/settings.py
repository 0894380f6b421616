"""Settings from the environment (prefix ``DEFT_``), the same for the API, the workers and `deft up`."""

from __future__ import annotations

from functools import cache
from pathlib import Path

from pydantic import Field, field_validator
from pydantic_settings import BaseSettings, SettingsConfigDict

from deft_engine.endpoints.hosts import AllowedHosts


class Settings(BaseSettings):
    """Every setting of the service; docs/operations.md lists them with their meaning."""

    model_config = SettingsConfigDict(
        env_prefix="DEFT_", env_ignore_empty=True, extra="ignore", use_attribute_docstrings=True
    )

    home: Path = Path.home() / ".deft"
    """Folder of uploads, artifacts, run folders and the embedded servers' data."""
    database_url: str = "postgresql+psycopg://deft@127.0.0.1:5432/deft"
    redis_url: str = "redis://127.0.0.1:6379/0"
    public_url: str | None = None
    """Address under which people reach the service; personal links start with it."""
    model_roots: str = ""
    """Folders below which local models may lie, colon-separated."""
    endpoint_hosts: str = ""
    """Hosts that jobs may name as endpoints, comma-separated: host, host:port, or a network."""
    max_upload_bytes: int = Field(20 * 2**30, gt=0)
    """Largest upload, as sent."""
    max_unpacked_bytes: int = Field(40 * 2**30, gt=0)
    """Largest upload, gunzipped."""
    max_gzip_ratio: float = Field(200.0, gt=1)
    """Largest ratio of unpacked to packed bytes (beyond the first 64 MiB)."""
    max_line_bytes: int = Field(32 * 2**20, gt=0)
    """Longest line of an upload."""
    lease_seconds: float = Field(20.0, gt=0)
    """A worker that has not renewed its claim for so long has lost it."""
    heartbeat_seconds: float = Field(2.0, gt=0)
    """How often a worker renews its claim and looks for a cancel or pause."""
    reconcile_seconds: float = Field(3.0, gt=0)
    """How often rows are looked for that a message or a worker was lost for."""
    redispatch_seconds: float = Field(10.0, gt=0)
    """A row that is ready for so long is sent again."""
    max_attempts: int = Field(3, ge=1)
    """Attempts of a stage whose process dies."""
    stop_grace_seconds: float = Field(10.0, gt=0)
    """From SIGTERM to SIGKILL when a stage is asked to stop."""
    assignment_lease_minutes: float = Field(30.0, gt=0)
    """How long a pair is reserved for a rater."""
    session_hours: float = Field(12.0, gt=0)
    """How long a login in the browser lasts."""
    log_json: bool = False
    """Log lines as JSON (for machines) instead of text."""

    @property
    def store_root(self) -> Path:
        """Artifacts by their digest."""
        return self.home / "store"

    @property
    def uploads_root(self) -> Path:
        """Uploads while they arrive."""
        return self.home / "uploads"

    @property
    def runs_root(self) -> Path:
        """A folder per stage run."""
        return self.home / "runs"

    @field_validator("endpoint_hosts")
    @classmethod
    def _hosts_are_hosts(cls, text: str) -> str:
        AllowedHosts.parse(text)
        return text

    @property
    def endpoint_cache(self) -> Path:
        """Answers of endpoints, by the hash of their request."""
        return self.home / "endpoint-cache"

    @property
    def allowed_endpoint_hosts(self) -> AllowedHosts:
        """``endpoint_hosts``, parsed."""
        return AllowedHosts.parse(self.endpoint_hosts)

    @property
    def allowed_model_roots(self) -> tuple[Path, ...]:
        """``model_roots`` as resolved paths."""
        return tuple(Path(part).expanduser().resolve() for part in self.model_roots.split(":") if part)


@cache
def get_settings() -> Settings:
    """The process's settings, read once."""
    return Settings()
