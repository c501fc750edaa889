"""The heart of an attempt: a thread that renews its lease and hears what the server wants."""

from __future__ import annotations

import logging
import random
import threading
import time
from typing import Final, Protocol

from studies.client import Attempt
from studies.errors import (
    Cancelled,
    Finished,
    LmtuneError,
    NotFound,
    Paused,
    Stopped,
    Superseded,
    Unavailable,
)
from studies.trial import Decision

logger = logging.getLogger(__name__)
FENCED: Final = (Superseded, Finished, Stopped, Cancelled, Paused, NotFound)
_JITTER: Final = (0.8, 1.2)  # of the time between heartbeats, see protocol


class Attended(Protocol):
    """The attempt as its heart sees it; called from the heart's thread."""

    @property
    def step(self) -> int:
        """The last step that is known to be done."""

    def obey(self, decision: Decision) -> None:
        """The server has said what it wants of the trial."""

    def drop(self, error: LmtuneError) -> None:
        """The server has refused us: the trial is another's, or over."""

    def heard(self) -> None:
        """The server answers again after a silence."""


class Heart:
    """Beats from a thread of its own, for as long as the attempt lasts.

    A lease that has run out by our clock ends nothing: expiry lets another worker take the trial,
    and until one does it is ours. So the attempt goes on until it is refused.
    """

    def __init__(self, calls: Attempt, run: Attended) -> None:
        self._calls, self._run = calls, run
        self._lease = calls.grant.lease_ms / 1_000
        self._renewed = time.monotonic()  # before the send of the last heartbeat that was answered
        self._silent = self._over = False
        self._stopped = threading.Event()
        self._thread = threading.Thread(target=self._live, name="heart", daemon=True)

    def __enter__(self) -> Heart:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        """Stops it; a heartbeat that is under way is not waited for, and changes nothing now."""
        self._stopped.set()

    def _live(self) -> None:
        pause = self._calls.grant.heartbeat_ms / 1_000
        asked = 0.0  # by the server: at least so long until the next
        while not self._stopped.wait(max(pause * random.uniform(*_JITTER), asked)):  # noqa: S311
            asked = min(self._beat(), self._lease / 2)

    def _beat(self) -> float:
        """Sends one heartbeat; returns how long the server asks us to wait [s]."""
        sent = time.monotonic()
        try:
            decision = self._calls.heartbeat(self._run.step).decision
        except FENCED as error:
            if not self._stopped.is_set():
                self._run.drop(error)
            self._stopped.set()
        except LmtuneError as error:
            self._missed(error)
            return error.retry_after if isinstance(error, Unavailable) else 0.0
        else:
            self._answered(decision, sent)
        return 0.0

    def _answered(self, decision: Decision, sent: float) -> None:
        if self._silent:
            logger.info("the server answers again")
            self._run.heard()
        self._renewed, self._silent, self._over = sent, False, False
        if not self._stopped.is_set():
            self._run.obey(decision)

    def _missed(self, error: LmtuneError) -> None:
        if not self._silent:
            logger.warning("a heartbeat failed, training goes on: %s", error)
        self._silent = True
        if not self._over and time.monotonic() - self._renewed > self._lease:
            logger.warning("the lease is over: another worker may take the trial; training goes on")
            self._over = True
