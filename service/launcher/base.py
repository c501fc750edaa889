"""What the server asks of a launcher."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass, field
from typing import Protocol


@dataclass(frozen=True)
class Lost:
    """A worker that is known to be dead: its attempts end at once."""

    worker: str  # the name it registered under
    reason: str
    elsewhere: bool = field(default=False, compare=False)  # something of it may come back yet


class Launcher(Protocol):
    """Keeps a number of workers running. `keep` and `stop` are called from one thread at a time."""

    def keep(self, wanted: int, busy: Collection[str] = ()) -> Sequence[Lost]:
        """Has so many workers run, as far as there is room; returns those that died.

        Starts what is missing, replaces the dead after a pause, asks those too many to go: first
        those whose names are not in `busy`. A worker of a server before this one is kept as if
        this one had started it.
        """
        ...

    def stop(self, grace: float) -> Sequence[Lost]:
        """Asks every worker to checkpoint and go, waits up to `grace` [s]; returns the lost.

        Afterwards none runs, and none is started.
        """
        ...

    def log(self, worker: str) -> str | None:
        """Returns the end of what a worker printed; None: it is none of ours. Any thread."""
        ...


class NoLauncher:
    """Starts nothing: workers are started by hand."""

    def keep(self, wanted: int, busy: Collection[str] = ()) -> Sequence[Lost]:
        """Returns nothing."""
        return ()

    def stop(self, grace: float) -> Sequence[Lost]:
        """Returns nothing."""
        return ()

    def log(self, worker: str) -> str | None:
        """Returns nothing."""
        return None
