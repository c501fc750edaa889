"""What the server asks of a launcher."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol


@dataclass(frozen=True)
class Lost:
    """A worker that is known to be dead: its attempts end at once."""

    worker: str  # the name it registered under
    reason: str


class Launcher(Protocol):
    """Keeps an asked-for number of workers running. Called from one thread at a time."""

    def keep(self) -> Sequence[Lost]:
        """Starts what is missing, restarts the dead; returns the workers that died."""
        ...

    def stop(self, grace: float) -> Sequence[Lost]:
        """Asks every worker to checkpoint and go, waits up to `grace` [s]; returns the lost."""
        ...


class NoLauncher:
    """Starts nothing: workers are started by hand."""

    def keep(self) -> Sequence[Lost]:
        """Returns nothing."""
        return ()

    def stop(self, grace: float) -> Sequence[Lost]:
        """Returns nothing."""
        return ()
