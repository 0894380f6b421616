"""The engine's one line for the HTTP library (docs/decisions/0050), and connections to checked addresses."""

from __future__ import annotations

import httpx as http

from deft_engine.endpoints.hosts import AllowedHosts

__all__ = ["GuardedTransport", "http"]

_PORTS = {"http": 80, "https": 443}


class GuardedTransport(http.BaseTransport):
    """Connects to the addresses that were checked; TLS still asks for the name. No proxy is used."""

    def __init__(self, allowed: AllowedHosts, connections: int) -> None:
        self._allowed = allowed
        limits = http.Limits(max_connections=connections, max_keepalive_connections=connections)
        self._inner = http.HTTPTransport(limits=limits)

    def handle_request(self, request: http.Request) -> http.Response:
        host = request.url.host
        addresses = self._allowed.resolve(host, request.url.port or _PORTS[request.url.scheme])
        request.extensions = {**request.extensions, "sni_hostname": host}
        url = request.url
        for address in addresses:
            request.url = url.copy_with(host=str(address))
            try:
                return self._inner.handle_request(request)
            except http.ConnectError:
                if address == addresses[-1]:
                    raise
        raise http.ConnectError(f"{host} has no address", request=request)

    def close(self) -> None:
        """Close the connections."""
        self._inner.close()
