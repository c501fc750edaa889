"""Brushes as an address says them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, Final

from fastapi import Query
from pydantic import StringConstraints

_END: Final = r"[^:]{0,300}"
Brush = Annotated[str, StringConstraints(pattern=rf"^\w{{1,64}}:{_END}:{_END}$")]
Brushes = Annotated[
    Sequence[Brush],
    Query(
        max_length=64,
        description="NAME:FROM:TO, the wanted values of a knob or the objective; "
        "an empty end is no end",
    ),
]
