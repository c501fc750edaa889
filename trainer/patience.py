"""How a worker waits for a server that does not answer: full jitter, and an end of patience."""

from __future__ import annotations

import logging
import random
import threading
import time
from collections.abc import Callable
from typing import Final, TypeVar

from studies.errors import ServerUnreachable, Unavailable

logger = logging.getLogger(__name__)
ResultT = TypeVar("ResultT")
FIRST_SECONDS: Final = 1.0  # longest first wait, doubled at each try
LONGEST_SECONDS: Final = 60.0
LEASES: Final = 30  # of silence, then the worker gives up


class GaveUp(Exception):
    """The server has not answered for too long."""


class Patience:
    """Repeats a call while the server does not answer; used by one worker.

    Source: "full jitter", AWS Architecture Blog, Exponential Backoff and Jitter (2015).
    """

    def __init__(self, lease: float, hurry: threading.Event) -> None:
        """`lease` [s] scales the waits; while `hurry` is set, patience ends after one lease."""
        self.lease = lease
        self._hurry = hurry

    def call(self, what: Callable[[], ResultT]) -> ResultT:
        """Returns the call's result; raises GaveUp when nobody answered for too long."""
        start, longest = time.monotonic(), min(FIRST_SECONDS, self.lease / 8)
        while True:
            try:
                return what()
            except (ServerUnreachable, Unavailable) as error:
                patience = self.lease * (1 if self._hurry.is_set() else LEASES)
                if time.monotonic() - start > patience:
                    raise GaveUp(str(error)) from error
                wait = random.uniform(0, longest)  # noqa: S311 - not a secret
                logger.warning("%s; again in %.1f s", error, wait)
                time.sleep(wait)
                longest = min(2 * longest, LONGEST_SECONDS, self.lease)
