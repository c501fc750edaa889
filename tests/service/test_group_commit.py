"""Group commit: many writes share a transaction, and none of them notices the others."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from contextlib import contextmanager
from typing import Any

import pytest
import sqlalchemy as sa

from service.store import commits, tokens, writers
from service.store.database import Repeat, Tx
from service.store.driver import driver
from studies.errors import Conflict, Unavailable
from tests.service.world import World, items


@pytest.fixture(autouse=True)
def _patient(monkeypatch: pytest.MonkeyPatch) -> None:
    """However slow the machine, what waits fits into one group."""
    monkeypatch.setattr(commits, "GROUP_SECONDS", 60.0)


def keys(world: World) -> list[str]:
    return [row.hash for row in world.rows("tokens")]


def add(name: str) -> Callable[[Tx], str]:
    def work(tx: Tx) -> str:
        tokens.add(tx, name, "token", None)
        return name

    return work


@contextmanager
def held_up(world: World) -> Iterator[list[Future[Any]]]:
    """The writer is busy meanwhile: what is submitted inside joins its transaction."""
    busy, go_on = threading.Event(), threading.Event()

    def occupy(_: Tx) -> None:
        busy.set()
        assert go_on.wait(30)

    first = world.db.submit(occupy)
    assert busy.wait(30)
    waiting: list[Future[Any]] = [first]
    yield waiting
    go_on.set()
    for future in waiting:
        future.exception(30)


@pytest.fixture
def transactions(small_world: World) -> list[str]:
    """Every BEGIN, COMMIT and ROLLBACK of the writer."""
    seen: list[str] = []
    for event in ("begin", "commit", "rollback"):
        sa.event.listen(small_world.db.writer, event, lambda _, event=event: seen.append(event))
    return seen


def test_what_waits_shares_a_transaction_in_order(small_world: World, transactions) -> None:
    with held_up(small_world) as waiting:
        waiting += [small_world.db.submit(add(f"{n:02}")) for n in range(20)]
    assert [future.result() for future in waiting[1:]] == [f"{n:02}" for n in range(20)]
    assert transactions == ["begin", "commit"]
    assert keys(small_world) == [f"{n:02}" for n in range(20)]


def test_a_write_that_is_refused_harms_nobody_else(small_world: World) -> None:
    undone: list[str] = []

    def refused(tx: Tx) -> None:
        add("refused")(tx)
        tx.on_rollback(lambda: undone.append("refused"))
        raise Conflict("no")

    def wrong(tx: Tx) -> None:
        add("wrong")(tx)
        tx.conn.execute(sa.text("SELECT nothing FROM nowhere"))

    def twice(tx: Tx) -> None:
        tx.conn.exec_driver_sql("INSERT INTO lmtune_clock VALUES (1, 0, 0)")

    db = small_world.db
    with held_up(small_world) as waiting:
        waiting += [db.submit(w) for w in (add("a"), refused, add("b"), wrong, twice, add("c"))]
    errors = [type(future.exception()).__name__ for future in waiting[1:]]
    assert errors == [
        "NoneType",
        "Conflict",
        "NoneType",
        "Unavailable",
        "IntegrityError",
        "NoneType",
    ]
    assert keys(small_world) == ["a", "b", "c"]
    assert undone == ["refused"]


def test_a_write_in_a_group_may_ask_to_be_run_again(small_world: World) -> None:
    calls: list[int] = []

    def work(tx: Tx) -> None:
        calls.append(1)
        add(f"try {len(calls)}")(tx)
        if len(calls) < 3:
            raise Repeat("what it built on has changed")

    with held_up(small_world) as waiting:
        waiting += [small_world.db.submit(w) for w in (add("a"), work, add("b"))]
    assert keys(small_world) == ["a", "b", "try 3"]


def test_a_commit_that_fails_fails_them_all_and_leaves_nothing(small_world: World) -> None:
    """A full disk: SQLite's own limit of pages, which it reports as it does a full disk."""
    undone: list[int] = []
    acted: list[int] = []
    path = small_world.db.url.database

    def big(number: int) -> Callable[[Tx], None]:
        def work(tx: Tx) -> None:
            tx.on_rollback(lambda: undone.append(number))
            tx.on_commit(lambda: acted.append(number))
            tokens.add(tx, f"{number}" + "x" * 20_000, "token", None)

        return work

    def refused(tx: Tx) -> None:
        raise Conflict("because of what one before me wrote")

    db = small_world.db
    pages = db.write(lambda tx: tx.conn.exec_driver_sql("PRAGMA page_count").scalar())
    db.write(lambda tx: tx.conn.exec_driver_sql(f"PRAGMA max_page_count = {pages + 35}"))
    with held_up(small_world) as waiting:
        waiting += [db.submit(work) for work in (add("small"), refused, *map(big, range(4)))]
    assert {type(future.exception()) for future in waiting[1:]} == {Unavailable}
    assert (keys(small_world), acted) == ([], [])
    assert undone == [3, 2, 1, 0]
    # room again: it goes on without a restart
    db.write(lambda tx: tx.conn.exec_driver_sql(f"PRAGMA max_page_count = {pages + 999}"))
    db.write(big(10))
    assert acted == [10]
    with driver.connect(path) as other:
        assert other.execute("PRAGMA integrity_check").fetchall() == [("ok",)]
    other.close()


def test_nobody_is_answered_before_the_commit(small_world: World) -> None:
    """While a commit is held up no future ends, and nobody else sees the write."""
    db, committing, go_on = small_world.db, threading.Event(), threading.Event()

    def hold_up(_: sa.Connection) -> None:
        committing.set()
        go_on.wait(30)

    sa.event.listen(db.writer, "commit", hold_up)
    future = db.submit(add("a"))
    assert committing.wait(30)
    assert not future.done()
    assert keys(small_world) == []
    go_on.set()
    assert future.result(30) == "a"
    assert keys(small_world) == ["a"]


def test_a_database_that_stays_locked_fails_the_group_and_recovers(small_world: World) -> None:
    db = small_world.db
    db.write(lambda tx: tx.conn.exec_driver_sql("PRAGMA busy_timeout = 50"))
    with driver.connect(db.url.database) as foreign:
        foreign.execute("BEGIN IMMEDIATE")
        with pytest.raises(Unavailable):
            db.write(add("a"))
    foreign.close()
    db.write(add("b"))
    assert keys(small_world) == ["b"]


def test_a_long_queue_refuses_more(small_world: World, monkeypatch) -> None:
    monkeypatch.setattr(writers, "QUEUE", 3)
    with held_up(small_world) as waiting:
        waiting += [small_world.db.submit(add(name)) for name in "abc"]
        with pytest.raises(Unavailable, match="wait already"):
            small_world.db.submit(add("d"))
    assert keys(small_world) == ["a", "b", "c"]


def test_a_write_that_waited_too_long_is_not_run(small_world: World, monkeypatch) -> None:
    with held_up(small_world) as waiting:
        waiting.append(small_world.db.submit(add("late")))
        monkeypatch.setattr(commits, "WAIT_SECONDS", -1.0)
    monkeypatch.undo()
    assert isinstance(waiting[1].exception(), Unavailable)
    assert keys(small_world) == []


def test_a_group_ends_after_a_while(small_world: World, transactions, monkeypatch) -> None:
    monkeypatch.setattr(commits, "GROUP_SECONDS", 0.0)
    with held_up(small_world) as waiting:
        waiting += [small_world.db.submit(add(name)) for name in "abc"]
    assert transactions.count("commit") == 4


def test_an_event_loop_gets_its_results_in_its_own_thread(small_world: World) -> None:
    threads: list[int] = []

    async def one(name: str) -> str:
        got = await small_world.db.asubmit(add(name))
        threads.append(threading.get_ident())
        return got

    async def all_of_them() -> list[Any]:
        gone = asyncio.ensure_future(one("gone"))
        await asyncio.sleep(0)
        gone.cancel()  # its caller hangs up: the write happens all the same
        return await asyncio.gather(*(one(name) for name in "abc"))

    assert asyncio.run(all_of_them()) == ["a", "b", "c"]
    assert set(threads) == {threading.get_ident()}
    assert keys(small_world) == ["a", "b", "c", "gone"]


def test_after_the_end_no_write_is_taken(small_world: World) -> None:
    with held_up(small_world) as waiting:
        waiting.append(small_world.db.submit(add("a")))
        closing = threading.Thread(target=small_world.db.close)
        closing.start()
    closing.join()
    assert waiting[1].result() == "a"
    with pytest.raises(Unavailable, match="going down"):
        small_world.db.submit(add("b"))


def test_an_id_whose_making_failed_is_looked_up_anew(small_world: World) -> None:
    """SQLite gives the id of a trial that did not commit again, here to one of another study."""
    world = small_world
    world.open("one", budget={"trials": 5})
    held = world.worker().claim()
    world.forgetful()  # a grant is remembered

    def report_and_fail(tx: Tx) -> None:
        world.ctx.studies.of_trial(tx, held.grant.trial_id)
        raise Conflict("the transaction comes to nothing")

    with pytest.raises(Conflict):
        world.db.write(report_and_fail)
    world.open("two", objective={"metric": "train_loss"}, budget={"trials": 5})
    two = world.study("two").id
    world.change("trials", {"id": held.grant.trial_id}, study_id=two)
    looked_up = world.db.write(lambda tx: world.ctx.studies.of_trial(tx, held.grant.trial_id)[0])
    assert looked_up == two


def test_reports_of_a_group_see_each_other(small_world: World) -> None:
    """The second report of a step is a duplicate though the first is not yet committed."""
    world = small_world
    world.open()
    held = world.worker().claim()
    from service.dispatch import report
    from studies.wire import ReportBody

    body = ReportBody(items=items((10, 1.0)))
    with held_up(world) as waiting:
        waiting += [
            world.db.submit(lambda tx: report.record_report(tx, world.ctx, held.key, body))
            for _ in range(3)
        ]
    assert [future.result().duplicate for future in waiting[1:]] == [False, True, True]
    assert len(world.rows("reports")) == 1
