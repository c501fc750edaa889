"""Ask: the sampler's view of a study, an in-memory Optuna study rebuilt from our rows.

The sampler never sees the database. A mirror takes in the rows that changed since it last looked
(by revision), so several servers of one database each keep their own. An ask leaves no trace in
it: what was suggested is seen once it is a row.
"""

from __future__ import annotations

import math
from collections.abc import Container, Iterable, Iterator, Mapping
from contextlib import contextmanager
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
from service.tuning.window import Window
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
    """Optuna's in-memory storage of one study, in which a trial's id is its number.

    A trial may be replaced there (PAUSED goes on), and an ask sees what it is shown.
    """

    def __init__(self) -> None:
        super().__init__()
        self._shown: list[FrozenTrial] | None = None  # to the ask that is going on

    def put(self, study_id: int, trial: FrozenTrial) -> None:
        """Puts the trial in the place of its number."""
        self.pad(study_id, trial.number + 1)
        self._studies[study_id].trials[trial.number] = trial

    def pad(self, study_id: int, count: int) -> None:
        """Fills the numbers below `count` that are foreign to us with failed trials."""
        trials = self._studies[study_id].trials
        for number in range(len(trials), count):
            foreign = optuna.trial.create_trial(state=OptunaState.FAIL)
            foreign.number = foreign._trial_id = number
            self._trial_id_to_study_id_and_number[number] = (study_id, number)
            trials.append(foreign)
        self._max_trial_id = len(trials) - 1

    @contextmanager
    def showing(self, study_id: int, shown: list[FrozenTrial]) -> Iterator[None]:
        """Shows these trials only; the one that is made meanwhile is gone afterwards."""
        trials = self._studies[study_id].trials
        count, self._shown = len(trials), shown
        try:
            yield
        finally:
            self._shown = None
            for number in range(count, len(trials)):
                del self._trial_id_to_study_id_and_number[number]
            del trials[count:]
            self._max_trial_id = count - 1

    def get_all_trials(
        self,
        study_id: int,
        deepcopy: bool = True,
        states: Container[OptunaState] | None = None,
    ) -> list[FrozenTrial]:
        """Returns the trials, or those that an ask is shown."""
        if self._shown is None:
            return super().get_all_trials(study_id, deepcopy, states)
        return [trial for trial in self._shown if states is None or trial.state in states]


class Mirror:
    """One study's sampler and the trials it knows."""

    def __init__(self, spec: StudySpec) -> None:
        self.spec = spec
        self.revision = -1
        self._storage = _Storage()
        self._window = Window(spec.objective.direction)
        self._study = optuna.create_study(
            storage=self._storage, direction=spec.objective.direction, sampler=RandomSampler(0)
        )
        self._dists = {param.name: distribution(param) for param in spec.space}
        self._grid = grid.points(spec.space, spec.sampler) if spec.sampler.kind == "grid" else []

    def take(self, rows: Iterable[Seen], revision: int) -> None:
        """Takes in rows changed since `self.revision`, which is `revision` from now on."""
        for row in rows:
            trial = self._frozen(row)
            self._storage.put(self._study._study_id, trial)
            self._window.put(trial)
        self.revision = revision

    def ask(self, number: int, fixed: Mapping[str, Any] | None = None) -> Suggestion | None:
        """Returns the next configuration, or None when the grid is used up.

        Args:
            number: what Optuna will number the trial; numbers we do not know are foreign trials.
            fixed: values a person chose; the other parameters are sampled.
        """
        study_id = self._study._study_id
        self._storage.pad(study_id, number)
        if self._grid and fixed is None:
            fixed = grid.next_point(self._grid, (trial.params for trial in self._trials))
            if fixed is None:
                return None
        self._study.sampler = samplers.build(self.spec, number)
        known = self._trials
        with self._storage.showing(study_id, [known[n] for n in self._window.numbers()]):
            chosen = self._chosen(self._study.ask(), fixed or {})
        return Suggestion(chosen, self._trial(number, OptunaState.RUNNING, chosen))

    def blind(self, number: int) -> Suggestion:
        """Returns what `ask` does where the sampler looks at no trial, without any."""
        self._study.sampler = samplers.build(self.spec, number)
        chosen = self._chosen(self._study.ask(), {})
        return Suggestion(chosen, self._trial(number, OptunaState.RUNNING, chosen))

    def _chosen(self, trial: optuna.Trial, fixed: Mapping[str, Any]) -> dict[str, Any]:
        chosen: dict[str, Any] = {}
        for param in self.spec.space:
            if param.active(chosen):
                name = param.name
                chosen[name] = fixed[name] if name in fixed else suggest(trial, param)
        return chosen

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
        """Returns the row as the sampler is to see it: PAUSED looks PRUNED, at its last value.

        A trial outside the space, which was narrowed since, looks failed and without values.
        """
        if not self.spec.space.holds(row.params):
            return self._trial(row.number, OptunaState.FAIL, {})
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
