"""`lmtune export`: what a spreadsheet, a script and a worker alone get."""

from __future__ import annotations

import csv
import io
import json
from pathlib import Path
from typing import Any

import pytest

from studies import wire
from studies.corpus import text_sha256
from studies.documents import resolve
from studies.spec import load_recipe
from tests.studies.conftest import Run
from tests.studies.documents import small
from tests.studies.fake import FakeServer, trial

TEXT = "To be, or not to be, that is the question.\n" * 40


def test_export_csv_has_a_column_for_each_knob_and_no_formula(run: Run, fake: FakeServer) -> None:
    view = fake.ended(small())
    fake.trials["small"][0] = trial(view, 0, worker="=cmd()", value=float("-inf"), reason="-1+1")
    rows = list(csv.DictReader(io.StringIO(run("export", "small", "--format", "csv").out)))
    assert [row["number"] for row in rows] == ["0", "1"]
    assert rows[1]["learning_rate"] == "0.01"
    assert (rows[0]["worker"], rows[0]["reason"]) == ("'=cmd()", "'-1+1")
    assert rows[0]["value"] == "-Infinity"


def test_export_json_has_every_trial_whole(run: Run, fake: FakeServer, tmp_path: Path) -> None:
    fake.ended(small())
    path = tmp_path / "out.json"
    assert run("export", "small", "-o", str(path)).out == ""
    document = json.loads(path.read_text())
    details = [wire.TrialDetail.model_validate(t) for t in document["trials"]]
    assert details == fake.trials["small"]
    assert run("export", "small", "-o", str(tmp_path / "none" / "x")).code == 1


def test_a_report_is_a_file_in_this_folder_or_where_it_is_wanted(
    run: Run, fake: FakeServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fake.ended(small())
    monkeypatch.chdir(tmp_path)
    assert run("report", "small").out.startswith("small-report.html: the report of small")
    assert "the report of small" in (tmp_path / "small-report.html").read_text()
    assert run("report", "small", "-o", str(tmp_path / "x.html")).code == 0
    assert (tmp_path / "x.html").exists()
    assert run("report", "nobody").code == 3
    assert run("report", "small", "-o", str(tmp_path / "none" / "x")).code == 1


def recipe_of(tmp_path: Path, text: str) -> Any:
    path = tmp_path / "recipe.yaml"
    path.write_text(text)
    return load_recipe(path)


def test_export_recipe_is_the_best_trials_whole_recipe(
    run: Run, fake: FakeServer, tmp_path: Path
) -> None:
    fake.ended(small())
    ran = run("export", "small", "--format", "recipe")
    assert recipe_of(tmp_path, ran.out) == fake.trials["small"][1].recipe
    assert ran.out.startswith("# small, trial 1: COMPLETE, validation_loss 2.5000\n")
    zero = run("export", "small", "--format", "recipe", "--trial", "0")
    assert recipe_of(tmp_path, zero.out) == fake.trials["small"][0].recipe


def test_an_exported_recipe_names_its_text_by_path_when_it_is_given(
    run: Run, fake: FakeServer, tmp_path: Path
) -> None:
    fake.ended(small(data={"sha256": text_sha256(TEXT)}))
    ran = run("export", "small", "--format", "recipe")
    assert "--data FILE" in ran.err
    assert recipe_of(tmp_path, ran.out).data.sha256 == text_sha256(TEXT)
    text, other = tmp_path / "a.txt", tmp_path / "b.txt"
    text.write_text(TEXT)
    other.write_text(TEXT + "x")
    ran = run("export", "small", "--format", "recipe", "--data", str(text))
    assert (ran.code, ran.err) == (0, "")
    assert recipe_of(tmp_path, ran.out).data.path == str(text)
    assert run("export", "small", "--format", "recipe", "--data", str(other)).code == 2
    assert run("export", "small", "--format", "csv", "--data", str(text)).code == 2


def test_an_exported_recipe_keeps_the_cuts_that_its_source_does_not_bring(
    run: Run, fake: FakeServer, tmp_path: Path
) -> None:
    cuts = {"validation_at": len(TEXT), "test_at": len(TEXT) + 4}
    whole = TEXT + "to bethat"
    fake.ended(small(data={"sha256": text_sha256(whole), **cuts}))
    folder = tmp_path / "splits"
    folder.mkdir()
    for name, part in (("train", TEXT), ("valid", "to b"), ("test", "ethat")):
        (folder / f"{name}.txt").write_text(part)
    (tmp_path / "whole.txt").write_text(whole)
    for source, expected in ((folder, (None, None)), (tmp_path / "whole.txt", cuts.values())):
        ran = run("export", "small", "--format", "recipe", "--data", str(source))
        data = recipe_of(tmp_path, ran.out).data
        assert (data.validation_at, data.test_at) == tuple(expected)
        assert resolve(data)[0].cuts(len(whole)) == tuple(cuts.values())
