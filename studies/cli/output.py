"""Printing: tables and colours for a terminal, plain lines and JSON for everything else."""

from __future__ import annotations

import json
import math
import sys
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, Final

from rich.console import Console
from rich.table import Table
from rich.text import Text

from studies.errors import LmtuneError
from studies.knobs import written

_BLOCKS: Final = "▁▂▃▄▅▆▇█"


def console() -> Console:
    """Returns a console on today's stdout."""
    return Console(highlight=False, soft_wrap=True)


def say(text: str = "") -> None:
    """Prints a line on stdout."""
    sys.stdout.write(clean(text) + "\n")
    sys.stdout.flush()


def warn(text: str) -> None:
    """Prints a line on stderr."""
    sys.stderr.write(clean(text) + "\n")
    sys.stderr.flush()


def write_file(path: Path, text: str) -> None:
    """Writes a text file; raises LmtuneError where that is not possible."""
    try:
        path.write_text(text, encoding="utf-8")
    except OSError as error:
        raise LmtuneError(f"{path} cannot be written: {error.strerror}") from None


def clean(text: str) -> str:
    """Returns the text without control characters: what others wrote cannot steer a terminal."""
    return "".join(
        c if c.isprintable() or c in "\n\t" else "\N{REPLACEMENT CHARACTER}" for c in text
    )


def print_json(value: Any) -> None:
    """Prints JSON values, indented, on stdout."""
    say(json.dumps(value, indent=2, ensure_ascii=False, allow_nan=False))


def cell(value: Any) -> str:
    """Returns a value as a table shows it: five significant digits, nothing for None."""
    if value is None:
        return ""
    if isinstance(value, float):
        return f"{value:.5g}"
    return written(value)


def pairs(values: Mapping[str, Any]) -> str:
    """Returns "name value, name value"."""
    return ", ".join(f"{name} {cell(value)}" for name, value in values.items())


def seconds(value: float) -> str:
    """Returns a duration as a clock shows it: 0:42, 12:05, 3:00:09."""
    minutes, rest = divmod(int(value), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest:02}" if hours else f"{minutes}:{rest:02}"


def spark(values: Sequence[float], width: int) -> str:
    """Returns the finite values as a line of at most `width` blocks, the lowest for the least."""
    finite = [value for value in values if math.isfinite(value)]
    if len(finite) > width:
        finite = [finite[(i * (len(finite) - 1)) // (width - 1)] for i in range(width)]
    low, high = min(finite, default=0.0), max(finite, default=0.0)
    top = len(_BLOCKS) - 1
    return "".join(_BLOCKS[round(top * (v - low) / (high - low or 1.0))] for v in finite)


def rich_table(
    columns: Sequence[str], rows: Iterable[Sequence[Any]], yielding: str | None = None
) -> Table:
    """Returns a table for a terminal; numbers stand to the right.

    Args:
        columns: their heads.
        rows: a value for each column.
        yielding: the column that is cut first where the terminal is narrow.
    """
    table = Table(box=None, pad_edge=False, header_style="bold", padding=(0, 2, 0, 0))
    body = [list(row) for row in rows]
    for index, column in enumerate(columns):
        number = bool(body) and all(isinstance(row[index], int | float | None) for row in body)
        table.add_column(column, justify="right" if number else "left", no_wrap=column != yielding)
    for row in body:
        cells = (Text(clean(cell(value)), no_wrap=True, overflow="ellipsis") for value in row)
        table.add_row(*cells)
    return table


def print_table(columns: Sequence[str], rows: Iterable[Sequence[Any]]) -> None:
    """Prints rows: fitted to a terminal, or whole and aligned where there is none."""
    out = console()
    if out.is_terminal:
        out.print(rich_table(columns, rows))
        return
    lines = [list(columns), *([clean(cell(value)) for value in row] for row in rows)]
    widths = [max(len(line[i]) for line in lines) for i in range(len(columns))]
    for line in lines:
        say("  ".join(text.ljust(width) for text, width in zip(line, widths, strict=True)).rstrip())
