"""One transaction, and what an error of the database means for whoever wrote in it."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any, Final

import sqlalchemy as sa
from sqlalchemy.exc import DBAPIError

from service.store import tables
from studies.errors import InvalidInput, LmtuneError, Unavailable

_T: Final = sa.select(tables.clock.c.t)
_BROKEN: Final = frozenset({10, 11, 26})  # SQLITE_IOERR, SQLITE_CORRUPT, SQLITE_NOTADB


class Repeat(Exception):
    """Raised by a write that is to be undone and run again: what it built on has changed."""


class Tx:
    """One transaction: its connection, the time, and what to undo outside the database."""

    def __init__(self, conn: sa.Connection) -> None:
        self.conn = conn
        self.now = time.time()  # [s since 1970]
        self._act: list[Callable[[], object]] = []
        self._undo: list[Callable[[], object]] = []
        self._t: float | None = None

    @property
    def t(self) -> float:
        """Lease time [s], read once per transaction."""
        if self._t is None:
            self._t = float(self.conn.execute(_T).scalar_one())
        return self._t

    def on_rollback(self, undo: Callable[[], object]) -> None:
        """Calls `undo` if this transaction does not commit."""
        self._undo.append(undo)

    def on_commit(self, act: Callable[[], object]) -> None:
        """Calls `act` once this transaction has committed, before the caller is answered."""
        self._act.append(act)

    def committed(self) -> None:
        """Does what was to be done after the commit."""
        for act in self._act:
            act()

    def undo(self) -> None:
        """Undoes, last first, what a transaction that did not commit left outside the database."""
        while self._undo:
            self._undo.pop()()


def conflicting(error: BaseException) -> bool:
    """True when another transaction was in the way of this one, which had no effect."""
    orig = said(error)
    return getattr(orig, "sqlstate", None) in ("40001", "40P01") or "is locked" in str(orig)


def repeatable(error: BaseException) -> bool:
    """True when a transaction that was not yet committing may simply be run again."""
    lost = getattr(_wrapped(error), "connection_invalidated", False)
    return isinstance(error, Repeat) or lost or conflicting(error)


def broken(error: BaseException) -> bool:
    """True when the database's disk or file is at fault: writing on could only harm."""
    return getattr(said(error), "sqlite_errorcode", 0) & 0xFF in _BROKEN


def translated(error: BaseException) -> BaseException:
    """Returns the error for the caller: a fault of the moment or of the caller's, or as it is."""
    wrapped = _wrapped(error)
    if isinstance(wrapped, OverflowError | sa.exc.DataError):
        message = "holds a number or a character that no column takes"
        return InvalidInput.of("request", message)
    moment = sa.exc.OperationalError | sa.exc.InterfaceError | sa.exc.TimeoutError | Repeat
    if isinstance(wrapped, moment) or getattr(wrapped, "connection_invalidated", False):
        return Unavailable("the database does not answer; try again")
    return error


def _wrapped(error: BaseException) -> BaseException:
    """Returns SQLAlchemy's error where Optuna has put one of its own around it.

    One that we have put around it says all that is to be said.
    """
    inner: BaseException | None = error
    while inner is not None and not isinstance(inner, DBAPIError):
        inner = None if isinstance(inner, LmtuneError) else inner.__cause__
    return error if inner is None else inner


def said(error: BaseException) -> Any:
    """Returns the driver's own error."""
    wrapped = _wrapped(error)
    return wrapped.orig if isinstance(wrapped, DBAPIError) else wrapped


def first_line(error: DBAPIError) -> str:
    """Returns what the database said, in one line."""
    return str(error.orig).strip().splitlines()[0]
