"""The writes of an attempt, each behind the fence: who lost the trial changes nothing."""

from __future__ import annotations

from service.dispatch import plain
from service.dispatch.claim import visible_end
from service.dispatch.context import Context
from service.dispatch.settle import objective, settle
from service.dispatch.studies import after_settle
from service.store import attempts, blobs, fence, reports, studies, trials, workers
from service.store.database import Row, Tx
from service.store.fence import AttemptKey
from service.tuning import schedulers
from studies import wire
from studies.errors import (
    BlobMissing,
    Cancelled,
    Conflict,
    Finished,
    InvalidInput,
    LmtuneError,
    NotFound,
    Paused,
    Stopped,
    Superseded,
    Unreported,
)
from studies.spec import StudySpec
from studies.trial import Decision, Desired, Outcome, TrialState

KEPT_WHILE_LIVE = 2  # newest checkpoints of a live trial, and with early stopping the best one
_LOG_BYTES = 1 << 20  # of an attempt's log that are kept


def heartbeat(tx: Tx, ctx: Context, key: AttemptKey, body: wire.HeartbeatBody) -> Decision:
    """Renews the lease; returns what is wanted of the trial."""
    held = fence.beat(tx, key, ctx.lease.granted, body.step)
    if held is None:
        raise _refusal(tx, key)
    worker_id, desired = held
    workers.beat(tx, worker_id)
    if body.environment is not None:
        attempts.update(tx, key.trial_id, key.attempt, environment=body.environment)
    return plain.DECISIONS[desired]


def record_report(
    tx: Tx, ctx: Context, key: AttemptKey, body: wire.ReportBody
) -> wire.ReportAnswer:
    """Stores reports in order, each once; stops at the first decision other than continue.

    Raises:
        Conflict: another report was stored at a step, or the steps do not rise.
    """
    study_id, spec = ctx.studies.of_trial(tx, key.trial_id)
    one = plain.only_report(ctx, key, body, study_id, spec)
    if one is not None and (answer := plain.take(tx, one)) is not None:
        return answer
    if plain.may_judge(spec, body):
        studies.lock(tx, study_id)
    trial = _fenced(tx, ctx, key, body.items[-1].step)
    decision, duplicate, through = Decision.CONTINUE, True, 0
    for item in body.items:
        stored = reports.get(tx.conn, key.trial_id, key.attempt, item.step)
        if stored is not None:
            decision = _same(stored, item)
        else:
            (decision, trial), duplicate = _store(tx, spec, trial, item), False
        through = item.step
        if decision is not Decision.CONTINUE:
            break
    return wire.ReportAnswer(accepted_through=through, decision=decision, duplicate=duplicate)


def checkpoint(tx: Tx, ctx: Context, key: AttemptKey, body: wire.CheckpointBody) -> Decision:
    """Commits a pointer to an uploaded blob: from now on the trial resumes there.

    Raises:
        Unreported: the report at `last_report_step` is not visible.
        BlobMissing: the blob is not there; upload it (again).
    """
    trial = _fenced(tx, ctx, key, body.step)
    last = body.last_report_step
    if last and reports.visible_at(tx.conn, key.trial_id, last) is None:
        raise Unreported(f"send the report of step {last} before the checkpoint")
    if not blobs.take(tx, body.sha256):
        raise BlobMissing(f"upload {body.sha256} before pointing at it")
    newest = attempts.newest_checkpoint(tx.conn, key.trial_id)
    attempts.add_checkpoint(tx, trial_id=key.trial_id, attempt=key.attempt, **body.model_dump())
    _drop_checkpoints(tx, ctx, key.trial_id, body.step)
    if newest is None or body.step > newest.step:  # else four ends here would never be in a row
        trials.update(tx, key.trial_id, failures=0)
    return plain.DECISIONS[Desired(trial.desired)]


def _drop_checkpoints(tx: Tx, ctx: Context, trial_id: int, step: int) -> None:
    """Keeps what a trial may go on from and, where it may end early, the state that may count."""
    _, spec = ctx.studies.of_trial(tx, trial_id)
    if not (spec.train.patience or "patience" in spec.search):
        attempts.keep_newest_checkpoints(tx, trial_id, KEPT_WHILE_LIVE, step)
        return
    best = reports.best_visible(tx.conn, trial_id, spec.objective.direction)
    counts = best.step if best else step
    attempts.keep_newest_checkpoints(tx, trial_id, KEPT_WHILE_LIVE + 1, step, counts)


def resume(tx: Tx, ctx: Context, key: AttemptKey, body: wire.ResumeBody) -> Decision:
    """Records that the attempt starts below the checkpoint it was given, which is marked bad.

    Raises:
        Conflict: the attempt has reported already.
    """
    trial = _fenced(tx, ctx, key)
    if reports.any_of(tx.conn, key.trial_id, key.attempt):
        raise Conflict("resume comes before the attempt's first report")
    step = body.step or 0
    attempts.mark_bad(tx, key.trial_id, step)
    reports.supersede(tx, key.trial_id, step)
    attempts.update(tx, key.trial_id, key.attempt, start_step=step)
    trials.update(tx, key.trial_id, progress_step=step, **visible_end(tx, key.trial_id))
    return plain.DECISIONS[Desired(trial.desired)]


def finish(tx: Tx, ctx: Context, key: AttemptKey, body: wire.FinishBody) -> wire.FinishAnswer:
    """Ends the attempt and settles the trial; the same finish again gets the same answer.

    Raises:
        InvalidInput: an outcome that a worker cannot say, or that nobody asked for.
        Unreported: `ok` without a visible report at `final_step`.
    """
    said = body.model_dump(mode="json")
    study = studies.lock(tx, ctx.studies.of_trial(tx, key.trial_id)[0])
    before = attempts.get(tx.conn, key.trial_id, key.attempt)
    if before is not None and before.lease_hash == key.lease_hash and before.finish is not None:
        if before.finish["said"] == said:
            return wire.FinishAnswer.model_validate(before.finish["answer"])
        raise Conflict("this attempt has ended with another finish")
    trial = _fenced(tx, ctx, key)
    _check_finish(tx, trial, body)
    moved = settle(tx, trial, body.outcome, body.final_step, body.reason, said)
    after_settle(tx, ctx, study, moved)
    return wire.FinishAnswer(state=TrialState(moved.state))


def log(tx: Tx, ctx: Context, key: AttemptKey, text: str) -> None:
    """Appends to the attempt's log, of which the last part is kept."""
    _fenced(tx, ctx, key)
    row = attempts.get(tx.conn, key.trial_id, key.attempt)
    kept = ((row.log or "") if row else "") + text
    kept = kept.replace("\x00", "").encode()[-_LOG_BYTES:].decode(errors="ignore")
    attempts.update(tx, key.trial_id, key.attempt, log=kept)


def _fenced(tx: Tx, ctx: Context, key: AttemptKey, step: int | None = None) -> Row:
    """Returns the trial that `key` holds, its lease renewed; else raises why it does not."""
    trial = fence.renew(tx, key, ctx.lease.granted, step)
    if trial is None:
        raise _refusal(tx, key)
    return trial


def _refusal(tx: Tx, key: AttemptKey) -> LmtuneError:
    trial = trials.get(tx.conn, key.trial_id)
    if trial is None:
        return NotFound(f"there is no trial {key.trial_id}")
    attempt = attempts.get(tx.conn, key.trial_id, key.attempt)
    ours = attempt is not None and attempt.lease_hash == key.lease_hash
    if not ours or trial.attempt != key.attempt or trial.state == TrialState.RUNNING:
        return Superseded(f"attempt {key.attempt} does not hold the trial")
    refusals: dict[TrialState, type[LmtuneError]] = {
        TrialState.CANCELLED: Cancelled,
        TrialState.PRUNED: Stopped,
        TrialState.PAUSED: Paused,
        TrialState.WAITING: Superseded,
    }
    refusal = refusals.get(TrialState(trial.state), Finished)
    return refusal(f"the trial is {trial.state}")


def _same(stored: Row, item: wire.ReportItem) -> Decision:
    """Returns the stored decision of a report sent again; raises Conflict for another report."""
    if stored.body != item.canonical():
        raise Conflict(f"another report was stored at step {item.step}")
    return Decision(stored.decision)


def _store(tx: Tx, spec: StudySpec, trial: Row, item: wire.ReportItem) -> tuple[Decision, Row]:
    """Stores a new report; returns the decision it brings about and the trial as it is now."""
    if item.step <= trial.step or item.step > trial.max_step:
        raise Conflict(f"step {item.step} is not in ({trial.step}, {trial.max_step}]")
    value = item.metrics.get(spec.objective.metric)
    if value is None:
        raise InvalidInput.of("items.metrics", f"lacks the objective {spec.objective.metric}")
    decision = _decide(tx, spec, trial, item.step, value)
    key = AttemptKey(trial.id, trial.attempt, trial.lease_hash)
    reports.insert(tx, **plain.row(trial.study_id, key, item, value, decision))
    return decision, trials.update(tx, trial.id, step=item.step, value=plain.finite(value))


def _decide(tx: Tx, spec: StudySpec, trial: Row, step: int, value: float) -> Decision:
    """Returns what is wanted already, or what the scheduler says of this report, once.

    At the last step it is always continue: the trial has trained to its end.
    """
    if step >= trial.max_step or trial.desired != Desired.RUN:
        at_end = step >= trial.max_step
        return Decision.CONTINUE if at_end else plain.DECISIONS[Desired(trial.desired)]
    every = spec.train.evaluate_every
    looks = schedulers.judged_at(spec.scheduler, step, every, trial.max_step)
    if not looks or step <= trial.promoted_step:
        return Decision.CONTINUE
    judged = _judged(tx, spec, trial, step, value)
    decision = schedulers.decide(spec.scheduler, judged)
    if decision is not Decision.CONTINUE:
        wanted = {"desired": Desired(decision), "desired_t": tx.t}
        by = "scheduler" if decision is Decision.PAUSE else trial.paused_by
        reason = f"{spec.scheduler.kind} at step {step}"
        trials.update(tx, trial.id, **wanted, paused_by=by, reason=reason)
    elif spec.scheduler.promotes:
        trials.update(tx, trial.id, promoted_step=step)
    return decision


def _judged(tx: Tx, spec: StudySpec, trial: Row, step: int, value: float) -> schedulers.Judged:
    """Returns what the scheduler may see of this report, in values to be minimised."""
    sign = 1.0 if spec.objective.direction == "minimize" else -1.0
    others = reports.at_step(
        tx.conn, trial.study_id, step, trial.id, complete_only=spec.scheduler.kind == "median"
    )
    own = [sign * objective(row) for row in reports.visible(tx.conn, trial.id)]
    complete = studies.counts(tx.conn, trial.study_id).get(TrialState.COMPLETE, 0)
    return schedulers.Judged(
        step=step,
        value=sign * value,
        own=[*own, sign * value],
        others=[sign * objective(row) for row in others],
        complete=complete,
    )


def _check_finish(tx: Tx, trial: Row, body: wire.FinishBody) -> None:
    if body.outcome is Outcome.LOST:
        raise InvalidInput.of("outcome", "only the server can say that a worker is lost")
    if body.outcome is Outcome.PRUNED and trial.desired not in (Desired.STOP, Desired.CANCEL):
        raise InvalidInput.of("outcome", "nobody asked this trial to stop")
    if body.outcome is Outcome.PAUSED and trial.paused_by is None:
        raise InvalidInput.of("outcome", "nobody asked this trial to pause")
    if body.outcome is not Outcome.OK:
        return
    if reports.visible_at(tx.conn, trial.id, body.final_step) is None:
        raise Unreported(f"send the report of step {body.final_step} before `ok`")
