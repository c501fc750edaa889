"""Rows of studies and of the audit log."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final

import sqlalchemy as sa

from service.store.database import Connection, Row, Tx, insert_once
from service.store.tables import events, reports, studies, trials
from studies.errors import DuplicateName
from studies.trial import StudyState, TrialState

# Built once: they run with every claim or finish.
_OF_STUDY: Final = studies.c.id == sa.bindparam("of_study")
_GET: Final = sa.select(studies).where(_OF_STUDY)
_LOCK: Final = _GET.with_for_update(key_share=True)
_UPDATE: Final = (
    studies.update().where(_OF_STUDY).values(revision=studies.c.revision + 1).returning(studies)
)
_RUNNING: Final = (
    sa.select(sa.func.count())
    .where(trials.c.study_id == studies.c.id, trials.c.state == TrialState.RUNNING)
    .scalar_subquery()
)
_FEWEST: Final = (
    sa.select(studies).where(studies.c.state == StudyState.RUNNING).order_by(_RUNNING, studies.c.id)
)
_COUNTS: Final = (
    sa.select(trials.c.state, sa.func.count())
    .where(trials.c.study_id == sa.bindparam("of_study"))
    .group_by(trials.c.state)
)
_AUDIT: Final = events.insert()
BY_PEOPLE: Final = ("enqueued", "cancel_asked")  # events of trials that are nobody's but theirs


def insert(tx: Tx, **values: Any) -> Row:
    """Returns the new study; raises DuplicateName where the name is taken."""
    statement = insert_once(tx, studies).values(created_at=tx.now, **values).returning(studies)
    row = tx.conn.execute(statement).one_or_none()
    if row is None:
        raise DuplicateName(f"a study named {values['name']} exists; choose another name")
    return row


def lock(tx: Tx, study_id: int) -> Row:
    """Returns the study, held until this transaction ends: nobody else changes its trials' states.

    Rows that only refer to it, as reports do, may be written meanwhile. SQLite has one writer, so
    there the row is held already.
    """
    return tx.conn.execute(_LOCK, {"of_study": study_id}).one()


def by_name(conn: Connection, name: str) -> Row | None:
    """Returns the study of this name."""
    return conn.execute(sa.select(studies).where(studies.c.name == name)).one_or_none()


def of_trial(conn: Connection, trial_id: int) -> Row | None:
    """Returns the study of a trial."""
    statement = sa.select(studies).join(trials, trials.c.study_id == studies.c.id)
    return conn.execute(statement.where(trials.c.id == trial_id)).one_or_none()


def page(
    conn: Connection,
    *,
    archived: bool,
    before: int | None,
    limit: int,
    search: str = "",
    state: StudyState | None = None,
) -> Sequence[Row]:
    """Returns studies with smaller ids than `before`, newest first.

    `search` is a part of their names, in any case.
    """
    statement = sa.select(studies).where(studies.c.archived == archived)
    if search:
        statement = statement.where(studies.c.name.icontains(search, autoescape=True))
    if state is not None:
        statement = statement.where(studies.c.state == state)
    if before is not None:
        statement = statement.where(studies.c.id < before)
    return conn.execute(statement.order_by(studies.c.id.desc()).limit(limit)).all()


def get(conn: Connection, study_id: int) -> Row:
    """Returns the study of this id, which is there."""
    return conn.execute(_GET, {"of_study": study_id}).one()


def fewest_running_first(conn: Connection) -> Sequence[Row]:
    """Returns the RUNNING studies, those with the fewest RUNNING trials first, then the oldest."""
    return conn.execute(_FEWEST).all()


def in_state(conn: Connection, *states: StudyState) -> Sequence[Row]:
    """Returns the studies in these states, the oldest first."""
    return conn.execute(
        sa.select(studies).where(studies.c.state.in_(states)).order_by(studies.c.id)
    ).all()


def update(tx: Tx, study_id: int, **values: Any) -> Row:
    """Changes the study and raises its revision; returns the changed row."""
    return tx.conn.execute(_UPDATE, {**values, "of_study": study_id}).one()


def raise_revision(tx: Tx, study_id: int, by: int) -> Row:
    """Raises the study's revision by so many, one for each of its new trials; returns the row."""
    raised = studies.update().where(studies.c.id == study_id).returning(studies)
    return tx.conn.execute(raised.values(revision=studies.c.revision + by)).one()


def counts(conn: Connection, study_id: int) -> dict[TrialState, int]:
    """Returns the number of trials in each state that has any."""
    rows = conn.execute(_COUNTS, {"of_study": study_id})
    return {TrialState(state): count for state, count in rows}


def stamp(conn: Connection, study_id: int) -> tuple[int, int]:
    """Returns (revision, newest report): it changes whenever anything visible does."""
    newest = sa.select(sa.func.max(reports.c.id)).where(reports.c.study_id == study_id)
    revision = sa.select(studies.c.revision).where(studies.c.id == study_id)
    row = conn.execute(sa.select(revision.scalar_subquery(), newest.scalar_subquery())).one()
    return int(row[0]), int(row[1] or 0)


def resumed_at(conn: Connection, study_id: int) -> int:
    """Returns the study's revision when it was last set RUNNING."""
    began = sa.select(events.c.detail).where(
        events.c.study_id == study_id, events.c.kind == "study_running"
    )
    last = conn.execute(began.order_by(events.c.id.desc()).limit(1)).scalar()
    return int((last or {}).get("revision", 0))


def history(conn: Connection, study_id: int, before: int | None, limit: int) -> Sequence[Row]:
    """Returns events older than `before`, newest first: the study's own, and what people did."""
    told = sa.or_(events.c.trial.is_(None), events.c.kind.in_(BY_PEOPLE))
    statement = sa.select(events).where(events.c.study_id == study_id, told)
    if before is not None:
        statement = statement.where(events.c.id < before)
    return conn.execute(statement.order_by(events.c.id.desc()).limit(limit)).all()


def audit(tx: Tx, study_id: int, kind: str, trial: int | None = None, **detail: Any) -> None:
    """Writes one event of the study or of one of its trials."""
    row = {"at": tx.now, "study_id": study_id, "trial": trial, "kind": kind, "detail": detail}
    tx.conn.execute(_AUDIT, row)
