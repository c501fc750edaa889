"""`lmtune data` and `lmtune catalog`: the texts a server has, and the studies ready to run."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from studies.cli.context import AsJson, client_of
from studies.cli.output import print_json, print_table, say
from studies.cli.sources import catalog_file
from studies.files import catalog as ready_studies
from studies.files import read_document

data = typer.Typer(no_args_is_help=True, help="The texts that the server has.")


@data.command("add")
def add(
    context: typer.Context,
    file: Annotated[Path, typer.Argument(metavar="FILE", help="A UTF-8 text.")],
) -> None:
    """Upload a text; a study names it by the hash printed here: `data: {sha256: HASH}`."""
    say(client_of(context).data.add(file).sha256)


@data.command("list")
def list_data(context: typer.Context, as_json: AsJson = False) -> None:
    """List the uploaded texts."""
    views = client_of(context).data.list()
    if as_json:
        print_json([view.model_dump(mode="json") for view in views])
    else:
        print_table(("sha256", "bytes", "name"), [(v.sha256, v.bytes, v.name) for v in views])


def catalog(
    name: Annotated[
        str | None, typer.Argument(metavar="[NAME]", help="Print this one's study file.")
    ] = None,
) -> None:
    """List the ready studies, or print one as a start for your own."""
    if name is not None:
        say(catalog_file(name).read_text(encoding="utf-8").rstrip())
        return
    files = ready_studies()
    about = {name: read_document(path).get("description", "") for name, path in files.items()}
    print_table(("name", "description"), list(about.items()))
