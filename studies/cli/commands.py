"""The commands that ask or steer a server: one call of the client each, then a few lines."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Annotated, Any, Final

import typer
import yaml
from pydantic import ValidationError

from studies import fleet
from studies.cli import shown
from studies.cli.context import AsJson, Corpus, Name, Study, client_of
from studies.cli.following import follow, outcome
from studies.cli.output import pairs, print_json, print_table, say, warn
from studies.cli.sources import open_source
from studies.errors import FieldError, InvalidInput
from studies.explain import near
from studies.recipe import KNOBS

_LISTED: Final = 1_000  # workers; the server gives no more at once
Number = Annotated[int, typer.Argument(metavar="TRIAL", min=0, help="The trial's number.")]


def create(
    context: typer.Context,
    file: Study,
    data: Corpus = None,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Check the file and its text; make nothing.")
    ] = False,
) -> None:
    """Create a study; its text is checked and uploaded first."""
    source = open_source(str(file), data)
    if dry_run:
        say(f"{source.spec.name}: fits, up to {source.spec.budget.trials} trials; nothing was made")
        return
    study = client_of(context).studies.create(source.spec, source.base)
    say(f"created study {study.name}: {shown.budget(study)} trials")


def list_studies(
    context: typer.Context,
    archived: Annotated[bool, typer.Option("--archived", help="The archived ones.")] = False,
    as_json: AsJson = False,
) -> None:
    """List the studies, newest first."""
    studies = list(client_of(context).studies.list(archived))
    if as_json:
        print_json([study.model_dump(mode="json") for study in studies])
    else:
        print_table(shown.STUDY_COLUMNS, map(shown.study_row, studies))


def show(
    context: typer.Context,
    name: Name,
    trial: Annotated[
        int | None, typer.Argument(metavar="[TRIAL]", min=0, help="Show one trial instead.")
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Show a study and its trials, or one trial with its curve and attempts."""
    client = client_of(context)
    study = client.studies.get(name)
    if trial is not None:
        detail = client.studies.trial(name, trial)
        if as_json:
            print_json(detail.model_dump(mode="json", by_alias=True))
        else:
            _print_trial(study, detail)
    elif as_json:
        print_json(study.model_dump(mode="json"))
    else:
        for line in shown.study_lines(study):
            say(line)
        rows = [shown.trial_row(study, t) for t in client.studies.trials(name)]
        if rows:
            say()
            print_table(shown.trial_columns(study), rows)


def _print_trial(study: Any, detail: Any) -> None:
    say(shown.finished_line(study, detail))
    names = list(dict.fromkeys(n for point in detail.curve for n in point.metrics))
    points = [[p.step, *(p.metrics.get(n) for n in names)] for p in detail.curve]
    if points:
        say()
        print_table(["step", *names], points)
    attempts = [(a.attempt, a.worker, a.start_step, a.outcome, a.reason) for a in detail.attempts]
    if attempts:
        say()
        print_table(["attempt", "worker", "from step", "outcome", "reason"], attempts)


def watch(context: typer.Context, name: Name) -> None:
    """Watch a study until it ends; exit code 0 if it has a complete trial, else 1."""
    client = client_of(context)
    study = follow(client, name)
    code = outcome(study)
    if study.best is not None:
        for line in shown.best_lines(study, client.studies.best(name)):
            say(line)
    raise typer.Exit(code)


def best(context: typer.Context, name: Name, as_json: AsJson = False) -> None:
    """Print the best complete trial: its number, value and parameters."""
    client = client_of(context)
    study, trial = client.studies.get(name), client.studies.best(name)
    if as_json:
        print_json(shown.best_document(study, trial))
        return
    for line in shown.best_lines(study, trial):
        say(line)


def pause(context: typer.Context, name: Name) -> None:
    """Pause a study: its running trials checkpoint and wait."""
    _act(context, name, "pause")


def resume(context: typer.Context, name: Name) -> None:
    """Go on with a paused study."""
    _act(context, name, "resume")


def stop(context: typer.Context, name: Name) -> None:
    """End a study for good; what its trials have reached stays."""
    _act(context, name, "stop")


def archive(
    context: typer.Context,
    name: Name,
    undo: Annotated[bool, typer.Option("--undo", help="Take it out of the archive.")] = False,
) -> None:
    """Take a study out of the lists; nothing is deleted."""
    _act(context, name, "unarchive" if undo else "archive")


def _act(context: typer.Context, name: str, action: str) -> None:
    study = client_of(context).studies.act(name, action)
    say(f"{study.name}: {shown.state_of(study)}")


def cancel(context: typer.Context, name: Name, trial: Number) -> None:
    """Cancel a trial; it counts against no budget."""
    view = client_of(context).studies.cancel(name, trial)
    cancelled = view.state.terminal
    say(f"trial {view.number}: {view.state if cancelled else 'ends as CANCELLED, soon'}")


def enqueue(
    context: typer.Context,
    name: Name,
    values: Annotated[list[str], typer.Argument(metavar="KNOB=VALUE...", help="Searched knobs.")],
) -> None:
    """Queue a configuration to be tried next; searched knobs left out are sampled."""
    studies = client_of(context).studies
    view = studies.enqueue(name, parse_values(values, studies.get(name).spec.get("search", {})))
    say(f"trial {view.number}: {view.state}; {pairs(view.params)}")


def parse_values(values: list[str], searched: Collection[str] = ()) -> dict[str, Any]:
    """Returns knob to value from KNOB=VALUE texts; raises InvalidInput.

    Args:
        values: the texts.
        searched: what the study searches, a script's own names too, whose values are YAML's.
    """
    parsed: dict[str, Any] = {}
    errors: list[FieldError] = []
    for text in values:
        name, equals, value = text.partition("=")
        knob = KNOBS.get(name)
        if not equals:
            errors.append(FieldError(text, "has no value", "write KNOB=VALUE"))
        elif knob is None and name not in searched:
            errors.append(FieldError(name, "there is no such knob", near(name, KNOBS)))
        elif name in parsed:
            errors.append(FieldError(name, "is given twice", "give it once"))
        else:
            try:
                parsed[name] = knob.check(value) if knob else yaml.safe_load(value)
            except yaml.YAMLError:
                errors.append(FieldError(name, f"{value!r} is no value", "quote it"))
            except ValidationError:
                assert knob is not None  # noqa: S101 - it was asked
                errors.append(FieldError(name, f"{value!r} does not fit", f"give {knob.domain}"))
    if errors:
        raise InvalidInput(errors)
    return parsed


def budget(
    context: typer.Context,
    name: Name,
    trials: Annotated[int | None, typer.Option(min=1, help="Configurations in all.")] = None,
    wall_time: Annotated[
        str | None, typer.Option(help="Time spent RUNNING, as 90s, 10m or 2h; none: no limit.")
    ] = None,
    workers: Annotated[
        str | None, typer.Option(help="That train its trials at once, at most; none: no limit.")
    ] = None,
) -> None:
    """Give a study that goes on another budget, or other workers."""
    said = {"trials": trials, "wall_time": wall_time, "workers": workers}
    given = {field: None if v == "none" else v for field, v in said.items() if v is not None}
    resources = {"workers": given.pop("workers")} if "workers" in given else {}
    study = client_of(context).studies.change(name, budget=given, resources=resources)
    say(f"{study.name}: {shown.budget(study)} trials")


def narrow(
    context: typer.Context,
    name: Name,
    ranges: Annotated[
        list[str], typer.Argument(metavar="KNOB=LOW..HIGH|KNOB=A,B...", help="Searched knobs.")
    ],
) -> None:
    """Search less: a narrower range, or fewer choices, of searched knobs."""
    studies = client_of(context).studies
    searched = studies.get(name).spec.get("search", {})
    studies.change(name, search=parse_ranges(ranges, searched))
    say(f"{name}: {', '.join(ranges)}")


def parse_ranges(texts: list[str], searched: Mapping[str, Any]) -> dict[str, Any]:
    """Returns the `search` section that KNOB=LOW..HIGH and KNOB=A,B stand for."""
    parsed = {}
    for text in texts:
        knob, equals, said = text.partition("=")
        if not equals:
            raise InvalidInput.of(text, "has no range", "write KNOB=LOW..HIGH or KNOB=A,B")
        low, dots, high = said.partition("..")
        try:
            values = [yaml.safe_load(value) for value in ([low, high] if dots else said.split(","))]
        except yaml.YAMLError:
            raise InvalidInput.of(knob, f"{said!r} is no range", "write LOW..HIGH") from None
        kind = "uniform" if "uniform" in searched.get(knob, {}) else "log"
        parsed[knob] = {kind if dots else "choice": values}
    return parsed


def workers(
    context: typer.Context,
    as_json: AsJson = False,
    log: Annotated[
        str | None, typer.Option(metavar="WORKER", help="Print the end of its log instead.")
    ] = None,
) -> None:
    """List the workers that the server knows, or show what one that it started printed."""
    client = client_of(context)
    if log is not None:
        say(client.worker_log(log).rstrip("\n"))
        return
    views = client.workers(limit=_LISTED)
    if as_json:
        print_json([view.model_dump(mode="json") for view in views])
        return
    print_table(shown.WORKER_COLUMNS, map(shown.worker_row, views))
    counts = client.worker_counts()
    more = sum(count.workers for count in counts) - len(views)
    warn(fleet.in_words(counts) + (f"; and {more} more than are listed" if more > 0 else ""))


def worker_command(context: typer.Context) -> None:
    """Print the line that starts a worker on another machine; the rest is said on stderr."""
    view = client_of(context).worker_command()
    say(view.command)
    warn(f"the token's file first, if it is not there: {view.token}")
    if view.note is not None:
        warn(view.note)


def login(context: typer.Context) -> None:
    """Print a link that signs one browser in to the dashboard, once."""
    say(client_of(context).login_link().url)
