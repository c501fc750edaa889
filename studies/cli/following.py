"""Following a study until it ends: a live view in a terminal, a line per trial elsewhere."""

from __future__ import annotations

import time
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext

from studies.cli import shown
from studies.cli.exits import FAILED, OK
from studies.cli.live import LiveView
from studies.cli.looks import NO_WORKER, WORKER_DUE, Picture, looks
from studies.cli.output import console, say, warn
from studies.client import Client
from studies.trial import StudyState, TrialState
from studies.wire import StudyView


def outcome(study: StudyView) -> int:
    """Returns the exit code that a study's end deserves; says on stderr what is wrong."""
    if study.state is StudyState.PAUSED:
        warn(f"error: {study.name} is paused, its trials fail: {study.error or 'no reason known'}")
        return FAILED
    if not study.counts.get(TrialState.COMPLETE):
        why = f": {study.error}" if study.error else ""
        warn(f"error: {study.name} ended with no complete trial{why}")
        return FAILED
    return OK


def follow(client: Client, name: str, check: Callable[[], None] = lambda: None) -> StudyView:
    """Shows a study until it has ended, or paused because its trials fail.

    Args:
        client: connected to the study's server.
        name: the study's.
        check: called before each look; raises where waiting has become pointless.

    Raises:
        ServerUnreachable: nobody has answered for a minute.
    """
    out = console()
    view = LiveView(out) if out.is_terminal else _Lines()
    with view.shown():
        for picture in looks(client, name, check):
            view.update(picture)
    return picture.study


class _Lines:
    """One line for each finished trial."""

    def __init__(self) -> None:
        self._said: set[int] = set()
        self._began = time.monotonic()
        self._missing_said = False

    def shown(self) -> AbstractContextManager[object]:
        return nullcontext()

    def update(self, picture: Picture) -> None:
        ended = [t for t in picture.trials if t.state.terminal and t.number not in self._said]
        for trial in sorted(ended, key=lambda t: (str(t.ended_at), t.number)):
            self._said.add(trial.number)
            say(shown.finished_line(picture.study, trial))
        waited = time.monotonic() - self._began
        if not picture.workers and not self._missing_said and waited > WORKER_DUE:
            self._missing_said = True
            say(NO_WORKER)
