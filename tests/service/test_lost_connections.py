"""PostgreSQL that goes away: nothing is done twice, nobody sees a defect, and all goes on after."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import sqlalchemy as sa

from service.store import tokens
from service.store.database import Database, Tx
from service.store.optuna_rows import BoundStorage
from studies.errors import Unavailable
from tests.service.world import World

pytestmark = pytest.mark.postgres
PID = sa.text("SELECT pg_backend_pid()")
KILL = sa.text("SELECT pg_terminate_backend(:pid, 30000)")  # returns once it is gone


@pytest.fixture
def world(postgres_url: str) -> Iterator[World]:
    made = World(Database(postgres_url))
    yield made
    made.close()


def kill(world: World, pid: int) -> None:
    """Ends a backend from a connection of another's own, as an administrator would."""
    engine = sa.create_engine(world.url)
    with engine.begin() as conn:
        assert conn.execute(KILL, {"pid": pid}).scalar_one()
    engine.dispose()


def keys(world: World) -> list[str]:
    return [row.hash for row in world.rows("tokens")]


def test_a_backend_killed_in_a_write_has_it_run_again(world: World) -> None:
    calls: list[int] = []

    def work(tx: Tx) -> None:
        calls.append(1)
        tokens.add(tx, f"try {len(calls)}", "token", None)
        if len(calls) == 1:
            kill(world, tx.conn.execute(PID).scalar_one())
            tokens.add(tx, "never", "token", None)

    world.db.write(work)
    assert keys(world) == ["try 2"]


def test_a_backend_killed_in_the_commit_leaves_it_to_the_caller(world: World) -> None:
    """Nobody knows what became of it: it is not run again, and the caller asks again."""
    calls: list[int] = []

    def work(tx: Tx) -> None:
        calls.append(1)
        tokens.add(tx, "a", "token", None)
        if len(calls) == 1:
            kill(world, tx.conn.execute(PID).scalar_one())

    with pytest.raises(Unavailable):
        world.db.write(work)
    assert len(calls) == 1
    world.db.write(work)
    assert keys(world) == ["a"]


def test_a_backend_killed_under_optunas_rows_is_no_defect(world: World) -> None:
    """Optuna puts an error of its own around the database's."""
    world.open()
    held = world.worker().claim()
    held.train()
    killed: list[int] = []

    def work(tx: Tx) -> None:
        if not killed:
            killed.append(tx.conn.execute(PID).scalar_one())
            kill(world, killed[0])
        BoundStorage(tx.conn).get_all_trials(world_study_id, deepcopy=False)

    world_study_id = world.study().optuna_id
    world.db.write(work)
    assert len(killed) == 1


def test_after_every_backend_was_killed_all_goes_on(world: World) -> None:
    for name in "abcdef":
        world.db.write(lambda tx, name=name: tokens.add(tx, name, "token", None))
    everyone = sa.text(
        "SELECT count(pg_terminate_backend(pid)) FROM pg_stat_activity"
        " WHERE datname = current_database() AND pid <> pg_backend_pid()"
    )
    engine = sa.create_engine(world.url)
    with engine.begin() as conn:
        assert conn.execute(everyone).scalar_one() >= 1
    engine.dispose()
    assert keys(world) == list("abcdef")
    world.db.write(lambda tx: tokens.add(tx, "g", "token", None))
    assert keys(world) == list("abcdefg")
