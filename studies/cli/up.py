"""`lmtune up`: a server with its workers, one study to its end, then serving until Ctrl-C."""

from __future__ import annotations

import itertools
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import FrameType
from typing import Annotated, Any

import typer
from pydantic import ValidationError

from studies.cli import exits, shown
from studies.cli.context import Corpus
from studies.cli.following import follow, outcome
from studies.cli.output import console, say
from studies.cli.serving import LocalServer
from studies.cli.sources import Source, open_source
from studies.client import Client
from studies.errors import InvalidInput, NotFound
from studies.script import ALLOWED, listed
from studies.spec import StudySpec
from studies.trial import StudyState
from studies.wire import StudyView


def up(  # noqa: PLR0913 - its options
    study: Annotated[
        str, typer.Option(metavar="FILE", help="A study file, or a name from `lmtune catalog`.")
    ] = "quickstart",
    data: Corpus = None,
    once: Annotated[bool, typer.Option("--once", help="End with the study.")] = False,
    host: Annotated[str | None, typer.Option(help="Address to listen on [127.0.0.1].")] = None,
    port: Annotated[
        int | None, typer.Option(min=0, max=65_535, help="Port [8080]; 0 takes any free one.")
    ] = None,
    workers: Annotated[
        int | None,
        typer.Option(min=0, help="Local workers [one per GPU, else one; more share the cores]."),
    ] = None,
    no_worker: Annotated[
        bool, typer.Option("--no-worker", help="Start none: workers come from elsewhere.")
    ] = False,
) -> None:
    """Start a server and its workers, tune one study, print its best trial and keep serving.

    Ctrl-C ends everything at any time and loses nothing: the next `lmtune up` goes on. A study of
    the same name that has ended, or that says something else, stays; the new one gets a number.
    """
    source = open_source(study, data)
    count = "0" if no_worker else None if workers is None else str(workers)
    if count != "0":
        _check_script(source.spec)
    with _ends_as_ctrl_c():
        try:
            code = _run(source, LocalServer(host, port, count), once)
        except KeyboardInterrupt:
            code = exits.INTERRUPTED if once else exits.OK
    raise typer.Exit(code)


def _check_script(spec: StudySpec) -> None:
    """Raises InvalidInput where the workers that are started would not run the study's script."""
    if spec.model.command is None:
        return
    said, path = listed(spec.model.command)
    if path is None:
        message = f"the local worker may not run {said}"
        remedy = f"start with {ALLOWED}=PATH/TO/{Path(said).name} before the command"
        raise InvalidInput.of("model.command", message, remedy)


def _run(source: Source, local: LocalServer, once: bool) -> int:
    """Runs the study on the server; returns the exit code."""
    if console().is_terminal:
        say(f"starting the server, {local.log} ...")
    with local, local.client() as client:
        try:
            study = _open_study(client, source)
            say(f"dashboard: {client.login_link().url}")
            study = follow(client, study.name, local.check)
            code = outcome(study)
            _summarize(client, study, local, once)
            if not once:
                say("serving until Ctrl-C")
                local.serve()
        except KeyboardInterrupt:
            say("ending: the workers checkpoint what they train (again: at once)")
            say("the study stays; the same command goes on with it")
            raise
    return code


def _open_study(client: Client, source: Source) -> StudyView:
    """Goes on with the same unfinished study, or makes a new one under the next free name."""
    wanted = source.sent
    for name in _names(source.spec.name):
        try:
            study = client.studies.get(name)
        except NotFound:
            study = client.studies.create(source.named(name).spec, source.base)
            say(f"study {name}: {shown.budget(study)} trials")
            return study
        if study.state is not StudyState.ENDED and _same({**wanted, "name": name}, study.spec):
            if study.state is StudyState.PAUSED:
                study = client.studies.act(name, "resume")
            say(f"going on with study {name}: {shown.progress(study)} trials")
            return study
    raise AssertionError("unreachable")


def _names(name: str) -> Iterator[str]:
    """Yields name, name-2, name-3 ..., none over 64 characters."""
    yield name
    for number in itertools.count(2):
        suffix = f"-{number}"
        yield name[: 64 - len(suffix)] + suffix


def _same(wanted: dict[str, Any], document: dict[str, Any]) -> bool:
    """True when a study file of the server says what is wanted, defaults filled in."""
    try:
        spec = StudySpec.model_validate(document)
    except ValidationError:
        return False
    return spec.model_dump(mode="json", by_alias=True) == wanted


def _summarize(client: Client, study: StudyView, local: LocalServer, once: bool) -> None:
    say()
    say(f"study {study.name}: {shown.state_of(study)}, {shown.progress(study)} trials")
    if study.best is not None:
        for line in shown.best_lines(study, client.studies.best(study.name)):
            say(line)
    link = "start `lmtune-server` and open the link that it prints"
    say(f"dashboard: {link if once else client.login_link().url}")
    say(f"database: {local.database}")


@contextmanager
def _ends_as_ctrl_c() -> Iterator[None]:
    """Makes SIGTERM and a closed terminal do what Ctrl-C does."""

    def interrupt(number: int, frame: FrameType | None) -> None:
        raise KeyboardInterrupt

    kinds = (signal.SIGTERM, signal.SIGHUP)
    before = {kind: signal.signal(kind, interrupt) for kind in kinds}
    try:
        yield
    finally:
        for kind, handler in before.items():
            signal.signal(kind, handler)
