"""The typed client of the service, and the ``deft`` command."""

from deft_client.aio import AsyncDeftClient
from deft_client.client import DeftClient

__all__ = ["AsyncDeftClient", "DeftClient"]
