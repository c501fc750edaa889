"""What every command is given: where the server is, and the arguments that many share."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import typer

from studies.cli.completion import complete_study
from studies.client import Client


@dataclass(frozen=True)
class Connection:
    """The global options."""

    url: str | None = None
    token: str | None = None

    def client(self) -> Client:
        """Returns a client; address and token are looked up in LMTUNE_HOME unless given."""
        return Client(self.url, self.token)


def client_of(context: typer.Context) -> Client:
    """Returns the client that the global options ask for; it is closed with the command."""
    connection = context.obj
    client: Client = connection.client() if isinstance(connection, Connection) else Client()
    context.call_on_close(client.http.close)
    return client


Name = Annotated[
    str,
    typer.Argument(
        metavar="NAME",
        help="The study's name.",
        show_default=False,
        autocompletion=complete_study,
    ),
]
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON, for scripts.")]
Study = Annotated[
    str,
    typer.Argument(
        metavar="FILE", help="A study file (YAML or JSON), or a name that `lmtune catalog` lists."
    ),
]
Corpus = Annotated[
    Path | None,
    typer.Option("--data", metavar="FILE", help="A UTF-8 text, in place of the study's own."),
]
