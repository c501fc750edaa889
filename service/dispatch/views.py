"""Rows of the database as the API and the pages show them."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from typing import Any

from service.store.database import Row
from studies import wire
from studies.changes import EventView
from studies.trial import Desired, TrialState


def data_view(row: Row) -> wire.DataView:
    """Returns an uploaded text as the API shows it."""
    created = moment(row.created_at)
    return wire.DataView(sha256=row.sha256, name=row.name, bytes=row.bytes, created_at=created)


def trial_view(study: str, row: Row) -> wire.TrialView:
    """Returns a trial as lists show it."""
    return wire.TrialView(**trial_fields(study, row))


def moment(seconds: float | None) -> Any:
    """Returns a time [unix s] as the API says it."""
    return None if seconds is None else datetime.fromtimestamp(seconds, UTC)


def trial_fields(study: str, row: Row, worker: str | None = None) -> dict[str, Any]:
    """Returns the fields that every view of a trial has; `worker` where the row names none."""
    return {
        "study": study,
        "number": row.number,
        "state": TrialState(row.state),
        "desired": Desired(row.desired),
        "reason": row.reason,
        "params": row.params,
        "value": row.value,
        "step": row.step,
        "max_step": row.max_step,
        "attempt": row.attempt,
        "worker": getattr(row, "worker_name", worker),
        "created_at": moment(row.created_at),
        "started_at": moment(row.started_at),
        "ended_at": moment(row.ended_at),
    }


def point(row: Row) -> wire.Point:
    """Returns a report as a point of a curve."""
    body = json.loads(row.body)
    return wire.Point(
        step=row.step,
        attempt=row.attempt,
        metrics=body["metrics"],
        tokens=body["tokens"],
        wall_ms=body["wall_ms"],
    )


def attempt_view(row: Row) -> wire.AttemptView:
    """Returns an attempt as the API shows it."""
    return wire.AttemptView(
        attempt=row.attempt,
        worker=row.worker_name,
        started_at=moment(row.started_at),
        ended_at=moment(row.ended_at),
        outcome=row.outcome,
        reason=row.reason,
        start_step=row.start_step,
        environment=row.environment or {},
    )


def event_view(row: Row) -> EventView:
    """Returns an event of a study as the API shows it."""
    return EventView(
        id=row.id, at=moment(row.at), kind=row.kind, trial=row.trial, detail=row.detail
    )


def worker_view(row: Row, silent: bool, held: float | None = None) -> wire.WorkerView:
    """Returns a worker as the API shows it.

    Args:
        row: of the worker, with the trial that it holds.
        silent: one that has not left is then lost.
        held: for how long it held trials, up to when it was heard of last [s]; None: not asked.
    """
    there = row.seen_at - row.registered_at
    state = "gone" if row.gone else "lost" if silent else "idle" if row.trial is None else "busy"
    return wire.WorkerView(
        id=row.id,
        name=row.name,
        host=row.host,
        pid=row.pid,
        device=row.device,
        state=state,
        study=row.study,
        trial=row.trial,
        draining=row.draining,
        utilisation=None if held is None or there <= 0 else min(max(held / there, 0.0), 1.0),
        registered_at=moment(row.registered_at),
        seen_at=moment(row.seen_at),
    )
