"""What every launcher does, with real processes: one suite over all kinds of launchers."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

from service.launcher.base import Lost
from tests.harness.process import PATIENCE, gone, wait_for
from tests.service.launching import TOKEN, URL, Bench, LocalBench, RayBench, SlurmBench

KINDS = ["local", pytest.param("ray", marks=pytest.mark.ray)]
KINDS += [pytest.param("slurm", marks=pytest.mark.slurm)]


@pytest.fixture(params=KINDS)
def bench(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Bench]:
    made: Bench
    if request.param == "ray":
        made = RayBench(tmp_path, request.getfixturevalue("ray_cluster").address)
    elif request.param == "slurm":
        request.getfixturevalue("slurm_cluster")
        made = SlurmBench(tmp_path)
    else:
        made = LocalBench(tmp_path)
    yield made
    made.end()


def told(bench: Bench, launcher, wanted: int = 1) -> list[Lost]:
    """What the launcher tells of the next death."""
    return wait_for(lambda: launcher.keep(wanted), 60, "word of the death")


def test_it_starts_as_many_as_are_wanted_and_have_room(bench: Bench) -> None:
    launcher = bench.launcher(2)
    launcher.keep(1)
    bench.wait_living(1, launcher, 1)
    bench.wait_living(2, launcher, 9)
    assert launcher.keep(9) == []
    assert len(bench.said()) == 2


def test_a_worker_gets_what_it_needs_and_no_secret_in_its_arguments(bench, monkeypatch) -> None:
    """The server's address, its name, the token and the scripts; not the database."""
    monkeypatch.setenv("LMTUNE_DATABASE_URL", "postgresql+psycopg://lmtune:secret@db/lmtune")
    monkeypatch.setenv("LMTUNE_ALLOW_SCRIPTS", "/srv/mine.py")
    launcher = bench.launcher()
    bench.wait_living(1, launcher, 1)
    (said,) = bench.living()
    assert said["argv"][1:] == ["--server", URL, "--name", said["name"]]
    assert TOKEN not in " ".join(psutil.Process(said["pid"]).cmdline())
    given = said["env"].get("LMTUNE_TOKEN") or Path(said["env"]["LMTUNE_TOKEN_FILE"]).read_text()
    assert given == TOKEN
    assert said["env"]["LMTUNE_ALLOW_SCRIPTS"] == "/srv/mine.py"
    assert "LMTUNE_DATABASE_URL" not in said["env"]
    assert "secret@db" not in json.dumps(said["env"])


def test_a_worker_that_died_is_told_once_and_replaced(bench: Bench) -> None:
    launcher = bench.launcher()
    bench.wait_living(1, launcher, 1)
    (first,) = bench.living()
    bench.kill(first)
    (lost,) = told(bench, launcher)
    assert lost.worker == first["name"]
    bench.wait_living(1, launcher, 1)
    (second,) = bench.living()
    assert second["name"] != first["name"]
    wait_for(lambda: gone(first["child"]), 20, "end of the dead worker's child")


def test_who_keeps_dying_is_started_ever_later(bench: Bench) -> None:
    launcher, pauses = bench.launcher(), []
    (slot,) = launcher._slots
    for _ in range(2):
        slot.next_start = 0.0
        bench.wait_living(1, launcher, 1)
        bench.kill(bench.living()[0])
        told(bench, launcher)
        pauses.append(round(slot.next_start - time.monotonic()))
    assert pauses == [1, 2]


def test_those_too_many_are_asked_to_go_and_come_back_when_wanted(bench: Bench) -> None:
    launcher = bench.launcher(2)
    bench.wait_living(2, launcher, 2)
    bench.wait_living(1, launcher, 1)
    bench.wait_living(0, launcher, 0)
    bench.wait_living(1, launcher, 1)
    assert len(bench.said()) == 3


def test_one_that_is_asked_and_does_not_go_is_ended(bench: Bench) -> None:
    launcher = bench.launcher(STUB="deaf")
    bench.wait_living(1, launcher, 1)
    (said,) = bench.living()
    launcher._grace = 0.1
    assert told(bench, launcher, 0) == [Lost(said["name"], "it did not end in time")]
    wait_for(lambda: gone(said["pid"]) and gone(said["child"]), 30, "end of the worker")


def test_an_idle_worker_goes_before_a_busy_one(bench: Bench) -> None:
    launcher = bench.launcher(2)
    bench.wait_living(2, launcher, 2)
    last = max(said["name"] for said in bench.living())
    assert launcher.keep(1, {last}) == []
    bench.wait_living(1, launcher, 1)
    assert [said["name"] for said in bench.living()] == [last]


def test_at_the_end_those_that_go_when_asked_are_not_lost(bench: Bench) -> None:
    launcher = bench.launcher(2)
    bench.wait_living(2, launcher, 2)
    assert launcher.stop(60) == []
    assert bench.living() == []
    assert launcher.keep(2) == []
    assert len(bench.said()) == 2


def test_at_the_end_one_that_does_not_go_is_ended_with_its_child_and_told(bench: Bench) -> None:
    launcher = bench.launcher(STUB="deaf")
    bench.wait_living(1, launcher, 1)
    (said,) = bench.living()
    assert launcher.stop(0.3) == [Lost(said["name"], "it did not end in time")]
    wait_for(lambda: gone(said["pid"]) and gone(said["child"]), 30, "end of the worker")


def test_the_next_server_adopts_the_living_and_tells_of_the_dead(bench: Bench) -> None:
    bench.wait_living(2, bench.launcher(2), 2)
    living, dead = sorted(bench.living(), key=lambda said: said["name"])
    bench.kill(dead)
    second = bench.launcher(2)
    (lost,) = told(bench, second, 1)
    assert lost.worker == dead["name"]
    assert [said["name"] for said in bench.living()] == [living["name"]]
    assert second.stop(60) == []
    assert gone(living["pid"])


def test_a_worker_for_another_address_is_ended(bench: Bench) -> None:
    bench.wait_living(1, bench.launcher(), 1)
    (said,) = bench.living()
    (lost,) = told(bench, bench.launcher(url="http://127.0.0.1:2"), 0)
    assert lost == Lost(said["name"], "it was started for another address or device")
    wait_for(lambda: gone(said["pid"]), 30, "end of the worker")


def test_what_a_worker_printed_is_shown(bench: Bench) -> None:
    launcher = bench.launcher()
    bench.wait_living(1, launcher, 1)
    name = bench.living()[0]["name"]

    def shown() -> bool:
        launcher.keep(1)
        return f"I am {name}" in (launcher.log(name) or "")

    wait_for(shown, 20, "line in the log")
    assert launcher.log("stranger-1") is None
    assert launcher.log("../../home-1") is None


_FIND = """
import sys, ray
ray.init(sys.argv[1], namespace="lmtune", log_to_driver=False)
try:
    ray.get_actor(sys.argv[2])
except ValueError:
    print("not here")
"""


@pytest.mark.ray
def test_rays_local_is_a_cluster_of_its_own_beside_one_that_runs(tmp_path, ray_cluster) -> None:
    bench = RayBench(tmp_path, "local", num_gpus=0)
    try:
        launcher = bench.launcher()
        bench.wait_living(1, launcher, 1)
        (said,) = bench.living()
        command = [sys.executable, "-c", _FIND, ray_cluster.address, said["name"]]
        found = subprocess.run(command, capture_output=True, text=True, timeout=60 * PATIENCE)
        assert found.stdout.strip() == "not here", found.stderr
    finally:
        bench.end()
