"""What the first reader would wait for, made ready while a server starts.

A view of 10,000 trials takes a second, and so do plotly's file and its first figure together
(measured); a page that is ready takes the browser no longer than any later visit.
"""

from __future__ import annotations

import logging
import threading
from typing import Final

from service.dispatch.reading import Reading
from service.routes import assets, plots
from studies.errors import LmtuneError
from studies.trial import StudyState

logger = logging.getLogger(__name__)
_STUDIES: Final = 3  # the newest that go on, or have ended last; assumption: who looks, looks there
_LATER: Final = 0.5  # workers that come back after a restart are served first [s]


class Warmer:
    """A thread that begins with a server and ends with its work, or as soon as it is stopped."""

    def __init__(self, read: Reading) -> None:
        self._read = read
        self._stopped = threading.Event()
        self._thread = threading.Thread(target=self._run, name="warmer", daemon=True)

    def start(self) -> None:
        """Begins."""
        self._thread.start()

    def stop(self) -> None:
        """Ends after the figure it is at."""
        self._stopped.set()
        self._thread.join()

    def _run(self) -> None:
        if self._stopped.wait(_LATER):
            return
        try:
            views = self._read.studies(False, None, 20).items
            views.sort(key=lambda view: view.state is StudyState.ENDED)
            if views:
                assets.prepare()
            for view in views[:_STUDIES]:
                if not self._stopped.is_set():
                    plots.warm(self._read, view.name)
        except LmtuneError as error:  # the database is busy: the first reader waits, no more
            logger.info("pages are not made ready: %s", error)
