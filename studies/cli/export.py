"""`lmtune export`: a study as JSON or CSV, or a trial as a recipe that a worker trains alone."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Sequence
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any, Final

import typer
import yaml

from studies.cli import shown
from studies.cli.context import Name, client_of
from studies.cli.output import say, warn
from studies.client import Client
from studies.corpus import file_sha256, read_text
from studies.errors import InvalidInput, LmtuneError
from studies.wire import StudyView, TrialDetail, TrialView, number_to_json

_COLUMNS: Final = ("number", "state", "reason", "value", "step", "max_step", "attempt", "worker")
_TIMES: Final = ("created_at", "started_at", "ended_at")
_FORMULA: Final = ("=", "+", "-", "@", "\t", "\r")  # what a spreadsheet would run


class Format(StrEnum):
    """What `export` writes."""

    JSON = "json"  # the study and all its trials, with curves and attempts
    CSV = "csv"  # a row per trial
    RECIPE = "recipe"  # one trial, ready for `lmtune-worker --recipe FILE`


def export(
    context: typer.Context,
    name: Name,
    kind: Annotated[Format, typer.Option("--format", help="What to write.")] = Format.JSON,
    output: Annotated[
        Path | None, typer.Option("-o", "--output", metavar="FILE", help="Write here [stdout].")
    ] = None,
    trial: Annotated[
        int | None, typer.Option(metavar="N", min=0, help="This trial [recipe: the best].")
    ] = None,
    data: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="Where the recipe finds its text on this machine."),
    ] = None,
) -> None:
    """Write a study's trials, or one trial's recipe."""
    client = client_of(context)
    if data is not None and kind is not Format.RECIPE:
        raise InvalidInput.of("--data", f"{kind} names no text", "it is for --format recipe")
    match kind:
        case Format.JSON:
            text = _json(client, name, trial)
        case Format.CSV:
            study, rows = client.studies.get(name), client.studies.trials(name)
            text = as_csv(study, [row for row in rows if trial in (None, row.number)])
        case Format.RECIPE:
            chosen = (
                client.studies.best(name) if trial is None else client.studies.trial(name, trial)
            )
            text = as_recipe(client.studies.get(name), chosen, data)
    _write(text, output)


def _json(client: Client, name: str, number: int | None) -> str:
    if number is not None:
        document: Any = client.studies.trial(name, number).model_dump(mode="json", by_alias=True)
    else:
        numbers = [row.number for row in client.studies.trials(name)]
        details = (client.studies.trial(name, n) for n in numbers)
        document = client.studies.get(name).model_dump(mode="json")
        document["trials"] = [d.model_dump(mode="json", by_alias=True) for d in details]
    return json.dumps(document, indent=2, ensure_ascii=False, allow_nan=False) + "\n"


def as_csv(study: StudyView, trials: Sequence[TrialView]) -> str:
    """Returns a row per trial: its state, value and times, and a column per searched knob."""
    knobs = shown.searched(study)
    file = io.StringIO()
    rows = csv.writer(file, lineterminator="\n")
    rows.writerow([*_COLUMNS, *knobs, *_TIMES])
    for trial in trials:
        values = [getattr(trial, column) for column in _COLUMNS]
        times = [t.isoformat() if (t := getattr(trial, c)) else "" for c in _TIMES]
        rows.writerow(map(_cell, [*values, *(trial.params.get(k) for k in knobs), *times]))
    return file.getvalue()


def _cell(value: Any) -> Any:
    """Returns a value as a spreadsheet may safely read it: text is never a formula."""
    if isinstance(value, float):
        return number_to_json(value)
    return f"'{value}" if isinstance(value, str) and value.startswith(_FORMULA) else value


def as_recipe(study: StudyView, trial: TrialDetail, data: Path | None) -> str:
    """Returns the trial's whole recipe as YAML, its text named by a path where one is given.

    Raises:
        InvalidInput: the file is not the text that the trial was trained on.
    """
    recipe = trial.recipe.model_dump(mode="json", by_alias=True)
    recipe["data"] = {k: v for k, v in recipe["data"].items() if v is not None}
    lines = [f"{study.name}, trial {trial.number}: {trial.state}"]
    if trial.value is not None:
        lines[0] += f", {shown.metric(study)} {trial.value:.4f}"
    if sha256 := recipe["data"].get("sha256"):
        if data is None:
            lines.append("Its text is named by its hash, which a worker without a server lacks:")
            lines.append("write `path: FILE` in place of sha256, or export again with --data FILE.")
            warn("note: the recipe names its text by hash; --data FILE makes it trainable alone")
        else:
            _check_same(data, sha256)
            del recipe["data"]["sha256"]
            recipe["data"] = {"path": str(data.absolute()), **recipe["data"]}
    elif data is not None:
        raise InvalidInput.of("--data", "the study trains on a builtin text", "leave it out")
    lines.append("Train it alone with: lmtune-worker --recipe FILE")
    head = "".join(f"# {line}\n" for line in lines)
    return head + yaml.safe_dump(recipe, sort_keys=False, allow_unicode=True)


def _check_same(data: Path, sha256: str) -> None:
    read_text(data)
    if file_sha256(data) != sha256:
        remedy = "give the text that the study was created with"
        raise InvalidInput.of("--data", f"{data} is another text than the trial's", remedy)


def _write(text: str, output: Path | None) -> None:
    if output is None:
        say(text.rstrip("\n"))
        return
    try:
        output.write_text(text, encoding="utf-8")
    except OSError as error:
        raise LmtuneError(f"{output} cannot be written: {error.strerror}") from None
