"""How a worker waits for a server that does not answer: full jitter, and an end of patience."""

from __future__ import annotations

import logging
import random
import threading
import time
from collections.abc import Callable
from typing import Final, TypeVar

from studies.errors import LmtuneError, ServerFailed, ServerUnreachable, Unavailable

logger = logging.getLogger(__name__)
ResultT = TypeVar("ResultT")
FIRST_SECONDS: Final = 1.0  # longest first wait, doubled at each try
LONGEST_SECONDS: Final = 60.0
LEASES: Final = 30  # of silence, then the worker gives up
FAILING_LEASES: Final = 2  # of a server that fails at one call of an attempt, then that failed


class GaveUp(Exception):
    """The server has not answered for too long."""


class Patience:
    """Repeats a call while the server does not answer; used by one worker.

    Source: "full jitter", AWS Architecture Blog, Exponential Backoff and Jitter (2015).
    """

    def __init__(self, lease: float) -> None:
        """`lease` [s] scales the waits."""
        self.lease = lease
        self._hurried = False
        self._again = threading.Event()

    def call(self, what: Callable[[], ResultT], failing: int = LEASES) -> ResultT:
        """Returns the call's result.

        Args:
            what: sent again while the server is away, busy or failing.
            failing: how long it may fail [leases].

        Raises:
            GaveUp: nobody answered for too long.
            ServerFailed: the server answered, and failed at this call again and again.
        """
        start, longest = time.monotonic(), min(FIRST_SECONDS, self.lease / 8)
        while True:
            self._again.clear()
            try:
                return what()
            except (ServerUnreachable, Unavailable, ServerFailed) as error:
                failed = isinstance(error, ServerFailed)
                leases = 1 if self._hurried else failing if failed else LEASES
                if time.monotonic() - start > self.lease * leases:
                    if failed:
                        raise
                    raise GaveUp(str(error)) from error
                self._wait(error, random.uniform(0, longest))  # noqa: S311 - not a secret
                longest = min(2 * longest, LONGEST_SECONDS, self.lease)

    def retry(self) -> None:
        """Has a call that waits try again now: the server was heard. From any thread."""
        self._again.set()

    def hurry(self) -> None:
        """From now on patience ends after one lease. From any thread."""
        self._hurried = True
        self._again.set()

    def _wait(self, error: LmtuneError, jitter: float) -> None:
        """Waits what the server asks for, at least, and then the jitter unless it is heard."""
        asked = error.retry_after if isinstance(error, Unavailable) else 0.0
        asked = min(asked, LONGEST_SECONDS)
        logger.warning("%s; again in %.1f s", error, asked + jitter)
        time.sleep(asked)
        self._again.wait(jitter)
