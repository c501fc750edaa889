"""Reports and heartbeats of many trials as two statements each, on PostgreSQL.

A call of the database costs a busy server more than what the database does in it: each waits for a
turn of the interpreter's lock (docs/decisions/0009-the-write-path.md). What one statement does for
many trials it does for each as the statements of fence.py and reports.py do for one.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Final

import sqlalchemy as sa
from sqlalchemy.dialects.postgresql import ARRAY

from service.store import tables
from service.store.database import Tx
from service.store.fence import advanced, held
from service.store.prepared import Prepared
from service.store.workers import beaten
from studies.trial import Desired

_Id: Final = tables.trials.c.id.type
_SAID: Final[dict[str, Any]] = {
    "of_trial": _Id,
    "of_attempt": sa.Integer(),
    "of_hash": sa.String(),
    "granted": sa.Float(),
    "at_step": sa.Integer(),
}
_ADVANCED: Final[dict[str, Any]] = _SAID | {"of_study": _Id, "new_value": sa.Float()}
_KEPT: Final[dict[str, Any]] = {
    column.name: column.type for column in tables.reports.columns if not column.primary_key
}


def _rows(columns: Mapping[str, Any]) -> sa.TableValuedAlias:
    """Returns a table of these columns, each of which an array of the same name gives."""
    arrays = [sa.bindparam(name, type_=ARRAY(kind)) for name, kind in columns.items()]
    named = [sa.column(name, kind) for name, kind in columns.items()]
    return sa.func.unnest(*arrays).table_valued(*named, name="said").render_derived()


_BEAT: Final = Prepared(
    held(_rows(_SAID).c).returning(
        tables.trials.c.id, tables.trials.c.worker_id, tables.trials.c.desired
    )
)
_ADVANCE: Final = Prepared(
    advanced(_rows(_ADVANCED).c).returning(
        tables.trials.c.id, tables.trials.c.desired, tables.trials.c.max_step
    )
)
_SEEN: Final = Prepared(beaten(sa.any_(sa.bindparam("of_workers", type_=ARRAY(_Id)))))
_INSERT: Final = Prepared(tables.reports.insert().from_select(list(_KEPT), sa.select(_rows(_KEPT))))


def beat(tx: Tx, said: Sequence[Mapping[str, Any]]) -> dict[int, tuple[int, Desired]]:
    """Does as `fence.beat` for many trials; returns what it does, by trial, of those held."""
    rows = _BEAT.run(tx.conn, _arrays(_SAID, said))
    return {trial: (worker, Desired(desired)) for trial, worker, desired in rows}


def seen(tx: Tx, worker_ids: Sequence[int]) -> None:
    """Does as `workers.beat` for many workers."""
    _SEEN.run(tx.conn, {"of_workers": list(worker_ids), "at": tx.now})


def advance(tx: Tx, said: Sequence[Mapping[str, Any]]) -> dict[int, tuple[Desired, int]]:
    """Does as `fence.advance` for many trials; returns what it does, by trial, of those it moved.

    Where a trial is named twice, only one of the two is done.
    """
    rows = _ADVANCE.run(tx.conn, _arrays(_ADVANCED, said))
    return {trial: (Desired(desired), last) for trial, desired, last in rows}


def insert(tx: Tx, reports: Sequence[Mapping[str, Any]]) -> None:
    """Stores reports, each with the decision it brought about."""
    _INSERT.run(tx.conn, _arrays(_KEPT, [{**report, "superseded": False} for report in reports]))


def _arrays(names: Mapping[str, Any], rows: Sequence[Mapping[str, Any]]) -> dict[str, list[Any]]:
    return {name: [row[name] for row in rows] for name in names}
