"""The ready studies: valid, within the limits they promise, and readable by name."""

from __future__ import annotations

import pytest

from studies.cli.sources import catalog, open_source
from studies.errors import InvalidInput
from studies.spec import load_spec

NAMES = sorted(catalog())


def test_the_catalog_has_the_first_studies() -> None:
    assert {"quickstart", "tinyshakespeare", "wikitext2", "wikitext2-published"} <= set(NAMES)


@pytest.mark.parametrize("name", NAMES)
def test_a_ready_study_is_valid_and_bears_its_files_name(name: str) -> None:
    spec = load_spec(catalog()[name])
    assert spec.name == name
    assert spec.description
    assert spec.budget.wall_time is not None


def test_the_quickstart_searches_what_it_should_and_needs_no_download() -> None:
    spec = open_source("quickstart").spec
    assert {"learning_rate", "lambda", "regularizer", "dropout", "precision"} <= set(
        spec.space.names
    )
    assert spec.data.builtin == "stdlib"
    assert spec.budget.trials >= 16
    assert spec.budget.wall_time is not None
    assert spec.budget.wall_time <= 180
    assert spec.scheduler.kind == "asha"


def test_tinyshakespeare_asks_for_its_text() -> None:
    with pytest.raises(InvalidInput, match=r"data\.path.*--data FILE"):
        open_source("tinyshakespeare")
