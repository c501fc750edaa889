"""Which devices a worker has, and what each of its processes is told."""

import queue
import resource
import socket

import psutil
import pytest

from studies import cores
from studies.errors import StartupError
from tests.harness.process import PATIENCE, free_port
from trainer import team
from trainer.team import Devices, parse_devices
from trainer.warm import Child


@pytest.mark.parametrize(
    ("said", "outer", "devices"),
    [
        (None, None, Devices()),
        ("cpu", None, Devices(1, "")),
        ("cpu,cpu", "0,1", Devices(2, "")),
        ("cuda:0,cuda:1", None, Devices(2, "0,1")),
        ("cuda:1,cuda:0", "GPU-5a,7", Devices(2, "7,GPU-5a")),
        ("all", "GPU-5a,7", Devices(2, "GPU-5a,7")),
        ("all", "", Devices(1, "")),
    ],
)
def test_devices_are_named_as_torch_does(monkeypatch, said, outer, devices):
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    if outer is not None:
        monkeypatch.setenv("CUDA_VISIBLE_DEVICES", outer)
    assert parse_devices(said) == devices


@pytest.mark.parametrize("said", ["", "gpu", "cpu,cuda:0", "cuda:0,cuda:0", "cuda:2", "cuda"])
def test_what_is_no_list_of_devices_is_refused(monkeypatch, said):
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "0,1")
    with pytest.raises(StartupError, match="--devices"):
        parse_devices(said)


def test_one_device_trains_without_a_group_and_several_are_told_their_places(monkeypatch):
    assert Devices(1, "3").places() == [{"CUDA_VISIBLE_DEVICES": "3"}]
    monkeypatch.setenv("OMP_NUM_THREADS", "5")
    first, second = Devices(2, "").places()
    assert (first["RANK"], second["RANK"], second["LOCAL_RANK"]) == ("0", "1", "1")
    assert first["MASTER_PORT"] == second["MASTER_PORT"]
    assert int(first["MASTER_PORT"]) in team._PORTS
    assert first["WORLD_SIZE"] == "2"
    assert "OMP_NUM_THREADS" not in first  # inherited
    monkeypatch.delenv("OMP_NUM_THREADS")
    monkeypatch.setattr(cores, "_usable", lambda: 6)
    assert [place["OMP_NUM_THREADS"] for place in Devices(2, "").places()] == ["3", "3"]


def test_several_devices_meet_at_a_port_that_nobody_listens_on(monkeypatch):
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        taken = other.getsockname()[1]
        monkeypatch.setattr(team, "_PORTS", [taken, free := free_port()])
        assert {Devices(2).places()[0]["MASTER_PORT"] for _ in range(20)} == {str(free)}
        monkeypatch.setattr(team, "_PORTS", [taken])
        with pytest.raises(StartupError, match="no port"):
            Devices(2).places()


@pytest.fixture(scope="module")
def child():
    """Two training processes, each with a thread to compute in."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("OMP_NUM_THREADS", "1")
        pair = Child(Devices(2, ""))
        pair.start()
        yield pair
        pair.close()


def test_all_devices_are_those_that_the_environment_names(monkeypatch):
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    with pytest.raises(StartupError, match="CUDA_VISIBLE_DEVICES names none"):
        parse_devices("all")


def test_a_device_that_a_script_left_idle_still_tells_how_the_next_trial_failed(
    recipe, text, tmp_path, monkeypatch
):
    monkeypatch.setattr(team, "_GRACE", 0.1)
    (tmp_path / "text").write_text(text)
    failed = queue.Queue()
    helpers = team.Helpers([{"RANK": "1"}], lambda *said: failed.put(said))
    job = {"start": None, "text": str(tmp_path / "text"), "folder": str(tmp_path)}
    for trial in (recipe(kind="script", command=("python", "a.py")), recipe(hidden_dim=200_000)):
        said = trial.model_dump(mode="json", by_alias=True)
        helpers.send("train", recipe=said, **job)
    outcome, reason = failed.get(timeout=60 * PATIENCE)
    helpers.kill()
    assert outcome == "oom"
    assert reason.startswith("on device 1: ")


@pytest.mark.slow
def test_memory_that_runs_out_on_the_second_device_ends_as_oom_there(server, run, recipe, child):
    assert run(server.add(recipe())).outcome == "ok"  # and all is imported
    (second, _), *_ = child._helpers._members
    memory = psutil.Process(second.pid).memory_info().vms + 250 * 2**20
    resource.prlimit(second.pid, resource.RLIMIT_AS, (memory, memory))
    end = run(server.add(recipe(hidden_dim=3_000, embedding_dim=3_000)))  # 2 x 288 MB of weights
    assert end.outcome == "oom"
    assert end.reason.startswith("on device 1: ")
    assert "memory" in end.reason
    assert run(server.add(recipe())).outcome == "ok"  # by two new processes
