"""Brushes as an address says them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, Final

from fastapi import Query
from pydantic import StringConstraints

_LONGEST: Final = 8_000  # characters: of a long choice each letter is encoded
Brush = Annotated[str, StringConstraints(pattern=r"^\w{1,64}:[^:]*:[^:]*$", max_length=_LONGEST)]
Brushes = Annotated[
    Sequence[Brush],
    Query(
        max_length=64,
        description="NAME:FROM:TO, the wanted values of a knob or the objective; "
        "an empty end is no end",
    ),
]
