"""`lmtune-worker`: trains for a server, or one recipe alone; see `lmtune-worker --help`."""

from __future__ import annotations

import logging
import os
import sys
from pathlib import Path
from typing import Annotated

import typer

from studies.errors import LmtuneError
from studies.http import find_url

cli = typer.Typer(add_completion=False, pretty_exceptions_enable=False)


@cli.command()
def run(
    server: Annotated[
        str | None, typer.Option(help="The server's address, as http://127.0.0.1:8080.")
    ] = None,
    token: Annotated[
        str | None,
        typer.Option(envvar="LMTUNE_TOKEN", help="The server's token; else LMTUNE_HOME/token."),
    ] = None,
    name: Annotated[str | None, typer.Option(help="This worker's name, unique for ever.")] = None,
    recipe: Annotated[
        Path | None, typer.Option(help="Train this recipe alone, with no server.")
    ] = None,
    out: Annotated[
        Path | None, typer.Option(help="With --recipe: keep the final checkpoint here.")
    ] = None,
) -> None:
    """Trains the trials that a server grants, on this machine's GPU or CPU.

    On a GPU node:  LMTUNE_TOKEN=lmt_... lmtune-worker --server https://tuner.example:8443

    One recipe alone:  lmtune export STUDY --format recipe -o best.yaml, then
    lmtune-worker --recipe best.yaml --out best.safetensors

    SIGTERM or Ctrl-C lets the trial checkpoint and go back to the server, which has another
    worker go on from there; a second one ends at once.
    """
    if recipe is not None:
        from trainer.alone import train_alone  # imports torch, which the supervisor must not

        raise typer.Exit(train_alone(recipe, out))
    if out is not None:
        raise typer.BadParameter("belongs to --recipe", param_hint="--out")
    from trainer.supervisor import work

    raise typer.Exit(work(server or find_url(), token, name))


def main() -> None:
    """Runs the command; what is wrong is said in one line on standard error, with exit code 1."""
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")  # see docs/decisions: idle threads sleep
    logging.basicConfig(
        level=logging.INFO, format="%(asctime)s %(levelname)s %(name)s: %(message)s"
    )
    logging.getLogger("httpx").setLevel(logging.WARNING)
    try:
        cli()
    except LmtuneError as error:
        sys.stderr.write(f"lmtune-worker: {error}\n")
        raise SystemExit(1) from None


if __name__ == "__main__":
    main()
