"""`lmtune init`: whatever is answered, the file it writes is a valid study."""

from __future__ import annotations

import itertools
import os
import pty
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from studies.cli import starter
from studies.errors import InvalidInput
from studies.spec import load_spec, parse_spec
from tests.harness.process import PATIENCE
from tests.studies.conftest import Run

TEXT = "It was the best of times, it was the worst of times.\n" * 4_000


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder that the command runs in, with a text."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "my text.txt").write_text(TEXT)
    return tmp_path


CASES = [
    *itertools.product(starter.KINDS, starter.DEVICES, [starter.DEFAULT_KNOBS]),
    *itertools.product(("lstm", "gpt"), starter.DEVICES, [",".join(starter.OFFERED)]),
    *(("gpt", "cpu", knob) for knob in starter.OFFERED),
]


@pytest.mark.parametrize(("kind", "device", "knobs"), CASES)
def test_every_answer_makes_a_valid_study(kind: str, device: str, knobs: str) -> None:
    wanted = starter.knobs_of(knobs)
    answers = starter.Answers(None, kind, starter.budget_of("1h30m"), wanted, device)
    spec = parse_spec(yaml.safe_load(starter.study_text(answers, Path("study.yaml"))))
    assert spec.model.kind == kind
    assert set(spec.search) - {"lambda"} == set(wanted)
    assert spec.budget.wall_time == 5_400


def test_enter_everywhere_makes_a_study_that_create_takes(run: Run, here: Path) -> None:
    ran = run("init", "--data", "my text.txt")  # no terminal: nothing is asked
    assert (ran.code, ran.err) == (0, "")
    spec = load_spec(here / "study.yaml")
    assert (spec.name, spec.data.path) == ("my-text-gpt", "my text.txt")
    assert spec.budget.wall_time == 600
    checked = run("create", "study.yaml", "--dry-run")  # needs no server
    assert (checked.code, "nothing was made" in checked.out) == (0, True)


def test_options_answer_and_the_text_is_named_from_where_the_file_lies(
    run: Run, here: Path
) -> None:
    (here / "studies").mkdir()
    options = ["--model", "lstm", "--budget", "20", "--knobs", "learning_rate", "--device", "cpu"]
    assert run("init", "studies/a.yaml", "--data", "my text.txt", *options, "-y").code == 0
    spec = load_spec(here / "studies" / "a.yaml")
    assert spec.data.path == os.path.join("..", "my text.txt")
    assert (spec.model.kind, spec.budget.trials, list(spec.search)) == (
        "lstm",
        20,
        ["learning_rate"],
    )
    assert spec.name == "a"  # by the file, where it has a name of its own
    assert run("create", "studies/a.yaml", "--dry-run").code == 0


def test_a_knob_that_is_searched_in_vain_is_said(run: Run, here: Path) -> None:
    (here / "vain.yaml").write_text(
        "name: vain\ndata: {builtin: stdlib}\nsearch: {regularizer: {choice: [none, l2]}}\n"
    )
    ran = run("create", "vain.yaml", "--dry-run")
    assert ran.code == 0
    assert ran.err.startswith("note: search.regularizer: changes nothing while lambda is 0")


WRONG = [
    (["--data", "none.txt"], "error: data: none.txt: no such file"),
    (["--model", "lstmm"], "error: model: 'lstmm' is not known"),
    (["--budget", "soon"], "error: budget: 'soon' is neither a time nor"),
    (["--budget", "0"], "error: budget:"),
    (["--knobs", "learning_rat"], "error: knobs: 'learning_rat' is not offered here"),
    (["--device", "tpu"], "error: device: 'tpu' is not known"),
]


@pytest.mark.parametrize(("options", "words"), WRONG)
def test_a_wrong_option_is_one_clear_line_and_nothing_is_written(
    run: Run, here: Path, options: list[str], words: str
) -> None:
    ran = run("init", *options)
    assert ran.code == 2
    assert ran.err.startswith(words)
    assert ran.err.count("\n") == 1
    assert not (here / "study.yaml").exists()


def test_a_text_that_is_too_short_and_a_file_that_is_there_change_nothing(
    run: Run, here: Path
) -> None:
    (here / "short.txt").write_text("short")
    assert "one batch needs" in run("init", "--data", "short.txt").err
    assert not (here / "study.yaml").exists()
    (here / "study.yaml").write_text("mine")
    ran = run("init", "--data", "my text.txt")
    assert (ran.code, "is there already" in ran.err) == (2, True)
    assert (here / "study.yaml").read_text() == "mine"


def test_a_path_with_any_letters_is_quoted() -> None:
    path = Path("it's: {odd}, #1.txt")
    answers = starter.Answers(path, "gpt", "{trials: 4}", ("dropout",), "cpu")
    spec = parse_spec(yaml.safe_load(starter.study_text(answers, Path("study.yaml"))))
    assert spec.data.path == str(path)


def test_a_duration_as_the_study_file_takes_it_or_a_number_of_trials() -> None:
    assert yaml.safe_load(starter.budget_of("16 trials")) == {"trials": 16}
    assert yaml.safe_load(starter.budget_of("90s")) == {"wall_time": "90s", "trials": 1_000}
    with pytest.raises(InvalidInput):
        starter.budget_of("1001")


def test_in_a_terminal_five_questions_are_asked_and_a_wrong_answer_again(here: Path) -> None:
    ours, theirs = pty.openpty()
    process = subprocess.Popen(
        [sys.executable, "-m", "studies.cli", "init"],
        cwd=here,
        env={**os.environ, "PYTHONPATH": str(Path(__file__).parents[2]), "TERM": "dumb"},
        stdin=theirs,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    os.write(ours, b"my text.txt\nlstmm\nlstm\n8\ndropout\n\n")
    said, _ = process.communicate(timeout=60 * PATIENCE)
    os.close(ours)
    os.close(theirs)
    assert process.returncode == 0, said
    assert "'lstmm' is not known" in said
    spec = load_spec(here / "study.yaml")
    assert (spec.model.kind, spec.budget.trials, list(spec.search)) == ("lstm", 8, ["dropout"])
