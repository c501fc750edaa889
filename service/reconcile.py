"""Compares lmtune's rows with Optuna's; there must be no difference, whatever happened."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import partial
from typing import Any, Final

from service.dispatch.settle import objective
from service.store import reports, studies, trials
from service.store.database import Connection, Database, Row
from service.store.optuna_rows import STATES, has_study, read_trials
from studies.trial import StudyState, TrialState

PAGE: Final = 250  # trials read at once: on SQLite a reader holds every writer up


def differences(database: Database) -> list[str]:
    """Returns one line per difference; trials that lmtune did not make are passed over.

    A server may be at work meanwhile: each page of trials is one snapshot of both sides.
    """
    return [
        line
        for study in database.read(lambda conn: studies.in_state(conn, *StudyState))
        for line in _of_study(database, study)
    ]


def _of_study(database: Database, study: Row) -> Iterator[str]:
    if not database.read(partial(has_study, study=study)):
        yield f"study {study.name}: Optuna has no such study"
        return
    after = -1
    while page := database.read(partial(_page, study=study, after=after)):
        after, lines = page
        yield from lines
    yield from database.read(partial(_left_over, study_id=study.id))


def _page(conn: Connection, study: Row, after: int) -> tuple[int, list[str]] | None:
    """Returns a page's last number and its differences; None: there are no more trials."""
    rows = trials.page(conn, study.id, state=None, after=after, limit=PAGE)
    if not rows:
        return None
    where = f"study {study.name}"
    ids = [row.optuna_id for row in rows]
    theirs = read_trials(conn, study.optuna_id, ids) if has_study(conn, study) else {}
    curves: dict[int, list[Row]] = {row.id: [] for row in rows}
    for report in reports.visible_of(conn, list(curves)):
        curves[report.trial_id].append(report)
    found = []
    for row in rows:
        other = theirs.get(row.optuna_id)
        lines = _compare(row, other, curves[row.id]) if other else ["Optuna has no such trial"]
        found += [f"{where} trial {row.number}: {line}" for line in lines]
    return rows[-1].number, found


def _left_over(conn: Connection, study_id: int) -> list[str]:
    """Returns what is wrong with a study as a whole."""
    study = studies.get(conn, study_id)
    live = any(not state.terminal for state in studies.counts(conn, study_id))
    if study.state == StudyState.ENDED and live:
        return [f"study {study.name}: it has ENDED with live trials"]
    return []


def _compare(row: Row, other: Any, visible: Sequence[Row]) -> Iterator[str]:
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
    curve = {report.step: str(objective(report)) for report in visible}
    theirs = {step: str(number) for step, number in other.intermediate_values.items()}
    if curve != theirs:
        yield f"its curve has {len(curve)} values here and {len(theirs)} in Optuna, or others"
