"""The knob walk backwards: what `studies/idle.py` says changes nothing changes nothing."""

import pytest

from studies.idle import NEEDS
from studies.recipe import KNOBS
from trainer.loop import train

from .conftest import Recorder
from .test_knobs import MOVED

# Beside this other knob, which is not as it would have to be, while all the rest is at work.
ASLEEP = [
    (name, {other: next(c for c in KNOBS[other].choices if c not in values) if values else 0})
    for name, (other, values) in NEEDS.items()
] + [("hidden_dropout", {"layers": 1})]  # a folder's shape: see test_huggingface.py
AWAKE = {"weight_decay": 0.1, "token_dropout": 0.1, "dropout": 0.1, "warmup": 0.2}


@pytest.mark.parametrize(("knob", "beside"), ASLEEP, ids=str)
def test_an_idle_knob_changes_nothing(tiny, text, knob, beside):
    runs = []
    for moved in ({}, {knob: MOVED[knob][0]}):
        recipe = tiny(**{**AWAKE, **beside, **moved})
        train(recipe, text, recorder := Recorder())
        runs.append((recipe, recorder.numerics()))
    (plain, before), (changed, after) = runs
    assert plain != changed
    assert before == after
