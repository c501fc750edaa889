"""The body that brings a study in whose trials are over: from another tool, in one piece."""

from __future__ import annotations

from datetime import datetime
from typing import Any, Final, Literal

from pydantic import Field

from studies.spec import StudySpec
from studies.trial import TrialState
from studies.wire import Body, Number

MAX_TRIALS: Final = 20_000  # of one import: 10,000 of 20 points hold the writer for 8 s (measured)
PATH: Final = "/api/v1/imports"


class ImportedTrial(Body):
    """A trial that is over; its number is its place in the list, from 0."""

    state: Literal[TrialState.COMPLETE, TrialState.PRUNED, TrialState.FAILED, TrialState.CANCELLED]
    params: dict[str, Any] = Field(default_factory=dict)
    value: Number | None = None
    curve: list[tuple[int, Number]] = Field(
        default_factory=list, description="(step from 1, objective), steps rising"
    )
    reason: str | None = Field(None, max_length=2_000)
    started_at: datetime | None = None
    ended_at: datetime | None = None


class ImportBody(Body):
    """A study with its trials; it has ENDED as soon as it is there."""

    study: StudySpec
    trials: list[ImportedTrial] = Field(min_length=1, max_length=MAX_TRIALS)
