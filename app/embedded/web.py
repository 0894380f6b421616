"""The API's process: uvicorn on a socket that the supervisor bound, so that the address survives it."""

from __future__ import annotations

import socket
import sys

import uvicorn


def main() -> None:
    """Serve on the socket whose descriptor is the only argument."""
    listener = socket.socket(fileno=int(sys.argv[1]))
    config = uvicorn.Config(
        "app.main:create_app",
        factory=True,
        http="h11",  # httptools, taken where it is installed, keeps a header of any length (ADR 96)
        timeout_graceful_shutdown=2,  # an open event stream would keep it for ever
        access_log=False,  # personal links carry their secret in the path
        server_header=False,
    )
    uvicorn.Server(config).run(sockets=[listener])


if __name__ == "__main__":
    main()
