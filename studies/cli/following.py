"""Following a study until it ends: a live view in a terminal, a line per trial elsewhere."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field
from typing import Final

from rich.console import Console, Group
from rich.live import Live
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from studies.cli import shown
from studies.cli.exits import FAILED, OK
from studies.cli.output import clean, console, rich_table, say, seconds, warn
from studies.client import Client
from studies.errors import ServerUnreachable, Unavailable
from studies.trial import StudyState, TrialState
from studies.wire import StudyView, TrialView, WorkerView

_PERIOD: Final = 1.0  # between looks [s]
_SHARE: Final = 0.1  # of the time may go into looks; a large study is looked at less often
_PATIENCE: Final = 60.0  # how long a server may be away [s]
_ROWS: Final = 12  # trials in the live view
_WORKER_DUE: Final = 45.0  # after this long without a worker, say where to look [s]
_NO_WORKER: Final = (
    "no worker is connected yet: local ones log to LMTUNE_HOME/logs, others start with"
    " `lmtune-worker --server URL`"
)


@dataclass(frozen=True)
class Picture:
    """One look at a study."""

    study: StudyView
    trials: list[TrialView] = field(default_factory=list)
    workers: list[WorkerView] = field(default_factory=list)
    tokens_per_second: float = 0.0

    @property
    def over(self) -> bool:
        """True when nothing more will happen unless a person does something."""
        failing = self.study.state is StudyState.PAUSED and self.study.reason == "failing"
        return failing or self.study.state is StudyState.ENDED


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
    view = _LiveView(out) if out.is_terminal else _Lines()
    with view.shown():
        for picture in looks(client, name, check):
            view.update(picture)
    return picture.study


def looks(client: Client, name: str, check: Callable[[], None]) -> Iterator[Picture]:
    """Yields a picture each second or so; the last one shows the end."""
    picture = Picture(client.studies.get(name))
    answered = time.monotonic()
    revision = -1
    while True:
        check()
        began = time.monotonic()
        try:
            study = client.studies.get(name)
            trials = picture.trials
            if study.revision != revision:
                trials = list(client.studies.trials(name))
            workers = [w for w in client.workers() if w.state in ("idle", "busy")]
            picture = Picture(study, trials, workers, _throughput(client, name, trials))
            revision, answered = study.revision, time.monotonic()
        except (ServerUnreachable, Unavailable):
            if time.monotonic() - answered > _PATIENCE:
                raise
        yield picture
        if picture.over:
            return
        time.sleep(max(_PERIOD, (time.monotonic() - began) / _SHARE))


def _throughput(client: Client, name: str, trials: list[TrialView]) -> float:
    """Returns the speed of the running trials together, as they last reported it [tokens/s]."""
    total = 0.0
    for trial in trials:
        if trial.state is TrialState.RUNNING and trial.step:
            curve = client.studies.trial(name, trial.number).curve
            total += curve[-1].metrics.get("tokens_per_second", 0.0) if curve else 0.0
    return total


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
        if not picture.workers and not self._missing_said and waited > _WORKER_DUE:
            self._missing_said = True
            say(_NO_WORKER)


class _LiveView:
    """Progress, best value, workers and the latest trials, redrawn in place."""

    def __init__(self, out: Console) -> None:
        self._live = Live(console=out, auto_refresh=False, vertical_overflow="crop")
        self._began = time.monotonic()

    def shown(self) -> AbstractContextManager[object]:
        return self._live

    def update(self, picture: Picture) -> None:
        study = picture.study
        rows = [shown.trial_row(study, t) for t in shown.latest(picture.trials, _ROWS)]
        waited = time.monotonic() - self._began
        status = Text(_status_line(picture, waited), style="dim")
        table = rich_table(shown.trial_columns(study), rows)
        self._live.update(Group(_progress_line(study), status, "", table), refresh=True)


def _progress_line(study: StudyView) -> Table:
    line = Table.grid(padding=(0, 2, 0, 0))
    done, budget = shown.finished(study), shown.budget(study)
    best = f"best {study.best.value:.4f} (trial {study.best.number})" if study.best else "no best"
    bar = ProgressBar(total=budget, completed=done, width=30)
    state = "" if study.state is StudyState.RUNNING else shown.state_of(study)
    said = [f"{done}/{budget}", best, seconds(study.running_seconds), state]
    line.add_row(Text(study.name, style="bold"), bar, *(Text(clean(text)) for text in said))
    return line


def _status_line(picture: Picture, waited: float) -> str:
    busy = sum(worker.state == "busy" for worker in picture.workers)
    if not picture.workers:
        return _NO_WORKER if waited > _WORKER_DUE else "waiting for a worker"
    count = len(picture.workers)
    said = f"{count} worker{'s' if count > 1 else ''}, {busy} busy"
    if picture.tokens_per_second:
        said += f", {picture.tokens_per_second:,.0f} tokens/s"
    return said
