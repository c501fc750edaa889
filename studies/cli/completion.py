"""What a shell offers for a study's name: those that the server has, or nothing."""

from __future__ import annotations

from typing import Final

import typer

from studies.client import Studies
from studies.errors import LmtuneError
from studies.http import Http

_PATIENCE: Final = 1.0  # a shell waits no longer for the server's names [s]


def complete_study(context: typer.Context, incomplete: str) -> list[str]:
    """Returns the names of studies that begin so; none where no server answers in time."""
    said = context.find_root().params
    try:
        http = Http(said.get("url"), said.get("token"), timeout=_PATIENCE)
    except LmtuneError:
        return []
    try:
        names = [study.name for study in Studies(http).list()]
    except (LmtuneError, ValueError):  # ValueError: something else answers there
        return []
    finally:
        http.close()
    return [name for name in names if name.startswith(incomplete)]
