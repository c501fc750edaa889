"""Studies, trials and attempts: their states, and the only transitions that may happen.

A *study* holds trials. A *trial* is one configuration. An *attempt* is one grant of a trial to a
worker, numbered 1, 2, 3 ...: the fencing token. See docs/trial-lifecycle.md.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from typing import Final


class StudyState(StrEnum):
    """Where a study stands; `archived` is a flag beside it."""

    RUNNING = "RUNNING"  # trials are created and claimed
    PAUSED = "PAUSED"  # by a person or, `failing`, by the breaker
    ENDING = "ENDING"  # no new trials; the live ones are being settled
    ENDED = "ENDED"  # terminal


class TrialState(StrEnum):
    """Where a trial stands."""

    WAITING = "WAITING"  # may be claimed
    RUNNING = "RUNNING"  # an attempt holds it
    PAUSED = "PAUSED"  # by a person or by the scheduler; may go on from its checkpoint
    COMPLETE = "COMPLETE"  # terminal: trained to its end, with a finite value
    PRUNED = "PRUNED"  # terminal: stopped early by the scheduler, a person or the budget
    FAILED = "FAILED"  # terminal: see its reason
    CANCELLED = "CANCELLED"  # terminal: taken out by a person; fills no slot of the budget

    @property
    def terminal(self) -> bool:
        """True for a state that nothing leaves."""
        return self in TERMINAL


TERMINAL: Final = frozenset(
    {TrialState.COMPLETE, TrialState.PRUNED, TrialState.FAILED, TrialState.CANCELLED}
)


class Desired(StrEnum):
    """What is wanted of a trial; stop and cancel never go back."""

    RUN = "run"
    PAUSE = "pause"
    STOP = "stop"
    CANCEL = "cancel"


class Decision(StrEnum):
    """What a worker is told to do with its trial; made only by the server."""

    CONTINUE = "continue"
    PAUSE = "pause"
    STOP = "stop"
    CANCEL = "cancel"


class Outcome(StrEnum):
    """How an attempt ended; `ENDS` says what each means."""

    OK = "ok"
    PRUNED = "pruned"
    PAUSED = "paused"
    PREEMPTED = "preempted"
    OOM = "oom"
    DIVERGED = "diverged"
    ERROR = "error"
    INCOMPATIBLE = "incompatible"
    HUNG = "hung"
    LOST = "lost"


# From each state, the states that may follow and what brings them about. docs/trial-lifecycle.md
# is drawn from these tables; tests make each transition of a trial happen, and no other.
TRANSITIONS: Final[dict[TrialState, dict[TrialState, str]]] = {
    TrialState.WAITING: {
        TrialState.RUNNING: "claimed",
        TrialState.PRUNED: "study ended, and it had run before",
        TrialState.CANCELLED: "cancelled, or unused when the study ended",
    },
    TrialState.RUNNING: {
        TrialState.RUNNING: "stolen after its lease, a new attempt",
        TrialState.WAITING: "released, or to be tried again",
        TrialState.PAUSED: "paused",
        TrialState.COMPLETE: "trained to its end",
        TrialState.PRUNED: "stopped",
        TrialState.FAILED: "diverged, out of memory, or no attempts left",
        TrialState.CANCELLED: "cancelled",
    },
    TrialState.PAUSED: {
        TrialState.WAITING: "study resumed",
        TrialState.RUNNING: "promoted",
        TrialState.PRUNED: "study ended",
        TrialState.CANCELLED: "cancelled",
    },
    **{state: {} for state in TrialState if state in TERMINAL},
}

STUDY_TRANSITIONS: Final[dict[StudyState, dict[StudyState, str]]] = {
    StudyState.RUNNING: {
        StudyState.PAUSED: "paused by a person, or failing",
        StudyState.ENDING: "budget filled, wall time used up, stopped, exhausted or deleted",
    },
    StudyState.PAUSED: {
        StudyState.RUNNING: "resumed",
        StudyState.ENDING: "stopped",
    },
    StudyState.ENDING: {StudyState.ENDED: "no trial is live"},
    StudyState.ENDED: {},
}


@dataclass(frozen=True)
class End:
    """An attempt's end. It is set once: an attempt that has an outcome keeps it."""

    meaning: str
    trial: frozenset[TrialState]  # what it may make of its trial, as the trial is desired


_CANCELLED: Final = frozenset({TrialState.CANCELLED})
_RELEASED: Final = _CANCELLED | {TrialState.WAITING, TrialState.PAUSED, TrialState.PRUNED}
_COUNTED: Final = _RELEASED | {TrialState.FAILED}  # fails when no attempts, or workers, are left

ENDS: Final[dict[Outcome, End]] = {
    Outcome.OK: End("trained to its end", _CANCELLED | {TrialState.COMPLETE, TrialState.FAILED}),
    Outcome.PRUNED: End("stopped as the server decided", _CANCELLED | {TrialState.PRUNED}),
    Outcome.PAUSED: End("paused as the server decided", _RELEASED),
    Outcome.PREEMPTED: End("the worker was asked to go, and released it", _RELEASED),
    Outcome.OOM: End("out of device or host memory", _CANCELLED | {TrialState.FAILED}),
    Outcome.DIVERGED: End("the loss ran away", _CANCELLED | {TrialState.FAILED}),
    Outcome.ERROR: End("an exception, or the child died", _COUNTED),
    Outcome.INCOMPATIBLE: End("this worker cannot run the recipe", _COUNTED),
    Outcome.HUNG: End("no step for the stall time", _COUNTED),
    Outcome.LOST: End("the worker is gone", _COUNTED | {TrialState.RUNNING}),
}
