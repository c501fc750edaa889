"""The live view of a study in a terminal: progress, best so far, who trains what, what ended."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Sequence
from contextlib import AbstractContextManager
from typing import Any, Final

from rich.console import Console, ConsoleRenderable, Group
from rich.live import Live
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from studies import fleet
from studies.cli import shown
from studies.cli.looks import NO_WORKER, WORKER_DUE, Picture
from studies.cli.output import clean, pairs, rich_table, seconds, spark
from studies.trial import StudyState, TrialState
from studies.wire import StudyView, TrialDetail

_RUNNING: Final = 8  # trials that are shown while they run
_ENDED: Final = 8  # trials that are shown once they are over
_BEST: Final = 40  # width of the best so far [letters]
_CURVE: Final = 24  # width of a learning curve [letters]


class LiveView:
    """Redraws one picture in place of the one before."""

    def __init__(self, out: Console) -> None:
        self._live = Live(console=out, auto_refresh=False, vertical_overflow="crop")
        self._began = time.monotonic()

    def shown(self) -> AbstractContextManager[object]:
        """A context in which the view is on the screen; its last state stays there."""
        return self._live

    def update(self, picture: Picture) -> None:
        """Shows a picture."""
        self._live.update(drawn(picture, time.monotonic() - self._began), refresh=True)


def drawn(picture: Picture, waited: float) -> Group:
    """Returns the view.

    Args:
        picture: what is to be seen.
        waited: since the view began [s]; a worker that is long in coming is said.
    """
    study = picture.study
    parts: list[ConsoleRenderable | str] = [_progress_line(study)]
    records = shown.records(study, picture.trials)
    if len(records) > 1:
        line = f"best so far {spark(records, _BEST)} {records[0]:.4f} to {records[-1]:.4f}"
        parts.append(Text(line, style="green"))
    said = clean(_workers_line(picture, waited))  # in full: it may say where to look
    parts.append(Text(said, style="dim", no_wrap=False, overflow="fold"))
    running = picture.running[:_RUNNING]
    if running:
        metric = shown.metric(study)
        columns = ["trial", "running on", "step", metric, "curve", "searched"]
        rows = [_running_row(metric, trial) for trial in running]
        parts += ["", rich_table(columns, rows, yielding="searched")]
        if len(picture.running) > _RUNNING:
            parts.append(Text(f"and {len(picture.running) - _RUNNING} more", style="dim"))
    over = [t for t in picture.trials if t.state is not TrialState.RUNNING]
    ended = [shown.trial_row(study, trial) for trial in shown.latest(over, _ENDED)]
    if ended:
        parts += ["", rich_table(shown.trial_columns(study), ended)]
    return Group(*parts)


def _progress_line(study: StudyView) -> Table:
    line = Table.grid(padding=(0, 2, 0, 0))
    done, budget = shown.finished(study), shown.budget(study)
    best = f"best {study.best.value:.4f} (trial {study.best.number})" if study.best else "no best"
    bar = ProgressBar(total=budget, completed=min(done, budget), width=30)
    state = "" if study.state is StudyState.RUNNING else shown.state_of(study)
    left = shown.seconds_left(study)
    time_left = "" if left is None else f"about {seconds(left)} left"
    said = [f"{done}/{budget}", best, seconds(study.running_seconds), time_left, state]
    texts = [Text(clean(text)) for text in said if text]
    line.add_row(Text(study.name, style="bold"), bar, *texts)
    return line


def _workers_line(picture: Picture, waited: float) -> str:
    workers = picture.workers
    if not workers:
        return NO_WORKER if waited > WORKER_DUE else "waiting for a worker"
    devices: Counter[str] = Counter()
    for count in workers:
        devices[count.device] += count.workers
    counts = ", ".join(f"{number} {device}" for device, number in devices.items())
    said = f"{fleet.in_words(workers)} ({counts})"
    if picture.tokens_per_second:
        said += f", {picture.tokens_per_second:,.0f} tokens/s"
    return said


def _running_row(metric: str, trial: TrialDetail) -> Sequence[Any]:
    values = [point.metrics[metric] for point in trial.curve if metric in point.metrics]
    return (
        str(trial.number),
        trial.worker or "",
        f"{trial.step}/{trial.max_step}",
        values[-1] if values else None,
        spark(values, _CURVE),
        pairs(trial.params),
    )
