"""The gradient in parts equals that of the whole batch, also where memory asks for the parts."""

import subprocess
import sys
import textwrap

import pytest
import torch

from studies.recipe import ModelRecipe, TrainRecipe
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


def test_a_batch_that_does_not_fit_is_computed_in_twice_as_many_parts():
    """One of the limits lies between what the whole batch needs and what half of it needs."""
    script = """
        import logging, resource
        import torch
        from studies.corpus import builtin_text
        from studies.recipe import Recipe
        from trainer import device
        from trainer.loop import NullReporter, train

        class Shows(NullReporter):
            def report(self, item):
                print("report", item.metrics["batch_parts"], item.metrics["validation_loss"])

        torch.set_num_threads(1)
        logging.basicConfig(level=logging.WARNING, format="log %(message)s", force=True)
        cpu = torch.device("cpu")
        text = builtin_text("stdlib")[:100_000]
        recipe = Recipe.model_validate({
            "data": {"builtin": "stdlib"},
            "model": {"kind": "gpt", "embedding_dim": 8, "hidden_dim": 8, "heads": 1},
            "train": {"batch_size": 256, "sequence_length": 128, "steps": 2, "seed": 1},
        })
        small = recipe.with_knobs({"batch_size": 1, "steps": 1})
        train(small, text)
        size, resident = (int(n) * 4096 for n in open("/proc/self/statm").read().split()[:2])
        device.reset_peak_memory(cpu)
        assert train(recipe, text, Shows()).outcome == "ok"
        peak = device.peak_memory_bytes(cpu) - resident
        for tenth in range(5, 15):
            limit = size + peak * tenth // 10
            resource.setrlimit(resource.RLIMIT_AS, (limit, resource.RLIM_INFINITY))
            if train(recipe, text, Shows()).outcome == "ok":
                break
        print(train(recipe.with_knobs({"batch_size": 690}), text).reason)
    """
    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(script)], capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    *reports, reason = done.stdout.splitlines()
    (_, one, whole), (_, two, halved) = (line.split() for line in reports)
    assert (one, two) == ("1.0", "2.0")
    assert float(halved) == pytest.approx(float(whole), rel=1e-4)
    assert "the batch of 256 is now computed in 2 parts, not 1" in done.stderr
    assert "memory" in reason
    assert "peak" in reason
