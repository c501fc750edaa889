"""`lmtune export`: a study as JSON, as CSV or for other tools, or a trial as a recipe."""

from __future__ import annotations

import csv
import io
import json
import shutil
from collections.abc import Iterator, Sequence
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any, Final

import typer
import yaml

from studies.cli import shown
from studies.cli.context import Name, client_of
from studies.cli.output import say, warn, write_file
from studies.cli.trackers import write_mlflow, write_tensorboard
from studies.client import Client
from studies.documents import resolve
from studies.errors import InvalidInput, LmtuneError
from studies.recipe import DataRecipe
from studies.wire import StudyView, TrialDetail, TrialView, number_to_json

_COLUMNS: Final = ("number", "state", "reason", "value", "step", "max_step", "attempt", "worker")
_TIMES: Final = ("created_at", "started_at", "ended_at")
_FORMULA: Final = ("=", "+", "-", "@", "\t", "\r")  # what a spreadsheet would run


class Format(StrEnum):
    """What `export` writes."""

    JSON = "json"  # the study and all its trials, with curves and attempts
    CSV = "csv"  # a row per trial
    RECIPE = "recipe"  # one trial, ready for `lmtune-worker --recipe FILE`
    TENSORBOARD = "tensorboard"  # a folder of event files, a run per trial
    MLFLOW = "mlflow"  # a folder as MLflow's file store, a run per trial


_FOLDERS: Final = {Format.TENSORBOARD: write_tensorboard, Format.MLFLOW: write_mlflow}
_OPENED: Final = {
    Format.TENSORBOARD: "`tensorboard --logdir {}`",
    Format.MLFLOW: "`mlflow ui --backend-store-uri {}`",
}


def export(
    context: typer.Context,
    name: Name,
    kind: Annotated[Format, typer.Option("--format", help="What to write.")] = Format.JSON,
    output: Annotated[
        Path | None, typer.Option("-o", "--output", metavar="PATH", help="Write here [stdout].")
    ] = None,
    trial: Annotated[
        int | None, typer.Option(metavar="N", min=0, help="This trial [recipe: the best].")
    ] = None,
    data: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="Where the recipe finds its text on this machine."),
    ] = None,
) -> None:
    """Write a study's trials, or one trial's recipe; for TensorBoard and MLflow a folder."""
    client = client_of(context)
    if data is not None and kind is not Format.RECIPE:
        raise InvalidInput.of("--data", f"{kind} names no text", "it is for --format recipe")
    if kind in _FOLDERS:
        _write_folder(client, name, trial, kind, output)
        return
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


def _write_folder(
    client: Client, name: str, number: int | None, kind: Format, output: Path | None
) -> None:
    """Writes a folder of runs, whole or not at all; one that is there is not touched."""
    if output is None:
        raise InvalidInput.of("--output", f"{kind} needs a folder", "write -o FOLDER")
    if output.exists():
        raise InvalidInput.of("--output", f"{output} is there already", "name another folder")
    study = client.studies.get(name)
    partial = output.with_name(f"{output.name}.partial")
    shutil.rmtree(partial, ignore_errors=True)
    try:
        partial.mkdir(parents=True)
        _FOLDERS[kind](study, _details(client, name, number), partial, output)
        partial.rename(output)
    except OSError as error:
        raise LmtuneError(f"{output} cannot be written: {error.strerror}") from None
    finally:
        shutil.rmtree(partial, ignore_errors=True)
    say(f"{output}: the trials of {name}; {_OPENED[kind].format(output)} shows them")


def _details(client: Client, name: str, number: int | None) -> Iterator[TrialDetail]:
    """Yields the study's trials with their curves, or the one of this number."""
    rows = client.studies.trials(name)
    numbers = [row.number for row in rows] if number is None else [number]
    yield from (client.studies.trial(name, n) for n in numbers)


def _json(client: Client, name: str, number: int | None) -> str:
    if number is not None:
        document: Any = client.studies.trial(name, number).model_dump(mode="json", by_alias=True)
    else:
        details = _details(client, name, None)
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
    if recipe["data"].get("sha256"):
        if data is None:
            lines.append("Its text is named by its hash, which a worker without a server lacks:")
            lines.append("write `path: FILE` in place of sha256, or export again with --data FILE.")
            warn("note: the recipe names its text by hash; --data FILE makes it trainable alone")
        else:
            recipe["data"] = _by_path(data, recipe["data"])
    elif data is not None:
        raise InvalidInput.of("--data", "the study trains on a builtin text", "leave it out")
    lines.append("Train it alone with: lmtune-worker --recipe FILE")
    head = "".join(f"# {line}\n" for line in lines)
    return head + yaml.safe_dump(recipe, sort_keys=False, allow_unicode=True)


def _by_path(source: Path, section: dict[str, Any]) -> dict[str, Any]:
    """Returns the data section with its text named by a path; raises where it is another text."""
    said = {k: v for k, v in section.items() if k not in ("sha256", "validation_at", "test_at")}
    named = {"path": str(source.absolute()), **said}
    found, _ = resolve(DataRecipe.model_validate(named))
    if found.sha256 != section["sha256"]:
        remedy = "give the text that the study was created with"
        raise InvalidInput.of("--data", f"{source} is another text than the trial's", remedy)
    cuts = {"validation_at": found.validation_at, "test_at": found.test_at}  # the source's own
    return {**named, **{k: section[k] for k, own in cuts.items() if k in section and own is None}}


def _write(text: str, output: Path | None) -> None:
    if output is None:
        say(text.rstrip("\n"))
        return
    write_file(output, text)
