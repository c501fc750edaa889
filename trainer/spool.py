"""The reports of one attempt that wait for the server, in order, in a file."""

from __future__ import annotations

import json
import logging
from collections import deque
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final

logger = logging.getLogger(__name__)
_LINE_END: Final = b"\n"


class Spool:
    """A queue on disk: half an hour of silence fills no memory. Its user holds a lock.

    The file is not synced and nobody reads it after this process: a restarted worker is a new
    one, whose attempt computes those steps again. Where the disk is full, reports wait in memory.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._waiting = self._read = self._written = 0  # lines; bytes of the file
        self._memory: deque[bytes] = deque()  # newer than all in the file

    def append(self, item: Any) -> None:
        """Adds a JSON value; never fails."""
        line = json.dumps(item).encode() + _LINE_END
        if self._memory or not self._write(line):
            self._memory.append(line)

    def take(self, count: int) -> Sequence[Any]:
        """Removes and returns the oldest values, as many as there are up to `count`."""
        lines = self._from_file(min(count, self._waiting))
        while self._memory and len(lines) < count:
            lines.append(self._memory.popleft())
        return [json.loads(line) for line in lines]

    def _write(self, line: bytes) -> bool:
        """Returns whether the line is in the file, whole."""
        try:
            with self._path.open("r+b" if self._written else "wb") as file:
                file.seek(self._written)  # over what a failed write has left
                file.write(line)
        except OSError as error:
            logger.warning("reports wait in memory: %s cannot be written: %s", self._path, error)
            return False
        self._waiting, self._written = self._waiting + 1, self._written + len(line)
        return True

    def _from_file(self, count: int) -> list[bytes]:
        if not count:
            return []
        with self._path.open("rb") as file:
            file.seek(self._read)
            lines = [file.readline() for _ in range(count)]
            self._read = file.tell()
        self._waiting -= count
        if not self._waiting:  # the next line is the first of a new file
            self._read = self._written = 0
        return lines
