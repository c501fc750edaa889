"""Studies that somebody looks at, kept in memory and fed only with what changed since last time.

A view is made when a study is first looked at, and let go when others need the room: it can always
be made anew from the database, also after a restart, and by each server for itself.
"""

from __future__ import annotations

import json
import math
import threading
from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Final

from service.dispatch.context import Context
from service.dispatch.views import moment
from service.figures.brushes import within
from service.figures.data import AttemptData, LoadData, StudyData, TrialData
from service.figures.kept import Cursor, Kept, Told
from service.store import attempts, reports, studies, trials
from service.store.database import Connection, Row
from service.tuning import schedulers
from service.tuning.mirror import Mirror, Seen
from studies.errors import NotFound
from studies.spec import StudySpec
from studies.trial import TERMINAL, TrialState

ROOM: Final = 2_000_000  # trials and points of all views together; about 1 KB and 0.2 KB each
ANEW: Final = 50_000  # reports behind: a view so old is made anew
OVERLAP: Final = 1_000  # reports looked at again where several writers commit out of order
RANKED: Final = 1_000  # trials that importances are computed from: 10,000 take 8 s (measured)
SHOWN: Final = 1_000  # attempts of a timeline
BRUSHED: Final = 8  # rankings that a view keeps: of all trials, and of those in the last brushes
GROWN: Final = 1.05  # importances are computed again when so many more trials are over


@dataclass(frozen=True)
class Ranking:
    """Importances, and how many trials were over when they were computed."""

    importances: dict[str, float]
    over: int


@dataclass
class View:
    """One study, and what is computed of it now and then."""

    id: int
    spec: StudySpec
    kept: Kept
    baseline: float | None = None
    rankings: dict[tuple[str, ...], Ranking] = field(default_factory=dict)  # by brushes
    lock: threading.Lock = field(default_factory=threading.Lock)


@dataclass(frozen=True)
class Snapshot:
    """A study as it was at `cursor`."""

    cursor: Cursor
    data: StudyData


@dataclass(frozen=True)
class Changes:
    """What changed up to `cursor`; `tick` counts the changes of the server's view."""

    cursor: Cursor
    tick: int
    trials: list[TrialData]


class Watch:
    """The views of one server; every method may be called from any thread."""

    def __init__(self, ctx: Context) -> None:
        self._ctx = ctx
        self._views: OrderedDict[int, View] = OrderedDict()  # the last looked at last
        self._lock = threading.Lock()

    def snapshot(self, name: str) -> Snapshot:
        """Returns the study as it is now; raises NotFound."""
        view = self._view(name)
        with view.lock:
            self._refresh(view)
            return self._snapshot(view)

    def changes(self, name: str, tick: int | None) -> Changes:
        """Returns what changed after the tick of earlier changes, the latest first; None: nothing.

        Of a view that was made anew meanwhile it may be more.
        """
        view = self._view(name)
        with view.lock:
            self._refresh(view)
            kept = view.kept
            tick = kept.tick if tick is None else tick if tick <= kept.tick else 0
            return Changes(kept.cursor, kept.tick, kept.since_tick(tick))

    def since(self, name: str, cursor: Cursor) -> Changes:
        """Returns what changed after a cursor, which outlives a restart of the server."""
        view = self._view(name)
        with view.lock:
            self._refresh(view)
            return Changes(view.kept.cursor, view.kept.tick, view.kept.since(cursor))

    def importances(self, name: str, brushes: tuple[str, ...] = ()) -> dict[str, float]:
        """Returns how much each searched knob mattered; empty while too little is known.

        Args:
            name: of the study.
            brushes: the trials within them alone count (figures/brushes.py).
        """
        snapshot, view = self.snapshot(name), self._view(name)
        over = [trial for trial in within(snapshot.data, brushes) if trial.state in TERMINAL]
        known = view.rankings.get(brushes, Ranking({}, 0))
        if len(over) > GROWN * known.over:
            spec = view.spec
            known = Ranking(_importances(spec, over), len(over))
            if view.spec is spec:  # it took a while
                kept = list(view.rankings.items())[1 - BRUSHED :]
                view.rankings = {**dict(kept), brushes: known}
        return known.importances

    def attempts(self, name: str) -> list[AttemptData]:
        """Returns the study's latest attempts."""
        view = self._view(name)
        rows = self._ctx.database.read(lambda conn: attempts.latest_of_study(conn, view.id, SHOWN))
        return [_attempt(row) for row in rows]

    def loads(self, name: str) -> list[LoadData]:
        """Returns what the study's latest attempts made of their devices, by their last reports."""
        view = self._view(name)
        rows = self._ctx.database.read(lambda conn: attempts.last_told(conn, view.id, SHOWN))
        return [_load(row) for row in rows]

    def baseline(self, name: str) -> float | None:
        """Returns the unigram model's loss on the validation split, as workers told it."""
        view = self._view(name)
        if view.baseline is None:
            view.baseline = self._ctx.database.read(lambda conn: _baseline(conn, view))
        return view.baseline

    def _view(self, name: str) -> View:
        def find(conn: Connection) -> tuple[int, StudySpec]:
            row = studies.by_name(conn, name)
            if row is None:
                raise NotFound(f"there is no study named {name}")
            return row.id, self._ctx.studies.spec(row)

        study_id, spec = self._ctx.database.read(find)
        with self._lock:
            view = self._views.get(study_id)
            if view is None:
                view = self._views[study_id] = View(study_id, spec, Kept(spec.objective.direction))
            if view.spec is not spec:  # its space may have been narrowed: brushes mean others
                view.spec, view.rankings = spec, {}
            self._views.move_to_end(study_id)
            while len(self._views) > 1 and sum(v.kept.weight for v in self._views.values()) > ROOM:
                self._views.popitem(last=False)
        return view

    def _refresh(self, view: View) -> None:
        """Brings the view up to date, on one snapshot of the database."""
        overlap = 0 if self._ctx.database.sqlite else OVERLAP

        def read(conn: Connection) -> None:
            now = studies.stamp(conn, view.id)
            if now == view.kept.cursor:
                return
            if now[1] - view.kept.cursor[1] > ANEW or now < view.kept.cursor:
                view.kept = Kept(view.spec.objective.direction)
            kept, (revision, newest) = view.kept, view.kept.cursor
            first = revision < 0
            rows = trials.changed_since(conn, view.id, revision)
            _draw(conn, kept, kept.take(_taken(row) for row in rows))
            if not first:
                told = reports.told_since(conn, view.id, newest - overlap)
                _draw(conn, kept, kept.append(_told(row) for row in told))
            kept.cursor = now
            if view.baseline is None:
                view.baseline = _baseline(conn, view)

        self._ctx.database.read(read)

    def _snapshot(self, view: View) -> Snapshot:
        data = StudyData(
            trials=view.kept.trials,
            space=view.spec.space,
            metric=view.spec.objective.metric,
            direction=view.spec.objective.direction,
            baseline=view.baseline,
            rungs=_rungs(view.spec),
        )
        return Snapshot(view.kept.cursor, data)


def _draw(conn: Connection, kept: Kept, trial_ids: Sequence[int]) -> None:
    kept.draw(_told(row) for row in reports.told_of(conn, trial_ids))


def _baseline(conn: Connection, view: View) -> float | None:
    """Returns the unigram model's loss, as a worker told it; None: unknown, or another metric."""
    if view.spec.objective.metric != "validation_loss":
        return None
    found = (attempts.latest_environment(conn, view.id) or {}).get("unigram_loss")
    return float(found) if found is not None else None


def _importances(spec: StudySpec, over: Sequence[TrialData]) -> dict[str, float]:
    """Returns the importances as RANKED of the trials show them, evenly chosen."""
    chosen = over[:: math.ceil(len(over) / RANKED)]
    mirror = Mirror(spec)
    numbered = enumerate(chosen)  # a mirror takes a gap for trials that are foreign
    mirror.take((Seen(n, t.state, t.params, t.step, t.value) for n, t in numbered), 0)
    return mirror.importances()


def _taken(row: Row) -> tuple[int, int, TrialData]:
    trial = TrialData(
        number=row.number,
        state=TrialState(row.state),
        params=row.params,
        value=row.value,
        step=row.step,
        max_step=row.max_step,
        diverged=row.state == TrialState.FAILED and (row.reason or "").startswith("diverged"),
        started=moment(row.started_at),
        ended=moment(row.ended_at),
    )
    return row.id, row.revision, trial


def _rungs(spec: StudySpec) -> list[int]:
    if spec.scheduler.kind != "asha":
        return []
    return schedulers.rung_steps(spec.scheduler, spec.train.evaluate_every, spec.train.steps)


def _attempt(row: Row) -> AttemptData:
    return AttemptData(
        number=row.number,
        attempt=row.attempt,
        worker=row.worker_name,
        started=moment(row.started_at),
        ended=moment(row.ended_at),
        outcome=row.outcome,
        start_step=row.start_step,
    )


def _load(row: Row) -> LoadData:
    said = json.loads(row.body)["metrics"]
    speed, memory = (_real(said.get(name)) for name in ("tokens_per_second", "peak_memory_bytes"))
    return LoadData(row.number, row.device, moment(row.started_at), speed, memory)


def _real(said: Any) -> float | None:
    """Returns a metric of a script, which may report anything; None where it is no real number."""
    return said if isinstance(said, int | float) and math.isfinite(said) else None


def _told(row: Row) -> Told:
    value = float("nan") if row.value is None else row.value
    return Told(row.id, row.trial_id, (row.step, value), reports.spent(row.body))
