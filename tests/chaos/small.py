"""A small storm by hand in which all is well: one study, one trial, two attempts.

The first attempt reports two steps of eight, checkpoints the second, reports a third, and is
stolen; the second resumes at the checkpoint and trains to the end.
"""

from __future__ import annotations

import hashlib
import json
from typing import Any

from studies.spec import StudySpec
from tests.chaos.checker import Copy, Known
from tests.chaos.history import Away, Call
from tests.chaos.model import undisturbed
from tests.chaos.people import document
from tests.chaos.rows import Rows, Theirs

PARAMS = {"learning_rate": 0.01, "dropout": 0.123}
TRIAL = 7  # our id
SPEC = document("small", {"sampler": {"kind": "random"}}, 1, 5)
RECIPE = StudySpec.model_validate(SPEC).recipe(PARAMS, 0).model_dump(mode="json", by_alias=True)
CURVE, END = undisturbed(RECIPE)
STEPS = [*CURVE]
STOLEN = 20.0  # when the second attempt is granted [s]
_TOKENS = {1: "1" * 32, 2: "2" * 32}


def item(step: int) -> dict[str, Any]:
    return {"step": step, "metrics": {"validation_loss": CURVE[step]}, "tokens": 0, "wall_ms": 0}


class Calls:
    """Writes the history, a call each tenth of a second."""

    def __init__(self) -> None:
        self.made: list[Call] = []
        self.now = 10.0

    def ok(self, op: str, attempt: int | None, body: Any, answer: Any, **what: Any) -> None:
        self.now += 0.1
        said = {"trial": TRIAL, "attempt": attempt, "who": f"w{attempt}"} if attempt else {}
        times = {"begun": self.now, "ended": self.now + 0.05}
        known = {"result": "ok", "status": 200, "body": body, "answer": answer}
        self.made.append(Call(id=f"c{len(self.made)}", op=op, **times, **known, **said, **what))

    def claim(self, attempt: int, resume: Any) -> None:
        body = {"seq": 1, "lease_token": _TOKENS[attempt], "protocol": 1}
        answer = {"trial_id": TRIAL, "attempt": attempt, "resume": resume}
        self.ok("claim", None, body, answer, who=f"w{attempt}")

    def report(self, attempt: int, *steps: int) -> None:
        answer = {"accepted_through": steps[-1], "decision": "continue", "duplicate": False}
        self.ok("report", attempt, {"items": [item(step) for step in steps]}, answer)


def calls() -> list[Call]:
    history = Calls()
    history.ok("enqueue", None, {"params": PARAMS}, {"number": 0}, who="people", study="small")
    history.claim(1, None)
    history.report(1, STEPS[0])
    history.report(1, STEPS[1])
    pointer = {"step": STEPS[1], "sha256": "a" * 64, "last_report_step": STEPS[1]}
    history.ok("checkpoint", 1, pointer, {"decision": "continue"})
    history.report(1, STEPS[2])
    history.now = STOLEN
    history.claim(2, {"step": STEPS[1], "sha256": "a" * 64, "bytes": 9})
    history.report(2, *STEPS[2:5])
    history.report(2, *STEPS[5:])
    said = {"outcome": "ok", "final_step": STEPS[-1], "reason": None}
    history.ok("finish", 2, said, {"state": "COMPLETE"})
    return history.made


def rows() -> Rows:
    study = {"id": 1, "name": "small", "spec": SPEC, "state": "ENDED", "reason": "budget"}
    trial = {
        "id": TRIAL,
        "study_id": 1,
        "number": 0,
        "state": "COMPLETE",
        "reason": None,
        "params": PARAMS,
        "step": END.final_step,
        "value": END.value,
        "attempt": 2,
    }
    finish = {"said": {"outcome": "ok", "final_step": STEPS[-1], "reason": None}}
    finish["answer"] = {"state": "COMPLETE"}
    attempts = [_attempt(1, "lost", None), _attempt(2, "ok", finish)]
    reports = [_report(1, s, s == STEPS[2]) for s in STEPS[:3]]
    reports += [_report(2, s, False) for s in STEPS[2:]]
    kinds = [("waiting", None), ("running", 1), ("running", 2), ("complete", 2)]
    of_study = ["study_running", "study_ending", "study_ended"]
    return Rows(
        studies=[study],
        trials=[trial],
        attempts={TRIAL: attempts},
        reports={TRIAL: reports},
        checkpoints={},
        events={
            (1, 0): [{"kind": kind, "detail": {"attempt": a}} for kind, a in kinds],
            (1, None): [{"kind": kind, "detail": {}} for kind in of_study],
        },
        theirs={TRIAL: Theirs("COMPLETE", END.value, PARAMS, CURVE)},
        expected={TRIAL: (CURVE, END)},
    )


def known() -> Known:
    """Everything that is known of the small storm; the rows may be changed."""
    made = calls()
    acked = {(TRIAL, 1, step) for step in STEPS[:3]}
    return Known(made, [Away(0.0, 5.0)], rows(), [Copy(STOLEN - 1.0, "ok", acked)], 1)


def _attempt(number: int, outcome: str, finish: Any) -> dict[str, Any]:
    digest = hashlib.sha256(_TOKENS[number].encode()).hexdigest()
    return {
        "attempt": number,
        "worker_id": number,
        "claim_seq": 1,
        "lease_hash": digest,
        "outcome": outcome,
        "finish": finish,
    }


def _report(attempt: int, step: int, superseded: bool) -> dict[str, Any]:
    return {
        "attempt": attempt,
        "step": step,
        "value": CURVE[step],
        "special": None,
        "body": json.dumps(item(step)),
        "decision": "continue",
        "superseded": superseded,
    }
