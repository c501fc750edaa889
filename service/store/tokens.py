"""Rows of tokens, login codes and sessions, by the hash of the secret."""

from __future__ import annotations

import sqlalchemy as sa

from service.store.database import Connection, Row, Tx, insert_once
from service.store.tables import tokens


def add(tx: Tx, token_hash: str, kind: str, expires_at: float | None) -> None:
    """Makes a token known by its hash; one that is known stays as it is."""
    tx.conn.execute(
        insert_once(tx, tokens).values(
            hash=token_hash, kind=kind, created_at=tx.now, expires_at=expires_at
        )
    )


def get(conn: Connection, token_hash: str, now: float) -> Row | None:
    """Returns the token of this hash unless it has expired."""
    return conn.execute(
        sa.select(tokens).where(
            tokens.c.hash == token_hash,
            sa.or_(tokens.c.expires_at.is_(None), tokens.c.expires_at > now),
        )
    ).one_or_none()


def take(tx: Tx, token_hash: str, kind: str) -> bool:
    """Deletes a token of this kind that has not expired; True if there was one."""
    done = tx.conn.execute(
        tokens.delete().where(
            tokens.c.hash == token_hash,
            tokens.c.kind == kind,
            sa.or_(tokens.c.expires_at.is_(None), tokens.c.expires_at > tx.now),
        )
    )
    return done.rowcount == 1
