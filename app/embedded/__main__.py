"""``python -m app.embedded --home DIR --host H --port N``: what ``deft up`` runs."""

from __future__ import annotations

import argparse
import logging
import sys
from pathlib import Path

from app.embedded.process import EmbeddedError
from app.embedded.service import Home, run_service


def main() -> int:
    """Parse the arguments and run the service; the process's exit status."""
    parser = argparse.ArgumentParser(prog="deft up", description="Run the whole service on this machine.")
    parser.add_argument(
        "--home", type=Path, default=Path.home() / ".deft", help="folder of everything it keeps"
    )
    parser.add_argument("--host", default="127.0.0.1", help="address to listen on")
    parser.add_argument("--port", type=int, default=8000, help="port to listen on; 0 picks a free one")
    arguments = parser.parse_args()
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(message)s")
    logging.getLogger("alembic").setLevel(logging.WARNING)
    try:
        run_service(Home(arguments.home.expanduser().absolute()), arguments.host, arguments.port)
    except (EmbeddedError, OSError) as error:
        print(f"deft up: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
