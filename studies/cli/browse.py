"""`lmtune open`: the dashboard in a browser, signed in."""

from __future__ import annotations

import webbrowser
from typing import Annotated

import typer

from studies.cli.completion import complete_study
from studies.cli.context import client_of
from studies.cli.output import say


def open_page(
    context: typer.Context,
    name: Annotated[
        str | None,
        typer.Argument(metavar="[NAME]", help="This study's page.", autocompletion=complete_study),
    ] = None,
    trial: Annotated[
        int | None, typer.Argument(metavar="[TRIAL]", min=0, help="This trial's page.")
    ] = None,
    only_print: Annotated[
        bool, typer.Option("--print", help="Print the link; start no browser.")
    ] = False,
) -> None:
    """Open the dashboard, a study or a trial in the browser, signed in, and print the link.

    The link signs one browser in, once; where no browser can be started, open it by hand.
    """
    client = client_of(context)
    page = "/"
    if name is not None:
        page = f"/studies/{client.studies.get(name).name}"
    if name is not None and trial is not None:
        page += f"/trials/{client.studies.trial(name, trial).number}"
    url = client.login_link(page).url
    say(url)
    if not only_print:
        webbrowser.open(url)
