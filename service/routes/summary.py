"""What the pages say of a study beyond its view: progress, time left, what can be done."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Final

from service.routes.templating import number
from studies import wire
from studies.changes import EventView
from studies.spec import StudySpec
from studies.trial import TERMINAL, StudyState, TrialState

_ORDER: Final = (
    TrialState.COMPLETE,
    TrialState.PRUNED,
    TrialState.FAILED,
    TrialState.RUNNING,
    TrialState.PAUSED,
    TrialState.WAITING,
)
_REASONS: Final = {
    "person": "by a person",
    "failing": "trials keep failing",
    "stopped": "stopped by a person",
    "budget": "all trials of the budget are over",
    "wall_time": "the wall time of the budget is used up",
    "imported": "its trials come from another tool",
    "exhausted": "the sampler has no points left",
}
_TOLD: Final = {
    "study_running": "Running",
    "study_paused": "Paused",
    "study_ending": "Ending",
    "study_ended": "Ended",
    "budget_changed": "Budget changed",
    "workers_changed": "Number of workers changed",
    "space_narrowed": "Search space narrowed",
    "enqueued": "Enqueued",
    "cancel_asked": "Cancelled",
}
_LIVE: Final = (StudyState.RUNNING, StudyState.PAUSED)


def told(event: EventView) -> str:
    """Returns an event of a study in words."""
    detail = event.detail
    reason = f": {_REASONS.get(detail['reason'], detail['reason'])}" if detail.get("reason") else ""
    changes = [
        f"{name} {_short(old)} → {_short(new)}"
        for name, (old, new) in detail.get("changes", {}).items()
    ]
    values = [f"{name} {number(value)}" for name, value in detail.get("params", {}).items()]
    words = _TOLD.get(event.kind, event.kind.replace("_", " "))
    return f"{words}{reason}{': ' if changes or values else ''}{', '.join([*changes, *values])}"


def _short(value: Any) -> str:
    """Returns a budget, or what is searched of a knob: its range or choices alone."""
    if isinstance(value, dict):
        value = next((value[kind] for kind in ("log", "uniform", "choice") if kind in value), value)
    if isinstance(value, list):
        return f"[{', '.join(map(number, value))}]"
    return "none" if value is None else number(value)


@dataclass(frozen=True)
class Segment:
    """A piece of the progress bar; start and width are percentages of it."""

    state: str
    count: int
    start: float
    width: float


def spark(records: Sequence[tuple[int, float]]) -> str:
    """Returns the best value so far as the points of an SVG line 100 wide and 24 high.

    It steps where the best improves; the worst stands at the top, where it is the first.
    """
    if len(records) < 2:
        return ""
    first, last = records[0][0], records[-1][0]
    values = [value for _, value in records]
    low, high = min(values), max(values)
    points, before = [], None
    for nth, value in records:
        x = 100.0 * (nth - first) / max(last - first, 1)
        y = 23.0 - 22.0 * (value - low) / (high - low or 1.0)
        if before is not None:
            points.append(f"{x:.1f},{before:.1f}")
        points.append(f"{x:.1f},{y:.1f}")
        before = y
    return " ".join(points)


@dataclass(frozen=True)
class Summary:
    """A study, with what follows from its view."""

    view: wire.StudyView

    @cached_property
    def spec(self) -> StudySpec:
        """The study file with every default filled in."""
        return StudySpec.model_validate(self.view.spec)

    @property
    def direction(self) -> str:
        """Whether less or more of the objective is better."""
        return self.spec.objective.direction

    @property
    def budget(self) -> int:
        """Trials that the study may create."""
        return self.spec.budget.trials

    @property
    def finished(self) -> int:
        """Trials that are over and filled a slot of the budget."""
        counts = self.view.counts
        return sum(counts.get(s, 0) for s in TERMINAL if s is not TrialState.CANCELLED)

    @property
    def segments(self) -> list[Segment]:
        """The progress bar, from left to right; states without trials are left out."""
        whole = max(self.budget, self.view.slots, 1)
        segments: list[Segment] = []
        start = 0.0
        for state in _ORDER:
            if count := self.view.counts.get(state, 0):
                width = 100.0 * count / whole
                segments.append(Segment(state.value.lower(), count, start, width))
                start += width
        return segments

    @property
    def progress(self) -> str:
        """The progress bar in words."""
        parts = ", ".join(f"{s.count} {s.state}" for s in self.segments)
        return f"{self.finished} of {self.budget} trials over" + (f": {parts}" if parts else "")

    @property
    def left_seconds(self) -> float | None:
        """About how long the study will still run [s]; None where nothing is known.

        The trials to come are taken to last as long as those that are over did, and the wall
        time ends the study in any case.
        """
        if self.view.state not in _LIVE:
            return None
        ran = self.view.running_seconds
        guesses = []
        if self.finished:
            guesses.append(ran / self.finished * (self.budget - self.finished))
        if self.spec.budget.wall_time is not None:
            guesses.append(self.spec.budget.wall_time - ran)
        return max(min(guesses), 0.0) if guesses else None

    def gain(self, baseline: float | None) -> float | None:
        """Returns the part of the baseline's loss that the best trial saves; None if unknown."""
        best = self.view.best
        if best is None or not baseline or self.spec.objective.metric != "validation_loss":
            return None
        return 1.0 - best.value / baseline

    @property
    def reason(self) -> str:
        """Why the study is not running, in words; empty where nothing is to be said."""
        if self.view.state is StudyState.RUNNING or not self.view.reason:
            return ""
        return _REASONS.get(self.view.reason, self.view.reason)

    @property
    def can(self) -> frozenset[str]:
        """The actions that the study's state allows."""
        actions = {"pause"} if self.view.state is StudyState.RUNNING else set()
        actions |= {"resume"} if self.view.state is StudyState.PAUSED else set()
        actions |= {"stop", "steer"} if self.view.state in _LIVE else set()
        return frozenset(actions)
