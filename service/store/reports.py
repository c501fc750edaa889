"""Rows of reports. A report is visible until its attempt is started again below its step."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Sequence
from typing import Any, Final

import sqlalchemy as sa

from service.store.database import Connection, Row, Tx
from service.store.prepared import Prepared
from service.store.tables import reports, trials
from studies.trial import TrialState

_INSERT: Final = Prepared(
    reports.insert(), [column.name for column in reports.columns if not column.primary_key]
)


# Built once: they run with every claim or finish.
_VISIBLE: Final = sa.select(reports).where(
    reports.c.trial_id == sa.bindparam("of_trial"), reports.c.superseded.is_(False)
)
_BY_STEP: Final = _VISIBLE.order_by(reports.c.step)
_AT_STEP: Final = _VISIBLE.where(reports.c.step == sa.bindparam("of_step", type_=sa.Integer))
_LAST: Final = _VISIBLE.order_by(reports.c.step.desc()).limit(1)
_VALUED: Final = _VISIBLE.where(reports.c.value.is_not(None))
_BEST: Final = {  # of equals the first, as early stopping has it
    "minimize": _VALUED.order_by(reports.c.value, reports.c.step).limit(1),
    "maximize": _VALUED.order_by(reports.c.value.desc(), reports.c.step).limit(1),
}
_SHOWN: Final[list[Any]] = [reports.c[name] for name in ("id", "trial_id", "step", "value", "body")]
_TOLD: Final = sa.select(*_SHOWN).where(reports.c.superseded.is_(False))
_AT_ONCE: Final = 500  # trials of one statement: SQLite takes 999 parameters at least
_SUPERSEDE: Final = reports.update().where(
    reports.c.trial_id == sa.bindparam("of_trial"),
    reports.c.step > sa.bindparam("above", type_=sa.Integer),
)


def get(conn: Connection, trial_id: int, attempt: int, step: int) -> Row | None:
    """Returns the report of this key."""
    return conn.execute(
        sa.select(reports).where(
            reports.c.trial_id == trial_id,
            reports.c.attempt == attempt,
            reports.c.step == step,
        )
    ).one_or_none()


def insert(tx: Tx, **values: Any) -> None:
    """Stores a report with the decision it brought about."""
    _INSERT.run(tx.conn, {**values, "superseded": False})


def insert_all(tx: Tx, rows: Iterable[dict[str, Any]]) -> None:
    """Stores reports that came from elsewhere, whole rows."""
    _INSERT.run_all(tx.conn, rows)


def visible(conn: Connection, trial_id: int) -> Sequence[Row]:
    """Returns a trial's visible reports by step."""
    return conn.execute(_BY_STEP, {"of_trial": trial_id}).all()


def visible_of(conn: Connection, trial_ids: Sequence[int]) -> Sequence[Row]:
    """Returns trial_id, step, value and special of the visible reports of these trials."""
    columns: list[Any] = [reports.c.trial_id, reports.c.step, reports.c.value, reports.c.special]
    return conn.execute(
        sa.select(*columns).where(
            reports.c.trial_id.in_(trial_ids), reports.c.superseded.is_(False)
        )
    ).all()


def visible_at(conn: Connection, trial_id: int, step: int) -> Row | None:
    """Returns the visible report of one step."""
    return conn.execute(_AT_STEP, {"of_trial": trial_id, "of_step": step}).one_or_none()


def last_visible(conn: Connection, trial_id: int) -> Row | None:
    """Returns the visible report of the highest step."""
    return conn.execute(_LAST, {"of_trial": trial_id}).one_or_none()


def best_visible(conn: Connection, trial_id: int, direction: str) -> Row | None:
    """Returns the visible report of the best value, if there is one."""
    return conn.execute(_BEST[direction], {"of_trial": trial_id}).one_or_none()


def any_of(conn: Connection, trial_id: int, attempt: int) -> bool:
    """True when the attempt has stored a report."""
    statement = sa.select(reports.c.id).where(
        reports.c.trial_id == trial_id, reports.c.attempt == attempt
    )
    return conn.execute(statement.limit(1)).first() is not None


def at_step(
    conn: Connection, study_id: int, step: int, but: int, *, complete_only: bool
) -> Sequence[Row]:
    """Returns the value and special of the visible reports of the study's other trials there."""
    columns: list[Any] = [reports.c.value, reports.c.special]
    statement = sa.select(*columns).where(
        reports.c.study_id == study_id,
        reports.c.step == step,
        reports.c.superseded.is_(False),
        reports.c.trial_id != but,
    )
    if complete_only:
        statement = statement.join(trials, trials.c.id == reports.c.trial_id).where(
            trials.c.state == TrialState.COMPLETE
        )
    return conn.execute(statement).all()


def standing(
    conn: Connection, study_id: int, step: int, value: float, direction: str
) -> tuple[int, int]:
    """Returns how many trials have a visible report of this step, and how many a better value."""
    minimize = direction == "minimize"
    better = reports.c.value < value if minimize else reports.c.value > value
    row = conn.execute(
        sa.select(sa.func.count(), sa.func.count(sa.case((better, 1)))).where(
            reports.c.study_id == study_id,
            reports.c.step == step,
            reports.c.superseded.is_(False),
        )
    ).one()
    return int(row[0]), int(row[1])


def told_since(conn: Connection, study_id: int, report_id: int) -> Sequence[Row]:
    """Returns the study's visible reports that came after this one, in that order."""
    since = _TOLD.where(reports.c.study_id == study_id, reports.c.id > report_id)
    return conn.execute(since.order_by(reports.c.id)).all()


def told_of(conn: Connection, trial_ids: Sequence[int]) -> Iterator[Row]:
    """Yields the same of the visible reports of these trials, each trial's by step."""
    for first in range(0, len(trial_ids), _AT_ONCE):
        of = _TOLD.where(reports.c.trial_id.in_(trial_ids[first : first + _AT_ONCE]))
        yield from conn.execute(of.order_by(reports.c.trial_id, reports.c.step))


def last_bodies(conn: Connection, study_id: int) -> Iterator[str]:
    """Yields the body of the last visible report of each of the study's trials."""
    last = sa.and_(reports.c.trial_id == trials.c.id, reports.c.step == trials.c.step)
    yield from conn.execute(
        sa.select(reports.c.body)
        .join(trials, last)
        .where(trials.c.study_id == study_id, reports.c.superseded.is_(False))
    ).scalars()


def newest_body(conn: Connection, study_id: int) -> str | None:
    """Returns the body of the study's newest report."""
    newest = sa.select(reports.c.body).where(reports.c.study_id == study_id)
    return conn.execute(newest.order_by(reports.c.id.desc()).limit(1)).scalar()


def spent(body: str) -> tuple[int, float]:
    """Returns the tokens and the time [s] that training had taken, of a report's body."""
    said = json.loads(body)
    return said.get("tokens", 0), said.get("wall_ms", 0) / 1_000


def supersede(tx: Tx, trial_id: int, above_step: int) -> None:
    """Hides the reports above a step: an attempt starts again there."""
    said = {"of_trial": trial_id, "above": above_step, "superseded": True}
    tx.conn.execute(_SUPERSEDE, said)
