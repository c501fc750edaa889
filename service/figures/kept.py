"""One study's trials as a server keeps them for its pages: fed with what changed, never read again.

Every trial is there, but of the curves only a sample: those of RUNNING trials, of trials that were
the best when they ended, and of every `stride`-th number. The stride doubles as the study grows, so
a curve once dropped never comes back and the curves of 100,000 trials weigh no more than of 1,000.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Final, Literal

from service.figures.data import Point, Spent, TrialData, thin
from studies.trial import TrialState

CURVES: Final = 300  # of ended trials; assumption: more cannot be told apart
CURVE_POINTS: Final = 1_000  # of one trial, then every other one goes
Cursor = tuple[int, int]  # (the study's revision, newest report): how far something has read


@dataclass(frozen=True)
class Told:
    """A report, as much of it as a curve shows.

    Attributes:
        id: reports of one trial rise.
        trial_id: the trial's row.
        point: (step, objective metric); may be not finite.
        spent: see TrialData.
    """

    id: int
    trial_id: int
    point: Point
    spent: Spent


class Kept:
    """The trials of one study; `cursor` says how far it has read."""

    def __init__(self, direction: Literal["minimize", "maximize"]) -> None:
        self.cursor: Cursor = (-1, 0)
        self.tick = 0  # counts the changes of trials
        self.stride = 1
        self._direction = direction
        self._points = 0  # of all curves
        self._trials: dict[int, TrialData] = {}
        self._numbers: dict[int, int] = {}  # by the id of the row
        self._touched: dict[int, int] = {}  # tick of the last change by number, the latest last
        self._seen: dict[int, Cursor] = {}  # its revision and newest report, by number
        self._records: set[int] = set()  # numbers of trials that were the best when they ended
        self._best = math.inf  # of the records, less being better

    @property
    def trials(self) -> list[TrialData]:
        """Every trial by number."""
        return [self._trials[number] for number in sorted(self._trials)]

    @property
    def weight(self) -> int:
        """Trials and points of curves: what takes memory."""
        return len(self._trials) + self._points

    def take(self, rows: Iterable[tuple[int, int, TrialData]]) -> list[int]:
        """Takes in trials whose state changed: (id of the row, revision, trial), revisions rising.

        Returns:
            The ids of those whose curve is to be read and given to `draw`.
        """
        wanted = []
        for trial_id, revision, trial in rows:
            number = trial.number
            self._numbers[trial_id] = number
            self._put(trial)
            self._note_record(trial)
            self._touch(number, (revision, self._seen.get(number, (0, 0))[1]))
            wanted.append(trial_id)
        self._thin_out()
        return [i for i in wanted if self._shows(self._trials[self._numbers[i]])]

    def draw(self, reports: Iterable[Told]) -> None:
        """Takes in whole curves, each by rising steps."""
        curves: dict[int, list[Told]] = {}
        for report in reports:
            curves.setdefault(report.trial_id, []).append(report)
        for trial_id, told in curves.items():
            number = self._numbers[trial_id]
            self._set_curve(number, [t.point for t in told], [t.spent for t in told])
            self._touch(number, (self._seen[number][0], max(t.id for t in told)))

    def append(self, reports: Iterable[Told]) -> list[int]:
        """Takes in new reports, ids rising; one that is known changes nothing.

        Returns:
            The ids of trials that went back to an earlier step: their curves are to be read anew.
        """
        back = []
        for told in reports:
            number = self._numbers.get(told.trial_id)
            if number is None or told.id <= self._seen[number][1]:
                continue
            trial = self._trials[number]
            if trial.curve and told.point[0] <= trial.curve[-1][0]:
                back.append(told.trial_id)
            elif self._shows(trial):
                points, spent = [*trial.curve, told.point], [*trial.spent, told.spent]
                self._set_curve(number, points, spent)
                self._touch(number, (self._seen[number][0], told.id))
        return back

    def since_tick(self, tick: int) -> list[TrialData]:
        """Returns the trials that changed after this tick, the latest first."""
        return [self._trials[number] for number in self._latest(tick)]

    def since(self, cursor: Cursor) -> list[TrialData]:
        """Returns the trials that changed after somebody had read up to there, by number."""
        revision, report = cursor
        return [
            self._trials[number]
            for number, (changed, told) in sorted(self._seen.items())
            if changed > revision or told > report
        ]

    def _latest(self, tick: int) -> Iterator[int]:
        for number in reversed(self._touched):
            if self._touched[number] <= tick:
                return
            yield number

    def _touch(self, number: int, seen: Cursor) -> None:
        self.tick += 1
        self._touched.pop(number, None)
        self._touched[number] = self.tick
        self._seen[number] = seen

    def _set_curve(self, number: int, points: Sequence[Point], spent: Sequence[Spent]) -> None:
        if len(points) > CURVE_POINTS:
            kept = thin(range(len(points)), CURVE_POINTS // 2, {0, len(points) - 1})
            points, spent = [points[i] for i in kept], [spent[i] for i in kept]
        trial, (step, value) = self._trials[number], points[-1]
        if trial.state is TrialState.RUNNING:  # what is over says itself where it ended
            trial = replace(trial, step=step, value=value)
        self._put(replace(trial, curve=tuple(points), spent=tuple(spent)))

    def _put(self, trial: TrialData) -> None:
        before = self._trials.get(trial.number)
        self._points += len(trial.curve) - (len(before.curve) if before else 0)
        self._trials[trial.number] = trial

    def _note_record(self, trial: TrialData) -> None:
        if trial.state is not TrialState.COMPLETE or trial.score is None:
            return
        score = trial.score if self._direction == "minimize" else -trial.score
        if score < self._best:
            self._best = score
            self._records.add(trial.number)

    def _shows(self, trial: TrialData) -> bool:
        """True for a trial whose curve is kept."""
        chosen = trial.number % self.stride == 0 or trial.number in self._records
        return chosen or trial.state is TrialState.RUNNING

    def _thin_out(self) -> None:
        """Doubles the stride where the study has outgrown it, and drops what is no longer shown."""
        before = self.stride
        while len(self._trials) > CURVES * self.stride:
            self.stride *= 2
        if self.stride == before:
            return
        for trial in list(self._trials.values()):
            if trial.curve and not self._shows(trial):
                self._put(replace(trial, curve=(), spent=()))
