"""A study's life: RUNNING, PAUSED, ENDING, ENDED. Every function holds the study's lock."""

from __future__ import annotations

from typing import Any, Final

from service.dispatch.context import Context
from service.dispatch.promote import promotable
from service.dispatch.settle import BREAKER, move
from service.store import blobs, reports, studies, trials
from service.store.database import Connection, Row, Tx
from service.store.optuna_rows import BoundStorage
from service.tuning import samplers
from studies.errors import Conflict, DuplicateName, InvalidInput, NotFound
from studies.spec import StudySpec, check
from studies.trial import STUDY_TRANSITIONS, Desired, StudyState, TrialState

EXHAUSTED: Final = "exhausted"  # the reason of a study whose sampler has no points left
_GOING: Final = (TrialState.WAITING, TrialState.RUNNING)
_LIVE: Final = (*_GOING, TrialState.PAUSED)


def open_study(tx: Tx, ctx: Context, spec: StudySpec) -> Row:
    """Returns the new study, RUNNING; ours and Optuna's rows appear together.

    Raises:
        InvalidInput: the specification is wrong, or names a text that was not uploaded.
        DuplicateName: a study of this name exists, here or in Optuna's tables.
    """
    check(spec)
    samplers.check(spec)
    if spec.data.sha256 is not None and not blobs.is_text(tx.conn, spec.data.sha256):
        remedy = "upload it with `lmtune data add FILE`"
        raise InvalidInput.of("data.sha256", "no such text was uploaded", remedy)
    storage = BoundStorage(tx.conn)
    if studies.by_name(tx.conn, spec.name) or storage.has_study(spec.name):
        raise DuplicateName(f"a study named {spec.name} exists; choose another name")
    row = studies.insert(
        tx,
        name=spec.name,
        optuna_id=storage.create_study(spec.name, spec.objective.direction),
        spec=spec.document(),
        state=StudyState.RUNNING,
        running_since_t=tx.t,
    )
    studies.audit(tx, row.id, "study_running")
    tx.on_commit(ctx.wake)
    return row


def find(tx: Tx, name: str) -> Row:
    """Returns the study of this name, locked; raises NotFound."""
    row = studies.by_name(tx.conn, name)
    if row is None:
        raise NotFound(f"there is no study named {name}")
    return studies.lock(tx, row.id)


def pause(tx: Tx, name: str, reason: str = "person") -> Row:
    """No more claims; RUNNING trials checkpoint and pause."""
    study = find(tx, name)
    if study.state != StudyState.RUNNING:
        raise Conflict(f"study {name} is {study.state}; only a RUNNING study can be paused")
    return pause_study(tx, study, reason)


def pause_study(tx: Tx, study: Row, reason: str, error: str | None = None) -> Row:
    """Pauses a RUNNING study, for a person or because it keeps failing."""
    for trial in trials.in_state(tx.conn, study.id, TrialState.RUNNING):
        if trial.desired == Desired.RUN:
            _desire(tx, trial, Desired.PAUSE, paused_by="study")
    return _to(tx, study, StudyState.PAUSED, reason=reason, error=error)


def resume(tx: Tx, ctx: Context, name: str) -> Row:
    """Claims go on; what the pause had paused waits for a worker again."""
    study = find(tx, name)
    if study.state != StudyState.PAUSED:
        raise Conflict(f"study {name} is {study.state}; only a PAUSED study can be resumed")
    for trial in trials.in_state(tx.conn, study.id, TrialState.RUNNING, TrialState.PAUSED):
        if trial.paused_by == "study" and trial.desired == Desired.PAUSE:
            _desire(tx, trial, Desired.RUN)  # a running worker may still answer the pause
            if trial.state == TrialState.PAUSED:
                move(tx, trial, TrialState.WAITING, paused_by=None)
    row = _to(tx, study, StudyState.RUNNING, reason=None, error=None)
    tx.on_commit(ctx.wake)
    return advance(tx, ctx, row)


def stop(tx: Tx, ctx: Context, name: str) -> Row:
    """Ends the study now: RUNNING trials are stopped, the others settle at once."""
    study = find(tx, name)
    if study.state not in (StudyState.RUNNING, StudyState.PAUSED):
        raise Conflict(f"study {name} is {study.state} already")
    return begin_ending(tx, ctx, study, "stopped")


def archive(tx: Tx, name: str, archived: bool) -> Row:
    """Hides an ENDED study from lists, or shows it again."""
    study = find(tx, name)
    if archived and study.state != StudyState.ENDED:
        raise Conflict(f"study {name} is {study.state}; stop it before archiving it")
    studies.audit(tx, study.id, "archived" if archived else "unarchived")
    return studies.update(tx, study.id, archived=archived)


def advance(tx: Tx, ctx: Context, study: Row) -> Row:
    """Moves a study on where its trials allow it: to ENDING when none is to come, to ENDED."""
    counts = studies.counts(tx.conn, study.id)
    full = slots(counts) >= ctx.studies.spec(study).budget.trials
    done = full or study.reason == EXHAUSTED
    if study.state == StudyState.RUNNING and done and not going(counts):
        if promotable(tx.conn, ctx, study) is None:
            return begin_ending(tx, ctx, study, "budget" if full else EXHAUSTED)
    elif study.state == StudyState.ENDING and not going(counts, TrialState.PAUSED):
        return _to(tx, study, StudyState.ENDED, reason=study.reason)
    return study


def exhaust(tx: Tx, ctx: Context, study: Row) -> Row:
    """Records that no points are left to try: the study ends with the trials that it has."""
    return advance(tx, ctx, studies.update(tx, study.id, reason=EXHAUSTED))


def begin_ending(tx: Tx, ctx: Context, study: Row, reason: str) -> Row:
    """No new trials: RUNNING ones are told to stop, the others settle as stopped."""
    study = _to(tx, study, StudyState.ENDING, reason=reason)
    for trial in trials.in_state(tx.conn, study.id, *_LIVE):
        if trial.state == TrialState.RUNNING:
            if trial.desired in (Desired.RUN, Desired.PAUSE):
                _desire(tx, trial, Desired.STOP, reason=f"study ended: {reason}")
        else:
            stop_idle(tx, trial, f"study ended: {reason}")
    return advance(tx, ctx, study)


def stop_idle(tx: Tx, trial: Row, reason: str) -> Row:
    """Stops a WAITING or PAUSED trial: PRUNED, or CANCELLED where it was never claimed."""
    if trial.attempt == 0:
        return move(tx, trial, TrialState.CANCELLED, "unused")
    return move(tx, trial, TrialState.PRUNED, reason)


def after_settle(tx: Tx, ctx: Context, study: Row, moved: Row) -> Row:
    """What a trial's end means for its study: the breaker, the end, or a trial to settle again."""
    if study.state == StudyState.ENDING and moved.state in (TrialState.WAITING, TrialState.PAUSED):
        stop_idle(tx, moved, f"study ended: {study.reason}")
    failed = study.state == StudyState.RUNNING and moved.state == TrialState.FAILED
    if failed and (first := broken_by(tx, study)):
        return pause_study(tx, studies.lock(tx, study.id), "failing", first.reason)
    tx.on_commit(ctx.wake)
    return advance(tx, ctx, studies.lock(tx, study.id))


def broken_by(tx: Tx, study: Row) -> Row | None:
    """Returns the first of the last trials to end, if all FAILED before any of them reported."""
    since = studies.resumed_at(tx.conn, study.id)
    last = trials.last_ended(tx.conn, study.id, BREAKER, since)
    broken = len(last) == BREAKER and all(
        row.state == TrialState.FAILED and reports.last_visible(tx.conn, row.id) is None
        for row in last
    )
    return last[-1] if broken else None


def going(counts: dict[TrialState, int], *others: TrialState) -> bool:
    """True while trials wait or run, or are in one of the other states."""
    return any(counts.get(state) for state in (*_GOING, *others))


def slots(counts: dict[TrialState, int]) -> int:
    """Returns how many trials count against the budget: all but the cancelled."""
    return sum(counts.values()) - counts.get(TrialState.CANCELLED, 0)


def full(conn: Connection, ctx: Context, study: Row) -> bool:
    """True while as many workers train the study's trials as it asked for at most."""
    most = ctx.studies.spec(study).resources.workers
    return most is not None and studies.counts(conn, study.id).get(TrialState.RUNNING, 0) >= most


def running_seconds(study: Row, t: float) -> float:
    """Returns the time the study has spent RUNNING, at lease time t [s]."""
    since = study.running_since_t
    return float(study.ran_seconds + (0.0 if since is None else max(t - since, 0.0)))


def _desire(tx: Tx, trial: Row, desired: Desired, **values: Any) -> None:
    trials.update(tx, trial.id, desired=desired, desired_t=tx.t, **values)


def _to(tx: Tx, study: Row, state: StudyState, **values: Any) -> Row:
    """Changes a study's state, keeping the time it spent RUNNING; nothing else writes it."""
    if state not in STUDY_TRANSITIONS[StudyState(study.state)]:
        raise AssertionError(f"study {study.name}: {study.state} -> {state} is not a transition")
    values |= {
        "state": state,
        "ran_seconds": running_seconds(study, tx.t),
        "running_since_t": tx.t if state is StudyState.RUNNING else None,
    }
    if state is StudyState.ENDED:
        values["ended_at"] = tx.now
    said = {"reason": values.get("reason"), "revision": study.revision}
    studies.audit(tx, study.id, f"study_{state.lower()}", **said)
    return studies.update(tx, study.id, **values)
