"""The ``deft`` command: a service on this machine, jobs on any service, and a person in between."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated

import typer

from deft_client.cli import datasets, experiments, generations, jobs, keys, local, studies
from deft_client.cli.connection import Connection
from deft_client.cli.output import fail
from deft_client.errors import DeftClientError

app = typer.Typer(no_args_is_help=True, pretty_exceptions_enable=False, help=__doc__)
local.register(app)
app.add_typer(datasets.app, name="datasets")
app.add_typer(generations.app, name="generations")
app.add_typer(jobs.app, name="jobs")
app.add_typer(experiments.app, name="experiments")
app.add_typer(studies.app, name="studies")
app.add_typer(keys.app, name="keys")


@app.callback()
def connect(
    context: typer.Context,
    url: Annotated[str | None, typer.Option(envvar="DEFT_URL", help="Address of the service.")] = None,
    key: Annotated[str | None, typer.Option(envvar="DEFT_API_KEY", help="API key.")] = None,
    home: Annotated[
        Path, typer.Option(envvar="DEFT_HOME", help="Home of a service on this machine (deft up).")
    ] = Path("~/.deft"),
) -> None:
    """Without --url and --key, the service that `deft up` runs on this machine is used."""
    context.obj = Connection(url, key, home.expanduser())


def main() -> None:
    """Entry point: errors are sentences on stderr, never tracebacks."""
    try:
        app()
    except DeftClientError as error:
        sys.exit(fail(str(error)))
    except OSError as error:
        sys.exit(fail(f"{error.filename or ''}: {error.strerror or error}".removeprefix(": ")))
    except KeyboardInterrupt:
        sys.exit(130)
