"""Faults for a `World`: a server that dies in the middle, and a wall clock that jumps."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from types import SimpleNamespace
from typing import Any
from unittest import mock

import sqlalchemy as sa

from tests.service.world import World

TICK = 2**-10  # of the wall clock, between two transactions [s]


class Crash(Exception):
    """The server dies here."""


@contextmanager
def crash(world: World, at: int) -> Iterator[None]:
    """Dies before the `at`-th statement of the writes inside, or, with 0, before a commit."""
    left = at

    def statement(*_: Any) -> None:
        nonlocal left
        left -= 1
        if left == 0:
            raise Crash

    def commit(_: Any) -> None:
        raise Crash

    name, listener = ("before_cursor_execute", statement) if at else ("commit", commit)
    sa.event.listen(world.db.writer, name, listener)
    try:
        yield
    finally:
        sa.event.remove(world.db.writer, name, listener)


class Wall:
    """A wall clock that moves as it is told, and a little with every transaction."""

    def __init__(self, world: World) -> None:
        self.now = self.ticked = 2.0**30
        world.change("clock", {}, t=0.0, wall=self.now)
        self._patch = mock.patch("service.store.tx.time", SimpleNamespace(time=self._read))
        self._patch.start()

    def _read(self) -> float:
        self.now += TICK
        return self.now

    def stop(self) -> None:
        self._patch.stop()


def everything(world: World, *but: str) -> dict[str, list[Any]]:
    """Returns the content of every table, ours and Optuna's."""

    def read(conn: sa.Connection) -> dict[str, list[Any]]:
        names = set(sa.inspect(conn).get_table_names()) - set(but)
        return {
            name: sorted(map(repr, conn.exec_driver_sql(f"SELECT * FROM {name}")))  # noqa: S608
            for name in sorted(names)
        }

    return world.db.read(read)
