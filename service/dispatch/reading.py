"""What people see: views of studies, trials and workers; reads only, from any thread."""

from __future__ import annotations

import time
from collections.abc import Mapping
from typing import Any, Final

from service.dispatch import studies as lives
from service.dispatch.context import Context
from service.dispatch.matching import Fleet, heard_since
from service.dispatch.outlays import Outlays
from service.dispatch.sparks import Sparks
from service.dispatch.standing import Standing, standing
from service.dispatch.views import (
    attempt_view,
    data_view,
    event_view,
    moment,
    point,
    trial_fields,
    worker_view,
)
from service.dispatch.watching import Watch
from service.figures.findings import Cost, Spent
from service.store import attempts, blobs, reports, studies, trials, workers
from service.store.database import Connection, Row
from studies import wire
from studies.changes import EventView
from studies.errors import InvalidInput, NotFound
from studies.fleet import WorkerCount
from studies.trial import TERMINAL, StudyState, TrialState

LISTED: Final = 200  # workers, unless more are asked for


class Reading:
    """The read side of one server."""

    def __init__(self, ctx: Context) -> None:
        self._ctx = ctx
        self._read = ctx.database.read
        self.watch = Watch(ctx)
        self.sparks = Sparks(ctx.database)
        self.outlays = Outlays(ctx.database)

    def studies(
        self,
        archived: bool,
        cursor: str | None,
        limit: int,
        search: str = "",
        state: StudyState | None = None,
    ) -> wire.Page[wire.StudyView]:
        """Returns a page of studies, newest first: of a state, with a part of their names."""
        wanted: dict[str, Any] = {"archived": archived, "search": search, "state": state}
        before = None if cursor is None else _cursor(cursor)

        def read(conn: Connection) -> wire.Page[wire.StudyView]:
            rows = studies.page(conn, before=before, limit=limit + 1, **wanted)
            more = str(rows[limit - 1].id) if len(rows) > limit else None
            fleet = Fleet(conn, self._ctx)
            views = [self._study_view(conn, row, fleet) for row in rows[:limit]]
            return wire.Page[wire.StudyView](items=views, next=more)

        return self._read(read)

    def study(self, name: str) -> wire.StudyView:
        """Returns a study; raises NotFound."""

        def read(conn: Connection) -> wire.StudyView:
            return self._study_view(conn, _study(conn, name), Fleet(conn, self._ctx))

        return self._read(read)

    def trials(
        self,
        name: str,
        state: TrialState | None = None,
        cursor: str | None = None,
        limit: int = 1_000,
    ) -> wire.Page[wire.TrialView]:
        """Returns a page of a study's trials by number, of one state or of all."""
        after = -1 if cursor is None else _cursor(cursor)

        def read(conn: Connection) -> wire.Page[wire.TrialView]:
            study = _study(conn, name)
            rows = trials.page(conn, study.id, state=state, after=after, limit=limit + 1)
            more = str(rows[limit - 1].number) if len(rows) > limit else None
            views = [wire.TrialView(**trial_fields(name, row)) for row in rows[:limit]]
            return wire.Page[wire.TrialView](items=views, next=more)

        return self._read(read)

    def trial(self, name: str, number: int) -> wire.TrialDetail:
        """Returns a trial with its curve and attempts; raises NotFound."""

        def read(conn: Connection) -> wire.TrialDetail:
            study = _study(conn, name)
            return self._detail(conn, study, _trial(conn, study, number))

        return self._read(read)

    def standing(self, name: str, number: int) -> Standing:
        """Returns how a trial stands among the others, and what is kept of it."""

        def read(conn: Connection) -> Standing:
            study = _study(conn, name)
            direction = self._ctx.studies.spec(study).objective.direction
            return standing(conn, study, _trial(conn, study, number), direction)

        return self._read(read)

    def checkpoint(self, name: str, number: int) -> tuple[int, str]:
        """Returns the step and hash of a trial's checkpoint: of a COMPLETE one, what counts."""

        def read(conn: Connection) -> tuple[int, str]:
            row = _trial(conn, _study(conn, name), number)
            found = attempts.newest_checkpoint(conn, row.id)
            if found is None:
                raise NotFound(
                    f"trial {number} of {name} keeps no checkpoint; of those that ended only the"
                    " study's best three do"
                )
            return found.step, found.sha256

        return self._read(read)

    def best(self, name: str) -> wire.TrialDetail:
        """Returns the best COMPLETE trial; raises NotFound before there is one."""

        def read(conn: Connection) -> wire.TrialDetail:
            study = _study(conn, name)
            direction = self._ctx.studies.spec(study).objective.direction
            found = trials.best(conn, study.id, direction)
            if not found:
                raise NotFound(f"study {name} has no complete trial yet")
            return self._detail(conn, study, found[0])

        return self._read(read)

    def log(self, name: str, number: int, attempt: int) -> str:
        """Returns what is kept of an attempt's log; raises NotFound."""

        def read(conn: Connection) -> str:
            row = trials.by_number(conn, _study(conn, name).id, number)
            found = row and attempts.get(conn, row.id, attempt)
            if not found:
                raise NotFound(f"study {name} has no attempt {attempt} of trial {number}")
            return str(found.log or "")

        return self._read(read)

    def cost(self, name: str) -> Cost:
        """Returns what the study has cost so far; raises NotFound."""

        def read(conn: Connection) -> Cost:
            study = _study(conn, name)
            rows = attempts.spent(conn, study.id, time.time())
            kept = [reports.spent(body) for body in reports.last_bodies(conn, study.id)]
            spent = [Spent(row.device, row.outcome, row.ended, row.seconds) for row in rows]
            return Cost(spent, sum(tokens for tokens, _ in kept), sum(took for _, took in kept))

        return self._read(read)

    def history(
        self, name: str, cursor: str | None = None, limit: int = 100
    ) -> wire.Page[EventView]:
        """Returns a page of a study's events, newest first."""
        before = None if cursor is None else _cursor(cursor)

        def read(conn: Connection) -> wire.Page[EventView]:
            rows = studies.history(conn, _study(conn, name).id, before, limit + 1)
            more = str(rows[limit - 1].id) if len(rows) > limit else None
            return wire.Page[EventView](items=[event_view(row) for row in rows[:limit]], next=more)

        return self._read(read)

    def workers(
        self,
        limit: int = LISTED,
        *,
        name: str | None = None,
        study: str | None = None,
        measured: bool = False,
    ) -> list[wire.WorkerView]:
        """Returns workers, those heard of last first: of a name, or on a study.

        With their utilisation if `measured`: that looks at all their attempts.
        """

        def read(conn: Connection) -> list[wire.WorkerView]:
            since = heard_since(conn, self._ctx)
            rows = workers.recent(conn, limit, name, study)
            held = workers.held_seconds(conn, [row.id for row in rows]) if measured else {}
            none = 0.0 if measured else None
            return [worker_view(row, row.seen_t < since, held.get(row.id, none)) for row in rows]

        return self._read(read)

    def worker_counts(self) -> list[WorkerCount]:
        """Returns how many workers there are, by device and state."""
        rows = self._read(lambda conn: workers.counts(conn, heard_since(conn, self._ctx)))
        return [WorkerCount.model_validate(row, from_attributes=True) for row in rows]

    def worker(self, worker_id: int) -> Row | None:
        """Returns a worker's row; None: there is none of this id."""
        return self._read(lambda conn: workers.get(conn, worker_id))

    def data(self) -> list[wire.DataView]:
        """Returns the uploaded texts, newest first."""
        rows = self._read(blobs.texts)
        return [data_view(row) for row in rows]

    def counts(self) -> dict[tuple[str, str], int]:
        """Returns the number of trials by (study, state), for /metrics."""

        def read(conn: Connection) -> dict[tuple[str, str], int]:
            rows = studies.page(conn, archived=False, before=None, limit=1_000)
            return {
                (row.name, state): count
                for row in rows
                for state, count in studies.counts(conn, row.id).items()
            }

        return self._read(read)

    def _study_view(self, conn: Connection, row: Row, fleet: Fleet) -> wire.StudyView:
        spec = self._ctx.studies.spec(row)
        counts = studies.counts(conn, row.id)
        best = trials.best(conn, row.id, spec.objective.direction)
        return wire.StudyView(
            name=row.name,
            description=spec.description,
            state=row.state,
            reason=row.reason,
            archived=row.archived,
            created_at=moment(row.created_at),
            ended_at=moment(row.ended_at),
            running_seconds=lives.running_seconds(row, workers.read_clock(conn).t),
            spec=row.spec,
            counts=counts,
            slots=lives.slots(counts),
            best=wire.BestTrial(number=best[0].number, value=best[0].value) if best else None,
            revision=row.revision,
            error=row.error,
            lacking=fleet.lacking(spec) if _waits(row, counts) else None,
        )

    def _detail(self, conn: Connection, study: Row, row: Row) -> wire.TrialDetail:
        spec = self._ctx.studies.spec(study)
        granted = [attempt_view(attempt) for attempt in attempts.of_trial(conn, row.id)]
        last = granted[-1:] if row.state in (TrialState.RUNNING, *TERMINAL) else []
        return wire.TrialDetail(
            **trial_fields(study.name, row, last[0].worker if last else None),
            recipe=spec.recipe(row.params, row.number),
            curve=[point(report) for report in reports.visible(conn, row.id)],
            attempts=granted,
        )


def _study(conn: Connection, name: str) -> Row:
    row = studies.by_name(conn, name)
    if row is None:
        raise NotFound(f"there is no study named {name}")
    return row


def _waits(study: Row, counts: Mapping[TrialState, int]) -> bool:
    """True for a study that goes on, while nobody trains for it."""
    return study.state == StudyState.RUNNING and not counts.get(TrialState.RUNNING)


def _trial(conn: Connection, study: Row, number: int) -> Row:
    row = trials.by_number(conn, study.id, number)
    if row is None:
        raise NotFound(f"study {study.name} has no trial {number}")
    return row


def _cursor(cursor: str) -> int:
    try:
        return int(cursor)
    except ValueError:
        raise InvalidInput.of("cursor", "is not one that a page gave as `next`") from None
