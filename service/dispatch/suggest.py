"""New trials: a study's sampler is asked outside the writer, its offer is taken inside it.

An ask takes milliseconds to tenths of a second, for which no report is to wait. So it happens
between two transactions, one at a time per study, on a mirror refreshed by reads. The second
transaction takes the offer only if the number that it was made for is still the next; else it
is thrown away and the sampler asked again. No offer is kept: none goes stale.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Final, TypeVar

from service.dispatch import studies as lives
from service.dispatch.context import Context
from service.dispatch.settle import move
from service.store import studies, trials
from service.store.database import Connection, Database, Row, Tx
from service.store.optuna_rows import BoundStorage
from service.tuning.mirror import Mirror, Seen, Suggestion
from studies.errors import InvalidInput
from studies.space import SearchSpace
from studies.spec import StudySpec
from studies.trial import StudyState, TrialState

ResultT = TypeVar("ResultT")
ASKS: Final = 16  # in a row whose offers cannot be used, then a claim gets nothing
PAGE: Final = 1_000  # rows that a mirror takes in at once: no read holds the database for long


@dataclass(frozen=True)
class Offer:
    """What a study's sampler suggests for the trial of this number, while it is the next."""

    study_id: int
    number: int
    space: SearchSpace  # in which it was asked; it may be narrowed meanwhile
    suggestion: Suggestion | None  # None: no point is left to try


def has_room(conn: Connection, ctx: Context, study: Row) -> bool:
    """True while the study may create a trial that is trained at once."""
    if study.state != StudyState.RUNNING or study.reason == lives.EXHAUSTED:
        return False
    if lives.full(conn, ctx, study):
        return False
    return lives.slots(studies.counts(conn, study.id)) < ctx.studies.spec(study).budget.trials


def asked(
    ctx: Context,
    study: Row,
    use: Callable[[Offer], ResultT | None],
    fixed: Mapping[str, Any] | None = None,
) -> ResultT | None:
    """Returns what `use` makes of a fresh offer, asked for again while it makes nothing of it.

    Args:
        ctx: the parts of the server. The caller holds no transaction.
        study: whose sampler is asked.
        use: takes the offer in a transaction of its own.
        fixed: values that a person chose; the others are sampled.
    """
    with ctx.studies.turn(study) as mirror:
        for _ in range(ASKS):
            number = refresh(ctx.database, study, mirror)
            suggestion = mirror.ask(number, fixed)
            used = use(Offer(study.id, number, mirror.spec.space, suggestion))
            if used is not None:
                return used
    return None


def refresh(database: Database, study: Row, mirror: Mirror) -> int:
    """Shows the mirror every trial that changed; returns the next trial's number."""

    def look(conn: Connection) -> int | None:
        rows = trials.changed_since(conn, study.id, mirror.revision, PAGE)
        whole = len(rows) < PAGE
        revision = studies.get(conn, study.id).revision if whole else rows[-1].revision
        mirror.take([_seen(row) for row in rows], revision)
        return BoundStorage(conn).count_trials(study.optuna_id) if whole else None

    while (number := database.read(look)) is None:
        pass
    return number


def _seen(row: Row) -> Seen:
    return Seen(row.number, TrialState(row.state), row.params, row.step, row.value)


def blind_offer(tx: Tx, ctx: Context, study: Row) -> Offer | None:
    """Returns an offer of a sampler that looks at no other trial, asked inside the transaction.

    It depends on the number only, and a thousand claims at once share their transactions.
    """
    spec = ctx.studies.spec(study)
    if spec.sampler.kind != "random":
        return None
    number = BoundStorage(tx.conn).next_number(study.optuna_id)
    return Offer(study.id, number, spec.space, Mirror(spec).blind(number))


def take(tx: Tx, ctx: Context, study: Row, offer: Offer) -> Row | None:
    """Returns the offer as a new WAITING trial; None where it is out of date or fits no recipe.

    The caller holds the study's lock and knows that it takes trials. With no point left to try
    the study begins to end.
    """
    spec = ctx.studies.spec(study)
    if offer.space != spec.space:
        return None
    if offer.suggestion is None:
        lives.exhaust(tx, ctx, study)
        return None
    if BoundStorage(tx.conn).next_number(study.optuna_id) != offer.number:
        return None
    trial = _create(tx, spec, study, offer.suggestion)
    misfit = _misfit(spec, trial)
    if misfit is None:
        return trial
    move(tx, trial, TrialState.CANCELLED, f"does not fit together: {misfit}")
    return None


def _create(tx: Tx, spec: StudySpec, study: Row, suggestion: Suggestion) -> Row:
    """Returns the new trial, in our rows and Optuna's."""
    number = suggestion.trial.number
    optuna_id = BoundStorage(tx.conn).create_trial(study.optuna_id, suggestion.trial)
    revision = studies.update(tx, study.id).revision
    studies.audit(tx, study.id, "waiting", number, params=suggestion.params)
    return trials.insert(
        tx,
        study_id=study.id,
        number=number,
        optuna_id=optuna_id,
        state=TrialState.WAITING,
        params=suggestion.params,
        max_step=spec.train.steps,
        revision=revision,
    )


def _misfit(spec: StudySpec, trial: Row) -> str | None:
    """Returns why the values of a trial make no recipe; a study is checked at its extremes only."""
    try:
        spec.recipe(trial.params, trial.number)
    except InvalidInput as error:
        return str(error)
    return None
