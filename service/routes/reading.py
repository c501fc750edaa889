"""How routes reach the read side; tests of the pages put a stand-in there."""

from __future__ import annotations

from typing import Annotated, cast

from fastapi import Depends, Request

from service.dispatch.reading import Reading


def reading(request: Request) -> Reading:
    """Returns the server's read side."""
    return cast(Reading, request.app.state.reading)


Read = Annotated[Reading, Depends(reading)]
