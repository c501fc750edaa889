"""The made parts of docs/trial-lifecycle.md, drawn from the code: `make docs` writes them."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from service.dispatch.settle import CASES
from studies.trial import ENDS, STUDY_TRANSITIONS, TRANSITIONS, StudyState, TrialState

PAGE = Path(__file__).parents[2] / "docs" / "trial-lifecycle.md"
PART = re.compile(r"(<!-- (\w+): made by `make docs` -->\n).*?(<!-- end -->)", re.DOTALL)


def parts() -> dict[str, str]:
    """Returns the made parts of the page by name."""
    return {
        "study": _diagram(StudyState.RUNNING, "created", STUDY_TRANSITIONS),
        "trial": _diagram(TrialState.WAITING, "suggested or enqueued", TRANSITIONS),
        "attempt": _attempt(),
        "ends": _table(
            ("outcome", "the trial becomes"),
            ((f"`{outcome}`", ", ".join(sorted(end.trial))) for outcome, end in ENDS.items()),
        ),
        "settle": _table(
            ("when", "the trial becomes"), ((case.when, str(case.state)) for case in CASES)
        ),
    }


def page() -> str:
    """Returns the page with its made parts made anew."""
    made = parts()
    return PART.sub(lambda part: f"{part[1]}\n{made[part[2]]}\n{part[3]}", PAGE.read_text())


def _diagram(first: str, why: str, table: Mapping[Any, Mapping[Any, str]]) -> str:
    arrows = [("[*]", first, why)]
    arrows += [(start, end, why) for start, ends in table.items() for end, why in ends.items()]
    arrows += [(state, "[*]", "") for state, ends in table.items() if not ends]
    return _mermaid(arrows)


def _attempt() -> str:
    arrows = [("[*]", "live", "a trial is granted to a worker")]
    arrows += [("live", outcome, end.meaning) for outcome, end in ENDS.items()]
    arrows += [(outcome, "[*]", "") for outcome in ENDS]
    return _mermaid(arrows)


def _mermaid(arrows: list[tuple[str, str, str]]) -> str:
    lines = [f"    {start} --> {end}" + (f": {why}" if why else "") for start, end, why in arrows]
    return "\n".join(["```mermaid", "stateDiagram-v2", *lines, "```\n"])


def _table(heads: tuple[str, ...], rows: Iterator[tuple[str, ...]]) -> str:
    body = [heads, ("---",) * len(heads), *rows]
    return "".join(f"| {' | '.join(row)} |\n" for row in body)


if __name__ == "__main__":
    PAGE.write_text(page())
