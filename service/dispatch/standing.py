"""What the page of a trial says beside the trial: its rank, its checkpoint, the end of its log."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from service.store import attempts, trials
from service.store.database import Connection, Row
from studies.trial import TrialState

LOG_TAIL: Final = 16_384  # characters of a log that a page shows


@dataclass(frozen=True)
class Standing:
    """How a trial stands.

    Attributes:
        rank: of a COMPLETE trial among those of its study, the best is 1; else None.
        complete: how many there are.
        checkpoint: the step of the checkpoint that can be downloaded; None: there is none.
        log: the end of what its last attempt said.
    """

    rank: int | None
    complete: int
    checkpoint: int | None
    log: str


def standing(conn: Connection, study: Row, trial: Row, direction: str) -> Standing:
    """Returns how the trial stands now."""
    rank = None
    if trial.state == TrialState.COMPLETE and trial.value is not None:
        rank = 1 + trials.better(conn, study.id, trial.value, direction)
    kept = attempts.newest_checkpoint(conn, trial.id)
    last = attempts.get(conn, trial.id, trial.attempt)
    log = str(last.log or "")[-LOG_TAIL:] if last else ""
    return Standing(rank, trials.complete(conn, study.id), kept and kept.step, log)
