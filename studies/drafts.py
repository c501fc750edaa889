"""The bodies of drafts: a study that is being written, checked and looked at before it is made."""

from __future__ import annotations

from typing import Any

from pydantic import ConfigDict, Field

from studies.wire import Body, View


class DraftBody(Body):
    """A study that may not be right yet: as a document, or as the text of a study file."""

    model_config = ConfigDict(
        json_schema_extra={"examples": [{"yaml": "name: mine\ndata: {builtin: stdlib}\n"}]}
    )

    spec: dict[str, Any] | None = None
    yaml: str | None = Field(None, max_length=1 << 20)


class Bar(View):
    """A piece of what is searched of a knob, and how many of the drawn values fell into it."""

    label: str
    count: int


class DraftView(View):
    """A study that could be made, and what it would be like."""

    spec: dict[str, Any] = Field(description="the study file")
    yaml: str
    sampled: dict[str, list[Bar]] = Field(description="values drawn at random, by searched knob")
    notes: list[str] = Field(description="what is searched in vain, and what to do about it")
    trials: int
    tokens: int = Field(description="trained on at most: no trial ends early")
    tokens_per_second: float | None = Field(description="of the newest study of this kind of model")
    seconds: float | None = Field(description="of one worker at that speed [s]; null: not known")
