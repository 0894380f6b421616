"""``deft studies``."""

from __future__ import annotations

from typing import Annotated

import typer

from deft_client.cli.connection import client_of
from deft_client.cli.output import Json, print_json, show, show_list

app = typer.Typer(no_args_is_help=True, help="Blind pairwise comparison by people.")


@app.command()
def create(
    context: typer.Context,
    a: Annotated[str, typer.Argument(help="An evaluated job.")],
    b: Annotated[str, typer.Argument(help="Another, on the same eval dataset.")],
    name: Annotated[str, typer.Option()] = "study",
    per_subset: Annotated[int, typer.Option()] = 125,
    criteria: Annotated[str | None, typer.Option(help="What raters are asked.")] = None,
    seed: Annotated[int | None, typer.Option()] = None,
    as_json: Json = False,
) -> None:
    """Freeze the pairs of a comparison."""
    with client_of(context) as client:
        study = client.studies.create(
            name=name, a=a, b=b, per_subset=per_subset, criteria=criteria, seed=seed
        )
    show(study, as_json)


@app.command("list")
def list_(context: typer.Context, as_json: Json = False) -> None:
    """Studies, newest first."""
    with client_of(context) as client:
        show_list(client.studies.list().data, ("id", "name", "status", "a", "b"), as_json)


@app.command("show")
def show_(context: typer.Context, study_id: str, as_json: Json = False) -> None:
    """One study."""
    with client_of(context) as client:
        show(client.studies.retrieve(study_id), as_json)


@app.command()
def annotator(
    context: typer.Context,
    study_id: str,
    name: Annotated[str, typer.Argument(help="Who rates.")],
    subset: Annotated[list[str], typer.Option(help="A subset to rate; repeat for more.")],
    as_json: Json = False,
) -> None:
    """Add a rater; the personal link is shown once."""
    with client_of(context) as client:
        show(client.studies.add_annotator(study_id, name=name, subsets=subset), as_json)


@app.command()
def annotators(context: typer.Context, study_id: str, as_json: Json = False) -> None:
    """The raters of a study, and how far they are."""
    with client_of(context) as client:
        found = client.studies.annotators(study_id)
    show_list(found, ("id", "name", "subsets", "revoked", "done", "total"), as_json)


@app.command()
def renew_link(context: typer.Context, study_id: str, annotator_id: str, as_json: Json = False) -> None:
    """Give a rater a new personal link, shown once; the old one ends, votes stay."""
    with client_of(context) as client:
        show(client.studies.renew_link(study_id, annotator_id), as_json)


@app.command()
def revoke_annotator(context: typer.Context, study_id: str, annotator_id: str, as_json: Json = False) -> None:
    """End a rater's access for good; votes stay."""
    with client_of(context) as client:
        show(client.studies.revoke_annotator(study_id, annotator_id), as_json)


@app.command()
def unblind(context: typer.Context, study_id: str, as_json: Json = False) -> None:
    """Close a study for good: no vote is taken or undone after this."""
    with client_of(context) as client:
        show(client.studies.unblind(study_id), as_json)


@app.command()
def results(context: typer.Context, study_id: str, as_json: Json = False) -> None:
    """Win, tie and lose with intervals."""
    with client_of(context) as client:
        found = client.studies.results(study_id)
    if as_json:
        print_json(found)
    else:
        show(found, as_json)
