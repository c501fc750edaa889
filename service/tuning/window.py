"""What TPE is shown of a long study: an ask takes as long after 10,000 trials as after 1,000.

TPE models two densities: of the best trials, at most 25, and of all the others. The second is an
average, which a thousand points give as well as ten thousand, and TPE itself lets the oldest count
least. So it is shown every trial that could be among the best, and of the others the latest.
docs/decisions/0011-a-window-for-tpe.md has what it costs and saves.
"""

from __future__ import annotations

from bisect import bisect_left, insort
from itertools import islice
from typing import Final

from optuna.trial import FrozenTrial, TrialState

BEST: Final = 25  # what Optuna 5 takes for the best at most: default_gamma
LATEST: Final = 1_000  # of the others; measured, docs/decisions/0011

_Rank = tuple[float, float, int]


class Window:
    """The numbers of the trials to show, kept up to date trial by trial."""

    def __init__(self, direction: str) -> None:
        self._sign = 1.0 if direction == "minimize" else -1.0
        self._ranks: dict[int, _Rank] = {}  # of the trials that ended, as are the next two
        self._ranked: list[_Rank] = []
        self._ended: list[int] = []
        self._live: set[int] = set()

    def put(self, trial: FrozenTrial) -> None:
        """Takes a trial in, or what became of it."""
        number = trial.number
        self._live.discard(number)
        if (rank := self._ranks.pop(number, None)) is not None:
            del self._ranked[bisect_left(self._ranked, rank)]
            del self._ended[bisect_left(self._ended, number)]
        if trial.state in (TrialState.COMPLETE, TrialState.PRUNED):
            self._ranks[number] = rank = self._rank(trial)
            insort(self._ranked, rank)
            insort(self._ended, number)
        elif trial.state is TrialState.RUNNING:
            self._live.add(number)

    def numbers(self) -> list[int]:
        """Returns the best, the latest of the others that ended, and all that go on; in order."""
        best = {number for _, _, number in self._ranked[:BEST]}
        others = (number for number in reversed(self._ended) if number not in best)
        return sorted(best.union(islice(others, LATEST), self._live))

    def _rank(self, trial: FrozenTrial) -> _Rank:
        """Returns TPE's order: COMPLETE by value, then PRUNED by how far they came and value."""
        if trial.state is TrialState.COMPLETE:
            return -float("inf"), self._sign * float(trial.value or 0.0), trial.number
        step, value = max(trial.intermediate_values.items(), default=(-1, 0.0))
        return -float(step), self._sign * value, trial.number
