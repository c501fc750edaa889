"""What a step may not do: wait for the device, or leave memory behind."""

import os
import subprocess
import sys

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

from tests.harness.process import ROOT
from trainer.run import CHECK_EVERY, Run

# Operations whose result the host needs before it can go on: on a GPU each waits for all before it.
WAITS = ("_local_scalar_dense", "nonzero", "masked_select", "unique", "equal", "is_nonzero")


class Waits(TorchDispatchMode):
    """Counts operations that would wait for a GPU."""

    def __init__(self):
        super().__init__()
        self.seen = []

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        name = func.overloadpacket.__name__
        if name.startswith(WAITS):
            self.seen.append(name)
        return func(*args, **(kwargs or {}))


@pytest.mark.parametrize("knobs", [
    {}, {"kind": "gpt"}, {"windows": "streams"}, {"accumulate": 2}, {"precision": "bf16"},
    {"regularizer": "l1", "lambda": 0.01}, {"regularizer": "decoupled", "lambda": 0.01},
    {"optimizer": "sgd"}, {"optimizer": "muon", "kind": "gpt"}, {"token_dropout": 0.1},
    {"kind": "bert"}, {"gradient_clip": 0.5, "dropout": 0.2},
], ids=str)  # fmt: skip
def test_a_step_does_not_wait_for_the_device(tiny, text, knobs, monkeypatch):
    run = Run(tiny(steps=100, evaluate_every=100, **knobs), text)
    run.step()
    with Waits() as waits:
        read = torch.Tensor.tolist  # is no operation, and on a GPU waits too
        monkeypatch.setattr(
            torch.Tensor, "tolist", lambda z: waits.seen.append("tolist") or read(z)
        )
        run.step()
        run.step()
        assert waits.seen == []
        run.progress.step = CHECK_EVERY - 1
        run.step()  # looks at the loss
        assert waits.seen == ["tolist"]


def test_the_scaler_of_fp16_waits_once_a_step(tiny, text):
    run = Run(tiny(steps=100, evaluate_every=100, precision="fp16"), text)
    run.step()
    with Waits() as waits:
        for _ in range(5):
            run.step()
    assert len(waits.seen) == 5


HUNDRED = """
import ctypes, gc
from studies.corpus import builtin_text
from studies.recipe import Recipe
from trainer.loop import train

ctypes.CDLL(None).prctl(41, 1, 0, 0, 0)  # PR_SET_THP_DISABLE: no page is larger than asked for
text = builtin_text("stdlib")
kinds = ["lstm", "gpt"]

def trial(n):
    train(Recipe.model_validate({
        "data": {"builtin": "stdlib"},
        "model": {"kind": kinds[n % 2], "embedding_dim": 32, "hidden_dim": 256 + 8 * (n % 5),
                  "layers": 1, "heads": 2, "dropout": 0.1},
        "train": {"steps": 2, "batch_size": 2, "sequence_length": 16, "evaluate_every": 2,
                  "optimizer": ["sgd", "adam", "adamw", "muon"][n % 4],
                  "precision": ["fp32", "bf16", "fp16"][n % 3]},
    }), text[:4_000])

def resident():
    return int(open("/proc/self/statm").read().split()[1]) * 4096

for n in range(20):
    trial(n)
gc.collect()
gc.freeze()  # as the worker's child does: what follows are new objects alone
grown = []
for _ in range(2):
    before = resident()
    for n in range(50):
        trial(n)
    gc.collect()
    grown.append(resident() - before)
print(len(gc.get_objects()), *grown)
"""


@pytest.mark.slow
def test_a_hundred_trials_in_one_process_leave_nothing(tmp_path):
    done = subprocess.run(
        [sys.executable, "-c", HUNDRED],
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    objects, *grown = map(int, done.stdout.split())
    assert objects < 500, "Python objects are left behind"  # a trial makes thousands
    # What is left behind comes with every trial, whose weights alone are about 2 MB.
    assert min(grown) < 4 * 2**20, "memory is left behind"
