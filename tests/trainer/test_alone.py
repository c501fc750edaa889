"""A recipe trained alone, in this process: which checkpoint it gives, and what it says without."""

import json
import os
import re
import resource
import subprocess
import sys
from pathlib import Path

import pytest
from safetensors.torch import load_file

from studies.errors import InvalidInput
from tests.harness.process import PATIENCE
from trainer.alone import Files, train_alone

ROOT = Path(__file__).parents[2]
LEAST = 2**16  # bytes; the checkpoints of these recipes are larger


@pytest.fixture
def recipe_file(tiny, text, tmp_path):
    (tmp_path / "corpus.txt").write_text(text)
    best_is_not_the_last = {"learning_rate": 0.2, "patience": 3, "evaluate_every": 2, "steps": 40}
    recipe = tiny(path=str(tmp_path / "corpus.txt"), builtin=None, schedule="constant",
                  hidden_dim=64, **best_is_not_the_last)  # fmt: skip
    path = tmp_path / "recipe.json"
    path.write_text(json.dumps(recipe.model_dump(mode="json", by_alias=True, exclude_none=True)))
    return path


def best_step(said):
    return int(re.search(r"step (\d+) counts", said)[1])


def test_a_checkpoint_that_an_earlier_run_has_is_missed_in_words(recipe_file, tmp_path, capsys):
    first, out = tmp_path / "first", tmp_path / "out"
    assert train_alone(recipe_file, Files(out)) == 0
    best = best_step(capsys.readouterr().out)
    assert best < 36
    assert train_alone(recipe_file, Files(first), until=best + 2) == 0
    assert train_alone(recipe_file, Files(tmp_path / "none", start=first)) == 1
    said = capsys.readouterr().out
    assert f"no checkpoint of step {best} in" in said
    assert not (tmp_path / "none").exists()


def test_a_full_disk_costs_the_checkpoint_and_not_the_training(recipe_file, tmp_path, capsys):
    _, most = before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (LEAST, most))
    try:
        assert train_alone(recipe_file, Files(tmp_path / "out")) == 1
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    said = capsys.readouterr().out
    assert "no checkpoint of step 2, training goes on: " in said
    assert f"no checkpoint of step {best_step(said)} in" in said


def test_what_cannot_be_written_is_said_before_the_training(recipe_file, tmp_path):
    for files in (Files(out=tmp_path), Files(reports=tmp_path)):
        with pytest.raises(InvalidInput, match="cannot be written"):
            train_alone(recipe_file, files)


@pytest.mark.slow
@pytest.mark.nightly
def test_a_cool_down_is_branched_as_the_docs_say(tmp_path):
    page = (ROOT / "docs" / "models.md").read_text()
    script = re.search(r"### A cool-down.*?```sh\n(.*?)```", page, re.DOTALL)[1]
    script += "lmtune-worker --recipe short.yaml --out whole.safetensors\n"
    path = f"{Path(sys.executable).parent}:{os.environ['PATH']}"
    environment = {**os.environ, "PATH": path, "OMP_NUM_THREADS": "1"}
    subprocess.run(
        ["bash", "-euc", script], cwd=tmp_path, env=environment, timeout=300 * PATIENCE, check=True
    )
    branched, whole = (load_file(tmp_path / f"{n}.safetensors") for n in ("short", "whole"))
    assert branched.keys() == whole.keys()
    assert all(branched[name].equal(whole[name]) for name in whole)
