"""I1, I3, I4, I7, I9, I10: attempts follow one another, decisions stay, states move as drawn."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from itertools import pairwise
from typing import Final

from studies.trial import STUDY_TRANSITIONS, TRANSITIONS, StudyState, TrialState
from tests.chaos.checker import TERMINAL, Known, Trial, Violation
from tests.chaos.history import Away, Call

ATTEMPTS: Final = 4  # counted ends in a row without a newer checkpoint, then FAILED
LEASE: Final = 2.0  # [s]
TICK: Final = 1.0  # what the lease clock may gain while no server ticks [s]
_COUNTED: Final = ("lost", "error", "hung")
_FENCED: Final = ("report", "heartbeat", "checkpoint", "resume")


def attempts_numbered(trial: Trial) -> Iterator[Violation]:
    """I1: attempts are 1..n, and each has ended before the next."""
    numbers = [row["attempt"] for row in trial.attempts]
    if numbers != list(range(1, trial.row["attempt"] + 1)):
        yield trial.wrong("mismatched", "I1", f"attempts {numbers}, last {trial.row['attempt']}")
    for row in trial.attempts[:-1]:
        if row["outcome"] is None:
            yield trial.wrong("duplicated", "I1", f"attempt {row['attempt']} was never ended")


def claims_granted_once(known: Known) -> Iterator[Violation]:
    """I1: a claim's number is granted one attempt at most."""
    every = [row for rows in known.rows.attempts.values() for row in rows]
    granted = Counter((row["worker_id"], row["claim_seq"]) for row in every)
    for (worker, seq), count in granted.items():
        if count > 1:
            text = f"claim {seq} of worker {worker} was granted {count} attempts"
            yield Violation("duplicated", "I1", None, text)


def old_attempts_refused(trial: Trial) -> Iterator[Violation]:
    """I3: nothing of an attempt is accepted once a newer one has been granted."""
    for attempt, grants in trial.grants.items():
        since = min(call.ended or 0.0 for call in grants)
        for call in trial.made(*_FENCED):
            if (call.attempt or 0) < attempt and call.begun > since:
                text = f"{call.op} of attempt {call.attempt} ({call.id}) after grant {attempt}"
                yield trial.wrong("mismatched", "I3", text)
    keys = [(row["attempt"], row["step"]) for row in trial.reports]
    if keys != sorted(keys):
        yield trial.wrong("mismatched", "I3", f"reports were stored in the order {keys}")


def decisions_stay(trial: Trial) -> Iterator[Violation]:
    """I7: a report is answered with the decision stored with it, however often it is sent."""
    stored = {(row["attempt"], row["step"]): row["decision"] for row in trial.reports}
    for call in trial.made("report"):
        through, decision = call.answer["accepted_through"], call.answer["decision"]
        kept = stored.get((call.attempt or 0, through), decision)
        if kept != decision:
            text = f"{call.id} was told {decision} at step {through}, stored is {kept}"
            yield trial.wrong("mismatched", "I7", text)


def states_moved(trial: Trial) -> Iterator[Violation]:
    """I4, I10: one audit row for each transition, each one drawn, one end."""
    kinds = [row["kind"].upper() for row in trial.events]  # what people did is there too
    path = [TrialState(kind) for kind in kinds if kind in TrialState.__members__]
    if not path or path[0] is not TrialState.WAITING or path[-1] != trial.row["state"]:
        yield trial.wrong("mismatched", "I10", f"it is {trial.row['state']} by way of {path}")
    for before, after in pairwise(path):
        if after not in TRANSITIONS[before]:
            yield trial.wrong("mismatched", "I10", f"{before} -> {after} is no transition")
    ends = [state for state in path if state in TERMINAL]
    if len(ends) > 1:
        yield trial.wrong("duplicated", "I4", f"it has ended as {ends}")
    granted = [e["detail"].get("attempt") for e in trial.events if e["kind"] == "running"]
    if granted != list(range(1, trial.row["attempt"] + 1)):
        yield trial.wrong("mismatched", "I10", f"the audit rows of attempts are {granted}")


def studies_moved(known: Known) -> Iterator[Violation]:
    """I10: the same for studies."""
    for study in known.rows.studies:
        events = known.rows.events.get((study["id"], None), ())
        kinds = [row["kind"].removeprefix("study_").upper() for row in events]
        path = [StudyState(kind) for kind in kinds if kind in StudyState.__members__]
        drawn = all(after in STUDY_TRANSITIONS[before] for before, after in pairwise(path))
        if not path or path[-1] != study["state"] or not drawn:
            text = f"study {study['name']} is {study['state']} by way of {path}"
            yield Violation("mismatched", "I10", None, text)


def attempts_limited(trial: Trial) -> Iterator[Violation]:
    """I9: four counted ends in a row without a newer checkpoint are the last, and no fewer are."""
    kept = {call.attempt for call in trial.made("checkpoint", ok=False)}
    ends = [row["outcome"] for row in trial.attempts]
    for first in range(len(ends) - ATTEMPTS):
        window = range(first, first + ATTEMPTS)
        if all(ends[i] in _COUNTED and i + 1 not in kept for i in window):
            yield trial.wrong("mismatched", "I9", f"attempt {first + 5} came after {ends}")
            return
    failed = trial.row["state"] == "FAILED" and (trial.row["reason"] or "").startswith(_COUNTED)
    if failed and sum(end in _COUNTED for end in ends) < ATTEMPTS:
        yield trial.wrong("mismatched", "I9", f"it has FAILED after {ends}")


def leases_honoured(trial: Trial) -> Iterator[Violation]:
    """F8, F19: nothing is stolen within a lease of an acknowledged write, by the lease clock."""
    for row in trial.attempts:
        grants = trial.grants.get(row["attempt"] + 1)
        if row["outcome"] != "lost" or not grants:
            continue
        stolen = min(call.ended or 0.0 for call in grants)
        writes = [c for c in trial.made(*_FENCED) if c.attempt == row["attempt"]]
        first = trial.known.claimed_since
        begun = [call.begun for call in writes]
        begun += [first[c.body["lease_token"]] for c in trial.grants.get(row["attempt"], ())]
        renewed = max((t for t in begun if t < stolen), default=None)
        if renewed is None or _was_paused(trial, row["attempt"], renewed, stolen):
            continue
        if (past := lease_time(renewed, stolen, trial.known.away)) < LEASE - 0.05:
            text = f"attempt {row['attempt']} was stolen {past:.2f} s of lease time after a write"
            yield trial.wrong("mismatched", "I1", text)


def lease_time(begun: float, ended: float, away: Sequence[Away]) -> float:
    """Returns the most that the lease clock can have moved between two times [s].

    While no server ticks it gains one tick at most, when the server is back.
    """
    past = ended - begun
    for gap in away:
        missed = min(gap.ended, ended) - max(gap.begun, begun)
        if missed > 0:
            past -= max(missed - TICK, 0.0)
    return past


def _was_paused(trial: Trial, attempt: int, begun: float, ended: float) -> bool:
    """True when it was asked to pause then, by people or at a rung: its lease is not renewed."""
    if any((row["attempt"], row["decision"]) == (attempt, "pause") for row in trial.reports):
        return True
    calls: Sequence[Call] = trial.known.of_study.get(trial.study, ())
    steered = [call for call in calls if call.op in ("pause", "resume")]
    return any(begun - 2 * LEASE < (c.ended or c.begun) and c.begun < ended for c in steered)


def strangers_get_nothing(known: Known) -> Iterator[Violation]:
    """F25: a worker of another protocol is granted nothing."""
    for call in known.calls:
        if call.op == "claim" and call.status == 200 and call.body["protocol"] == 99:
            yield Violation("mismatched", "F25", call.answer["trial_id"], f"{call.id} was granted")


TRIAL: Final = (
    attempts_numbered,
    old_attempts_refused,
    decisions_stay,
    states_moved,
    attempts_limited,
    leases_honoured,
)
WHOLE: Final = (claims_granted_once, studies_moved, strangers_get_nothing)
