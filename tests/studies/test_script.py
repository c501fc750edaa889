"""What a script sees of its trial: alone, and through the pipes of a worker."""

from __future__ import annotations

import json
import math
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from studies import spec
from studies.cli.up import _check_script
from studies.client import current_trial
from studies.errors import InvalidInput
from studies.script import ALLOWED, PARAMS, listed
from tests.harness.process import ROOT

EXAMPLES = ROOT / "studies" / "examples"


def test_alone_a_trial_has_defaults_and_values_of_the_environment(monkeypatch, capsys):
    monkeypatch.setenv(PARAMS, '{"units": 3}')
    with current_trial({"units": 1, "cell": "gru"}) as trial:
        trial.report(step=2, validation_loss=1.5, accuracy=0.5)
        assert trial.params == {"seed": 0, "units": 3, "cell": "gru"}
        assert not trial.should_stop
    shown = capsys.readouterr().out
    assert shown == "step 2: {'validation_loss': 1.5, 'accuracy': 0.5}\n"


@pytest.mark.parametrize("said", ["[1]", "units=3"])
def test_values_that_are_no_mapping_are_refused(monkeypatch, said):
    monkeypatch.setenv(PARAMS, said)
    with pytest.raises(ValueError, match="LMTUNE_PARAMS is no JSON mapping"):
        current_trial()


@pytest.mark.parametrize(
    ("report", "error"),
    [
        ({"step": 5, "validation_loss": 1.0}, "step 5: give an integer above 5, the last step"),
        ({"step": 5.5, "validation_loss": 1.0}, "step 5.5: give an integer above 5"),
        ({"step": 6, "validation_loss": "low"}, "validation_loss: 'low' is no number"),
        ({"step": 6, "validation_loss": 1.0, "extra": None}, "extra: None is no number"),
    ],
)
def test_a_bad_report_is_a_clear_error_and_costs_nothing(report, error, capsys):
    trial = current_trial()
    trial.report(step=5, validation_loss=2.0)
    with pytest.raises(ValueError, match=error):
        trial.report(**report)
    trial.report(step=6, validation_loss=math.nan)
    assert [line.split(":")[0] for line in capsys.readouterr().out.splitlines()] == [
        "step 5",
        "step 6",
    ]


def test_the_client_of_a_script_imports_no_framework():
    code = "import sys, studies.client; print({'torch', 'tensorflow', 'optuna'} & {*sys.modules})"
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, check=True)
    assert done.stdout.split() == [b"set()"]


def document(**parts: Any) -> dict[str, Any]:
    return {
        "name": "mine",
        "data": {"builtin": "stdlib"},
        "model": {"kind": "script", "command": ["python", "mine.py"]},
        "search": {"units": {"uniform": [1, 4], "step": 1}, "dropout": {"uniform": [0, 1e-1]}},
    } | parts


def test_a_scripts_study_searches_names_of_its_own_beside_knobs():
    study = spec.parse_spec(document())
    recipe = study.recipe({"units": 2, "dropout": 0.05}, 0)
    assert recipe.own == {"units": 2}
    assert recipe.model.dropout == 0.05
    assert spec.parse_recipe(json.loads(recipe.model_dump_json(by_alias=True))) == recipe


@pytest.mark.parametrize(
    ("parts", "field", "said"),
    [
        ({"model": {"kind": "lstm"}}, "search.units", "there is no such knob"),
        ({"model": {"kind": "script"}}, "model.command", "which needs it"),
        ({"model": {"command": ["python", "mine.py"]}}, "model.command", "is for kind script"),
        ({"search": {"my-units": {"choice": [1]}}}, "search.my-units", "is no name"),
        ({"scheduler": {"kind": "asha", "mode": "promote"}}, "scheduler.mode", "no checkpoint"),
        ({"search": {"dropout": {"uniform": [0, 2]}}}, "search.dropout.uniform", "does not fit"),
    ],
)
def test_a_wrong_study_of_a_script_names_the_field(parts, field, said):
    with pytest.raises(InvalidInput) as caught:
        spec.parse_spec(document(**parts))
    assert (caught.value.errors[0].field, said in str(caught.value)) == (field, True)


@pytest.mark.parametrize("path", sorted(EXAMPLES.glob("*.yaml")), ids=lambda p: p.stem)
def test_the_example_studies_are_whole_and_name_their_scripts(path: Path):
    command = spec.load_spec(path).model.command
    assert command is not None
    assert (EXAMPLES / command[1]).is_file()


def test_up_says_what_to_add_for_a_script_that_is_not_listed(monkeypatch):
    study = spec.parse_spec(document())
    with pytest.raises(InvalidInput, match=r"LMTUNE_ALLOW_SCRIPTS=PATH/TO/mine\.py before"):
        _check_script(study)
    monkeypatch.setenv(ALLOWED, os.pathsep.join(["/srv/other.py", "/srv/mine.py"]))
    _check_script(study)
    assert listed(["python", "/home/mine.py"]) == ("/home/mine.py", None)
    assert listed(["python", "-c", "print()"]) == ("-c", None)


def run_alone(name: str) -> list[str]:
    env = {**os.environ, "PYTHONPATH": str(ROOT), PARAMS: '{"steps": 4, "evaluate_every": 2}'}
    command = [sys.executable, str(EXAMPLES / name)]
    done = subprocess.run(command, env=env, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return [line for line in done.stdout.splitlines() if line.startswith("step ")]


def test_the_pytorch_example_runs_alone():
    assert len(run_alone("pytorch_script.py")) == 2


def test_the_keras_example_runs_alone():
    pytest.importorskip("tensorflow", reason="pip install tensorflow")
    assert len(run_alone("keras_script.py")) == 2
