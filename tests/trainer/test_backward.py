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


def test_a_batch_that_does_not_fit_is_computed_in_twice_as_many_parts():
    """One of the limits lies between what the whole batch needs and what half of it needs."""
    script = """
        import logging, os, re, resource, sys
        import torch
        from studies.corpus import builtin_text
        from studies.recipe import Recipe
        from trainer.loop import NullReporter, train

        class Shows(NullReporter):
            def report(self, item):
                print("report", item.metrics["batch_parts"], item.metrics["validation_loss"])

        def in_a_child(recipe, limit=resource.RLIM_INFINITY):
            "Returns the outcome and the address space it took; each begins with the same heap."
            read, write = os.pipe()
            if not os.fork():
                resource.setrlimit(resource.RLIMIT_AS, (limit, resource.RLIM_INFINITY))
                result = train(recipe, text, Shows())
                if result.reason:
                    print("reason", result.reason)
                sys.stdout.flush()
                kib = re.search(r"VmPeak:\\s+(\\d+)", open("/proc/self/status").read())[1]
                os.write(write, f"{result.outcome} {kib}".encode())
                os._exit(0)
            os.wait()
            outcome, kib = os.read(read, 99).split()
            return outcome.decode(), 1024 * int(kib)

        torch.set_num_threads(1)
        logging.basicConfig(level=logging.WARNING, format="log %(message)s", force=True)
        text = builtin_text("stdlib")[:100_000]
        recipe = Recipe.model_validate({
            "data": {"builtin": "stdlib"},
            "model": {"kind": "gpt", "embedding_dim": 8, "hidden_dim": 8, "heads": 1},
            "train": {"batch_size": 256, "sequence_length": 128, "steps": 2, "seed": 1},
        })
        train(recipe.with_knobs({"batch_size": 1, "steps": 1}), text)
        _, whole = in_a_child(recipe)
        _, half = in_a_child(recipe.with_knobs({"accumulate": 2}))
        for tenth in range(2, 10):
            if in_a_child(recipe, half + (whole - half) * tenth // 10)[0] == "ok":
                break
        in_a_child(recipe.with_knobs({"batch_size": 690}), whole)
    """
    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(script)], capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    *_, reason = lines = done.stdout.splitlines()
    reports = [line.split() for line in lines if line.startswith("report")]
    (_, one, whole), (_, asked, _), (_, two, halved) = reports
    assert (one, asked, two) == ("1.0", "2.0", "2.0")
    assert float(halved) == pytest.approx(float(whole), rel=1e-4)
    assert "the batch of 256 is now computed in 2 parts, not 1" in done.stderr
    assert "memory" in reason
    assert "peak" in reason
