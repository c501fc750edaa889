"""Two real processes under torchrun, on gloo, train as one does: the same global batch."""

import json
import os
import subprocess
import sys
import threading
from pathlib import Path

import pytest
import torch

from studies.errors import InvalidInput
from tests.harness.process import PATIENCE
from trainer import checkpoint
from trainer import run as run_module
from trainer.checkpoint import CheckpointFile
from trainer.feed import Ahead
from trainer.ranks import Ranks, Together, build_ranks, leave
from trainer.run import Run

SHORT = Path(__file__).with_name("short.py")
RUNS = [
    {"kind": "lstm", "batch_size": 7, "label_smoothing": 0.1, "patience": 9},
    {"kind": "gpt", "accumulate": 2, "precision": "fp16", "gradient_checkpointing": True},
    pytest.param(
        {"kind": "bert", "regularizer": "l2", "lambda": 1e-3, "optimizer": "muon"},
        marks=pytest.mark.nightly,
    ),
]


def run(recipe, folder, name, *options, processes=2):
    """Trains in processes of their own; returns what has ended, its environment and its reports."""
    file, reports = folder / f"{name}.json", folder / f"{name}.jsonl"
    file.write_text(json.dumps(recipe.model_dump(mode="json", by_alias=True, exclude_none=True)))
    torchrun = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2"]
    launcher = torchrun if processes == 2 else []
    command = [sys.executable, *launcher, "-m", "trainer", "--recipe", file]
    done = subprocess.run(
        [*command, "--reports", reports, *options],
        capture_output=True, text=True, timeout=240 * PATIENCE,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
    )  # fmt: skip
    lines = reports.read_text().splitlines() if reports.exists() else ["{}"]
    environment, *rows = map(json.loads, lines)
    return done, environment, rows


@pytest.fixture
def on_file(tiny, text, tmp_path):
    (tmp_path / "text").write_text(text)
    return lambda **knobs: tiny(builtin=None, path=str(tmp_path / "text"), **knobs)


@pytest.mark.parametrize("knobs", RUNS, ids=lambda k: k["kind"])
def test_two_processes_reach_the_loss_of_one(on_file, fit, text, tmp_path, knobs):
    recipe = on_file(**knobs)
    double, environment, two = run(recipe, tmp_path, "two", "--out", tmp_path / "out")
    assert double.returncode == 0, double.stderr
    _, one, _ = fit(recipe)
    assert environment["devices"] == 2
    assert [row["step"] for row in two] == [item.step for item in one.items] == [6, 12]
    assert double.stdout.count("counts: validation loss") == 1  # rank 0 speaks alone
    for a, b in zip(two, one.items, strict=True):
        for metric in ("validation_loss", "train_loss", "gradient_norm"):
            assert a["metrics"][metric] == pytest.approx(b.metrics[metric], rel=2e-3), metric
        assert a["tokens"] == b.tokens


def test_what_rank_0_is_told_all_do_and_one_process_goes_on_from_there(on_file, fit, tmp_path):
    recipe, out = on_file(kind="gpt"), tmp_path / "at-8.safetensors"
    double, _, first = run(recipe, tmp_path, "two", "--until", "8", "--out", out)
    assert double.returncode == 0, double.stderr
    assert [row["step"] for row in first] == [6]
    file = CheckpointFile(out, checkpoint.file_sha256(out))
    assert checkpoint.load(file, torch.device("cpu"))[1]["progress"]["step"] == 8
    _, whole, _ = fit(recipe)
    for processes in (1, 2):
        name = f"rest-{processes}"
        done, _, rows = run(recipe, tmp_path, name, "--from", out, processes=processes)
        assert done.returncode == 0, done.stderr
        assert [row["step"] for row in rows] == [12]
        for metric in ("validation_loss", "train_loss"):
            expected = whole.items[1].metrics[metric]
            assert rows[0]["metrics"][metric] == pytest.approx(expected, rel=1e-4)


def short(recipe, folder):
    """Trains where the second process has little memory; returns what both said, see short.py."""
    torchrun = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2"]
    said = recipe.model_dump_json(by_alias=True, exclude_none=True)
    done = subprocess.run(
        [sys.executable, *torchrun, SHORT, said, folder / "text"],
        capture_output=True, text=True, timeout=240 * PATIENCE,
        env={**os.environ, "OMP_NUM_THREADS": "1", "MALLOC_ARENA_MAX": "1"},  # 64 MiB for each
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    return map(json.loads, done.stdout.splitlines())


@pytest.mark.slow
def test_a_batch_that_does_not_fit_on_one_device_is_halved_on_all(on_file, text, tmp_path):
    (tmp_path / "text").write_text(text * 40)
    recipe = on_file(
        kind="gpt", embedding_dim=8, hidden_dim=8, heads=1, batch_size=1_536, sequence_length=128,
        tokenizer="bytes", evaluate_every=2, steps=2,
    )  # fmt: skip
    (first, second), halved = short(recipe, tmp_path)  # not half a batch, half a batch
    assert first == [0, "another device has no memory left"]
    assert second[0] == 0
    assert "memory" in second[1]
    assert halved[0] == halved[1]
    parts, loss = halved[0]
    alone = Run(recipe, text * 40)
    alone.step()
    alone.step()
    assert parts == 2
    assert loss == pytest.approx(alone.evaluate().metrics["validation_loss"], rel=2e-3)


@pytest.fixture
def of_two(monkeypatch):
    """A run takes itself for one of two, yet computes all."""
    ranks = Ranks()
    ranks.world = 2
    monkeypatch.setattr(run_module, "build_ranks", lambda device: ranks)


@pytest.mark.usefixtures("of_two")
@pytest.mark.parametrize("scale", [1.0, 2.0**60])  # of the second some steps are skipped
def test_a_batch_is_rehearsed_until_the_optimizer_has_its_memory(tiny, text, monkeypatch, scale):
    run, steps = Run(tiny(precision="fp16"), text), []
    run._scaler.scale = scale
    monkeypatch.setattr(run._backward, "rehearse", lambda *_: steps.append(run.progress.step))
    taken = 0
    while taken < 3:
        before = run._scaler.skipped_steps
        run.step()
        taken += run._scaler.skipped_steps == before
    assert steps == list(range(run.progress.step - 1))
    assert (len(steps) == 2) == (scale == 1.0)


@pytest.mark.usefixtures("of_two")
def test_a_batch_that_does_not_go_round_is_an_error(tiny, text):
    with pytest.raises(InvalidInput, match="1 sequences do not go round 2 devices"):
        Run(tiny(batch_size=1), text)


@pytest.fixture
def of_one(monkeypatch):
    """A run is in a group, as the only one."""
    store = torch.distributed.HashStore()
    torch.distributed.init_process_group("gloo", store=store, rank=0, world_size=1)
    monkeypatch.setattr(run_module, "build_ranks", Together)
    yield
    leave()


@pytest.mark.usefixtures("of_one")
@pytest.mark.filterwarnings("ignore:.broadcast_buffers:FutureWarning")  # 2.10 has no other name
@pytest.mark.parametrize("parts", [1, 3])
def test_ranks_share_the_gradient_once_a_step_in_however_many_parts(tiny, text, monkeypatch, parts):
    shared = []

    def share(_, bucket):
        shared.append(bucket.index())
        done = torch.futures.Future()
        done.set_result(bucket.buffer())
        return done

    run = Run(tiny(kind="gpt", accumulate=parts), text)
    run._backward._forward.register_comm_hook(None, share)
    run._rehearse(0)
    assert shared == []
    run.step()
    run.step()
    assert shared == [0, 0]
    monkeypatch.setattr(run_module, "build_ranks", lambda _: Ranks())
    alone = Run(tiny(kind="gpt", accumulate=parts), text)
    alone.step()
    alone.step()
    assert run.check() == pytest.approx(alone.check(), rel=1e-6)


def test_a_rank_and_its_feed_take_its_own_gpu(monkeypatch):
    taken = []
    monkeypatch.setattr(
        torch.cuda, "set_device", lambda d: taken.append((d.index, threading.current_thread().name))
    )
    build_ranks(torch.device("cpu"))
    second = torch.device("cuda", 1)
    build_ranks(second)
    with pytest.raises(ZeroDivisionError):  # pinned memory needs a GPU
        Ahead(lambda step: 1 // step, second).at(0)
    assert taken == [(1, "MainThread"), (1, "feed_0")]
