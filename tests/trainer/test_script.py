"""What a script's process is given by the worker that starts it."""

import json

from studies.recipe import Recipe
from studies.script import ALLOWED, PIPES
from trainer.script import run_script

from .conftest import Recorder

SCRIPT = """
import json, os
from studies.client import current_trial

told = sorted(name for name in os.environ if name.startswith("LMTUNE_"))
with current_trial() as t, open(t.params["out"], "w") as file:
    json.dump([told, os.environ.get("KEPT")], file)
    t.report(step=1, validation_loss=1.0)
"""


def test_a_script_is_told_its_pipes_and_nothing_else_of_the_worker(tmp_path, monkeypatch):
    script, out = tmp_path / "mine.py", tmp_path / "told.json"
    script.write_text(SCRIPT)
    for name in ("LMTUNE_TOKEN", "LMTUNE_TOKEN_FILE", "LMTUNE_HOME", "LMTUNE_URL", "LMTUNE_PARAMS"):
        monkeypatch.setenv(name, str(tmp_path))
    monkeypatch.setenv(ALLOWED, str(script))
    monkeypatch.setenv("KEPT", "as it is")
    recipe = Recipe.model_validate({
        "data": {"builtin": "stdlib"},
        "model": {"kind": "script", "command": ["python", "mine.py"]},
        "own": {"out": str(out)},
    })  # fmt: skip
    result = run_script(recipe, "a text", tmp_path, Recorder())
    assert (result.outcome, result.final_step) == ("ok", 1)
    assert json.loads(out.read_text()) == [[PIPES], "as it is"]
