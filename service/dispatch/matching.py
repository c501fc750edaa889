"""What a study asks of workers, held against those that are there."""

from __future__ import annotations

from service.dispatch.context import Context
from service.store import workers
from service.store.database import Connection
from studies.spec import StudySpec


def lacking(conn: Connection, ctx: Context, spec: StudySpec) -> str | None:
    """Returns what not one worker that is there has, in words; None: one has all, or none is."""
    since = workers.read_clock(conn).t - ctx.lease.granted
    lacks = [spec.lacking(resources) for resources in workers.kinds(conn, since)]
    return None if None in lacks else next(iter(lacks), None)
