"""`lmtune init`: five questions, and a commented study file."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any, Final

import typer
import yaml

from studies.cli import starter
from studies.cli.output import say, write_file
from studies.cli.sources import Source, check_text
from studies.errors import InvalidInput
from studies.spec import parse_spec

_Asked = tuple[str, str, Callable[[str], Any]]
_DRIVER: Final = Path("/proc/driver/nvidia/version")  # there where NVIDIA's driver is


def init(  # noqa: PLR0913 - its questions
    file: Annotated[Path, typer.Argument(metavar="[FILE]", help="Write here.")] = Path(
        "study.yaml"
    ),
    data: Annotated[
        str | None, typer.Option(metavar="PATH", help="The text to train on: file or folder.")
    ] = None,
    model: Annotated[str | None, typer.Option(help=f"{', '.join(starter.KINDS)}.")] = None,
    budget: Annotated[
        str | None, typer.Option(help="A time as 10m, or a number of trials.")
    ] = None,
    knobs: Annotated[
        str | None, typer.Option(help=f"What is searched, of {', '.join(starter.OFFERED)}.")
    ] = None,
    device: Annotated[str | None, typer.Option(help="cpu or gpu: how large a model.")] = None,
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Ask nothing: take defaults.")] = False,
) -> None:
    """Write a commented study file by asking five questions; Enter takes what is in brackets.

    A question whose option is given is not asked; without a terminal none is. Nothing is written
    unless the study fits its text, and no file is written over.
    """
    if file.exists():
        raise InvalidInput.of(str(file), "is there already", "name another: lmtune init FILE")
    asking = not yes and sys.stdin.isatty()
    said = {"text": data, "kind": model, "budget": budget, "knobs": knobs, "device": device}
    read = {name: _answer(said[name], *asked, asking=asking) for name, asked in _asked().items()}
    answers = starter.Answers(**read)
    text = starter.study_text(answers, file)
    spec = parse_spec(yaml.safe_load(text))
    check_text(Source(spec, file.parent))
    write_file(file, text)
    say(f"{file}: a study named {spec.name}; next: lmtune up --study {file}")


def _asked() -> dict[str, _Asked]:
    """Returns the questions, in order, with the answer that Enter gives and how one is read."""
    kinds, devices, knobs = starter.KINDS, starter.DEVICES, starter.OFFERED
    here = "gpu" if _DRIVER.exists() else "cpu"
    one_of = starter.one_of
    return {
        "text": ("Text to train on, a file or folder [the one that Python carries]", "", _text),
        "kind": (f"Model ({', '.join(kinds)})", "gpt", lambda s: one_of("model", s, kinds)),
        "budget": ("How long, or how many trials", "10m", starter.budget_of),
        "knobs": (
            f"Knobs to search, of {', '.join(knobs)}",
            starter.DEFAULT_KNOBS,
            starter.knobs_of,
        ),
        "device": ("Device, cpu or gpu", here, lambda s: one_of("device", s, devices)),
    }


def _answer(
    said: str | None, question: str, default: str, read: Callable[[str], Any], *, asking: bool
) -> Any:
    """Returns the answer as `read` understands it; asks again until it fits.

    Raises:
        InvalidInput: what an option says does not fit.
    """
    if said is not None or not asking:
        return read(default if said is None else said)

    def checked(answer: str) -> Any:
        try:
            return read(answer)
        except InvalidInput as error:
            raise typer.BadParameter(str(error)) from None

    shown = bool(default)
    return typer.prompt(question, default=default, show_default=shown, value_proc=checked)


def _text(said: str) -> Path | None:
    if not said.strip():
        return None
    path = Path(said.strip()).expanduser()
    if not path.exists():
        raise InvalidInput.of("data", f"{path}: no such file", "name a file or a folder")
    return path
