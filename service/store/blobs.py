"""Rows of blobs: the files that are there, by hash; service/blobs.py holds the files."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import sqlalchemy as sa

from service.store.database import Connection, Row, Tx, insert_once
from service.store.tables import blobs, checkpoints


def get(conn: Connection, sha256: str) -> Row | None:
    """Returns the blob if it is live."""
    return conn.execute(
        sa.select(blobs).where(blobs.c.sha256 == sha256, blobs.c.state == "live")
    ).one_or_none()


def newest(conn: Connection) -> str | None:
    """Returns the hash of the live blob that came last; None where there is none."""
    last = sa.select(blobs.c.sha256).where(blobs.c.state == "live")
    return conn.execute(last.order_by(blobs.c.created_at.desc()).limit(1)).scalar()


def take(tx: Tx, sha256: str) -> bool:
    """Keeps a live blob from being collected until this transaction ends; False if it is gone."""
    statement = sa.select(blobs.c.sha256).where(blobs.c.sha256 == sha256, blobs.c.state == "live")
    return tx.conn.execute(statement.with_for_update(read=True)).first() is not None


def add(tx: Tx, **values: Any) -> None:
    """Makes a blob live; one that is live stays as it is, a dying one is revived."""
    tx.conn.execute(insert_once(tx, blobs).values(created_at=tx.now, state="live", **values))
    revived: dict[str, Any] = {"state": "live", "created_at": tx.now}
    if values["kind"] == "data":  # a text is kept, also where a checkpoint has the same bytes
        named = sa.case((blobs.c.kind == "data", blobs.c.name), else_=values["name"])
        revived |= {"kind": "data", "name": named}
    tx.conn.execute(blobs.update().where(blobs.c.sha256 == values["sha256"]).values(revived))


def is_text(conn: Connection, sha256: str) -> bool:
    """True when this is an uploaded text."""
    row = get(conn, sha256)
    return row is not None and row.kind == "data"


def texts(conn: Connection) -> Sequence[Row]:
    """Returns the uploaded texts, newest first."""
    return conn.execute(
        sa.select(blobs)
        .where(blobs.c.kind == "data", blobs.c.state == "live")
        .order_by(blobs.c.created_at.desc())
    ).all()


def total(conn: Connection) -> int:
    """Returns how much the blobs take [bytes], those included that are about to go."""
    return int(conn.execute(sa.select(sa.func.sum(blobs.c.bytes))).scalar() or 0)


def mark_dying(tx: Tx, before: float, limit: int = 100) -> list[str]:
    """Marks checkpoint blobs made before `before` that nothing points at; returns their hashes."""
    unpointed = ~sa.exists().where(checkpoints.c.sha256 == blobs.c.sha256)
    old = sa.and_(blobs.c.kind == "checkpoint", blobs.c.created_at < before)
    held = sa.select(blobs.c.sha256).where(old, unpointed).limit(limit)
    hashes = list(tx.conn.execute(held.with_for_update(skip_locked=True)).scalars())
    if not hashes:
        return []
    marked = blobs.update().where(blobs.c.sha256.in_(hashes), unpointed).values(state="dying")
    return list(tx.conn.execute(marked.returning(blobs.c.sha256)).scalars())


def drop_dying(tx: Tx, sha256: str) -> bool:
    """Forgets a blob if it is still dying; True if it was."""
    dying = blobs.delete().where(blobs.c.sha256 == sha256, blobs.c.state == "dying")
    return tx.conn.execute(dying).rowcount == 1
