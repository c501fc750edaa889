"""Jinja, set up once: autoescape on, an unknown name is an error, and how pages say numbers."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any, Final

import yaml
from fastapi.templating import Jinja2Templates
from jinja2 import Environment, FileSystemLoader, StrictUndefined

import service
from service.routes import assets
from studies import fleet

FOLDER: Final = Path(service.__file__).parent / "templates"


def number(value: Any) -> str:
    """Returns a number in five significant digits, None as a dash, anything else as it is."""
    if value is None:
        return "–"
    if isinstance(value, bool) or not isinstance(value, int | float):
        return str(value)
    if isinstance(value, int):
        return str(value)
    if not math.isfinite(value):
        return "not a number" if math.isnan(value) else "infinite"
    return f"{value:.5g}"


def duration(seconds: float | None) -> str:
    """Returns a duration in its two largest units, as 1h 05m or 42s; None as a dash.

    Args:
        seconds: the duration [s].
    """
    if seconds is None:
        return "–"
    whole = int(seconds)
    days, hours, minutes = whole // 86_400, whole // 3_600 % 24, whole // 60 % 60
    if days:
        return f"{days}d {hours:02d}h"
    if hours:
        return f"{hours}h {minutes:02d}m"
    return f"{minutes}m {whole % 60:02d}s" if minutes else f"{whole}s"


def percent(part: float | None) -> str:
    """Returns a part of a whole in hundredths of it, 0.5 as 50 %; None as a dash."""
    return "–" if part is None else f"{100 * part:.0f} %"


def spelled(seconds: float | str) -> str:
    """Returns a duration as a study file has it, 160.0 as 160s; any other text as it is."""
    try:
        return f"{float(seconds):.15g}s"
    except ValueError:
        return str(seconds)


def ordinal(number: int) -> str:
    """Returns 1st, 2nd, 3rd, 4th ..."""
    ending = {1: "st", 2: "nd", 3: "rd"}.get(number % 10, "th")
    return f"{number}{'th' if number % 100 in (11, 12, 13) else ending}"


def words(name: str) -> str:
    """Returns a metric's name in plain words."""
    return name.replace("_", " ")


def to_yaml(document: Any) -> str:
    """Returns JSON values as YAML, in their own order."""
    text = yaml.safe_dump(document, sort_keys=False, allow_unicode=True)
    assert isinstance(text, str)  # noqa: S101 - typed as Any
    return text


def _environment() -> Environment:
    environment = Environment(
        loader=FileSystemLoader(FOLDER),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters.update(
        number=number,
        duration=duration,
        words=words,
        to_yaml=to_yaml,
        ordinal=ordinal,
        spelled=spelled,
        percent=percent,
        fleet=fleet.in_words,
        workers_in=fleet.number,
    )
    environment.globals.update(address=assets.address, scripts=assets.scripts)
    return environment


TEMPLATES: Final = Jinja2Templates(env=_environment())
