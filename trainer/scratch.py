"""A worker's own folder: checkpoints and reports on their way, gone with the worker."""

from __future__ import annotations

import fcntl
import logging
import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

logger = logging.getLogger(__name__)


class Scratch:
    """A folder of this life, locked while it lasts.

    Folders of lives that were killed are removed by the next worker on the same home: a restarted
    worker is a new one, and uses nothing of theirs.
    """

    def __init__(self, root: Path) -> None:
        """Raises OSError where nothing can be written."""
        root.mkdir(parents=True, exist_ok=True)
        with _locked(root):  # nobody clears away a folder between its making and its lock
            for old in root.iterdir():
                _remove_if_dead(old)
            self._folder = Path(tempfile.mkdtemp(prefix=f"{os.getpid()}-", dir=root.absolute()))
            self._lock = _lock(self._folder, fcntl.LOCK_EX)

    @contextmanager
    def attempt(self) -> Iterator[Path]:
        """Gives an empty folder, which is removed afterwards."""
        with tempfile.TemporaryDirectory(dir=self._folder, ignore_cleanup_errors=True) as folder:
            yield Path(folder)

    def close(self) -> None:
        """Removes the folder."""
        shutil.rmtree(self._folder, ignore_errors=True)
        os.close(self._lock)


def _lock(folder: Path, how: int) -> int:
    """Returns a descriptor whose end is the lock's end; raises BlockingIOError under LOCK_NB."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        fcntl.flock(descriptor, how)
    except OSError:
        os.close(descriptor)
        raise
    return descriptor


@contextmanager
def _locked(folder: Path) -> Iterator[None]:
    descriptor = _lock(folder, fcntl.LOCK_EX)
    try:
        yield
    finally:
        os.close(descriptor)


def _remove_if_dead(folder: Path) -> None:
    try:
        os.close(_lock(folder, fcntl.LOCK_EX | fcntl.LOCK_NB))
    except OSError:  # its worker lives, or it is none of ours
        return
    logger.info("removing what a worker that was killed has left in %s", folder)
    shutil.rmtree(folder, ignore_errors=True)
