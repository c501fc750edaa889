"""What a real study leaves is an ordinary Optuna study, for Optuna and for its dashboard."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

import httpx
import optuna
import pytest
from optuna.trial import TrialState as Theirs

from tests.acceptance import tiny
from tests.harness.lmtune import Server, Worker
from tests.harness.process import PATIENCE, Process, free_port, wait_for

STATES = {
    "COMPLETE": Theirs.COMPLETE,
    "PRUNED": Theirs.PRUNED,
    "FAILED": Theirs.FAIL,
    "CANCELLED": Theirs.FAIL,
}


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """A server whose study has ended: trained, pruned, diverged and cancelled trials."""
    folder = tmp_path_factory.mktemp("optuna")
    server = Server(folder / "home", "", {})
    server.start()
    tiny.create(
        server,
        folder,
        train={"steps": 400, "batch_size": 8, "sequence_length": 32, "evaluate_every": 200},
        search={
            "learning_rate": {"log": [1.0e-6, 1.0e4]},
            "regularizer": {"choice": ["none", "l2"]},
            "lambda": {"log": [1.0e-8, 1.0e-2], "when": {"regularizer": "l2"}},
        },
        scheduler={"kind": "asha", "min_steps": 200, "reduction_factor": 2},
        budget={"trials": 9},
    )
    studies = server.client.studies
    studies.enqueue("tiny", {"learning_rate": 1e-2, "regularizer": "none"})
    studies.enqueue("tiny", {"learning_rate": 1e4})
    studies.enqueue("tiny", {})
    studies.cancel("tiny", 2)
    studies.enqueue("tiny", {"learning_rate": 1e-6})
    worker = Worker(server, folder / "worker", [])
    worker.start()
    server.wait_for_end("tiny", 240)
    worker.stop()
    yield server
    server.stop()


def test_optuna_reads_what_the_api_says(server: Server) -> None:
    ours = list(server.client.studies.trials("tiny"))
    assert {"COMPLETE", "PRUNED", "FAILED", "CANCELLED"} == {str(view.state) for view in ours}
    with tiny.plain_optuna(tiny.url_of(server)) as study:
        assert [trial.number for trial in study.trials] == [view.number for view in ours]
        for trial, view in zip(study.trials, ours, strict=True):
            detail = server.client.studies.trial("tiny", view.number)
            curve = {p.step: p.metrics["validation_loss"] for p in detail.curve}
            assert trial.state is STATES[view.state]
            assert trial.params == view.params
            assert str(trial.intermediate_values) == str(curve)
            if view.state in ("COMPLETE", "PRUNED"):
                assert trial.value == view.value
            else:
                assert trial.user_attrs["lmtune_state"] == view.state
                assert trial.user_attrs["lmtune_reason"] == view.reason
        best = server.client.studies.best("tiny")
        assert (study.best_value, study.best_params) == (best.value, best.params)
        assert study.best_trial.number == best.number
    assert tiny.reconcile(server) == ""


def test_a_learning_rate_of_ten_thousand_diverges(server: Server) -> None:
    trial = server.client.studies.trial("tiny", 1)
    assert (trial.state, tiny.attempts(server, 1)) == ("FAILED", ["diverged"])
    assert trial.reason.startswith("diverged")


def test_optuna_goes_on_with_the_study(server: Server) -> None:
    """Its own samplers, importances and figures work on what we left."""
    with tiny.plain_optuna(tiny.url_of(server)) as study:
        study.sampler = optuna.samplers.TPESampler(seed=1)
        asked = study.ask(
            {"learning_rate": optuna.distributions.FloatDistribution(1e-3, 1e4, log=True)}
        )
        study.tell(asked, 9.0)
        assert asked.number == len(study.trials) - 1
    assert tiny.reconcile(server) == ""
    assert len(list(server.client.studies.trials("tiny"))) == asked.number


def test_the_optuna_dashboard_shows_it(server: Server, tmp_path: Path) -> None:
    port = free_port()
    program = "import sys; from optuna_dashboard._cli import main; sys.exit(main())"
    dashboard = Process("optuna_dashboard", [], {}, tmp_path / "dashboard.log")
    dashboard.command = [sys.executable, "-c", program, tiny.url_of(server), "--port", str(port)]
    dashboard.start()
    try:

        def get(path: str) -> httpx.Response:
            url = f"http://127.0.0.1:{port}/api/studies{path}"
            return httpx.get(url, timeout=30 * PATIENCE)

        def there() -> bool:
            assert dashboard.running, dashboard.output
            try:
                return get("").is_success
            except httpx.TransportError:
                return False

        wait_for(there, 60, "optuna-dashboard")
        (summary,) = get("").json()["study_summaries"]
        assert summary["study_name"] == "tiny"
        study = get(f"/{summary['study_id']}").json()
        states = [trial["state"] for trial in study["trials"]]
        assert {"Complete", "Pruned", "Fail"} == set(states)
        assert len(states) >= len(list(server.client.studies.trials("tiny")))
    finally:
        dashboard.stop()
