"""Compares lmtune's rows with Optuna's; there must be no difference, whatever happened."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from service.dispatch.settle import objective
from service.store import reports, studies, trials
from service.store.database import Connection, Row
from service.store.optuna_rows import STATES, read_trials
from studies.trial import StudyState, TrialState


def differences(conn: Connection) -> list[str]:
    """Returns one line per difference; trials that lmtune did not make are passed over."""
    found: list[str] = []
    for study in studies.in_state(conn, *StudyState):
        theirs = read_trials(conn, study.optuna_id, study.name)
        if theirs is None:
            found.append(f"study {study.name}: Optuna has no such study")
            continue
        for row in trials.changed_since(conn, study.id, -1):
            where = f"study {study.name} trial {row.number}"
            other = theirs.get(row.optuna_id)
            if other is None:
                found.append(f"{where}: Optuna has no such trial")
            else:
                found += [f"{where}: {line}" for line in _compare(conn, row, other)]
        counts = studies.counts(conn, study.id)
        if study.state == StudyState.ENDED and any(not state.terminal for state in counts):
            found.append(f"study {study.name}: it has ENDED with live trials")
    return found


def _compare(conn: Connection, row: Row, other: Any) -> Iterator[str]:
    state = TrialState(row.state)
    if other.number != row.number:
        yield f"its number is {other.number} in Optuna"
    if other.state is not STATES[state]:
        yield f"it is {state} here and {other.state.name} in Optuna"
        return
    if other.params != row.params:
        yield f"its parameters are {row.params} here and {other.params} in Optuna"
    if not state.terminal:
        return
    value = row.value if state in (TrialState.COMPLETE, TrialState.PRUNED) else None
    if other.value != value:
        yield f"its value is {value} here and {other.value} in Optuna"
    curve = {r.step: str(objective(r)) for r in reports.visible(conn, row.id)}
    theirs = {step: str(number) for step, number in other.intermediate_values.items()}
    if curve != theirs:
        yield f"its curve has {len(curve)} values here and {len(theirs)} in Optuna, or others"
