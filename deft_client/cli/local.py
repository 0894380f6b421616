"""Commands that run on this machine: the whole service, the engine alone, the demo."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import Annotated

import typer

from deft_client.cli.connection import Connection
from deft_client.cli.output import Json


def register(app: typer.Typer) -> None:
    """Add the commands to the top level."""
    app.command()(up)
    app.command()(run)
    app.command()(demo)


def up(
    context: typer.Context,
    home: Annotated[Path | None, typer.Option(help="Folder of everything that is stored.")] = None,
    host: Annotated[str, typer.Option(help="Address to listen on.")] = "127.0.0.1",
    port: Annotated[int, typer.Option(help="Port; 0 picks a free one.")] = 8000,
) -> None:
    """Run the whole service on this machine, until Ctrl-C."""
    connection: Connection = context.obj
    folder = (home or connection.home).expanduser()
    _become("app.embedded", "--home", str(folder), "--host", host, "--port", str(port))


def run(
    spec: Annotated[Path, typer.Argument(help="The job's spec, YAML or JSON.")],
    out: Annotated[Path, typer.Option(help="Folder for the artifacts.")],
    as_json: Json = False,
) -> None:
    """Run a job's plan in a folder: the engine without service, database or broker."""
    _become("deft_engine", "run", str(spec), "--out", str(out), *(["--json"] if as_json else []))


def demo(
    data: Annotated[Path | None, typer.Option(help="Your own preference data.")] = None,
    model: Annotated[str, typer.Option(help="tiny, smollm2, or a model folder.")] = "tiny",
    keep: Annotated[bool, typer.Option("--keep", help="Leave the service running.")] = False,
    as_json: Json = False,
) -> None:
    """Start a service in a temporary home, run DEFT end to end, and show the comparison."""
    from deft_client import demo as demonstration  # which prints by the command line's own means

    raise typer.Exit(demonstration.run(data, model, keep=keep, as_json=as_json))


def _become(module: str, *arguments: str) -> None:
    """Replace this process, so that signals reach the program itself."""
    sys.stdout.flush()
    os.execv(sys.executable, [sys.executable, "-m", module, *arguments])
