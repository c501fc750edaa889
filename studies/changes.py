"""The bodies of steering: what a study that goes on may be changed in, and what was done to it."""

from __future__ import annotations

from datetime import datetime
from typing import Any

from pydantic import ConfigDict, Field

from studies.parts import Duration
from studies.space import Entry
from studies.wire import Body, View


class BudgetChange(Body):
    """Another budget; what is left out stays as it is."""

    trials: int | None = Field(None, ge=1, le=1_000_000, description="configurations in all")
    wall_time: Duration | None = Field(None, description="time spent RUNNING; null: no limit")


class ResourcesChange(Body):
    """Another number of workers; what is left out stays as it is."""

    workers: int | None = Field(
        None, ge=1, le=100_000, description="that train its trials at once, at most; null: no limit"
    )


class ChangeBody(Body):
    """What a study that goes on may be changed in."""

    model_config = ConfigDict(
        json_schema_extra={
            "examples": [
                {"budget": {"trials": 32}, "search": {"learning_rate": {"log": [1e-3, 1e-2]}}}
            ]
        }
    )

    budget: BudgetChange = BudgetChange()
    resources: ResourcesChange = ResourcesChange()
    search: dict[str, Entry] = Field(
        default_factory=dict, description="narrower ranges or fewer choices of searched knobs"
    )


class EventView(View):
    """Something that people did to a study, or that became of it."""

    id: int
    at: datetime
    kind: str = Field(description="study_running, budget_changed, enqueued ...")
    trial: int | None = Field(description="the number of the trial that it was about")
    detail: dict[str, Any]
