"""docs/search-space.md is what `python -m studies.reference` writes, and is complete."""

from __future__ import annotations

from typing import get_args

import pytest

from studies.parts import Sampler, Scheduler
from studies.recipe import KNOBS
from studies.reference import FILE, markdown


def test_the_document_is_the_generators_output() -> None:
    assert FILE.read_text(encoding="utf-8") == markdown(), "run `python -m studies.reference`"


@pytest.mark.parametrize("name", KNOBS)
def test_every_knob_has_its_row(name: str) -> None:
    knob = KNOBS[name]
    section = markdown().partition(f"## {knob.section}\n")[2].partition("\n## ")[0]
    (row,) = [line for line in section.splitlines() if line.startswith(f"| `{name}` | ")]
    assert knob.meaning in row
    assert knob.domain.removeprefix("one of ") in row


def test_every_knob_that_may_be_searched_has_a_source() -> None:
    assert [knob.name for knob in KNOBS.values() if knob.searchable and not knob.source] == []


@pytest.mark.parametrize("part", [Sampler, Scheduler])
def test_every_kind_has_its_heading(part: type[Sampler | Scheduler]) -> None:
    for kind in get_args(part.model_fields["kind"].annotation):
        assert f"\n### {kind}\n" in markdown()
