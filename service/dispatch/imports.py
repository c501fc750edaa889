"""A study from another tool, brought in whole: its rows and Optuna's, or nothing."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from service.dispatch import studies as lives
from service.dispatch.context import Context
from service.dispatch.enqueue import in_space
from service.store import reports, studies, trials
from service.store.database import Row, Tx
from service.store.optuna_rows import BoundStorage, Ended
from service.tuning.distributions import distribution
from studies import wire
from studies.errors import FieldError, InvalidInput
from studies.imports import ImportBody, ImportedTrial
from studies.spec import StudySpec, check
from studies.trial import Decision, TrialState

IMPORTED: Final = "imported"  # the reason for which such a study has ended
_SAID: Final = 10  # wrong trials that are named
_VALUED: Final = (TrialState.COMPLETE, TrialState.PRUNED)


@dataclass(frozen=True)
class Whole:
    """A checked study with its trials, as they will be written; `reports` lack their trial's id."""

    spec: StudySpec
    ended: Sequence[Ended]
    reports: Sequence[Sequence[dict[str, Any]]]


def checked(body: ImportBody) -> Whole:
    """Returns what is to be written: all that takes long is done before the transaction.

    Raises:
        InvalidInput: the study or a trial is wrong.
    """
    spec = body.study
    check(spec)
    space = {param.name: distribution(param) for param in spec.space}
    errors: list[FieldError] = []
    ended = []
    for number, trial in enumerate(body.trials):
        try:
            ended.append(_ended(number, trial, _checked(spec, number, trial), space))
        except InvalidInput as error:
            errors += error.errors
            if len(errors) >= _SAID:
                break
    if errors:
        raise InvalidInput(errors)
    return Whole(spec, ended, [list(_reports(spec.objective.metric, one)) for one in ended])


def add(tx: Tx, ctx: Context, whole: Whole) -> Row:
    """Returns the new study, ENDED, with all its trials, in our rows and Optuna's."""
    spec, ended = whole.spec, whole.ended
    study = lives.open_study(tx, ctx, spec)
    optuna_ids = BoundStorage(tx.conn).add_ended(study.optuna_id, ended)
    first = studies.raise_revision(tx, study.id, len(ended)).revision - len(ended) + 1
    rows = [
        {
            "study_id": study.id,
            "optuna_id": optuna_id,
            "revision": first + e.number,
            **_row(spec, e),
        }
        for e, optuna_id in zip(ended, optuna_ids, strict=True)
    ]
    ids = trials.insert_all(tx, rows)
    told = zip(ids, whole.reports, strict=True)
    of = ({"study_id": study.id, "trial_id": i, **report} for i, own in told for report in own)
    reports.insert_all(tx, of)
    return lives.begin_ending(tx, ctx, studies.lock(tx, study.id), IMPORTED)


def _checked(spec: StudySpec, number: int, trial: ImportedTrial) -> dict[str, Any]:
    where, steps = f"trials.{number}", [step for step, _ in trial.curve]
    if steps != sorted(set(steps)) or (
        steps and not 1 <= steps[0] <= steps[-1] <= spec.train.steps
    ):
        remedy = f"between 1 and train.steps ({spec.train.steps})"
        raise InvalidInput.of(f"{where}.curve", "its steps do not rise", remedy)
    if trial.state is TrialState.COMPLETE and not _finite(trial.value):
        raise InvalidInput.of(
            f"{where}.value", "a COMPLETE trial has a finite one", "call it FAILED"
        )
    known = {param.name: param for param in spec.space}
    params = {}
    for name, value in trial.params.items():
        if name not in known:
            raise InvalidInput.of(f"{where}.params.{name}", "is not searched in this study")
        params[name] = in_space(f"{where}.params.{name}", known[name], value)
    spec.recipe(params, number)  # raises where they make no recipe
    return params


def _finite(value: float | None) -> bool:
    return value is not None and math.isfinite(value)


def _ended(
    number: int, trial: ImportedTrial, params: dict[str, Any], space: Mapping[str, Any]
) -> Ended:
    valued = trial.state in _VALUED and _finite(trial.value)
    return Ended(
        number=number,
        state=TrialState(trial.state),
        params=params,
        distributions={name: space[name] for name in params},
        value=trial.value if valued else None,
        curve=trial.curve,
        reason=trial.reason,
        started=None if trial.started_at is None else trial.started_at.timestamp(),
        ended=None if trial.ended_at is None else trial.ended_at.timestamp(),
    )


def _row(spec: StudySpec, e: Ended) -> dict[str, Any]:
    whole = spec.train.steps if e.state is TrialState.COMPLETE else 0
    return {
        "number": e.number,
        "state": e.state,
        "params": e.params,
        "value": e.value,
        "step": e.curve[-1][0] if e.curve else whole,
        "max_step": spec.train.steps,
        "reason": e.reason,
        "started_at": e.started,
        "ended_at": e.ended,
    }


def _reports(metric: str, e: Ended) -> Iterator[dict[str, Any]]:
    for step, value in e.curve:
        item = wire.ReportItem(step=step, metrics={metric: value})
        finite = math.isfinite(value)
        yield {
            "attempt": 0,
            "step": step,
            "value": value if finite else None,
            "special": None if finite else wire.number_to_json(value),
            "body": item.canonical(),
            "decision": Decision.CONTINUE,
            "superseded": False,
        }
