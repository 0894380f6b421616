"""``deft experiments``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer
from rich.table import Table

from deft_client.calls import ExperimentFile
from deft_client.cli.connection import client_of
from deft_client.cli.output import Json, console, print_json, show, show_list
from deft_client.cli.spec_files import read_spec
from deft_engine.evaluators import decimals

app = typer.Typer(no_args_is_help=True, help="Arms x seeds, compared as one table.")


@app.command()
def create(
    context: typer.Context,
    spec: Annotated[Path, typer.Argument(help="The experiment, YAML or JSON.")],
    as_json: Json = False,
) -> None:
    """Send an experiment."""
    with client_of(context) as client:
        show(client.experiments.create(read_spec(spec)), as_json)


@app.command("list")
def list_(context: typer.Context, as_json: Json = False) -> None:
    """Experiments, newest first."""
    with client_of(context) as client:
        show_list(client.experiments.list().data, ("id", "name", "status", "seeds", "created_at"), as_json)


@app.command("show")
def show_(context: typer.Context, experiment_id: str, as_json: Json = False) -> None:
    """One experiment: each arm's jobs and what it has cost."""
    with client_of(context) as client:
        show(client.experiments.retrieve(experiment_id), as_json)


@app.command()
def results(context: typer.Context, experiment_id: str, as_json: Json = False) -> None:
    """The table over all samples, with intervals and differences."""
    with client_of(context) as client:
        found = client.experiments.results(experiment_id)
    if as_json:
        print_json(found)
        return
    table = Table("arm", "figure", "value", "95% interval", "n", "seeds", "difference", "p corrected")
    for arm in found["arms"]:
        for name, figure in arm["total"].items():
            compared = figure["difference"] or {}
            fine = f".{decimals(name)}f"
            cells = (
                _number(figure["value"], fine), _interval(figure["interval"], fine), str(figure["n"]),
                str(figure["seeds"]),
                _number(compared.get("value"), fine), _number(compared.get("p_corrected"), ".3g"),
            )  # fmt: skip
            table.add_row(arm["name"], name, *cells)
    console.print(table)


@app.command()
def download(
    context: typer.Context,
    experiment_id: str,
    file: Annotated[ExperimentFile, typer.Argument(help="Every figure, the table, or the report.")],
    target: Annotated[Path, typer.Argument(help="The file to write.")],
    cases: Annotated[bool, typer.Option(help="Whether a report shows prompts and answers.")] = True,
    as_json: Json = False,
) -> None:
    """Download the results so far."""
    with client_of(context) as client:
        target.write_bytes(client.experiments.export(experiment_id, file, cases=cases))
    show({"path": str(target)}, as_json)


@app.command()
def cancel(context: typer.Context, experiment_id: str, as_json: Json = False) -> None:
    """End all its jobs."""
    with client_of(context) as client:
        show(client.experiments.cancel(experiment_id), as_json)


def _number(value: Any, form: str) -> str:
    return "-" if value is None else format(value, form)


def _interval(interval: Any, form: str) -> str:
    return "-" if interval is None else f"{interval[0]:{form}} to {interval[1]:{form}}"
