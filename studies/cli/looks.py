"""Looking at a study again and again until it ends: one picture each second or so."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Final

from studies.client import Client
from studies.errors import ServerUnreachable, Unavailable
from studies.fleet import WorkerCount
from studies.trial import StudyState, TrialState
from studies.wire import StudyView, TrialDetail, TrialView

_PERIOD: Final = 1.0  # between looks [s]
_SHARE: Final = 0.1  # of the time may go into looks: a large study is looked at less often ...
_LONGEST: Final = 5.0  # ... but no look waits longer: a server is slow for a moment, too [s]
_PATIENCE: Final = 60.0  # how long a server may be away [s]
_CLOSELY: Final = 32  # running trials whose curves are read at each look
WORKER_DUE: Final = 45.0  # after this long without a worker, say where to look [s]
NO_WORKER: Final = (
    "no worker is connected yet: local ones log to LMTUNE_HOME/logs, others start with"
    " `lmtune-worker --server URL`"
)


@dataclass(frozen=True)
class Picture:
    """One look at a study."""

    study: StudyView
    trials: list[TrialView] = field(default_factory=list)
    workers: list[WorkerCount] = field(default_factory=list)  # that could train, in numbers
    running: list[TrialDetail] = field(default_factory=list)  # at most _CLOSELY, with their curves

    @property
    def tokens_per_second(self) -> float:
        """The speed of the running trials together, as they last reported it [tokens/s]."""
        ends = [trial.curve[-1] for trial in self.running if trial.curve]
        return sum(end.metrics.get("tokens_per_second", 0.0) for end in ends)

    @property
    def over(self) -> bool:
        """True when nothing more will happen unless a person does something."""
        failing = self.study.state is StudyState.PAUSED and self.study.reason == "failing"
        return failing or self.study.state is StudyState.ENDED


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
            workers = [c for c in client.worker_counts() if c.state in ("idle", "busy")]
            picture = Picture(study, trials, workers, _running(client, name, trials))
            revision, answered = study.revision, time.monotonic()
        except (ServerUnreachable, Unavailable):
            if time.monotonic() - answered > _PATIENCE:
                raise
        yield picture
        if picture.over:
            return
        spent = time.monotonic() - began
        time.sleep(min(max(_PERIOD, spent / _SHARE), _LONGEST))


def _running(client: Client, name: str, trials: list[TrialView]) -> list[TrialDetail]:
    """Returns the first of the running trials, with their curves."""
    numbers = [trial.number for trial in trials if trial.state is TrialState.RUNNING]
    return [client.studies.trial(name, number) for number in numbers[:_CLOSELY]]
