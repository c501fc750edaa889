"""History and rows -> what is wrong with them: I1 to I10 of the protocol. Pure functions.

A violation is `lost` (something acknowledged is not there), `duplicated` (counted twice, or
invented), `stuck` (not ended) or `mismatched` (two that should agree do not). What the history
leaves open, a call without an answer, is held against nobody.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, Final

from tests.chaos.history import Away, Call
from tests.chaos.rows import Row, Rows

KINDS: Final = ("lost", "duplicated", "stuck", "mismatched")
TERMINAL: Final = frozenset({"COMPLETE", "PRUNED", "FAILED", "CANCELLED"})


@dataclass(frozen=True)
class Violation:
    """One thing that is wrong; `trial` is our id, where there is one."""

    kind: str
    invariant: str
    trial: int | None
    text: str

    def __str__(self) -> str:
        where = "" if self.trial is None else f" trial {self.trial}:"
        return f"{self.kind} ({self.invariant}):{where} {self.text}"


@dataclass(frozen=True)
class Copy:
    """A copy of the SQLite file as a crash would have left it, looked into."""

    at: float  # when the server was frozen for it
    integrity: str
    reports: frozenset[tuple[int, int, int]] | set[tuple[int, int, int]]


@dataclass
class Known:
    """Everything that is known of one storm."""

    calls: Sequence[Call]
    away: Sequence[Away]
    rows: Rows
    copies: Sequence[Copy] = ()
    wanted: int = 0  # trials

    @cached_property
    def of_trial(self) -> Mapping[int, Sequence[Call]]:
        """The calls of each trial, the claims that were granted it too."""
        found: dict[int, list[Call]] = defaultdict(list)
        for call in self.calls:
            trial = call.trial
            if call.op == "claim" and call.ok:
                trial = call.answer.get("trial_id")
            if trial is not None:
                found[trial].append(call)
        return found

    @cached_property
    def claimed_since(self) -> Mapping[str, float]:
        """When each claim was first sent, by its token: a retry that is granted renews nothing."""
        found: dict[str, float] = {}
        for call in self.calls:
            if call.op == "claim":
                found.setdefault(call.body["lease_token"], call.begun)
        return found

    @cached_property
    def of_study(self) -> Mapping[str, Sequence[Call]]:
        """What people asked of each study."""
        found: dict[str, list[Call]] = defaultdict(list)
        for call in self.calls:
            if call.study is not None:
                found[call.study].append(call)
        return found

    @cached_property
    def studies(self) -> Mapping[int, Row]:
        """Studies by our id."""
        return {row["id"]: row for row in self.rows.studies}


@dataclass
class Trial:
    """What is known of one trial."""

    known: Known
    row: Row
    id: int = field(init=False)

    def __post_init__(self) -> None:
        self.id = self.row["id"]

    @cached_property
    def calls(self) -> Sequence[Call]:
        """Its calls, by the time of their beginning."""
        return self.known.of_trial.get(self.id, ())

    @cached_property
    def study(self) -> str:
        """The name of its study."""
        return str(self.known.studies[self.row["study_id"]]["name"])

    def made(self, *ops: str, ok: bool = True) -> list[Call]:
        """Returns its calls of these kinds; only the acknowledged ones unless said otherwise."""
        return [call for call in self.calls if call.op in ops and (call.ok or not ok)]

    @cached_property
    def grants(self) -> Mapping[int, Sequence[Call]]:
        """The claims that were answered with it, by attempt."""
        found: dict[int, list[Call]] = defaultdict(list)
        for call in self.made("claim"):
            found[call.answer["attempt"]].append(call)
        return found

    @cached_property
    def attempts(self) -> Sequence[Row]:
        """Its attempts, by number."""
        return self.known.rows.attempts.get(self.id, ())

    @cached_property
    def reports(self) -> Sequence[Row]:
        """Its reports as they were stored."""
        return self.known.rows.reports.get(self.id, ())

    @cached_property
    def events(self) -> Sequence[Row]:
        """Its audit rows in order."""
        return self.known.rows.events.get((self.row["study_id"], self.row["number"]), ())

    def wrong(self, kind: str, invariant: str, text: str) -> Violation:
        """Returns a violation of this trial."""
        return Violation(kind, invariant, self.id, f"{self.study} #{self.row['number']}: {text}")


def counts(violations: Iterable[Violation]) -> str:
    """Returns the four numbers of the storm's last line."""
    found = Counter(violation.kind for violation in violations)
    return " ".join(f"{kind}={found[kind]}" for kind in KINDS)


def shortest(known: Known, violations: Iterable[Violation]) -> Sequence[Call]:
    """Returns the calls of the violated trial that has the fewest."""
    trials = {violation.trial for violation in violations} & known.of_trial.keys()
    return min((known.of_trial[trial] for trial in trials), key=len, default=())


def check(known: Known) -> list[Violation]:
    """Returns everything that is wrong."""
    from tests.chaos import effects, order  # they use what is above

    found: list[Violation] = []
    for whole in (*effects.WHOLE, *order.WHOLE):
        found += whole(known)
    for row in known.rows.trials:
        trial = Trial(known, row)
        for single in (*effects.TRIAL, *order.TRIAL):
            found += single(trial)
    return found


def objective(row: Row) -> float:
    """Returns a stored report's loss."""
    return float(row["special"] if row["value"] is None else row["value"])


def same(one: Any, other: Any) -> bool:
    """True when two losses are the same, bit for bit; NaN is NaN."""
    return repr(one) == repr(other)
