"""Rows of workers, the lease clock, blobs and tokens."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import sqlalchemy as sa

from service.leases import Clock
from service.store.database import Tx
from service.store.tables import blobs, checkpoints, clock, studies, tokens, trials, workers
from service.store.trials import insert_once
from studies.trial import TrialState

Row = sa.Row[Any]


def insert(tx: Tx, **values: Any) -> Row:
    """Returns the new worker."""
    seen = {"registered_at": tx.now, "seen_at": tx.now, "seen_t": tx.t}
    return tx.conn.execute(workers.insert().values(**seen, **values).returning(workers)).one()


def by_name(conn: sa.Connection, name: str) -> Row | None:
    """Returns the worker of this name."""
    return conn.execute(sa.select(workers).where(workers.c.name == name)).one_or_none()


def get(conn: sa.Connection, worker_id: int) -> Row | None:
    """Returns the worker of this id."""
    return conn.execute(sa.select(workers).where(workers.c.id == worker_id)).one_or_none()


def number_claim(tx: Tx, worker_id: int, seq: int) -> bool:
    """Records the claim's number; False when the worker is unknown or has claimed it already."""
    done = tx.conn.execute(
        workers.update()
        .where(workers.c.id == worker_id, workers.c.claim_seq < seq)
        .values(claim_seq=seq, seen_at=tx.now, seen_t=tx.t, gone=False)
    )
    return done.rowcount == 1


def seen(tx: Tx, worker_id: int, **values: Any) -> None:
    """Records that the worker was heard of now."""
    tx.conn.execute(
        workers.update()
        .where(workers.c.id == worker_id)
        .values(seen_at=tx.now, seen_t=tx.t, **values)
    )


def recent(conn: sa.Connection, limit: int = 200) -> Sequence[Row]:
    """Returns workers, those heard of last first, with the trial each holds."""
    return conn.execute(
        sa.select(workers, trials.c.number.label("trial"), studies.c.name.label("study"))
        .outerjoin(
            trials,
            sa.and_(trials.c.worker_id == workers.c.id, trials.c.state == TrialState.RUNNING),
        )
        .outerjoin(studies, studies.c.id == trials.c.study_id)
        .order_by(workers.c.gone, workers.c.seen_at.desc())
        .limit(limit)
    ).all()


# ---------------------------------------------------------------- the lease clock


def read_clock(conn: sa.Connection, *, hold: bool = False) -> Clock:
    """Returns the lease clock; `hold` keeps other servers from moving it meanwhile."""
    statement = sa.select(clock.c.t, clock.c.wall)
    t, wall = conn.execute(statement.with_for_update() if hold else statement).one()
    return Clock(t, wall)


def move_clock(tx: Tx, moved: Clock) -> None:
    """Writes the lease clock."""
    tx.conn.execute(clock.update().values(t=moved.t, wall=moved.wall))


# ---------------------------------------------------------------- blobs


def blob(conn: sa.Connection, sha256: str) -> Row | None:
    """Returns the blob if it is live."""
    return conn.execute(
        sa.select(blobs).where(blobs.c.sha256 == sha256, blobs.c.state == "live")
    ).one_or_none()


def add_blob(tx: Tx, **values: Any) -> None:
    """Makes a blob live; one that is live stays as it is, a dying one is revived."""
    tx.conn.execute(insert_once(tx, blobs).values(created_at=tx.now, state="live", **values))
    tx.conn.execute(
        blobs.update()
        .where(blobs.c.sha256 == values["sha256"])
        .values(state="live", created_at=tx.now)
    )


def data_blobs(conn: sa.Connection) -> Sequence[Row]:
    """Returns the uploaded texts, newest first."""
    return conn.execute(
        sa.select(blobs)
        .where(blobs.c.kind == "data", blobs.c.state == "live")
        .order_by(blobs.c.created_at.desc())
    ).all()


def mark_dying(tx: Tx, before: float, limit: int = 100) -> list[str]:
    """Marks checkpoint blobs made before `before` that nothing points at; returns their hashes."""
    unpointed = (
        sa.select(blobs.c.sha256)
        .where(
            blobs.c.kind == "checkpoint",
            blobs.c.created_at < before,
            ~sa.exists().where(checkpoints.c.sha256 == blobs.c.sha256),
        )
        .limit(limit)
    )
    hashes = list(tx.conn.execute(unpointed).scalars())
    if hashes:
        tx.conn.execute(blobs.update().where(blobs.c.sha256.in_(hashes)).values(state="dying"))
    return hashes


def drop_dying(tx: Tx, sha256: str) -> None:
    """Forgets a dying blob whose file is gone."""
    tx.conn.execute(blobs.delete().where(blobs.c.sha256 == sha256, blobs.c.state == "dying"))


# ---------------------------------------------------------------- tokens


def add_token(tx: Tx, token_hash: str, kind: str, expires_at: float | None) -> None:
    """Makes a token known by its hash; one that is known stays as it is."""
    tx.conn.execute(
        insert_once(tx, tokens).values(
            hash=token_hash, kind=kind, created_at=tx.now, expires_at=expires_at
        )
    )


def token(conn: sa.Connection, token_hash: str, now: float) -> Row | None:
    """Returns the token of this hash unless it has expired."""
    return conn.execute(
        sa.select(tokens).where(
            tokens.c.hash == token_hash,
            sa.or_(tokens.c.expires_at.is_(None), tokens.c.expires_at > now),
        )
    ).one_or_none()


def take_token(tx: Tx, token_hash: str, kind: str) -> bool:
    """Deletes a token of this kind that has not expired; True if there was one."""
    done = tx.conn.execute(
        tokens.delete().where(
            tokens.c.hash == token_hash,
            tokens.c.kind == kind,
            sa.or_(tokens.c.expires_at.is_(None), tokens.c.expires_at > tx.now),
        )
    )
    return done.rowcount == 1
