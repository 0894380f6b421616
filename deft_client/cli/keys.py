"""``deft keys``."""

from __future__ import annotations

from typing import Annotated

import typer

from deft_client.cli.connection import client_of
from deft_client.cli.output import Json, show, show_list

app = typer.Typer(no_args_is_help=True, help="API keys (for admins).")


@app.command()
def create(
    context: typer.Context,
    name: str,
    role: Annotated[str, typer.Option(help="admin, researcher or viewer.")] = "researcher",
    as_json: Json = False,
) -> None:
    """Make a key; its secret is shown once."""
    with client_of(context) as client:
        show(client.keys.create(name=name, role=role), as_json)


@app.command("list")
def list_(context: typer.Context, as_json: Json = False) -> None:
    """Keys, without their secrets."""
    with client_of(context) as client:
        show_list(client.keys.list().data, ("id", "name", "role"), as_json)


@app.command()
def revoke(context: typer.Context, key_id: str, as_json: Json = False) -> None:
    """Make a key useless."""
    with client_of(context) as client:
        client.keys.revoke(key_id)
    show({"id": key_id, "revoked": True}, as_json)
