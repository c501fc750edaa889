"""What a study asks of workers, held against those that are there."""

from __future__ import annotations

from functools import cached_property
from typing import Any

from service.dispatch.context import Context
from service.store import workers
from service.store.database import Connection
from studies.spec import StudySpec


class Fleet:
    """The workers that are there, read once for all studies of a transaction."""

    def __init__(self, conn: Connection, ctx: Context) -> None:
        self._conn, self._ctx = conn, ctx

    def lacking(self, spec: StudySpec) -> str | None:
        """Returns what not one of them has, in words; None: one has all, or none is there."""
        lacks = [spec.lacking(resources) for resources in self._kinds]
        return None if None in lacks else next(iter(lacks), None)

    @cached_property
    def _kinds(self) -> list[dict[str, Any]]:
        return workers.kinds(self._conn, heard_since(self._conn, self._ctx))


def heard_since(conn: Connection, ctx: Context) -> float:
    """Returns the lease time before which a worker that was heard of last is lost."""
    return workers.read_clock(conn).t - ctx.lease.granted
