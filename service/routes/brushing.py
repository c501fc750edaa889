"""Brushes as an address says them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, Final

from fastapi import Query
from pydantic import StringConstraints

_PLACE: Final = r"-?[0-9]{1,2}(?:\.[0-9]{1,9})?"
Brush = Annotated[str, StringConstraints(pattern=rf"^\w{{1,64}}:{_PLACE}:{_PLACE}$")]
Brushes = Annotated[
    Sequence[Brush],
    Query(max_length=64, description="KNOB:LOW:HIGH, parts of a knob's axis [0, 1]"),
]
