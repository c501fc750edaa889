"""`lmtune`: the list of commands, the global options, and the one place where errors end."""

from __future__ import annotations

import sys
from importlib.metadata import PackageNotFoundError, version
from typing import Annotated

import typer

from studies.cli import (
    browse,
    commands,
    compare,
    exits,
    export,
    final,
    foreign,
    init,
    report,
    reproduce,
    texts,
    up,
)
from studies.cli.context import Connection
from studies.cli.output import say
from studies.errors import LmtuneError

app = typer.Typer(
    name="lmtune",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode="markdown",
    context_settings={"help_option_names": ["-h", "--help"]},
)
START, STEER, READ, TOOLS = "Start", "Steer", "Read", "Texts and workers"
_COMMANDS = (
    ("up", up.up, START),
    ("init", init.init, START),
    ("create", commands.create, START),
    ("catalog", texts.catalog, START),
    ("login", commands.login, START),
    ("list", commands.list_studies, READ),
    ("show", commands.show, READ),
    ("watch", commands.watch, READ),
    ("open", browse.open_page, READ),
    ("best", commands.best, READ),
    ("compare", compare.compare, READ),
    ("export", export.export, READ),
    ("report", report.report, READ),
    ("reproduce", reproduce.reproduce, READ),
    ("test", final.judge, READ),
    ("checkpoint", final.checkpoint, READ),
    ("pause", commands.pause, STEER),
    ("resume", commands.resume, STEER),
    ("stop", commands.stop, STEER),
    ("archive", commands.archive, STEER),
    ("enqueue", commands.enqueue, STEER),
    ("cancel", commands.cancel, STEER),
    ("budget", commands.budget, STEER),
    ("narrow", commands.narrow, STEER),
    ("workers", commands.workers, TOOLS),
    ("worker-command", commands.worker_command, TOOLS),
)
_EXAMPLES = {
    "up": ("lmtune up", "lmtune up --study tinyshakespeare --data input.txt --once"),
    "init": ("lmtune init", "lmtune init mine.yaml --data corpus.txt --model lstm --budget 1h -y"),
    "create": ("lmtune create mine.yaml", "lmtune create tinyshakespeare --data input.txt"),
    "catalog": ("lmtune catalog", "lmtune catalog quickstart > mine.yaml"),
    "show": ("lmtune show mine", "lmtune show mine 3 --json"),
    "open": ("lmtune open", "lmtune open mine 3", "lmtune open mine --print"),
    "compare": ("lmtune compare mine 3 7 12",),
    "best": ("lmtune best mine", "lmtune best mine --json | jq .params"),
    "export": (
        "lmtune export mine --format csv -o trials.csv",
        "lmtune export mine --format recipe --data input.txt -o best.yaml",
        "lmtune export mine --format tensorboard -o runs",
    ),
    "report": ("lmtune report mine", "lmtune report mine -o mine.html"),
    "reproduce": ("lmtune reproduce mine 3",),
    "test": ("lmtune test mine",),
    "checkpoint": ("lmtune checkpoint mine -o best.safetensors",),
    "worker-command": ('ssh NODE "$(lmtune worker-command)"',),
    "budget": ("lmtune budget mine --trials 32 --wall-time 2h",),
    "narrow": ("lmtune narrow mine learning_rate=0.001..0.01 regularizer=none,l2",),
    "enqueue": ("lmtune enqueue mine learning_rate=3e-3 regularizer=none",),
}


def _epilog(name: str) -> str | None:
    examples = _EXAMPLES.get(name)
    return "\n\n".join(["**Examples**", *(f"- `{e}`" for e in examples)]) if examples else None


for _name, _function, _panel in _COMMANDS:
    app.command(_name, epilog=_epilog(_name), rich_help_panel=_panel)(_function)
app.add_typer(foreign.importing, name="import", rich_help_panel=TOOLS)
app.add_typer(texts.data, name="data", rich_help_panel=TOOLS)


def _print_version(asked: bool) -> None:
    if asked:
        try:
            say(f"lmtune {version('lmtune')}")
        except PackageNotFoundError:
            say("lmtune, not installed")
        raise typer.Exit


@app.callback(epilog=exits.EPILOG)
def globals_(
    context: typer.Context,
    url: Annotated[
        str | None, typer.Option(envvar="LMTUNE_URL", help="The server's address.")
    ] = None,
    token: Annotated[
        str | None,
        typer.Option(envvar="LMTUNE_TOKEN", help="The token it knows.", show_envvar=True),
    ] = None,
    _: Annotated[
        bool,
        typer.Option(
            "--version", callback=_print_version, is_eager=True, help="Print the version."
        ),
    ] = False,
) -> None:
    """Tune the hyperparameters of language models.

    A first study, with server, worker and dashboard: `lmtune up`

    Your own text: `lmtune init mine.yaml` asks five questions; `lmtune up --study mine.yaml`

    Your own study, on a running server: `lmtune create mine.yaml`, `lmtune watch mine`,
    `lmtune best mine --json`
    """
    context.obj = Connection(url, token)


def main() -> None:
    """Runs the command; ends the process with an exit code of studies/cli/exits.py."""
    try:
        app()
    except LmtuneError as error:
        sys.exit(exits.report(error))
    except exits.FOREIGN:
        sys.exit(exits.report_foreign())
    except BrokenPipeError:  # `lmtune list | head`
        sys.stderr.close()
        sys.exit(exits.FAILED)
