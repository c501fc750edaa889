"""`lmtune report`: a study's answer as one HTML file, to be kept, sent and printed."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from studies.cli.context import Name, client_of
from studies.cli.output import say, write_file


def report(
    context: typer.Context,
    name: Name,
    output: Annotated[
        Path | None,
        typer.Option("-o", "--output", metavar="FILE", help="Write here [NAME-report.html]."),
    ] = None,
) -> None:
    """Write a study's report: its best configuration, how sure that is, its cost and plots.

    One HTML file that needs no server and no other host; a browser prints it to PDF.
    """
    text = client_of(context).studies.report(name)
    path = output or Path(f"{name}-report.html")
    write_file(path, text)
    say(f"{path}: the report of {name}, {len(text.encode()) / 1e3:,.0f} kB; open it in a browser")
