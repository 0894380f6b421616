"""``deft datasets``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

import typer

from deft_client.cli.connection import client_of
from deft_client.cli.output import Json, bars, print_json, show, show_list, show_table

app = typer.Typer(no_args_is_help=True, help="Preference data.")
Limit = Annotated[int, typer.Option(help="Entries of the page, at most 100.")]
After = Annotated[str | None, typer.Option(help="Id (or line) after which the page starts.")]


@app.command()
def upload(
    context: typer.Context,
    path: Annotated[Path, typer.Argument(help="JSONL, JSON array or Parquet, plain or .gz.")],
    name: Annotated[str | None, typer.Option()] = None,
    format: Annotated[str, typer.Option(help="auto, or the format's name: see docs/formats.md.")] = "auto",
    subset: Annotated[str | None, typer.Option(help="Subset of rows that carry none.")] = None,
    as_json: Json = False,
) -> None:
    """Send a file and wait until it has been read."""
    with client_of(context) as client, bars(as_json) as progress:
        sending = progress.add_task("sending", total=path.stat().st_size)
        dataset = client.datasets.upload(
            path,
            name=name,
            format=format,
            subset=subset,
            on_bytes=lambda count: progress.update(sending, advance=count),
        )
        reading = progress.add_task("reading", total=None)
        dataset = client.datasets.wait(dataset.id)
        progress.update(reading, total=1, completed=1)
    show(dataset, as_json)
    raise typer.Exit(0 if dataset.status == "ready" else 1)


@app.command()
def from_study(
    context: typer.Context,
    study_id: str,
    keep_ties: Annotated[
        bool, typer.Option("--keep-ties", help="Keep pairs without a preference, in both orders.")
    ] = False,
    name: Annotated[str | None, typer.Option()] = None,
    as_json: Json = False,
) -> None:
    """Make the votes of a study a dataset, and wait until it has been read."""
    with client_of(context) as client:
        ties: Literal["leave_out", "keep"] = "keep" if keep_ties else "leave_out"
        dataset = client.datasets.wait(client.datasets.from_study(study_id, ties=ties, name=name).id)
    show(dataset, as_json)
    raise typer.Exit(0 if dataset.status == "ready" else 1)


@app.command()
def hub(
    context: typer.Context,
    dataset: Annotated[str, typer.Argument(help="Such as Anthropic/hh-rlhf.")],
    split: Annotated[str, typer.Option()],
    data_dir: Annotated[str | None, typer.Option(help="Folder of the repository.")] = None,
    revision: Annotated[str | None, typer.Option(help="Branch, tag or commit.")] = None,
    limit: Annotated[int | None, typer.Option(help="The first so many rows.")] = None,
    name: Annotated[str | None, typer.Option()] = None,
    as_json: Json = False,
) -> None:
    """Read a data set of the Hugging Face hub, and wait until it has been read."""
    with client_of(context) as client, bars(as_json) as progress:
        reading = progress.add_task("reading", total=None)
        sent = client.datasets.import_from_hub(
            dataset, split=split, data_dir=data_dir, revision=revision, limit=limit, name=name
        )
        found = client.datasets.wait(sent.id)
        progress.update(reading, total=1, completed=1)
    show(found, as_json)
    raise typer.Exit(0 if found.status == "ready" else 1)


@app.command("list")
def list_(context: typer.Context, limit: Limit = 20, after: After = None, as_json: Json = False) -> None:
    """Datasets, newest first."""
    with client_of(context) as client:
        page = client.datasets.list(limit=limit, after=after)
    show_list(page.data, ("id", "name", "status", "format", "samples", "rejected"), as_json)


@app.command("show")
def show_(context: typer.Context, dataset_id: str, as_json: Json = False) -> None:
    """One dataset."""
    with client_of(context) as client:
        show(client.datasets.retrieve(dataset_id), as_json)


@app.command()
def validation(
    context: typer.Context, dataset_id: str, limit: Limit = 20, after: After = None, as_json: Json = False
) -> None:
    """Rows that were not used, and why."""
    with client_of(context) as client:
        page = client.datasets.validation(dataset_id, limit=limit, after=after)
    show_list(page.data, ("line", "code", "detail"), as_json)


@app.command()
def samples(
    context: typer.Context,
    dataset_id: str,
    level: Annotated[str | None, typer.Option(help="A, B or C.")] = None,
    subset: Annotated[str | None, typer.Option()] = None,
    limit: Limit = 5,
    after: After = None,
    as_json: Json = False,
) -> None:
    """Samples as they were read: as JSON whole, else the question with the best and the worst response."""
    with client_of(context) as client:
        page = client.datasets.samples(dataset_id, level=level, subset=subset, limit=limit, after=after)
    if as_json:
        print_json(page.data)
        return
    rows = [
        (s.line, s.id, s.subset, s.prompt[-1].content, s.responses[0].text, s.responses[-1].text)
        for s in page.data
    ]
    show_table(("line", "id", "subset", "question", "best", "worst"), rows)


@app.command()
def delete(context: typer.Context, dataset_id: str, as_json: Json = False) -> None:
    """Remove a dataset that no live job uses."""
    with client_of(context) as client:
        client.datasets.delete(dataset_id)
    show({"id": dataset_id, "deleted": True}, as_json)
