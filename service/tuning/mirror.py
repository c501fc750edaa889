"""Ask: the sampler's view of a study, an in-memory Optuna study rebuilt from our rows.

The sampler never sees the database. A mirror takes in the rows that changed since it last looked
(by revision), so several servers of one database each keep their own. It is used inside the
transaction that holds the study's lock; if that transaction does not commit, it is thrown away.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Final

import optuna
from optuna.samplers import RandomSampler
from optuna.storages import InMemoryStorage
from optuna.trial import FrozenTrial
from optuna.trial import TrialState as OptunaState

from service.tuning import grid, samplers
from service.tuning.distributions import distribution, suggest
from studies.spec import StudySpec
from studies.trial import TrialState

# What the sampler is shown. PAUSED looks PRUNED: stale RUNNING trials mislead TPE.
_SHOWN: Final[Mapping[TrialState, OptunaState]] = {
    TrialState.WAITING: OptunaState.RUNNING,
    TrialState.RUNNING: OptunaState.RUNNING,
    TrialState.PAUSED: OptunaState.PRUNED,
    TrialState.COMPLETE: OptunaState.COMPLETE,
    TrialState.PRUNED: OptunaState.PRUNED,
    TrialState.FAILED: OptunaState.FAIL,
    TrialState.CANCELLED: OptunaState.FAIL,
}


@dataclass(frozen=True)
class Seen:
    """A row of our trials table, as much of it as a sampler may know."""

    number: int
    state: TrialState
    params: Mapping[str, Any]
    step: int
    value: float | None  # None where it is not finite


@dataclass(frozen=True)
class Suggestion:
    """A configuration and the Optuna trial that stands for it."""

    params: dict[str, Any]
    trial: FrozenTrial


class _Storage(InMemoryStorage):
    """Optuna's in-memory storage, in which a trial may also be replaced (PAUSED goes on)."""

    def replace(self, study_id: int, trial: FrozenTrial) -> None:
        """Puts the trial in the place of its number."""
        self.pad(study_id, trial.number)
        if trial.number < len(self._studies[study_id].trials):
            trial._trial_id = self._studies[study_id].trials[trial.number]._trial_id
            self._set_trial(trial._trial_id, trial)
        else:
            self.create_new_trial(study_id, trial)

    def pad(self, study_id: int, number: int) -> None:
        """Fills the numbers below `number` that are foreign to us with failed trials."""
        while len(self._studies[study_id].trials) < number:
            self.create_new_trial(study_id, optuna.trial.create_trial(state=OptunaState.FAIL))


class Mirror:
    """One study's sampler and the trials it knows."""

    def __init__(self, spec: StudySpec) -> None:
        self.spec = spec
        self.revision = -1
        self._storage = _Storage()
        self._study = optuna.create_study(
            storage=self._storage, direction=spec.objective.direction, sampler=RandomSampler(0)
        )
        self._dists = {param.name: distribution(param) for param in spec.space}
        self._grid = grid.points(spec.space, spec.sampler) if spec.sampler.kind == "grid" else []

    def take(self, rows: Iterable[Seen], revision: int) -> None:
        """Takes in the rows changed since `self.revision`; they come in order of number."""
        for row in rows:
            self._storage.replace(self._study._study_id, self._frozen(row))
        self.revision = revision

    def ask(self, number: int, fixed: Mapping[str, Any] | None = None) -> Suggestion | None:
        """Returns the next configuration, or None when the grid is used up.

        Args:
            number: what Optuna will number the trial; numbers we do not know are foreign trials.
            fixed: values a person chose; the other parameters are sampled.
        """
        self._storage.pad(self._study._study_id, number)
        if self._grid and fixed is None:
            fixed = grid.next_point(self._grid, (trial.params for trial in self._trials))
            if fixed is None:
                return None
        self._study.sampler = samplers.build(self.spec, number)
        if fixed is not None:
            self._study.enqueue_trial(dict(fixed))
        trial = self._study.ask()
        chosen: dict[str, Any] = {}
        for param in self.spec.space:
            if param.active(chosen):
                chosen[param.name] = suggest(trial, param)
        return Suggestion(chosen, self._trial(trial.number, OptunaState.RUNNING, chosen))

    def importances(self) -> dict[str, float]:
        """Returns how much each parameter mattered, summing to 1; empty while too few are known.

        Source: PED-ANOVA, arXiv:2304.10255, as Optuna's default.
        """
        complete = [t for t in self._trials if t.state is OptunaState.COMPLETE]
        always = [n for n in self._dists if all(n in t.params for t in complete)]
        if len(complete) < 4 or not always:
            return {}
        try:
            found = optuna.importance.get_param_importances(self._study, params=always)
        except (ValueError, RuntimeError):  # all values equal, or one point per parameter
            return {}
        return {name: value for name, value in found.items() if math.isfinite(value)}

    @property
    def _trials(self) -> list[FrozenTrial]:
        return self._study.get_trials(deepcopy=False)

    def _frozen(self, row: Seen) -> FrozenTrial:
        """Returns the row as the sampler is to see it: PAUSED looks PRUNED, at its last value."""
        state = _SHOWN[row.state]
        finite = row.value is not None and math.isfinite(row.value)
        if state is OptunaState.COMPLETE and not finite:
            state = OptunaState.FAIL
        valued = state in (OptunaState.COMPLETE, OptunaState.PRUNED) and finite
        values = {row.step: row.value} if valued and row.step else {}
        return self._trial(row.number, state, row.params, row.value if valued else None, values)

    def _trial(
        self,
        number: int,
        state: OptunaState,
        params: Mapping[str, Any],
        value: float | None = None,
        intermediate: Mapping[int, Any] | None = None,
    ) -> FrozenTrial:
        now = datetime.now()  # noqa: DTZ005 - Optuna's rows are in local time without a zone
        known = {name: value for name, value in params.items() if name in self._dists}
        return FrozenTrial(
            number=number,
            trial_id=number,
            state=state,
            value=value,
            params=known,
            distributions={name: self._dists[name] for name in known},
            user_attrs={},
            system_attrs={},
            intermediate_values=dict(intermediate or {}),
            datetime_start=now,
            datetime_complete=now if state.is_finished() else None,
        )
