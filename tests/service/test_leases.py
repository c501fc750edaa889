"""The lease clock: only ticking servers move it, and being away costs no worker its trial."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from service.dispatch import sweep
from service.leases import JUMP_SECONDS, TICK_SECONDS, Clock, LeaseTimes, expired, stalled, tick
from service.store import workers
from tests.service.world import LEASE, TIMES, World

WALLS = st.floats(0, 4e9)
GAPS = st.floats(-1e6, 1e6)


@given(WALLS, st.lists(GAPS, max_size=30))
def test_the_clock_never_goes_back_and_never_outruns_its_ticks(wall, gaps) -> None:
    clock = Clock(0.0, wall)
    for gap in gaps:
        moved, _ = tick(clock, clock.wall + gap)
        assert clock.t <= moved.t <= clock.t + TICK_SECONDS
        assert moved.wall in (clock.wall, clock.wall + gap)
        clock = moved


@given(WALLS, st.floats(0, TICK_SECONDS))
def test_while_a_server_ticks_lease_time_is_wall_time(wall, gap) -> None:
    moved, away = tick(Clock(5.0, wall), wall + gap)
    assert moved.t - 5.0 == pytest.approx(gap, abs=1e-5)
    assert not away


@given(WALLS, GAPS)
def test_a_jump_forward_or_back_lifts_leases(wall, gap) -> None:
    moved, away = tick(Clock(5.0, wall), wall + gap)
    seen = (wall + gap) - wall  # as the clock can tell, in floating point
    assert away == (abs(seen) > JUMP_SECONDS)
    if seen < 0:
        assert moved.t == 5.0


@given(
    st.lists(st.floats(-0.7 * JUMP_SECONDS, 0), min_size=1, max_size=5),
    st.lists(st.tuples(st.integers(0, 4), st.floats(0, TICK_SECONDS)), min_size=1, max_size=60),
)
def test_servers_whose_clocks_differ_move_it_at_the_speed_of_one(offsets, ticks) -> None:
    """Neither faster, which steals, nor with leases lifted again and again, which never steals."""
    now, clock = 1_000.0, Clock(0.0, 1_000.0 + max(offsets))
    for server, later in ticks:
        now += later
        clock, away = tick(clock, now + offsets[server % len(offsets)])
        assert not away
        assert clock.t <= now - 1_000.0 + 1e-6


def test_of_two_servers_one_behind_the_other_leases_still_end() -> None:
    clock = Clock(0.0, 100.0)
    for second in range(1, 61):
        clock, _ = tick(clock, 100.0 + second)
        clock, away = tick(clock, 100.0 + second + 0.5 - 2.0)  # two seconds behind
        assert not away
    assert clock.t == pytest.approx(60.0)


@given(st.lists(st.floats(0, 2 * TICK_SECONDS), min_size=2, max_size=60))
def test_a_write_just_before_a_tick_has_its_lease_in_full(gaps) -> None:
    """The row that the write reads is from the tick before, of whichever server."""
    now, clock, wrote = 1_000.0, Clock(0.0, 1_000.0), []
    for gap in gaps:
        now += gap
        wrote.append((now, clock.t + TIMES.granted))
        clock, _ = tick(clock, now)
        for then, until in wrote:
            assert not expired(until, clock.t) or now - then > TIMES.lease - 1e-6


def test_a_lease_is_over_after_its_end_only() -> None:
    assert not expired(10.0, 10.0)
    assert expired(10.0, 10.001)
    assert not stalled(0.0, 30.0, LeaseTimes(2))
    assert stalled(0.0, 30.1, LeaseTimes(2))


def test_every_time_follows_the_lease() -> None:
    times = LeaseTimes(60)
    assert (times.heartbeat, times.drain, times.stall) == (15, 60, 900)


# ------------------------------------------------------------------ on a database


def tick_at(world: World, after: float) -> float:
    """One tick, `after` seconds of wall time after the last; returns lease time."""

    def work(tx):
        tx.now = workers.read_clock(tx.conn).wall + after
        sweep.tick(tx, world.ctx)
        return workers.read_clock(tx.conn).t

    return world.db.write(work)


def test_ticks_move_the_row(world: World) -> None:
    assert [tick_at(world, after) for after in (0.5, 1.0, 3.0)] == pytest.approx([0.5, 1.5, 2.5])


WRITES = {
    "heartbeat": lambda held: held.heartbeat(1),
    "heartbeat with its environment": lambda held: held.heartbeat(1, torch="2"),
    "plain report": lambda held: held.report((10, 1.0)),
    "reports together": lambda held: held.report((10, 1.0), (20, 1.0)),
    "checkpoint": lambda held: held.checkpoint(5, last=0),
    "log": lambda held: held.log("said"),
}


@pytest.mark.parametrize("write", WRITES.values(), ids=list(WRITES))
def test_every_write_gives_a_lease_and_a_tick(small_world: World, write) -> None:
    small_world.open()
    held = small_world.worker().claim()
    assert small_world.trial().lease_until_t == pytest.approx(TIMES.lease + TICK_SECONDS)
    small_world.advance(0.5)
    write(held)
    assert small_world.trial().lease_until_t == pytest.approx(0.5 + TIMES.lease + TICK_SECONDS)


@pytest.mark.parametrize("away", [JUMP_SECONDS + 1, 3_600.0, -JUMP_SECONDS - 1, -3_600.0])
def test_a_server_that_was_away_gives_live_leases_their_full_length_again(world, away) -> None:
    world.open()
    world.worker().claim()
    world.advance(LEASE * 0.9)
    t = tick_at(world, away)
    assert world.trial().lease_until_t == pytest.approx(t + LEASE)


def test_a_lease_that_was_over_before_stays_over(world: World) -> None:
    world.open()
    world.worker().claim()
    until = world.trial().lease_until_t
    world.advance(LEASE * 1.1)
    tick_at(world, 3_600.0)
    assert world.trial().lease_until_t == until


def test_a_longer_lease_is_not_shortened(small_world: World) -> None:
    small_world.open()
    small_world.worker().claim()
    small_world.change("trials", {"number": 0}, lease_until_t=500.0)
    tick_at(small_world, 3_600.0)
    assert small_world.trial().lease_until_t == 500.0


def test_while_no_server_ticks_nothing_expires(world: World) -> None:
    world.open(budget={"trials": 1})
    worker = world.worker()
    worker.claim()
    server = world.restarted()  # hours later, as far as the wall is concerned
    tick_at(server, 7 * 3_600.0)
    server.sweep()
    assert worker.claim() is None
    assert server.trial().attempt == 1


def test_small_late_ticks_still_expire_a_lease(small_world: World) -> None:
    """A server that ticks every four seconds moves lease time by one second each."""
    small_world.open(budget={"trials": 1})
    worker = small_world.worker()
    worker.claim()
    for _ in range(3):
        tick_at(small_world, 4.0)
    assert worker.claim().grant.attempt == 2
