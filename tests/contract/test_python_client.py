"""The page on the Python client does what it says, line by line, on a real server."""

from __future__ import annotations

import doctest
import io
import sys
from pathlib import Path

import pandas as pd
import pytest

from studies.errors import InvalidInput, LmtuneError
from studies.frames import trials_frame
from tests.service.live import Live

PAGE = Path(__file__).parents[2] / "docs" / "python-client.md"


def test_every_line_of_the_page_says_what_happens(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    text = PAGE.read_text()
    examples = doctest.DocTestParser().get_doctest(text, {}, PAGE.name, str(PAGE), 0)
    assert len(examples.examples) > 20
    said = io.StringIO()
    with Live("", tmp_path) as live:
        monkeypatch.setenv("LMTUNE_URL", live.url)
        monkeypatch.setenv("LMTUNE_TOKEN", live.token)
        results = doctest.DocTestRunner().run(examples, out=said.write)
        with pytest.raises(InvalidInput, match="is not a mapping"):
            live.client.studies.create([1])  # type: ignore[arg-type]
    assert results.failed == 0, said.getvalue()


def test_a_table_without_pandas_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pandas", None)
    with pytest.raises(LmtuneError, match="pip install pandas"):
        trials_frame([])


def test_a_table_of_no_trials_has_the_columns() -> None:
    frame = trials_frame([])
    assert isinstance(frame, pd.DataFrame)  # imported above: plotly, in the server's thread, looks
    assert (len(frame), "value" in frame.columns) == (0, True)  # for a pandas that is whole
