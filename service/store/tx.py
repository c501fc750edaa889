"""One transaction, and what an error of the database means for whoever wrote in it."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any, Final

import sqlalchemy as sa
from sqlalchemy.exc import DBAPIError

from service.store import tables
from studies.errors import InvalidInput, Unavailable

_T: Final = sa.select(tables.clock.c.t)
_BROKEN: Final = frozenset({10, 11})  # SQLITE_IOERR, SQLITE_CORRUPT: the disk, not the moment


class Repeat(Exception):
    """Raised by a write that is to be undone and run again: what it built on has changed."""


class Tx:
    """One transaction: its connection, the time, and what to undo outside the database."""

    def __init__(self, conn: sa.Connection) -> None:
        self.conn = conn
        self.now = time.time()  # [s since 1970]
        self._undo: list[Callable[[], None]] = []
        self._t: float | None = None

    @property
    def t(self) -> float:
        """Lease time [s], read once per transaction."""
        if self._t is None:
            self._t = float(self.conn.execute(_T).scalar_one())
        return self._t

    def on_rollback(self, undo: Callable[[], None]) -> None:
        """Calls `undo` if this transaction does not commit."""
        self._undo.append(undo)

    def undo(self) -> None:
        """Undoes, last first, what a transaction that did not commit left outside the database."""
        while self._undo:
            self._undo.pop()()


def repeatable(error: BaseException) -> bool:
    """True when the transaction surely had no effect and may simply be run again."""
    orig = getattr(error, "orig", None)
    conflict = getattr(orig, "sqlstate", None) in ("40001", "40P01")
    return isinstance(error, Repeat) or conflict or "database is locked" in str(orig)


def broken(error: BaseException) -> bool:
    """True when the database's disk or file is at fault: writing on could only harm."""
    code: Any = getattr(getattr(error, "orig", None), "sqlite_errorcode", 0)
    return code & 0xFF in _BROKEN


def translated(error: Exception) -> Exception:
    """Returns the error for the caller: a fault of the moment or of the caller's, or as it is."""
    if isinstance(error, OverflowError | sa.exc.DataError):
        message = "holds a number or a character that no column takes"
        return InvalidInput.of("request", message)
    moment = sa.exc.OperationalError | sa.exc.InterfaceError | sa.exc.TimeoutError | Repeat
    if isinstance(error, moment) or getattr(error, "connection_invalidated", False):
        return Unavailable("the database does not answer; try again")
    return error


def first_line(error: DBAPIError) -> str:
    """Returns what the database said, in one line."""
    return str(error.orig).strip().splitlines()[0]
