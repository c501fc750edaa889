"""Plain reports and heartbeats: they touch their own trial only, and no scheduler looks at them.

One is two statements. On PostgreSQL as many as wait are two statements together; what does not go
that way (a duplicate, a refusal) is for `report.py`, which says why.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final

from service.dispatch.context import Context
from service.store import bulk, fence, reports
from service.store.database import Many, Tx
from service.store.fence import AttemptKey
from service.tuning import schedulers
from studies import wire
from studies.spec import StudySpec
from studies.trial import Decision, Desired

DECISIONS: Final = {
    Desired.RUN: Decision.CONTINUE,
    Desired.PAUSE: Decision.PAUSE,
    Desired.STOP: Decision.STOP,
    Desired.CANCEL: Decision.CANCEL,
}


@dataclass(frozen=True)
class Plain:
    """A report that comes alone, and that no scheduler looks at."""

    key: AttemptKey
    study_id: int
    item: wire.ReportItem
    value: float  # of the objective
    granted: float  # [s]

    @property
    def said(self) -> dict[str, Any]:
        """What the fence is asked."""
        value = finite(self.value)
        return fence.said_anew(self.key, self.study_id, self.granted, self.item.step, value)

    def decision(self, desired: Desired, max_step: int) -> Decision:
        """Returns what the worker is told: what is wanted, but at its last step nothing else."""
        return Decision.CONTINUE if self.item.step >= max_step else DECISIONS[desired]

    def row(self, decision: Decision) -> dict[str, Any]:
        """Returns the row of the report."""
        return row(self.study_id, self.key, self.item, self.value, decision)

    def answer(self, decision: Decision) -> wire.ReportAnswer:
        """Returns what the worker is answered."""
        return wire.ReportAnswer(accepted_through=self.item.step, decision=decision)


def only_report(
    ctx: Context, key: AttemptKey, body: wire.ReportBody, study_id: int, spec: StudySpec
) -> Plain | None:
    """Returns the body's report where it is a plain one."""
    item = body.items[0]
    value = item.metrics.get(spec.objective.metric)
    if value is None or len(body.items) > 1 or may_judge(spec, body):
        return None
    return Plain(key, study_id, item, value, ctx.lease.granted)


def reporting(ctx: Context, key: AttemptKey, body: wire.ReportBody) -> Many | None:
    """Returns how the report is stored together with others, if it is known to be a plain one."""
    known = ctx.studies.known(key.trial_id)
    one = known and only_report(ctx, key, body, *known)
    return Many(take_all, one) if one else None


def beating(ctx: Context, key: AttemptKey, body: wire.HeartbeatBody) -> Many | None:
    """Returns how the lease is renewed together with others; the first beat says more."""
    if body.environment is not None:
        return None
    return Many(beat_all, fence.said(key, ctx.lease.granted, body.step))


def take(tx: Tx, one: Plain) -> wire.ReportAnswer | None:
    """Stores a new report in two statements; None: it is no new one of the holder."""
    key, step = one.key, one.item.step
    moved = fence.advance(tx, key, one.study_id, one.granted, step, finite(one.value))
    if moved is None:  # a duplicate, out of order, or not of the holder
        return None
    decision = one.decision(*moved)
    reports.insert(tx, **one.row(decision))
    return one.answer(decision)


def take_all(tx: Tx, many: Sequence[Plain]) -> list[wire.ReportAnswer | None]:
    """Does as `take` for many; of a trial's reports it takes one."""
    first = {one.key.trial_id: one for one in reversed(many)}
    moved = bulk.advance(tx, [one.said for one in first.values()])
    decided = {trial: first[trial].decision(*wanted) for trial, wanted in moved.items()}
    if decided:
        bulk.insert(tx, [first[trial].row(decision) for trial, decision in decided.items()])
    return [
        one.answer(decided[one.key.trial_id])
        if one.key.trial_id in decided and first[one.key.trial_id] is one
        else None
        for one in many
    ]


def beat_all(tx: Tx, many: Sequence[dict[str, Any]]) -> list[Decision | None]:
    """Renews many leases; returns what is wanted of each trial, None where it is not held."""
    first = {said["of_trial"]: said for said in reversed(many)}
    held = bulk.beat(tx, list(first.values()))
    bulk.seen(tx, [worker for worker, _ in held.values()])
    return [
        DECISIONS[held[said["of_trial"]][1]]
        if said["of_trial"] in held and first[said["of_trial"]] is said
        else None
        for said in many
    ]


def may_judge(spec: StudySpec, body: wire.ReportBody) -> bool:
    """True when the scheduler looks at one of the reports: then the study is locked first."""
    every, last = spec.train.evaluate_every, spec.train.steps
    return any(schedulers.judged_at(spec.scheduler, i.step, every, last) for i in body.items)


def finite(value: float) -> float | None:
    """Returns the value, or None where no number of the database says it."""
    return value if math.isfinite(value) else None


def row(
    study_id: int, key: AttemptKey, item: wire.ReportItem, value: float, decision: Decision
) -> dict[str, Any]:
    """Returns the row of a report and the decision that it brought about."""
    return {
        "study_id": study_id,
        "trial_id": key.trial_id,
        "attempt": key.attempt,
        "step": item.step,
        "value": finite(value),
        "special": None if math.isfinite(value) else wire.number_to_json(value),
        "body": item.canonical(),
        "decision": decision,
    }
