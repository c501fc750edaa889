"""Studies, trials and attempts: their states, and the only transitions that may happen.

A *study* holds trials. A *trial* is one configuration. An *attempt* is one grant of a trial to a
worker, numbered 1, 2, 3 ...: the fencing token. See docs/trial-lifecycle.md.
"""

from __future__ import annotations

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
    """How an attempt ended."""

    OK = "ok"  # trained to its end
    PRUNED = "pruned"  # stopped as the server decided
    PAUSED = "paused"  # paused as the server decided
    PREEMPTED = "preempted"  # the worker was asked to go; checkpointed
    OOM = "oom"  # out of device or host memory
    DIVERGED = "diverged"  # the loss is not finite, or ran away
    ERROR = "error"  # an exception, or the child died
    INCOMPATIBLE = "incompatible"  # this worker cannot run this recipe
    HUNG = "hung"  # a heartbeat without a step for the stall time (said by the server)
    LOST = "lost"  # the worker is gone (said by the server, never by a worker)


TRANSITIONS: Final[dict[TrialState, frozenset[TrialState]]] = {
    TrialState.WAITING: frozenset(
        {TrialState.RUNNING, TrialState.PAUSED, TrialState.PRUNED, TrialState.CANCELLED}
    ),
    TrialState.RUNNING: frozenset(
        {
            TrialState.RUNNING,  # stolen after its lease: a new attempt
            TrialState.WAITING,
            TrialState.PAUSED,
            TrialState.COMPLETE,
            TrialState.PRUNED,
            TrialState.FAILED,
            TrialState.CANCELLED,
        }
    ),
    TrialState.PAUSED: frozenset(
        {TrialState.WAITING, TrialState.RUNNING, TrialState.PRUNED, TrialState.CANCELLED}
    ),
    **{state: frozenset() for state in TERMINAL},
}

STUDY_TRANSITIONS: Final[dict[StudyState, frozenset[StudyState]]] = {
    StudyState.RUNNING: frozenset({StudyState.PAUSED, StudyState.ENDING}),
    StudyState.PAUSED: frozenset({StudyState.RUNNING, StudyState.ENDING}),
    StudyState.ENDING: frozenset({StudyState.ENDED}),
    StudyState.ENDED: frozenset(),
}
