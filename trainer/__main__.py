"""`lmtune-worker`: trains for a server, or one recipe alone; see `lmtune-worker --help`."""

from __future__ import annotations

import logging
import os
import sys
from pathlib import Path
from typing import Annotated

import typer

from studies.errors import LmtuneError, StartupError
from studies.http import find_url
from studies.script import ALLOWED

_DEVICES = (
    "Train each trial on several devices together: cuda:0,cuda:1 or cpu,cpu;"
    " all: the GPUs of CUDA_VISIBLE_DEVICES."
)
cli = typer.Typer(add_completion=False, pretty_exceptions_enable=False)


@cli.command()
def run(  # noqa: PLR0913 - an option each
    server: Annotated[
        str | None, typer.Option(help="The server's address, as http://127.0.0.1:8080.")
    ] = None,
    token: Annotated[
        str | None,
        typer.Option(envvar="LMTUNE_TOKEN", help="The server's token; else LMTUNE_HOME/token."),
    ] = None,
    name: Annotated[str | None, typer.Option(help="This worker's name, unique for ever.")] = None,
    recipe: Annotated[Path | None, typer.Option(help="Train this alone, with no server.")] = None,
    out: Annotated[
        Path | None, typer.Option(help="With --recipe: keep the final checkpoint here.")
    ] = None,
    start: Annotated[
        Path | None, typer.Option("--from", help="With --recipe: go on from this checkpoint.")
    ] = None,
    reports: Annotated[
        Path | None,
        typer.Option(help="With --recipe: write the environment and each report here, as JSON."),
    ] = None,
    until: Annotated[
        int | None, typer.Option(min=1, help="With --recipe: end at this step of the recipe's.")
    ] = None,
    test: Annotated[
        bool, typer.Option("--test", help="With --recipe and --from: evaluate the test split.")
    ] = False,
    devices: Annotated[str | None, typer.Option(envvar="LMTUNE_DEVICES", help=_DEVICES)] = None,
    allow_script: Annotated[
        list[Path] | None,
        typer.Option(help="A training script that studies may run here; repeat for more."),
    ] = None,
) -> None:
    """Trains the trials that a server grants, on this machine's GPU or CPU.

    On a GPU node:  LMTUNE_TOKEN_FILE=~/.lmtune/token lmtune-worker --server https://tuner.example:8443

    One recipe alone:  lmtune export STUDY --format recipe -o best.yaml, then
    lmtune-worker --recipe best.yaml --out best.safetensors

    SIGTERM or Ctrl-C lets the trial checkpoint and go back to the server, which has another
    worker go on from there; a second one ends at once.
    """
    _allow(allow_script or [])
    if recipe is not None:
        from trainer.alone import Files, run_alone  # imports torch, which the supervisor must not

        raise typer.Exit(run_alone(recipe, Files(out, start, reports), until, test))
    options = {"--out": out, "--from": start, "--reports": reports, "--until": until}
    for option, given in {**options, "--test": test or None}.items():
        if given is not None:
            raise typer.BadParameter("belongs to --recipe", param_hint=option)
    from trainer.supervisor import work

    raise typer.Exit(work(server or find_url(), token, name, devices))


def _allow(scripts: list[Path]) -> None:
    """Lists the scripts for the child, beside those of the environment."""
    for script in scripts:
        if not script.is_file():
            raise StartupError(f"--allow-script {script}: there is no such file")
    listed = [os.environ.get(ALLOWED, ""), *(str(script.resolve()) for script in scripts)]
    os.environ[ALLOWED] = os.pathsep.join(filter(None, listed))


def main() -> None:
    """Runs the command; what is wrong is said in one line on standard error, with exit code 1."""
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")  # idle threads sleep: decision 24
    # The knob `deterministic` needs it on CUDA, set before the first use: 24 MB of workspace.
    os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
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
