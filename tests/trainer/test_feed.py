"""Batches made ahead are the batches of their steps."""

import threading
import time

import pytest
import torch

from tests.harness.process import PATIENCE
from trainer.feed import Ahead, Feed
from trainer.loop import train

from .conftest import Recorder

CPU = torch.device("cpu")


def make(step):
    x_BT = torch.full((2, 3), step)
    return x_BT, x_BT + 1


def test_batches_made_ahead_are_those_of_their_steps_also_after_a_jump():
    ahead, plain = Ahead(make, CPU), Feed(make)
    for step in (0, 1, 2, 7, 8, 3):
        for ours, theirs in zip(ahead.at(step), plain.at(step), strict=True):
            assert torch.equal(ours, theirs)


def test_the_next_batch_is_made_while_the_device_computes():
    made = {step: threading.Event() for step in range(10)}

    def slowly(step):
        time.sleep(0.2)
        made[step].set()
        return make(step)

    ahead = Ahead(slowly, CPU)
    ahead.at(0)
    first = ahead.waited
    assert first >= 0.2
    for step in range(1, 4):
        assert made[step].wait(5 * PATIENCE)  # computing
        ahead.at(step)
    assert ahead.waited - first < 0.2


def test_what_goes_wrong_ahead_is_raised_at_its_step():
    def breaks(step):
        if step == 2:
            raise ValueError("no such window")
        return make(step)

    ahead = Ahead(breaks, CPU)
    ahead.at(0)
    ahead.at(1)
    with pytest.raises(ValueError, match="no such window"):
        ahead.at(2)


@pytest.mark.parametrize("knobs", [
    {"token_dropout": 0.2, "windows": "shuffled"}, {"windows": "streams"}, {"kind": "bert"},
], ids=str)  # fmt: skip
def test_a_run_that_is_fed_ahead_learns_the_same(tiny, text, knobs, monkeypatch):
    recorders = [Recorder(), Recorder()]
    train(tiny(**knobs), text, recorders[0])
    monkeypatch.setattr("trainer.run.build_feed", Ahead)
    train(tiny(**knobs), text, recorders[1])
    assert recorders[0].numerics() == recorders[1].numerics()
    assert recorders[0].items[-1].metrics["data_wait_seconds"] > 0
