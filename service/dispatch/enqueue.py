"""What a person does to single trials: enqueue a configuration, cancel a trial."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from service.dispatch import studies as lives
from service.dispatch.context import Context
from service.dispatch.settle import move
from service.dispatch.suggest import Offer, asked, take
from service.store import studies, trials
from service.store.database import Row, Tx
from studies.errors import Conflict, Finished, InvalidInput, NotFound, Unavailable
from studies.explain import near
from studies.space import CategoricalParam, FloatParam, IntParam, Param, knob_of
from studies.spec import StudySpec
from studies.trial import Desired, StudyState, TrialState

_ROUNDING: Final = 1e-8  # of a step, as Optuna allows it


def enqueue(ctx: Context, name: str, params: Mapping[str, Any]) -> Row:
    """Returns a new WAITING trial with these values; searched knobs left out are sampled.

    No transaction: the sampler is asked between two.

    Raises:
        InvalidInput: a value is not in the search space, or the values do not fit together.
        Conflict: the study takes no more trials.
    """
    study = ctx.database.write(lambda tx: _open(tx, ctx, name))
    spec = ctx.studies.spec(study)

    def use(offer: Offer) -> Row | None:
        assert offer.suggestion is not None  # noqa: S101 - a fixed configuration is a point
        spec.recipe(offer.suggestion.params, offer.number)  # raises where they make no recipe
        return ctx.database.write(lambda tx: _add(tx, ctx, name, offer))

    trial = asked(ctx, study, use, check_params(spec, params))
    if trial is None:
        raise Unavailable("the study's trials change too fast; try again")
    ctx.wake()
    return trial


def _add(tx: Tx, ctx: Context, name: str, offer: Offer) -> Row | None:
    trial = take(tx, ctx, _open(tx, ctx, name), offer)
    if trial is not None:
        studies.audit(tx, trial.study_id, "enqueued", trial.number, params=trial.params)
    return trial


def _open(tx: Tx, ctx: Context, name: str) -> Row:
    """Returns the study, locked; raises Conflict where it takes no more trials."""
    study = lives.find(tx, name)
    if study.state not in (StudyState.RUNNING, StudyState.PAUSED):
        raise Conflict(f"study {name} is {study.state}; it takes no more trials")
    trials_wanted = ctx.studies.spec(study).budget.trials
    if lives.slots(studies.counts(tx.conn, study.id)) >= trials_wanted:
        raise Conflict(f"all {trials_wanted} trials of the budget are taken")
    return study


def cancel(tx: Tx, ctx: Context, name: str, number: int) -> Row:
    """Cancels a trial: at once unless it is RUNNING, then as soon as its worker hears of it."""
    study = lives.find(tx, name)
    trial = trials.by_number(tx.conn, study.id, number)
    if trial is None:
        raise NotFound(f"study {name} has no trial {number}")
    if TrialState(trial.state).terminal:
        raise Finished(f"trial {number} is {trial.state} already")
    studies.audit(tx, study.id, "cancel_asked", number)
    if trial.state == TrialState.RUNNING:
        return trials.update(tx, trial.id, desired=Desired.CANCEL, desired_t=tx.t)
    moved = move(tx, trial, TrialState.CANCELLED, "cancelled")
    lives.after_settle(tx, ctx, study, moved)
    return moved


def check_params(spec: StudySpec, params: Mapping[str, Any]) -> dict[str, Any]:
    """Returns the values in their knobs' types; raises InvalidInput outside the search space."""
    known = {param.name: param for param in spec.space}
    for name in params:
        if name not in known:
            remedy = near(name, list(known)) or f"searched are {', '.join(known)}"
            raise InvalidInput.of(f"params.{name}", "is not searched in this study", remedy)
    chosen: dict[str, Any] = {}
    for param in spec.space:
        if param.name not in params:
            continue
        if missing := [other for other in param.when if other not in params]:
            message, remedy = f"depends on {missing[0]}", f"give {missing[0]} too"
            raise InvalidInput.of(f"params.{param.name}", message, remedy)
        if not param.active(params):
            remedy = f"it is searched only when {dict(param.when)}"
            raise InvalidInput.of(f"params.{param.name}", "has no effect here", remedy)
        chosen[param.name] = in_space(f"params.{param.name}", param, params[param.name])
    return chosen


def in_space(where: str, param: Param, value: Any) -> Any:
    """Returns the value in its knob's type; raises InvalidInput where it is not searched."""
    try:
        checked = knob_of(param).check(value)
    except ValueError:
        raise InvalidInput.of(where, f"{value!r} is not a {param.name}") from None
    if isinstance(param, CategoricalParam) and checked not in param.choices:
        raise InvalidInput.of(where, f"{value!r} is not among {list(param.choices)}")
    if isinstance(param, FloatParam | IntParam):
        _check_range(where, param, checked)
    return checked


def _check_range(where: str, param: FloatParam | IntParam, value: float) -> None:
    """Raises InvalidInput outside the range, or between two steps of it."""
    if not param.low <= value <= param.high:
        raise InvalidInput.of(where, f"{value!r} is outside [{param.low}, {param.high}]")
    if param.step is None:
        return
    steps = (value - param.low) / param.step
    if abs(steps - round(steps)) > _ROUNDING:
        nearest = param.low + round(steps) * param.step
        message = f"{value!r} is no whole number of steps of {param.step} from {param.low}"
        raise InvalidInput.of(where, message, f"take {nearest:g}")
