"""``deft jobs``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from deft_client.cli.connection import client_of
from deft_client.cli.output import JobBars, Json, bars, print_json, show, show_estimate, show_list
from deft_client.cli.spec_files import read_spec
from deft_client.client import DeftClient
from deft_client.models import Job

app = typer.Typer(no_args_is_help=True, help="Jobs: grade, align, reward_model, evaluate, augment, judge.")
SpecFile = Annotated[Path, typer.Argument(help="The job's spec, YAML or JSON.")]
Reuse = Annotated[bool, typer.Option(help="Use stages that ran before.")]


@app.command()
def create(
    context: typer.Context,
    spec: SpecFile,
    wait: Annotated[bool, typer.Option("--wait", help="Wait until it has ended.")] = False,
    reuse: Reuse = True,
    as_json: Json = False,
) -> None:
    """Send a job."""
    with client_of(context) as client:
        job = client.jobs.create(read_spec(spec), reuse=reuse)
        show(_waited(client, job.id, as_json) if wait else job, as_json)


@app.command()
def estimate(context: typer.Context, spec: SpecFile, reuse: Reuse = True, as_json: Json = False) -> None:
    """Validate a job and estimate steps, tokens, memory and time, without creating it."""
    with client_of(context) as client:
        show_estimate(client.jobs.estimate(read_spec(spec), reuse=reuse), as_json)


@app.command("list")
def list_(
    context: typer.Context,
    status: Annotated[str | None, typer.Option()] = None,
    kind: Annotated[str | None, typer.Option()] = None,
    limit: Annotated[int, typer.Option()] = 20,
    after: Annotated[str | None, typer.Option()] = None,
    as_json: Json = False,
) -> None:
    """Jobs, newest first."""
    with client_of(context) as client:
        page = client.jobs.list(status=status, kind=kind, limit=limit, after=after)
    show_list(page.data, ("id", "name", "kind", "status", "stage", "created_at"), as_json)


@app.command("show")
def show_(context: typer.Context, job_id: str, as_json: Json = False) -> None:
    """One job."""
    with client_of(context) as client:
        show(client.jobs.retrieve(job_id), as_json)


@app.command()
def wait(context: typer.Context, job_id: str, as_json: Json = False) -> None:
    """Watch a job until it has ended; the exit status says whether it succeeded."""
    with client_of(context) as client:
        show(_waited(client, job_id, as_json), as_json)


@app.command()
def cancel(context: typer.Context, job_id: str, as_json: Json = False) -> None:
    """Stop a job for good."""
    with client_of(context) as client:
        show(client.jobs.cancel(job_id), as_json)


@app.command()
def pause(context: typer.Context, job_id: str, as_json: Json = False) -> None:
    """Stop a job at its next checkpoint."""
    with client_of(context) as client:
        show(client.jobs.pause(job_id), as_json)


@app.command()
def resume(context: typer.Context, job_id: str, as_json: Json = False) -> None:
    """Go on with a paused job."""
    with client_of(context) as client:
        show(client.jobs.resume(job_id), as_json)


@app.command()
def events(
    context: typer.Context,
    job_id: str,
    after: Annotated[int, typer.Option(help="Sequence number to start behind.")] = 0,
    as_json: Json = False,
) -> None:
    """Events as they happen, until the job ends."""
    with client_of(context) as client:
        for event in client.jobs.events(job_id, after=after):
            if as_json:
                typer.echo(event.model_dump_json())
            else:
                typer.echo(f"{event.seq:>6}  {event.type:<14} {event.data}")


@app.command()
def metrics(
    context: typer.Context,
    job_id: str,
    name: Annotated[list[str] | None, typer.Option(help="A series; repeat for more.")] = None,
    max_points: Annotated[int, typer.Option()] = 20,
    as_json: Json = False,
) -> None:
    """Series of a job."""
    with client_of(context) as client:
        page = client.jobs.metrics(job_id, name, max_points=max_points)
    if as_json:
        print_json(page.data)
        return
    for series in page.data:
        typer.echo(f"{series.name} ({series.n} points)")
        for step, value, _ in series.points:
            typer.echo(f"  {step:>8}  {value}")


@app.command()
def artifacts(context: typer.Context, job_id: str, as_json: Json = False) -> None:
    """Everything that a job made."""
    with client_of(context) as client:
        show_list(client.jobs.artifacts(job_id), ("name", "size", "sha256"), as_json)


@app.command()
def download(
    context: typer.Context,
    job_id: str,
    name: Annotated[str, typer.Argument(help="An artifact, or a folder of them: model")],
    target: Annotated[Path, typer.Argument(help="Where to put it.")],
    as_json: Json = False,
) -> None:
    """Download an artifact; an interrupted download goes on where it stopped."""
    with client_of(context) as client:
        path = client.jobs.download(job_id, name, target)
    show({"path": str(path)}, as_json)


def _waited(client: DeftClient, job_id: str, as_json: bool) -> Job:
    with bars(as_json) as progress:
        return client.jobs.wait(job_id, on_progress=JobBars(progress, job_id))
