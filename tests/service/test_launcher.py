"""The local launcher: keeps its workers alive, tells which died, and finds them after a crash."""

from __future__ import annotations

import json
import os
import signal
from collections.abc import Callable, Iterator
from pathlib import Path

import httpx
import psutil
import pytest

from service.launcher import local
from service.launcher.base import Lost, NoLauncher
from service.launcher.keeper import gpus_of
from service.launcher.local import Life, LocalLauncher, Slot, make_slots
from studies import cores
from studies.errors import NotFound, StartupError
from tests.harness.process import gone, wait_for

WORKER = """
import json, os, signal, subprocess, sys, time
from pathlib import Path
deaf = os.environ.get("STUB") == "deaf"
signal.signal(signal.SIGTERM, signal.SIG_IGN if deaf else lambda *_: sys.exit(0))
child = subprocess.Popen(["sleep", "300"])
name = sys.argv[sys.argv.index("--name") + 1]
said = {"pid": os.getpid(), "child": child.pid, "argv": sys.argv, "env": dict(os.environ)}
Path(name + ".tmp").write_text(json.dumps(said))
Path(name + ".tmp").rename(name + ".json")
time.sleep(300)
"""
URL, TOKEN = "http://127.0.0.1:1", "lmt_secret"
Make = Callable[..., LocalLauncher]


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where `python -m trainer` is a stub that sleeps and has a child."""
    stub = tmp_path / "trainer"
    stub.mkdir()
    (stub / "__init__.py").write_text("")
    (stub / "__main__.py").write_text(WORKER)
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture
def make(folder: Path) -> Iterator[Make]:
    made: list[LocalLauncher] = []

    def launcher(*keys: str, url: str = URL, **environment: str) -> LocalLauncher:
        slots = [Slot(key, dict(environment)) for key in keys or ("cpu0",)]
        made.append(LocalLauncher(slots, url, TOKEN, folder / "home"))
        return made[-1]

    yield launcher
    for each in made:
        each.stop(0)


def lives(folder: Path) -> dict[str, dict]:
    return json.loads((folder / "home" / "workers.json").read_text())["lives"]


def started(folder: Path, key: str = "cpu0") -> dict:
    """What the slot's worker said of itself, once it runs."""
    path = folder / f"{lives(folder)[key]['name']}.json"
    wait_for(path.exists, 20, f"{path}")
    return json.loads(path.read_text())


def die(said: dict) -> None:
    os.kill(said["pid"], signal.SIGKILL)
    wait_for(lambda: gone(said["pid"]), 10, "end of the worker")


def test_each_slot_gets_a_worker_with_its_device_and_the_token(
    make: Make, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("LMTUNE_DATABASE_URL", "postgresql+psycopg://lmtune:secret@db/lmtune")
    assert make("gpu0", "gpu1", CUDA_VISIBLE_DEVICES="3").keep(1) == []
    for key in ("gpu0", "gpu1"):
        said = started(folder, key)
        assert said["argv"][1:4] == ["--server", URL, "--name"]
        assert TOKEN not in " ".join(psutil.Process(said["pid"]).cmdline())
        assert said["env"]["LMTUNE_TOKEN"] == TOKEN
        assert said["env"]["CUDA_VISIBLE_DEVICES"] == "3"
        assert "LMTUNE_DATABASE_URL" not in said["env"]
        assert (folder / "home" / "logs" / f"worker-{key}.log").exists()
    assert started(folder, "gpu0")["pid"] != started(folder, "gpu1")["pid"]


def test_a_worker_that_died_is_told_once_and_started_anew(make: Make, folder: Path) -> None:
    launcher = make()
    launcher.keep(1)
    first, name = started(folder), lives(folder)["cpu0"]["name"]
    die(first)
    assert launcher.keep(1) == [Lost(name, "it ended with -9")]
    assert launcher.keep(1) == []
    launcher._slots[0].next_start = 0.0  # its pause is over
    assert launcher.keep(1) == []
    assert started(folder)["pid"] != first["pid"]
    assert lives(folder)["cpu0"]["name"] != name


# ------------------------------------------------------------------ after a crash of the server


def test_the_next_server_adopts_a_living_worker(make: Make, folder: Path) -> None:
    make().keep(1)
    said, name = started(folder), lives(folder)["cpu0"]["name"]
    second = make()
    assert second.keep(1) == []
    assert started(folder) == said
    die(said)
    assert second.keep(1) == [Lost(name, "it ended")]


def test_the_children_of_a_worker_that_died_unwatched_end_too(make: Make, folder: Path) -> None:
    make().keep(1)
    said = started(folder)
    die(said)
    assert not gone(said["child"])
    make().keep(1)
    wait_for(lambda: gone(said["child"]), 10, "end of the worker's child")


def test_a_group_with_a_number_that_was_given_again_is_left_alone() -> None:
    with psutil.Popen(["sleep", "300"], start_new_session=True) as stranger:
        Life("cpu0-old", stranger.pid, stranger.create_time() - 60).kill_group()
        assert stranger.poll() is None
        stranger.kill()


def test_a_worker_for_another_address_or_slot_is_ended(make: Make, folder: Path) -> None:
    make("cpu0", "cpu1").keep(1)
    said = {key: started(folder, key) for key in ("cpu0", "cpu1")}
    names = {key: life["name"] for key, life in lives(folder).items()}
    reason = "it was started for another address or device"
    assert Lost(names["cpu1"], reason) in make("cpu0").keep(1)
    wait_for(lambda: gone(said["cpu1"]["pid"]), 10, "end of the worker")
    moved = make("cpu0", url="http://127.0.0.1:2")
    assert Lost(names["cpu0"], reason) in moved.keep(1)
    wait_for(lambda: gone(said["cpu0"]["pid"]), 10, "end of the worker")


def test_a_process_that_only_has_the_same_number_is_no_worker(make: Make, folder: Path) -> None:
    """A pid that was given again belongs to somebody else, who must live."""
    with psutil.Popen(["sleep", "300"], start_new_session=True) as stranger:
        (folder / "home").mkdir()
        life = {"name": "cpu0-old", "pid": stranger.pid, "created": stranger.create_time() - 60}
        (folder / "home" / "workers.json").write_text(
            json.dumps({"url": URL, "lives": {"cpu0": life}})
        )
        assert make().keep(1) == [Lost("cpu0-old", "it ended while no server watched")]
        assert stranger.poll() is None
        stranger.kill()


@pytest.mark.parametrize("text", ["", "{", "[]", "{}", '{"lives": {"cpu0": {"pid": 1}}}', "7"])
def test_a_list_of_workers_that_is_none_is_passed_over(make: Make, folder: Path, text) -> None:
    (folder / "home").mkdir()
    (folder / "home" / "workers.json").write_text(text)
    assert make().keep(1) == []


# ------------------------------------------------------------------ the end


def test_no_launcher_starts_nothing() -> None:
    assert (NoLauncher().keep(1), NoLauncher().stop(1), NoLauncher().log("a-1")) == ((), (), None)


def test_a_process_that_is_gone_has_no_life() -> None:
    with psutil.Popen(["true"]) as process:
        life = Life("a", process.pid, process.create_time())
    assert life.process() is None
    life.kill_group()


# ------------------------------------------------------------------ which workers


def test_one_worker_per_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "0,GPU-5a,7")
    slots = make_slots("auto")
    assert [slot.key for slot in slots] == ["gpu0", "gpuGPU-5a", "gpu7"]
    assert [slot.environment["CUDA_VISIBLE_DEVICES"] for slot in slots] == ["0", "GPU-5a", "7"]
    assert [slot.key for slot in make_slots(2)] == ["gpu0", "gpuGPU-5a"]
    assert len(make_slots(9)) == 3


def test_a_worker_may_have_several_gpus(monkeypatch, caplog) -> None:
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "0,1,2,GPU-5a,7")
    slots = make_slots("auto", devices=2)
    assert [slot.key for slot in slots] == ["gpu0x2", "gpu2x2"]
    given = {"CUDA_VISIBLE_DEVICES": "2,GPU-5a", "LMTUNE_DEVICES": "all"}
    assert slots[1].environment == given
    assert "1 of 5 GPUs make up no worker of 2" in caplog.text
    assert len(make_slots(1, devices=2)) == 1
    with pytest.raises(StartupError, match="devices: 9 for each worker, and there are 5 GPUs"):
        make_slots("auto", devices=9)


def test_a_worker_may_have_several_processes_on_the_cpu(monkeypatch) -> None:
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    monkeypatch.setattr(cores, "_usable", lambda: 8)
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    (slot,) = make_slots("auto", devices=2)
    assert slot.key == "cpu0x2"
    assert slot.environment["LMTUNE_DEVICES"] == "cpu,cpu"
    assert slot.environment["OMP_NUM_THREADS"] == "4"


@pytest.mark.parametrize(("count", "given"), [
    (0, {"CUDA_VISIBLE_DEVICES": "", "LMTUNE_DEVICES": ""}),
    (0.5, {"LMTUNE_DEVICES": ""}), (1, {"LMTUNE_DEVICES": ""}), (2, {"LMTUNE_DEVICES": "all"}),
])  # fmt: skip
def test_a_clusters_worker_takes_all_gpus_that_it_is_given(count, given) -> None:
    assert gpus_of(count) == given


@pytest.mark.parametrize("said", ["", "-1"])
def test_without_a_gpu_workers_share_the_cores(monkeypatch, said) -> None:
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", said)
    monkeypatch.setattr(cores, "_usable", lambda: 8)
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    assert [slot.key for slot in make_slots("auto")] == ["cpu0"]
    slots = make_slots(2)
    assert [slot.environment["OMP_NUM_THREADS"] for slot in slots] == ["4", "4"]
    assert [slot.environment["CUDA_VISIBLE_DEVICES"] for slot in slots] == ["", ""]
    monkeypatch.setenv("OMP_NUM_THREADS", "3")
    assert all("OMP_NUM_THREADS" not in slot.environment for slot in make_slots(2))  # inherited


def test_no_worker_where_none_is_wanted_or_pytorch_is_missing(monkeypatch, caplog) -> None:
    assert make_slots(0) == []
    monkeypatch.setattr(local.importlib.util, "find_spec", lambda _: None)
    assert make_slots("auto") == []
    assert "pip install 'lmtune[worker]'" in caplog.text


def test_the_log_of_a_launched_worker_is_served(make_server) -> None:
    server = make_server(LMTUNE_WORKERS="1", CUDA_VISIBLE_DEVICES="")
    (worker,) = wait_for(server.client.workers, 60, "worker that the server knows")
    wait_for(lambda: "is ready" in server.client.worker_log(worker.name), 20, "line in the log")
    with pytest.raises(NotFound, match="did not start it"):
        server.client.http.request("GET", "/workers/99/log")
    with httpx.Client(headers={"Authorization": f"Bearer {server.token}"}) as browser:
        page = browser.get(f"{server.url}/workers/{worker.id}/log").text
        assert "is ready" in page
        assert f'href="/api/v1/workers/{worker.id}/log"' in page
        assert browser.get(f"{server.url}/workers/99/log").status_code == 404
