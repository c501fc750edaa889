"""How an attempt's end becomes the trial's state, and the one function that changes that state."""

from __future__ import annotations

import logging
import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Final

from service.store import attempts, reports, studies, trials
from service.store.database import Row, Tx
from service.store.optuna_rows import BoundStorage
from studies.parts import Objective
from studies.trial import TRANSITIONS, Desired, Outcome, TrialState
from studies.wire import number_from_json

logger = logging.getLogger(__name__)
ATTEMPTS: Final = 4  # lost, error or hung in a row without a newer checkpoint, then FAILED
REFUSALS: Final = 3  # workers that say `incompatible`, then FAILED
BREAKER: Final = 5  # trials that fail in a row without a report, then the study pauses
KEPT_BEST: Final = 3  # COMPLETE trials of a study that keep a checkpoint
_COUNTED: Final = frozenset({Outcome.ERROR, Outcome.LOST, Outcome.HUNG})


@dataclass(frozen=True)
class Facts:
    """All that decides what an attempt's end makes of its trial."""

    desired: Desired
    outcome: Outcome
    value: float | None  # the visible objective at final_step; None: no row
    failures: int  # counted ends in a row without a newer checkpoint, this one included
    reason: str | None = None
    refusals: int = 0  # workers that cannot run the trial, this one included


@dataclass(frozen=True)
class Case:
    """A rule of `verdict`."""

    when: str  # as docs/trial-lifecycle.md says it
    holds: Callable[[Facts], bool]
    state: TrialState
    reason: str | None = None  # None: that of the outcome, where the trial FAILED


CASES: Final = (  # the first that holds wins
    Case(
        "a person cancelled it",
        lambda f: f.desired is Desired.CANCEL,
        TrialState.CANCELLED,
        "cancelled",
    ),
    Case(
        "outcome `ok`, and the objective at the final step is finite",
        lambda f: f.outcome is Outcome.OK and f.value is not None and math.isfinite(f.value),
        TrialState.COMPLETE,
    ),
    Case(
        "outcome `ok` with a value that is not finite, or `diverged`",
        lambda f: f.outcome in (Outcome.OK, Outcome.DIVERGED),
        TrialState.FAILED,
        "diverged",
    ),
    Case("outcome `oom`", lambda f: f.outcome is Outcome.OOM, TrialState.FAILED),
    Case(
        "it was to be stopped (`pruned`)",
        lambda f: f.desired is Desired.STOP,
        TrialState.PRUNED,
    ),
    Case(
        "outcome `error`, `lost` or `hung`, the fourth in a row without a newer checkpoint",
        lambda f: f.outcome in _COUNTED and f.failures >= ATTEMPTS,
        TrialState.FAILED,
    ),
    Case(
        "outcome `incompatible`, of the third worker",
        lambda f: f.outcome is Outcome.INCOMPATIBLE and f.refusals >= REFUSALS,
        TrialState.FAILED,
    ),
    Case("it is to be paused (`paused`)", lambda f: f.desired is Desired.PAUSE, TrialState.PAUSED),
    Case(
        "anything else: `preempted`, a first `incompatible`, `error`, `lost` or `hung`",
        lambda _: True,
        TrialState.WAITING,
    ),
)


def verdict(facts: Facts) -> tuple[TrialState, str | None]:
    """Returns the trial's next state and its reason."""
    case = next(case for case in CASES if case.holds(facts))
    if case.state is not TrialState.FAILED:
        return case.state, case.reason
    kind = case.reason or str(facts.outcome)
    return case.state, f"{kind}: {facts.reason}" if facts.reason else kind


def settle(
    tx: Tx,
    trial: Row,
    outcome: Outcome,
    final_step: int,
    reason: str | None = None,
    finish: dict[str, Any] | None = None,
) -> Row:
    """Ends the live attempt of a RUNNING trial and moves the trial; returns the moved row.

    The caller holds the study's lock.
    """
    row = reports.visible_at(tx.conn, trial.id, final_step)
    value = None if row is None else objective(row)
    failures = trial.failures + (outcome in _COUNTED)
    refusals = 0
    if outcome is Outcome.INCOMPATIBLE:
        refusals = attempts.workers_that_refused(tx.conn, trial.id, trial.worker_id)
    facts = Facts(Desired(trial.desired), outcome, value, failures, reason, refusals)
    state, why = verdict(facts)
    answer = None if finish is None else {"said": finish, "answer": {"state": str(state)}}
    attempts.end(tx, trial.id, trial.attempt, outcome=outcome, reason=reason, finish=answer)
    extra: dict[str, Any] = {"failures": failures}
    if state is TrialState.COMPLETE:
        extra |= {"value": value, "step": final_step}
    if state.terminal or state is TrialState.WAITING:
        extra["paused_by"] = None
    if state in (TrialState.PRUNED, TrialState.PAUSED):
        why = trial.reason  # said when it was decided
    return move(tx, trial, state, why, **extra)


def move(tx: Tx, trial: Row, to: TrialState, reason: str | None = None, **values: Any) -> Row:
    """Changes a trial's state: our row, the audit event and, at its end, Optuna's rows.

    The caller holds the study's lock. Nothing else writes `trials.state`.
    """
    if to not in TRANSITIONS[TrialState(trial.state)]:
        raise AssertionError(f"trial {trial.number}: {trial.state} -> {to} is not a transition")
    study = studies.update(tx, trial.study_id)
    values |= {"state": to, "reason": reason, "revision": study.revision}
    if to is not TrialState.RUNNING:
        values |= {"lease_hash": None, "lease_until_t": None, "worker_id": None}
    else:
        values |= {"desired_t": None, "paused_by": None}  # nothing was asked of this attempt yet
    if to.terminal:
        values["ended_at"] = tx.now
    moved = trials.update(tx, trial.id, **values)
    studies.audit(
        tx, trial.study_id, to.lower(), trial.number, attempt=moved.attempt, reason=reason
    )
    if to.terminal:
        _end(tx, study, moved, to)
    return moved


def objective(report: Row) -> float:
    """Returns a report's objective, also where it is not finite."""
    return float(report.value if report.special is None else number_from_json(report.special))


def _end(tx: Tx, study: Row, trial: Row, state: TrialState) -> None:
    """Writes Optuna's end of the trial and drops the checkpoints that nobody resumes from."""
    storage = BoundStorage(tx.conn)
    if storage.has_study(study.name, study.optuna_id):  # else someone has deleted it
        curve = [(row.step, objective(row)) for row in reports.visible(tx.conn, trial.id)]
        if not storage.end_trial(trial.optuna_id, state, trial.value, curve, trial.reason):
            where = f"trial {trial.number} of {study.name}"
            logger.warning("%s was ended or removed through Optuna; it is %s here", where, state)
    _keep_checkpoints(tx, study, trial)


def _keep_checkpoints(tx: Tx, study: Row, ended: Row) -> None:
    """Keeps one checkpoint, of the step that counts, of each of the study's best trials only."""
    complete = ended.state == TrialState.COMPLETE
    attempts.keep_newest_checkpoints(tx, ended.id, int(complete), ended.step)
    if complete:
        direction = Objective.model_validate(study.spec.get("objective", {})).direction
        best = trials.best(tx.conn, study.id, direction, KEPT_BEST)
        attempts.keep_checkpoints_of(tx, study.id, [row.id for row in best])
