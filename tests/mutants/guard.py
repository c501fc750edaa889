"""What a guard of the protocol is, and where most of them stand."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

SERVICE: Final = "tests/service/"


@dataclass(frozen=True)
class Guard:
    """One guard and its mutant."""

    name: str
    file: str
    old: str  # stands in the file exactly once
    new: str
    tests: tuple[str, ...]  # at least one fails without the guard; on SQLite, in one process


def guard(name: str, file: str, old: str, new: str, *tests: str) -> Guard:
    """Returns the guard; its tests are those of the service."""
    return Guard(name, f"service/{file}", old, new, tuple(SERVICE + test for test in tests))


FENCE: Final = "store/fence.py"
TRIALS: Final = "store/trials.py"
REPORT: Final = "dispatch/report.py"
CLAIM: Final = "dispatch/claim.py"
SUGGEST: Final = "dispatch/suggest.py"
SETTLE: Final = "dispatch/settle.py"
LIVES: Final = "dispatch/studies.py"
SWEEP: Final = "dispatch/sweep.py"
WORKERS: Final = "store/workers.py"
ATTEMPTS: Final = "store/attempts.py"
