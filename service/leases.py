"""The lease clock and its predicates: pure arithmetic, no database and no wall clock.

Leases are judged by a clock that only ticking servers move. While no server ticks (crash, freeze,
start-up) nothing expires, so a server that comes back steals nothing from workers that went on.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

TICK_SECONDS: Final = 1.0  # largest step of the lease clock
JUMP_SECONDS: Final = 5.0  # a gap of the wall clock that means we were away, or it was set


@dataclass(frozen=True)
class LeaseTimes:
    """Every time of the protocol, made of the lease [s]."""

    lease: float

    @property
    def granted(self) -> float:
        """What a write gives [s]: the row of the clock may be a tick behind, so a tick more."""
        return self.lease + TICK_SECONDS

    @property
    def heartbeat(self) -> float:
        """Between two heartbeats, before +-20 % of jitter [s]."""
        return self.lease / 4

    @property
    def drain(self) -> float:
        """What a worker asked to go may take to checkpoint and release [s]."""
        return self.lease

    @property
    def stall(self) -> float:
        """Without a new step for this long an attempt is hung [s]."""
        return 15 * self.lease


@dataclass(frozen=True)
class Clock:
    """The row that judges leases: `t` is lease time, `wall` when it was last moved [s]."""

    t: float
    wall: float


def tick(clock: Clock, wall: float) -> tuple[Clock, bool]:
    """Returns the moved clock, and whether live leases must be lifted first (we were away).

    A wall clock that is a little behind the row belongs to another server than the one that moved
    it last: nothing moves, so the row goes at the speed of the foremost clock, never faster.
    """
    gap = wall - clock.wall
    if -JUMP_SECONDS <= gap < 0:
        return clock, False
    moved = Clock(clock.t + min(max(gap, 0.0), TICK_SECONDS), wall)
    return moved, abs(gap) > JUMP_SECONDS


def expired(lease_until: float, t: float) -> bool:
    """True when a lease is over at lease time t."""
    return lease_until < t


def stalled(progress_t: float, t: float, times: LeaseTimes) -> bool:
    """True when an attempt has shown no new step for the stall time."""
    return t - progress_t > times.stall
