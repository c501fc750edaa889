"""A small text, small recipes, and doubles of the loop's two interfaces."""

import gc
import os
import random
from pathlib import Path

import pytest
import torch

from studies.corpus import text_sha256
from studies.recipe import Recipe
from trainer.attempt import AttemptRun
from trainer.checkpoint import CheckpointFile
from trainer.loop import NullCheckpoints, NullReporter, train
from trainer.patience import Patience
from trainer.scratch import Scratch
from trainer.warm import Child

from .fake_server import LEASE_MS, FakeServer

torch.set_num_threads(1)  # the models are tiny, and others share the cores
gc.freeze()  # a run ends with a collection, which need not look at what was imported

TINY = {
    "tokenizer": "characters",
    "embedding_dim": 8,
    "hidden_dim": 8,
    "heads": 2,
    "layers": 2,
    "steps": 12,
    "batch_size": 4,
    "sequence_length": 16,
    "evaluate_every": 6,
    "seed": 1,
    "learning_rate": 1e-2,
}


@pytest.fixture(scope="session")
def text():
    """6,000 characters of sentences that a model can learn a little of."""
    draw = random.Random(0)
    words = ["the", "a", "cat", "dog", "sees", "hears", "runs", "and", "then", "sleeps", "old"]
    return " ".join(draw.choice(words) for _ in range(1_700))[:6_000]


@pytest.fixture
def tiny():
    """Returns a function that makes a tiny recipe with these knobs moved."""
    base = Recipe.model_validate({"data": {"builtin": "stdlib"}})
    return lambda **knobs: base.with_knobs({**TINY, **knobs})


class Recorder(NullReporter):
    """Keeps the reports; ends the run with `outcome` when `at` steps are done."""

    def __init__(self, at=None, outcome=None):
        self.items, self.at, self.outcome = [], at, outcome
        self.environment, self.started_at = None, None

    def started(self, environment, step):
        self.environment, self.started_at = environment, step

    def report(self, item):
        self.items.append(item)

    def ending(self, step):
        return self.outcome if step == self.at else None

    @property
    def losses(self):
        return [item.metrics["validation_loss"] for item in self.items]

    def numerics(self):
        """The reports less what depends on the machine's mood."""
        moody = {"tokens_per_second", "data_wait_seconds", "peak_memory_bytes"}
        return [
            (i.step, i.tokens, {k: v for k, v in i.metrics.items() if k not in moody})
            for i in self.items
        ]


class Folder(NullCheckpoints):
    """Keeps every checkpoint; begins from `start`."""

    def __init__(self, folder: Path, start: CheckpointFile | None = None):
        self.folder, self.begin, self.files = folder, start, {}

    def start(self):
        return self.begin

    def keep(self, step, best, write):
        assert step not in self.files, "a file that may be on its way is written again"
        self.files[step] = write(self.folder / f"{step}.safetensors")


@pytest.fixture
def fit(text, tmp_path):
    """Returns a function that trains and gives (result, recorder, folder)."""

    def run(recipe, at=None, outcome=None, start=None, name="a", text=text):
        (tmp_path / name).mkdir(exist_ok=True)
        recorder, folder = Recorder(at, outcome), Folder(tmp_path / name, start)
        return train(recipe, text, recorder, folder), recorder, folder

    return run


# ---------------------------------------------------------------- one attempt


@pytest.fixture(scope="module")
def child():
    """One warm child for all these tests: what one leaves behind the next would feel."""
    before = os.environ.get("OMP_NUM_THREADS")
    os.environ["OMP_NUM_THREADS"] = "1"
    child = Child()
    child.start()
    yield child
    child.close()
    os.environ.pop("OMP_NUM_THREADS")
    if before is not None:
        os.environ["OMP_NUM_THREADS"] = before


@pytest.fixture
def server():
    return FakeServer()


@pytest.fixture
def recipe(tiny, text):
    """Returns a function that makes a tiny recipe on the uploaded text."""
    return lambda **knobs: tiny(builtin=None, sha256=text_sha256(text), **knobs)


@pytest.fixture
def run(server, child, text, tmp_path):
    """Returns a function that grants a trial and trains it; gives its last finish, if any."""

    path = tmp_path / "text"
    path.write_text(text)
    scratch = Scratch(tmp_path / "work")

    def run(trial, before=lambda attempt: None, fetch=None):
        child.start()
        calls = server.client().attempt(server.grant(trial), "f" * 32)
        patience = Patience(LEASE_MS / 1_000)
        attempt = AttemptRun(calls, child, patience, "c" * 64)
        before(attempt)
        attempt.train(fetch or (lambda _: path), scratch)
        return trial.finishes[-1] if trial.finishes else None

    yield run
    scratch.close()
    assert list((tmp_path / "work").iterdir()) == []


@pytest.fixture
def expected(text):
    """Returns a function that trains undisturbed, in this process."""

    def numerics(recipe):
        recorder = Recorder()
        train(recipe, text, recorder)
        return recorder.numerics()

    return numerics
