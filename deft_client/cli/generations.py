"""``deft generations``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from deft_client.cli.connection import client_of
from deft_client.cli.output import Json, bars, show, show_list

app = typer.Typer(no_args_is_help=True, help="Answers made elsewhere to a dataset's prompts.")
Limit = Annotated[int, typer.Option(help="Entries of the page, at most 100.")]
After = Annotated[str | None, typer.Option(help="Id (or line) after which the page starts.")]


@app.command("import")
def import_(
    context: typer.Context,
    path: Annotated[Path, typer.Argument(help="JSONL, JSON array or Parquet, plain or .gz.")],
    dataset: Annotated[str, typer.Option(help="Whose prompts are answered.")],
    name: Annotated[str | None, typer.Option()] = None,
    as_json: Json = False,
) -> None:
    """Send a file of answers and wait until they have been matched."""
    with client_of(context) as client, bars(as_json) as progress:
        sending = progress.add_task("sending", total=path.stat().st_size)
        sent = client.generations.upload(
            path, dataset=dataset, name=name, on_bytes=lambda count: progress.update(sending, advance=count)
        )
        matching = progress.add_task("matching", total=None)
        found = client.generations.wait(sent.id)
        progress.update(matching, total=1, completed=1)
    show(found, as_json)
    raise typer.Exit(0 if found.status == "ready" else 1)


@app.command("list")
def list_(context: typer.Context, limit: Limit = 20, after: After = None, as_json: Json = False) -> None:
    """Imported generations, newest first."""
    with client_of(context) as client:
        page = client.generations.list(limit=limit, after=after)
    show_list(page.data, ("id", "name", "dataset", "status", "answers", "rejected"), as_json)


@app.command("show")
def show_(context: typer.Context, generations_id: str, as_json: Json = False) -> None:
    """Imported generations."""
    with client_of(context) as client:
        show(client.generations.retrieve(generations_id), as_json)


@app.command()
def validation(
    context: typer.Context, generations_id: str, limit: Limit = 20, after: After = None, as_json: Json = False
) -> None:
    """Rows that answer no sample, and why."""
    with client_of(context) as client:
        page = client.generations.validation(generations_id, limit=limit, after=after)
    show_list(page.data, ("line", "code", "detail"), as_json)


@app.command()
def delete(context: typer.Context, generations_id: str, as_json: Json = False) -> None:
    """Remove generations that no live job uses."""
    with client_of(context) as client:
        client.generations.delete(generations_id)
    show({"id": generations_id, "deleted": True}, as_json)
