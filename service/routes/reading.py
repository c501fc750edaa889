"""What the dashboard reads, and where a request finds it."""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from typing import Protocol, cast

from fastapi import Request

from service.figures import TrialData
from studies import wire


class Reading(Hashable, Protocol):
    """The read side of the server; synchronous, safe to call from any thread.

    A method that takes a study's name raises NotFound where there is none of that name.
    """

    def studies(self, archived: bool, cursor: str | None, limit: int) -> wire.Page[wire.StudyView]:
        """Returns a page of studies, newest first."""

    def study(self, name: str) -> wire.StudyView:
        """Returns the study."""

    def trial(self, name: str, number: int) -> wire.TrialDetail:
        """Returns the trial; raises NotFound."""

    def best(self, name: str) -> wire.TrialDetail:
        """Returns the best complete trial; raises NotFound before there is one."""

    def trial_data(self, name: str) -> Sequence[TrialData]:
        """Returns all trials with their curves, by number."""

    def importances(self, name: str) -> dict[str, float]:
        """Returns the importance of each knob; empty before it can be known."""

    def baseline(self, name: str) -> float | None:
        """Returns the unigram model's validation loss, once a worker has told it."""

    def stamp(self, name: str) -> tuple[int, int]:
        """Returns (revision, number of reports): changes when anything visible does."""

    def workers(self) -> Sequence[wire.WorkerView]:
        """Returns the workers."""


def reading(request: Request) -> Reading:
    """Returns the server's read side."""
    return cast(Reading, request.app.state.reading)
