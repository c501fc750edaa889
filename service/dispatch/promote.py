"""Promotion: a paused trial that is among the best of its rung goes on (asha, mode promote).

Worked out inside a claim, never ahead: a rung that more trials reach makes room at its top, and
whoever claims next takes the best that waits there. Source: arXiv:1810.05934, Algorithm 2.
"""

from __future__ import annotations

from service.dispatch.context import Context
from service.store import reports, trials
from service.store.database import Connection, Row, Tx
from service.tuning.schedulers import in_top, rung_steps
from studies.trial import Desired


def promote(tx: Tx, ctx: Context, study: Row) -> Row | None:
    """Returns the trial to go on with, wanted to run again; None: none is promotable.

    The caller holds the study's lock. From this rung on the trial is not paused again.
    """
    found = promotable(tx.conn, ctx, study)
    if found is None:
        return None
    trial, step = found
    return trials.update(tx, trial.id, desired=Desired.RUN, paused_by=None, promoted_step=step)


def promotable(conn: Connection, ctx: Context, study: Row) -> tuple[Row, int] | None:
    """Returns the best promotable trial of the highest rung that has one, and the rung's step."""
    spec = ctx.studies.spec(study)
    if not spec.scheduler.promotes:
        return None
    direction = spec.objective.direction
    for step in reversed(rung_steps(spec.scheduler, spec.train.evaluate_every, spec.train.steps)):
        best = trials.best_paused(conn, study.id, step, direction)
        if best is None:
            continue
        reached, better = reports.standing(conn, study.id, step, best.at_rung, direction)
        if in_top(spec.scheduler, reached, better):
            return best, step
    return None
