"""Rows of workers, and the lease clock."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any, Final

import sqlalchemy as sa

from service.leases import Clock
from service.store.database import Connection, Row, Tx, insert_once
from service.store.prepared import Prepared
from service.store.tables import attempts, clock, studies, trials, workers
from studies.trial import TrialState


def beaten(who: Any) -> sa.Update:
    """Returns what records that workers were heard of, but those that a claim holds just now.

    A claim holds its worker before its study; who holds a trial already never waits for a worker.
    """
    free = sa.select(workers.c.id).where(workers.c.id == who)
    free = free.with_for_update(skip_locked=True, key_share=True)
    now = {"seen_at": sa.bindparam("at"), "seen_t": sa.select(clock.c.t).scalar_subquery()}
    return workers.update().where(workers.c.id.in_(free)).values(now)


_BEAT: Final = Prepared(beaten(sa.bindparam("of_worker", type_=workers.c.id.type)))

_RUNNING: Final = sa.and_(  # a worker and what it trains
    trials.c.worker_id == workers.c.id, trials.c.state == TrialState.RUNNING
)
_LAST_SEQ: Final = 2**31 - 1  # no worker comes so far

# Built once: they run with every claim, where building a statement costs as much as running it.
_OF_WORKER: Final = workers.c.id == sa.bindparam("of_worker")
_GET: Final = sa.select(workers).where(_OF_WORKER)
_HOLD: Final = _GET.with_for_update(key_share=True)
_UPDATE: Final = workers.update().where(_OF_WORKER)
_NUMBER: Final = _UPDATE.where(workers.c.claim_seq < sa.bindparam("new_seq", type_=sa.Integer))


def insert(tx: Tx, **values: Any) -> Row:
    """Returns the new worker, or the one of this name that another request has just made."""
    seen = {"registered_at": tx.now, "seen_at": tx.now, "seen_t": tx.t}
    tx.conn.execute(insert_once(tx, workers).values(**seen, **values))
    return tx.conn.execute(sa.select(workers).where(workers.c.name == values["name"])).one()


def insert_unseen(tx: Tx, name: str) -> Row:
    """Returns a worker that has not registered; whatever comes under its name finds this one."""
    unknown = {"host": "", "pid": 0, "device": "", "code_hash": "", "protocol": 0}
    return insert(tx, name=name, **unknown)


def by_name(conn: Connection, name: str) -> Row | None:
    """Returns the worker of this name."""
    return conn.execute(sa.select(workers).where(workers.c.name == name)).one_or_none()


def get(conn: Connection, worker_id: int) -> Row | None:
    """Returns the worker of this id."""
    return conn.execute(_GET, {"of_worker": worker_id}).one_or_none()


def hold(tx: Tx, worker_id: int) -> Row | None:
    """Returns the worker, held until this transaction ends: its claims follow one another."""
    return tx.conn.execute(_HOLD, {"of_worker": worker_id}).one_or_none()


def number_claim(tx: Tx, worker_id: int, seq: int, **said: Any) -> bool:
    """Records the claim's number; False when the worker is unknown or has claimed it already.

    `said` is what the worker says of itself with it.
    """
    said |= {"claim_seq": seq, "claim_open": True, "seen_at": tx.now, "seen_t": tx.t, "gone": False}
    done = tx.conn.execute(_NUMBER, {**said, "of_worker": worker_id, "new_seq": seq})
    return done.rowcount == 1


def close_claim(tx: Tx, worker_id: int) -> None:
    """Records that the worker's newest claim has its answer."""
    tx.conn.execute(_UPDATE, {"of_worker": worker_id, "claim_open": False})


def seen(tx: Tx, worker_id: int, **values: Any) -> None:
    """Records that the worker was heard of now."""
    tx.conn.execute(
        workers.update()
        .where(workers.c.id == worker_id)
        .values(seen_at=tx.now, seen_t=tx.t, **values)
    )


def beat(tx: Tx, worker_id: int) -> None:
    """Does as `seen`, for every heartbeat; leaves a worker alone that a claim holds just now."""
    _BEAT.run(tx.conn, {"of_worker": worker_id, "at": tx.now})


def leave(tx: Tx, worker_id: int) -> None:
    """Records that the worker is gone; whatever it claimed last is stale."""
    seen(tx, worker_id, gone=True, claim_seq=workers.c.claim_seq + 1, claim_open=False)


def drain(tx: Tx, worker_id: int, draining: bool) -> Row | None:
    """Records whether the worker gets new trials; returns it, None where it is unknown."""
    changed = _UPDATE.values(draining=sa.bindparam("is_draining")).returning(workers)
    said = {"of_worker": worker_id, "is_draining": draining}
    return tx.conn.execute(changed, said).one_or_none()


def lose(tx: Tx, worker_id: int) -> None:
    """Records that the worker is dead; whatever it may still claim is stale, for good."""
    seen(tx, worker_id, gone=True, claim_seq=_LAST_SEQ, claim_open=False)


def busy(conn: Connection) -> frozenset[str]:
    """Returns the names of those that hold a RUNNING trial."""
    return frozenset(conn.scalars(sa.select(workers.c.name).join(trials, _RUNNING)))


def kinds(conn: Connection, since: float) -> list[dict[str, Any]]:
    """Returns what workers heard of since then [lease s] say they have, each kind once."""
    said = sa.cast(workers.c.resources, sa.Text)
    there = sa.and_(~workers.c.gone, workers.c.seen_t >= since)
    texts = conn.scalars(sa.select(said).where(there).distinct())
    return [json.loads(text or "{}") or {} for text in texts]


def recent(
    conn: Connection, limit: int, name: str | None = None, study: str | None = None
) -> Sequence[Row]:
    """Returns workers, those heard of last first, with the trial each holds.

    Args:
        conn: reads.
        limit: no more than so many.
        name: only the worker of this name.
        study: only those that hold a trial of this study.
    """
    found = (
        sa.select(workers, trials.c.number.label("trial"), studies.c.name.label("study"))
        .outerjoin(trials, _RUNNING)
        .outerjoin(studies, studies.c.id == trials.c.study_id)
    )
    if name is not None:
        found = found.where(workers.c.name == name)
    if study is not None:
        found = found.where(studies.c.name == study)
    ordered = found.order_by(workers.c.gone, workers.c.seen_at.desc(), workers.c.id)
    return conn.execute(ordered.limit(limit)).all()


def counts(conn: Connection, since_t: float) -> Sequence[Row]:
    """Returns how many workers there are by device and state: (device, state, workers).

    Those not heard of since a moment of lease time are lost.
    """
    state = sa.case(
        (workers.c.gone, "gone"),
        (workers.c.seen_t < since_t, "lost"),
        (sa.exists().where(_RUNNING), "busy"),
        else_="idle",
    )
    each = sa.select(workers.c.device, state.label("state")).subquery()
    columns = (each.c.device, each.c.state)
    number = sa.func.count().label("workers")
    return conn.execute(sa.select(*columns, number).group_by(*columns).order_by(*columns)).all()


def held_seconds(conn: Connection, worker_ids: Sequence[int]) -> dict[int, float]:
    """Returns for how long each worker held attempts, up to when it was heard of last [s].

    One that never held any is left out.
    """
    ended = attempts.c.ended_at < workers.c.seen_at  # unknown, and so false, of one that is live
    until = sa.case((ended, attempts.c.ended_at), else_=workers.c.seen_at)
    rows = conn.execute(
        sa.select(workers.c.id, sa.func.sum(until - attempts.c.started_at))
        .join(attempts, attempts.c.worker_id == workers.c.id)
        .where(workers.c.id.in_(worker_ids))
        .group_by(workers.c.id)
    )
    return {worker_id: float(seconds) for worker_id, seconds in rows}


def read_clock(conn: Connection, *, hold: bool = False) -> Clock:
    """Returns the lease clock; `hold` keeps other servers from moving it meanwhile."""
    statement = sa.select(clock.c.t, clock.c.wall)
    t, wall = conn.execute(statement.with_for_update() if hold else statement).one()
    return Clock(t, wall)


def move_clock(tx: Tx, moved: Clock) -> None:
    """Writes the lease clock."""
    tx.conn.execute(clock.update().values(t=moved.t, wall=moved.wall))
