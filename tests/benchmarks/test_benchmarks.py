"""The benchmarks' own machinery: what they count is what happened."""

from __future__ import annotations

from pathlib import Path

import pytest

from service.store import trials
from service.store.database import Database
from tests.benchmarks import scale
from tests.benchmarks._fill import fill, study_file
from tests.benchmarks._load import Order
from tests.benchmarks._systems import Lmtune, Setting, figures, percentile, run_module, started


@pytest.mark.parametrize(
    ("values", "part", "found"),
    [([], 0.5, None), ([3.0], 0.99, 3.0), ([4, 1, 3, 2], 0.5, 2), (range(1, 101), 0.99, 99)],
)
def test_a_percentile_is_the_nearest_rank(values, part, found) -> None:
    assert percentile(values, part) == found


def test_figures_are_rates_and_milliseconds() -> None:
    seen = {"claim": [0.1], "report": [0.01, 0.03], "finish": [], "statuses": {"200": 3, "503": 1}}
    got = figures([seen, seen], seconds=2.0, cpu=0.4)
    assert (got.reports_per_s, got.trials_per_s, got.cpu_ms_per_report) == (2.0, 0.0, 100.0)
    assert (got.claim_p50_ms, got.report_p50_ms, got.report_p99_ms) == (100.0, 10.0, 30.0)
    assert got.errors == {"503": 2}


@pytest.mark.slow
@pytest.mark.nightly
def test_the_load_is_what_the_server_stores(tmp_path: Path) -> None:
    system = Lmtune("lmtune-sqlite", "", tmp_path / "home")
    with started(system.server):
        got = system.measure(Setting("random", 3, 2, 1.0))
        known = list(system.server.client.studies.trials("bench-0"))
        refused = run_module("_load", Order(system.server.url, system.server.token, herd=True))
    complete = [view for view in known if view.state == "COMPLETE"]
    assert got.trials_per_s > 0
    assert len(complete) >= got.trials_per_s  # the warm-up's are there too
    assert all(view.step == 3 for view in complete)
    assert got.errors == {}
    assert refused["granted"] == []  # the only study was stopped


def test_a_filled_study_is_whole(tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path / 'filled.db'}"
    fill(url, study_file("filled", "tpe", 10), 25)  # raises where our rows and Optuna's differ
    database = Database(url)
    best = database.read(lambda conn: trials.best(conn, 1, "minimize", limit=100))
    database.close()
    assert len(best) == 25


@pytest.mark.parametrize(("clients", "servers", "shares"), [(200, 4, [50] * 4), (5, 2, [3, 2])])
def test_a_fleets_clients_are_shared_out(clients, servers, shares) -> None:
    assert scale.shares(clients, servers) == shares


@pytest.mark.slow
@pytest.mark.nightly
@pytest.mark.postgres
def test_a_fleet_of_two_servers_is_measured(postgres, tmp_path: Path) -> None:
    with scale.fleet(2, tmp_path, postgres) as servers:
        got = scale.load(servers, postgres, 100, {"clients": 4, "seconds": 2.0, "warm": 2.0})
    assert got["reports_per_s"] > 0
    assert got["cpu_ms_per_report"] > 0
    assert got["postgres_ms_per_report"] > 0
    assert got["errors"] == {}
