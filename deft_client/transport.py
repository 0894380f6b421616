"""The one place that names the HTTP library (docs/decisions/0050)."""

import httpx as http

__all__ = ["http"]
