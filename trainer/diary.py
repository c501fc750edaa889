"""The log of one attempt, for people: collected here, sent to the server now and then."""

from __future__ import annotations

import logging
import threading
import time
from typing import Final

from studies.client import Attempt
from studies.errors import LmtuneError
from studies.wire import MAX_LOG_BYTES

EVERY_SECONDS: Final = 10.0  # at least so long between two sendings, the last apart
_FORMAT: Final = "%(asctime)s %(levelname)s %(message)s"


class Diary(logging.Handler):
    """Keeps what this worker logs while the attempt lasts, its child's lines too.

    Best effort: nothing waits for it, and what the server does not take is dropped once it is
    more than one call may carry.
    """

    def __init__(self, calls: Attempt) -> None:
        super().__init__(logging.INFO)
        self.setFormatter(logging.Formatter(_FORMAT))
        self._calls = calls
        self._text = ""
        self._changing = threading.RLock()
        self._sent = time.monotonic()

    def __enter__(self) -> Diary:
        logging.getLogger("trainer").addHandler(self)
        return self

    def __exit__(self, *_: object) -> None:
        logging.getLogger("trainer").removeHandler(self)

    def emit(self, record: logging.LogRecord) -> None:
        """Adds a record."""
        self.write(self.format(record))

    def write(self, line: str) -> None:
        """Adds a line; from any thread."""
        with self._changing:
            self._text = (self._text + line + "\n")[-MAX_LOG_BYTES:]

    def send_at_times(self) -> None:
        """Sends what there is unless it did so just now."""
        if time.monotonic() - self._sent > EVERY_SECONDS:
            self.send()

    def send(self) -> None:
        """Sends what there is, once."""
        with self._changing:
            text, self._text = self._text, ""
        self._sent = time.monotonic()
        if not text:
            return
        try:
            self._calls.log(text)
        except LmtuneError:
            with self._changing:
                self._text = (text + self._text)[-MAX_LOG_BYTES:]
