"""Rows of reports. A report is visible until its attempt is started again below its step."""

from __future__ import annotations

from collections.abc import Sequence
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


def curves(conn: Connection, study_id: int) -> Sequence[sa.Row[int, int, float | None]]:
    """Returns (trial_id, step, value) of every visible report of a study, by trial and step."""
    return conn.execute(
        sa.select(reports.c.trial_id, reports.c.step, reports.c.value)
        .where(reports.c.study_id == study_id, reports.c.superseded.is_(False))
        .order_by(reports.c.trial_id, reports.c.step)
    ).all()


def supersede(tx: Tx, trial_id: int, above_step: int) -> None:
    """Hides the reports above a step: an attempt starts again there."""
    said = {"of_trial": trial_id, "above": above_step, "superseded": True}
    tx.conn.execute(_SUPERSEDE, said)
