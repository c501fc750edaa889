"""The gradient in parts equals that of the whole batch, also where memory asks for the parts."""

import json
import os
import subprocess
import sys

import pytest
import torch

from studies.recipe import ModelRecipe, TrainRecipe
from tests.harness.process import PATIENCE, ROOT
from trainer.backward import Backward
from trainer.models import build_model
from trainer.precision import build_precision, build_scaler


def gradients(kind, calls=1, **knobs):
    """Returns loss and gradients of a batch of 7, after so many calls on streams that go on."""
    train = TrainRecipe(batch_size=7, sequence_length=5, windows="streams", **knobs)
    torch.manual_seed(0)
    shape = ModelRecipe(kind=kind, embedding_dim=8, hidden_dim=8, layers=2, heads=2)
    model = build_model(shape, 11, 5)
    scaler = build_scaler(train.precision)
    precision = build_precision(train.precision, model, torch.device("cpu"))
    backward = Backward(model, precision, scaler, train)
    tokens = torch.randint(11, (7, 5 * calls + 1))
    for call in range(calls):
        model.zero_grad()
        x_BT = tokens[:, 5 * call : 5 * call + 5]
        y_BT = tokens[:, 5 * call + 1 : 5 * call + 6]
        loss = backward.gradients(x_BT, y_BT, seed=call, continues=call > 0)
    return loss, [p.grad / scaler.scale for p in model.parameters()]


@pytest.mark.parametrize("kind", ["lstm", "gpt"])
@pytest.mark.parametrize("knobs", [
    {}, {"label_smoothing": 0.2}, {"precision": "fp16"}, {"gradient_checkpointing": True},
], ids=str)  # fmt: skip
@pytest.mark.parametrize("parts", [2, 3, 7, 100])
def test_accumulated_gradients_are_those_of_the_large_batch(kind, parts, knobs):
    loss, whole = gradients(kind, calls=2, **knobs)
    again, summed = gradients(kind, calls=2, accumulate=parts, **knobs)
    torch.testing.assert_close(again, loss)
    rounded = {"rtol": 2e-2, "atol": 1e-3} if knobs.get("precision") else {}
    for a, b in zip(summed, whole, strict=True):
        torch.testing.assert_close(a, b, **rounded)


def test_parts_that_more_memory_or_fewer_ranks_saved_are_no_more_than_the_sequences():
    train = TrainRecipe(batch_size=7, sequence_length=5)
    model = build_model(ModelRecipe(embedding_dim=8, hidden_dim=8), 11, 5)
    precision = build_precision("fp32", model, torch.device("cpu"))
    backward = Backward(model, precision, build_scaler("fp32"), train)
    backward.restore({}, {"parts": 100})
    assert backward.parts == 7


def test_an_lstm_goes_on_where_its_streams_ended():
    cold, _ = gradients("lstm", calls=1)
    warm, _ = gradients("lstm", calls=2)
    again, _ = gradients("lstm", calls=2)
    assert warm != cold
    assert warm == again


def test_label_smoothing_is_the_mean_with_the_uniform_target():
    plain, _ = gradients("gpt")
    all_of_it, _ = gradients("gpt", label_smoothing=0.999999)
    half, _ = gradients("gpt", label_smoothing=0.5)
    torch.testing.assert_close(half, (plain + all_of_it) / 2, rtol=1e-4, atol=1e-5)


@pytest.mark.slow
def test_a_batch_that_does_not_fit_is_computed_in_twice_as_many_parts(tiny, text, tmp_path):
    """Memory is limited for real, in a process of its own."""
    (tmp_path / "text").write_text(text * 70)
    recipe = tiny(
        kind="gpt", embedding_dim=8, hidden_dim=8, heads=1, batch_size=1_024, sequence_length=128,
        tokenizer="bytes", evaluate_every=2, steps=2,
    )  # fmt: skip
    said = recipe.model_dump_json(by_alias=True, exclude_none=True)
    done = subprocess.run(
        [sys.executable, "-m", "tests.trainer.halved", said, tmp_path / "text", "2700"],
        capture_output=True, text=True, timeout=120 * PATIENCE, cwd=ROOT,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    whole, halved, larger = map(json.loads, done.stdout.splitlines())
    assert (whole["outcome"], whole["batch_parts"]) == ("ok", 1)
    assert (halved["outcome"], halved["batch_parts"]) == ("ok", 2)
    assert halved["validation_loss"] == pytest.approx(whole["validation_loss"], rel=1e-4)
    assert "the batch of 1024 is now computed in 2 parts, not 1" in done.stderr
    assert larger["outcome"] == "oom"
    assert "memory" in larger["reason"]
    assert "peak" in larger["reason"]
