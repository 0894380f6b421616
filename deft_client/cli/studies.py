"""``deft studies``."""

from __future__ import annotations

import json
import os
from contextlib import closing
from pathlib import Path
from typing import Annotated, Literal, cast

import typer

from deft_client.cli.connection import client_of
from deft_client.cli.output import Json, print_json, show, show_list
from deft_client.cli.spec_files import read_list
from deft_client.judging import Judge
from deft_client.study_fields import StudyFields

app = typer.Typer(no_args_is_help=True, help="Blind pairwise comparison by people.")


@app.command()
def create(
    context: typer.Context,
    systems: Annotated[list[str], typer.Argument(help="Evaluated jobs, two or more, on one eval dataset.")],
    name: Annotated[str, typer.Option()] = "study",
    per_subset: Annotated[int, typer.Option(help="Prompts of each subset.")] = 125,
    pairs_per_prompt: Annotated[int | None, typer.Option(help="Pairs of systems for each prompt.")] = None,
    protocol: Annotated[str, typer.Option(help="paper or rigorous.")] = "paper",
    raters_per_pair: Annotated[int | None, typer.Option()] = None,
    repeats: Annotated[float | None, typer.Option(help="Share of pairs that come again, hidden.")] = None,
    gold: Annotated[
        Path | None, typer.Option(help="A YAML or JSON list of pairs: prompt, better, worse.")
    ] = None,
    gold_share: Annotated[float | None, typer.Option(help="Hidden gold pairs for each pair.")] = None,
    tutorial: Annotated[int | None, typer.Option(help="Gold pairs shown first, with feedback.")] = None,
    criteria: Annotated[str | None, typer.Option(help="What raters are asked.")] = None,
    exclusion: Annotated[
        list[str] | None,
        typer.Option(metavar="RULE=VALUE", help="As min_gold_accuracy=0.8; repeat for more rules."),
    ] = None,
    results: Annotated[str | None, typer.Option(help="open or after_unblinding.")] = None,
    interim_looks: Annotated[int | None, typer.Option(help="Planned looks before the end.")] = None,
    boundary: Annotated[str | None, typer.Option(help="obrien_fleming or pocock.")] = None,
    seed: Annotated[int | None, typer.Option()] = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Tell the power; create nothing.")] = False,
    win_rate: Annotated[float | None, typer.Option(help="Of the power: wins among decided votes.")] = None,
    ties: Annotated[float | None, typer.Option(help="Of the power: the share of ties.")] = None,
    as_json: Json = False,
) -> None:
    """Freeze the pairs of a comparison, or tell what it could see."""
    asked = {
        "pairs_per_prompt": pairs_per_prompt, "raters_per_pair": raters_per_pair, "repeats": repeats,
        "gold": read_list(gold) if gold else None, "gold_share": gold_share, "tutorial": tutorial,
        "criteria": criteria, "exclusion": _rules(exclusion) if exclusion else None, "results": results,
        "interim_looks": interim_looks, "boundary": boundary, "seed": seed,
    }  # fmt: skip
    fields: StudyFields = {"name": name, "systems": systems, "per_subset": per_subset, "protocol": protocol}
    fields |= cast("StudyFields", {field: value for field, value in asked.items() if value is not None})
    with client_of(context) as client:
        if dry_run:
            show(client.studies.plan(win_rate=win_rate, ties=ties, **fields), as_json)
        else:
            show(client.studies.create(**fields), as_json)


@app.command("list")
def list_(context: typer.Context, as_json: Json = False) -> None:
    """Studies, newest first."""
    with client_of(context) as client:
        show_list(client.studies.list().data, ("id", "name", "status", "systems"), as_json)


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
def revoke_annotator(
    context: typer.Context,
    study_id: str,
    annotator_id: str,
    exclude_votes: Annotated[
        bool, typer.Option("--exclude-votes", help="None of their votes counts any more, for good.")
    ] = False,
    as_json: Json = False,
) -> None:
    """End a rater's access for good; votes stay, and count unless they are excluded."""
    with client_of(context) as client:
        votes: Literal["exclude"] | None = "exclude" if exclude_votes else None
        show(client.studies.revoke_annotator(study_id, annotator_id, votes=votes), as_json)


@app.command()
def look(context: typer.Context, study_id: str, as_json: Json = False) -> None:
    """Take the next planned interim look."""
    with client_of(context) as client:
        show(client.studies.look(study_id), as_json)


@app.command()
def download(
    context: typer.Context,
    study_id: str,
    target: Annotated[Path, typer.Argument(help="The CSV file to write.")],
    as_json: Json = False,
) -> None:
    """Download every standing vote of a study that is unblinded."""
    with client_of(context) as client:
        target.write_bytes(client.studies.export(study_id))
    show({"path": str(target)}, as_json)


@app.command()
def disagreements(
    context: typer.Context,
    study_id: str,
    subset: Annotated[str | None, typer.Option()] = None,
    limit: Annotated[int | None, typer.Option()] = None,
    after: Annotated[int | None, typer.Option(help="The last pair's id.")] = None,
    as_json: Json = False,
) -> None:
    """The pairs on which raters differ."""
    with client_of(context) as client:
        page = client.studies.disagreements(study_id, subset=subset, limit=limit, after=after)
    show_list(page.data, ("id", "sample_id", "subset", "votes"), as_json)


@app.command()
def judge(
    context: typer.Context,
    study_id: str,
    endpoint: Annotated[str, typer.Option(help="An OpenAI-compatible server, as http://host/v1.")],
    model: Annotated[str, typer.Option(help="The model's name there; the judge has this name.")],
    key_env: Annotated[str | None, typer.Option(help="The environment variable with its key.")] = None,
    as_json: Json = False,
) -> None:
    """Ask a model which answer of each pair is better, in both orders; its verdicts are no votes."""
    asked = Judge(endpoint, model, os.environ.get(key_env) if key_env else None)
    unclear, after, state = 0, 0, None
    with client_of(context) as client, closing(asked):
        criteria = client.studies.retrieve(study_id).criteria
        while (page := client.studies.pairs(study_id, limit=20, after=after)).data:
            said = list(asked.verdicts(page.data, criteria))
            unclear += said.count(None)
            if verdicts := [verdict for verdict in said if verdict is not None]:
                state = client.studies.judge(study_id, model, verdicts)
            after = page.data[-1].id
    if unclear:
        typer.echo(f"{unclear} pairs without a clear verdict are left out", err=True)
    if state is None:
        raise typer.Exit(1)
    show(state, as_json)


@app.command()
def preferences(
    context: typer.Context,
    study_id: str,
    keep_ties: Annotated[
        bool, typer.Option("--keep-ties", help="Keep pairs without a preference, in both orders.")
    ] = False,
    as_json: Json = False,
) -> None:
    """What raters prefer as JSON lines, which load again as a dataset; with --json as one array."""
    with client_of(context) as client:
        rows = client.studies.preferences(study_id, ties="keep" if keep_ties else "leave_out")
    if as_json:
        print_json(rows)
        return
    for row in rows:
        typer.echo(json.dumps(row, ensure_ascii=False))


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


def _rules(given: list[str]) -> dict[str, float]:
    """The rules of ``RULE=VALUE``; their names are the service's to judge."""
    rules: dict[str, float] = {}
    for rule in given:
        name, _, value = rule.partition("=")
        try:
            rules[name] = float(value)
        except ValueError:
            raise typer.BadParameter(
                f"{rule!r} is no rule; write it as min_gold_accuracy=0.8", param_hint="--exclusion"
            ) from None
    return rules
