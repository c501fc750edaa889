"""I2, I5, I6, I8: every acknowledged effect is there once, all has ended, values are right."""

from __future__ import annotations

import hashlib
import json
from collections import Counter
from collections.abc import Iterator
from typing import Any, Final

from tests.chaos.checker import TERMINAL, Known, Trial, Violation, objective, same

_OPTUNA: Final = {"COMPLETE": "COMPLETE", "PRUNED": "PRUNED", "FAILED": "FAIL", "CANCELLED": "FAIL"}
# A refusal that a correct worker can meet; any other is a defect of the server's.
_EXPECTED: Final = {"superseded", "finished", "stopped", "cancelled", "paused", "unavailable"}
_OF_OP: Final = {
    "checkpoint": {"blob_missing"},
    "upload": {"storage_full"},
    "cancel": {"not_found", "conflict"},
    "enqueue": {"conflict"},
    "open": {"duplicate_name"},
    **{op: {"conflict"} for op in ("pause", "resume", "stop")},
}
_STRANGE: Final = {"incompatible", "invalid", "conflict"}  # what another protocol may be told


def reports_kept(trial: Trial) -> Iterator[Violation]:
    """I2: an acknowledged report is there, with its numbers."""
    stored = {(row["attempt"], row["step"]): row for row in trial.reports}
    if len(stored) != len(trial.reports):
        yield trial.wrong("duplicated", "I2", "a step of an attempt is stored twice")
    for call in trial.made("report"):
        for item in call.body["items"]:
            if item["step"] > call.answer["accepted_through"]:
                continue
            row = stored.get((call.attempt or 0, item["step"]))
            if row is None:
                text = f"the report of step {item['step']} of attempt {call.attempt} ({call.id})"
                yield trial.wrong("lost", "I2", text)
            elif json.loads(row["body"])["metrics"] != item["metrics"]:
                yield trial.wrong("mismatched", "I2", f"the report of {call.id} is another's")


def reports_sent(trial: Trial) -> Iterator[Violation]:
    """I2: a stored report was sent."""
    sent = {
        (call.attempt, item["step"])
        for call in trial.made("report", ok=False)
        for item in call.body["items"]
    }
    for row in trial.reports:
        if (row["attempt"], row["step"]) not in sent:
            text = f"nobody sent the report of step {row['step']} of attempt {row['attempt']}"
            yield trial.wrong("duplicated", "I2", text)


def finishes_kept(trial: Trial) -> Iterator[Violation]:
    """I2: an acknowledged finish is there, with the answer it got."""
    stored = {row["attempt"]: row["finish"] for row in trial.attempts}
    for call in trial.made("finish"):
        kept = stored.get(call.attempt or 0)
        if kept is None:
            yield trial.wrong("lost", "I2", f"the finish of attempt {call.attempt} ({call.id})")
        elif kept["said"]["outcome"] != call.body["outcome"] or kept["answer"] != call.answer:
            yield trial.wrong("mismatched", "I7", f"the finish of {call.id} is kept as {kept}")
        elif call.answer["state"] in TERMINAL and call.answer["state"] != trial.row["state"]:
            text = f"it was {call.answer['state']} and is {trial.row['state']}"
            yield trial.wrong("mismatched", "I4", text)


def grants_kept(trial: Trial) -> Iterator[Violation]:
    """I2: an acknowledged grant is there; I1: it was given to one claim."""
    stored = {row["attempt"]: row for row in trial.attempts}
    for attempt, calls in trial.grants.items():
        if len({(call.who, call.body["lease_token"]) for call in calls}) > 1:
            yield trial.wrong("duplicated", "I1", f"attempt {attempt} was granted twice")
        row = stored.get(attempt)
        hashes = {_hash(call.body["lease_token"]) for call in calls}
        if row is None or row["lease_hash"] not in hashes:
            yield trial.wrong("lost", "I1", f"the grant of attempt {attempt} ({calls[0].id})")


def checkpoints_kept(trial: Trial) -> Iterator[Violation]:
    """I8: a grant resumes at the newest acknowledged checkpoint, unless it was found unusable."""
    sent = {(c.body["step"], c.body["sha256"]) for c in trial.made("checkpoint", ok=False)}
    resumes = trial.made("resume", ok=False)
    for attempt, calls in trial.grants.items():
        grant = calls[0]
        resume = grant.answer["resume"] or {"step": 0, "sha256": None}
        if resume["step"] and (resume["step"], resume["sha256"]) not in sent:
            yield trial.wrong("duplicated", "I8", f"attempt {attempt} resumes where nobody was")
        for call in trial.made("checkpoint"):
            if (call.ended or 0.0) >= grant.begun or call.body["step"] <= resume["step"]:
                continue
            lower = [r for r in resumes if (r.body["step"] or 0) < call.body["step"]]
            if not any((r.ended or r.begun + 60) > call.begun for r in lower):
                text = f"attempt {attempt} resumes at {resume['step']}, not {call.body['step']}"
                yield trial.wrong("lost", "I8", f"{text} ({call.id})")


def trial_ended(trial: Trial) -> Iterator[Violation]:
    """I5: the trial has ended, and its attempts with it."""
    if trial.row["state"] not in TERMINAL:
        yield trial.wrong("stuck", "I5", f"it is {trial.row['state']}")
        return
    live = [row["attempt"] for row in trial.attempts if row["outcome"] is None]
    if live:
        yield trial.wrong("stuck", "I5", f"it is {trial.row['state']}, and attempt {live} lives")


def values_right(trial: Trial) -> Iterator[Violation]:
    """I8: every loss is that of the undisturbed training, and none is left out."""
    curve, end = trial.known.rows.expected[trial.id]
    for row in trial.reports:
        if not same(objective(row), curve.get(row["step"])):
            text = f"step {row['step']} is {objective(row)}, undisturbed {curve.get(row['step'])}"
            yield trial.wrong("mismatched", "I8", text)
    visible = [row["step"] for row in trial.reports if not row["superseded"]]
    if sorted(visible) != [*curve][: len(visible)]:
        yield trial.wrong("lost", "I2", f"the visible steps are {sorted(visible)}")
    if trial.row["state"] == "COMPLETE":
        got = (trial.row["step"], trial.row["value"])
        if end.outcome != "ok" or not same(got, (end.final_step, end.value)):
            yield trial.wrong("mismatched", "I8", f"it ended with {got}, undisturbed {end}")
        if len(visible) != len(curve):
            yield trial.wrong("lost", "I8", f"{len(visible)} of {len(curve)} reports are visible")


def optuna_agrees(trial: Trial) -> Iterator[Violation]:
    """I6: Optuna's row is ours."""
    theirs, row = trial.known.rows.theirs[trial.id], trial.row
    if theirs is None:
        yield trial.wrong("mismatched", "I6", "Optuna has no such trial")
        return
    visible = sorted((r["step"], objective(r)) for r in trial.reports if not r["superseded"])
    ended = row["state"] in TERMINAL
    state = _OPTUNA.get(row["state"], "RUNNING")
    value = row["value"] if row["state"] in ("COMPLETE", "PRUNED") else None
    ours = (state, value, row["params"], dict(visible) if ended else {})
    if not same(
        ours, (theirs.state, theirs.value, theirs.params, dict(sorted(theirs.curve.items())))
    ):
        yield trial.wrong("mismatched", "I6", f"ours {ours}, Optuna's {theirs}")


def studies_ended(known: Known) -> Iterator[Violation]:
    """I5: every study has ENDED with its budget's trials, and none is missing."""
    slots = Counter(row["study_id"] for row in known.rows.trials if row["state"] != "CANCELLED")
    for study in known.rows.studies:
        name, budget = study["name"], study["spec"]["budget"]["trials"]
        if study["state"] != "ENDED":
            yield Violation("stuck", "I5", None, f"study {name} is {study['state']}")
        elif study["reason"] == "budget" and slots[study["id"]] != budget:
            text = f"study {name} has {slots[study['id']]} trials of {budget}"
            yield Violation("stuck", "I5", None, text)
    if sum(slots.values()) != known.wanted:
        text = f"{sum(slots.values())} trials in all, {known.wanted} wanted"
        yield Violation("stuck", "I5", None, text)


def reconciled(known: Known) -> Iterator[Violation]:
    """I6: reconcile prints nothing."""
    for line in known.rows.differences:
        yield Violation("mismatched", "I6", None, f"reconcile: {line}")


def answers_expected(known: Known) -> Iterator[Violation]:
    """No call is answered with what a correct caller cannot cause."""
    for call in known.calls:
        if call.result != "fail":
            continue
        code = str(call.answer.get("code", call.status))
        allowed = _EXPECTED | _OF_OP.get(call.op, set())
        if call.who.startswith("stranger"):
            allowed = allowed | _STRANGE
        if code not in allowed:
            kind = "lost" if (call.op, call.status) == ("download", 404) else "mismatched"
            text = f"{call.id} {call.op}: {call.status} {call.answer}"
            yield Violation(kind, "answers", call.trial, text)


def people_heard(known: Known) -> Iterator[Violation]:
    """I2: what people were told is so: enqueued, cancelled, stopped."""
    numbers = {(known.studies[r["study_id"]]["name"], r["number"]): r for r in known.rows.trials}
    reasons = {row["name"]: row["reason"] for row in known.rows.studies}
    for call in known.calls:
        if call.who != "people" or not call.ok:
            continue
        name = call.study or ""
        if call.op == "cancel":
            row = numbers.get((name, call.body["number"]))
            if row is None or row["state"] != "CANCELLED":
                yield Violation("lost", "I2", row and row["id"], f"{call.id}: its cancellation")
        elif call.op == "enqueue":
            row = numbers.get((name, call.answer["number"]))
            if row is None or row["params"] != call.body["params"]:
                yield Violation("lost", "I2", row and row["id"], f"{call.id}: what it enqueued")
        elif call.op == "stop" and reasons.get(name) != "stopped":
            yield Violation("lost", "I2", None, f"{call.id}: study {name} was stopped")


def copies_whole(known: Known) -> Iterator[Violation]:
    """F11: a copy as a crash leaves it is whole and holds what was acknowledged before."""
    for copy in known.copies:
        if copy.integrity != "ok":
            yield Violation("lost", "I2", None, f"a copy of the file: {copy.integrity}")
        for call in known.calls:
            if call.op != "report" or not call.ok or (call.ended or 0.0) > copy.at:
                continue
            key = (call.trial, call.attempt, call.answer["accepted_through"])
            if key not in copy.reports:
                yield Violation("lost", "I2", call.trial, f"{call.id}: not in a copy of the file")


def _hash(token: Any) -> str:
    return hashlib.sha256(str(token).encode()).hexdigest()


TRIAL: Final = (
    reports_kept,
    reports_sent,
    finishes_kept,
    grants_kept,
    checkpoints_kept,
    trial_ended,
    values_right,
    optuna_agrees,
)
WHOLE: Final = (studies_ended, reconciled, answers_expected, people_heard, copies_whole)
