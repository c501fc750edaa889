"""Training scripts of one's own under a real server and worker: they train, crash and hang."""

from __future__ import annotations

import os
import signal
from pathlib import Path
from typing import TYPE_CHECKING, Any

import psutil
import pytest

from studies.script import ALLOWED
from studies.spec import load_spec, parse_spec
from tests.harness.process import ROOT, alive, wait_for

if TYPE_CHECKING:
    from tests.conftest import MakeServer, MakeWorker
    from tests.harness.lmtune import Server

EXAMPLES = ROOT / "studies" / "examples"
EXAMPLE = EXAMPLES / "pytorch_script"
SLOW = """
import os, pathlib, sys, time
from studies.client import current_trial
with current_trial() as t:
    for step in range(1, t.params["steps"] + 1):
        t.report(step=step, validation_loss=t.params["x"] / step)
        time.sleep(0.05)
        if t.should_stop and not t.params.get("deaf"):
            print("it was told to stop")
            break
"""
CRASH = """
import sys
from studies.client import current_trial
with current_trial() as t:
    t.report(step=1, validation_loss=1.0)
    raise RuntimeError("the script's own trouble")
"""


pytestmark = pytest.mark.slow


def create(server: Server, script: Path, **parts: Any) -> str:
    document = {
        "name": script.stem,
        "data": {"builtin": "stdlib"},
        "model": {"kind": "script", "command": ["python", script.name]},
        "train": {"steps": 40, "evaluate_every": 1},
        "search": {"x": {"uniform": [1.0, 2.0]}},
        "sampler": {"kind": "random", "seed": 1},
        "budget": {"trials": 2},
    }
    return server.client.studies.create(parse_spec(document | parts)).name


def written(folder: Path, name: str, code: str) -> Path:
    path = folder / f"{name}.py"
    path.write_text(code)
    return path


def test_a_study_of_the_pytorch_example_ends_and_asha_stops_its_worse_trials(
    make_server: MakeServer,
):
    settings = {"LMTUNE_WORKERS": "1", ALLOWED: str(EXAMPLE.with_suffix(".py"))}
    server = make_server(**settings)
    server.client.studies.create(load_spec(EXAMPLE.with_suffix(".yaml")))
    view = server.wait_for_end("pytorch-script", 120)
    assert (view.state, view.reason) == ("ENDED", "budget")
    assert set(view.counts) == {"COMPLETE", "PRUNED"}
    assert sum(view.counts.values()) == 6
    best = server.client.studies.best("pytorch-script")
    assert [point.step for point in best.curve] == [20, 40, 60, 80, 100]
    assert best.value == best.curve[-1].metrics["validation_loss"] < 3.0
    assert set(best.params) == {"learning_rate", "units", "cell"}


def test_a_study_of_the_keras_example_ends(make_server: MakeServer):
    pytest.importorskip("tensorflow", reason="pip install tensorflow")
    script = EXAMPLES / "keras_script.py"
    server = make_server(LMTUNE_WORKERS="1", **{ALLOWED: str(script)})
    server.client.studies.create(load_spec(script.with_suffix(".yaml")))
    view = server.wait_for_end("keras-script", 240)
    assert (view.state, view.reason, view.counts) == ("ENDED", "budget", {"COMPLETE": 3})
    curve = server.client.studies.trial("keras-script", 0).curve
    assert [point.step for point in curve] == [20, 40]


def test_a_script_that_the_operator_has_not_listed_is_refused(
    server: Server, make_worker: MakeWorker, tmp_path: Path
):
    other = written(tmp_path, "listed", SLOW)
    make_worker(server, "--allow-script", str(other))
    study = create(server, written(tmp_path, "secret", SLOW))
    reason = wait_for(lambda: first_reason(server, study), 60, "ended attempt")
    assert reason == (
        "model.command: this worker may not run secret.py (its operator adds it with"
        f" `lmtune-worker --allow-script secret.py` or {ALLOWED})"
    )


def first_reason(server: Server, study: str) -> str | None:
    """Why the first attempt ended, once it has."""
    if not list(server.client.studies.trials(study)):
        return None
    return server.client.studies.trial(study, 0).attempts[0].reason


def test_a_crash_is_told_by_the_end_of_its_standard_error(
    server: Server, make_worker: MakeWorker, tmp_path: Path
):
    script = written(tmp_path, "crash", CRASH)
    worker = make_worker(server, "--allow-script", str(script))
    study = create(server, script)
    reason = wait_for(lambda: first_reason(server, study), 60, "ended attempt")
    assert reason.startswith("the script ended with code 1: Traceback")
    assert reason.endswith("RuntimeError: the script's own trouble")
    assert worker.running


@pytest.mark.nightly
def test_killing_the_worker_ends_its_script_and_costs_nothing(
    make_server: MakeServer, make_worker: MakeWorker, tmp_path: Path
):
    server = make_server(LMTUNE_LEASE_SECONDS="2")
    script = written(tmp_path, "slow", SLOW)
    first = make_worker(server, "--allow-script", str(script))
    study = create(server, script)
    wait_for(lambda: step_of(server, study) >= 5, 60, "report")
    running = script_process(script)
    os.kill(first.pid, signal.SIGKILL)
    wait_for(lambda: not alive(running), 20, "end of script")
    make_worker(server, "--allow-script", str(script))
    view = server.wait_for_end(study, 60)
    assert view.counts == {"COMPLETE": 2}
    trial = server.client.studies.trial(study, 0)
    assert [point.step for point in trial.curve] == list(range(1, 41))
    assert trial.value == trial.params["x"] / 40


def step_of(server: Server, study: str) -> int:
    return max((view.step for view in server.client.studies.trials(study)), default=0)


def script_process(script: Path) -> psutil.Process:
    for process in psutil.process_iter(["cmdline"]):
        if str(script) in (process.info["cmdline"] or [])[1:2]:
            return process
    raise AssertionError(f"no process runs {script}")


@pytest.mark.parametrize("deaf", [False, True])
def test_a_stopped_script_is_told_and_one_that_does_not_listen_is_ended(
    server: Server, make_worker: MakeWorker, tmp_path: Path, deaf: bool
):
    script = written(tmp_path, "long", SLOW)
    make_worker(server, "--allow-script", str(script))
    search = {"x": {"uniform": [1.0, 2.0]}, "deaf": {"choice": [deaf]}}
    train = {"steps": 4_000, "evaluate_every": 1}
    study = create(server, script, search=search, train=train, budget={"trials": 1})
    wait_for(lambda: step_of(server, study) >= 2, 60, "report")
    server.client.studies.act(study, "stop")
    server.wait_for_end(study, 40)
    assert [a.outcome for a in server.client.studies.trial(study, 0).attempts] == ["pruned"]
