"""Rounding, emulation with straight-through gradients, and loss scaling."""

import math

import pytest
import torch

from studies.errors import Diverged
from trainer.models import build_model
from trainer.precision import (
    Emulated,
    LossScaler,
    Precision,
    build_precision,
    round_bf16,
    round_fp16,
    round_tf32,
)
from trainer.run import CHECK_EVERY, Run

CPU = torch.device("cpu")


def numbers():
    torch.manual_seed(0)
    scale = torch.logspace(-20, 20, 2_001)
    special = torch.tensor([0.0, -0.0, math.inf, -math.inf, math.nan, 65_519.0, 65_520.0, 6e-8])
    return torch.cat([torch.randn(2_001) * scale, special])


@pytest.mark.parametrize(("rounded", "dtype"), [
    (round_bf16, torch.bfloat16), (round_fp16, torch.float16),
])  # fmt: skip
def test_rounding_gives_the_formats_values(rounded, dtype):
    x = numbers()
    torch.testing.assert_close(rounded(x), x.to(dtype).float(), rtol=0, atol=0, equal_nan=True)


def test_tf32_keeps_ten_bits_of_mantissa_and_rounds_to_the_nearest():
    x = numbers()
    y = round_tf32(x)
    finite = x.isfinite()
    assert not (y[finite].view(torch.int32) & 0x1FFF).any()
    assert ((y - x).abs()[finite] <= x.abs()[finite] * 2**-11).all()
    torch.testing.assert_close(y[~finite], x[~finite], equal_nan=True)
    assert round_tf32(torch.tensor(1 + 2**-11)) == 1 + 2**-10  # ties away from zero


@pytest.mark.parametrize("kind", ["lstm", "gpt"])
@pytest.mark.parametrize("name", ["tf32", "bf16", "fp16"])
def test_emulation_lends_rounded_weights_and_gives_the_fp32_ones_back(tiny, kind, name):
    model = build_model(tiny(kind=kind).model, 11, 16)
    before = {n: p.detach().clone() for n, p in model.named_parameters()}
    precision = build_precision(name, model, CPU)
    assert precision.emulated
    x_BT = torch.randint(11, (2, 16))
    with precision.computing():
        weight = model.output.weight
        coarse = {"tf32": round_tf32, "bf16": round_bf16, "fp16": round_fp16}[name]
        assert torch.equal(weight, coarse(before["output.weight"]))
        model(x_BT, [])[0].square().sum().backward()
    for n, p in model.named_parameters():
        assert torch.equal(p, before[n]), n
        assert p.grad is not None, n
    assert torch.equal(weight.grad, coarse(weight.grad))


def test_straight_through_gradients_are_close_to_fp32s(tiny):
    gradients = []
    for name in ("fp32", "bf16"):
        torch.manual_seed(0)
        model = build_model(tiny(kind="gpt", embedding_dim=16).model, 11, 16)
        precision = build_precision(name, model, CPU)
        x_BT = torch.randint(11, (4, 16), generator=torch.Generator().manual_seed(0))
        with precision.computing():
            model(x_BT, [])[0].square().mean().backward()
        gradients.append(torch.cat([p.grad.flatten() for p in model.parameters()]))
    likeness = torch.cosine_similarity(*gradients, dim=0)
    assert 0.99 < likeness < 1 - 1e-6


def test_weights_come_back_when_the_pass_fails(tiny):
    model = build_model(tiny().model, 11, 16)
    before = model.output.weight.detach().clone()
    with pytest.raises(RuntimeError), build_precision("bf16", model, CPU).computing():
        raise RuntimeError
    assert torch.equal(model.output.weight, before)


def test_fp32_on_the_cpu_is_left_alone(tiny):
    precision = build_precision("fp32", build_model(tiny().model, 11, 16), CPU)
    assert type(precision) is Precision
    assert not isinstance(precision, Emulated)


def test_an_overflow_halves_the_scale_and_is_counted():
    scaler = LossScaler()
    assert not scaler.accepts(torch.tensor(math.inf))
    assert not scaler.accepts(torch.tensor(math.nan))
    assert (scaler.scale, scaler.skipped_steps) == (2.0**14, 2)


def test_the_scale_grows_after_enough_clean_steps(monkeypatch):
    monkeypatch.setattr(LossScaler, "INTERVAL", 3)
    scaler = LossScaler()
    taken = [scaler.accepts(torch.tensor(1.0)) for _ in range(7)]
    assert all(taken)
    assert scaler.scale == 2.0**18


def test_fp16_overflow_is_skipped_and_counted_and_training_goes_on(tiny, fit, monkeypatch):
    monkeypatch.setattr(LossScaler, "INITIAL", 2.0**26)
    result, recorder, _ = fit(tiny(precision="fp16", steps=30, evaluate_every=15))
    skipped = [item.metrics["skipped_steps"] for item in recorder.items]
    assert result.outcome == "ok"
    assert 0 < skipped[0] == skipped[1] < 15
    assert recorder.losses[1] < recorder.losses[0] < recorder.environment["unigram_loss"] * 1.2
    assert all(math.isfinite(item.metrics["gradient_norm"]) for item in recorder.items)


def overflowing(run, steps):
    """Has the forward pass of these steps overflow."""

    def overflow(layer, _, logits):
        return logits * math.inf if layer.training and run.progress.step in steps else None

    run._model.output.register_forward_hook(overflow)


def test_a_step_whose_loss_overflows_is_skipped_and_training_goes_on(tiny, text):
    run = Run(tiny(precision="fp16"), text)
    overflowing(run, [2])
    for _ in range(6):
        run.step()
    metrics = run.evaluate().metrics
    assert metrics["skipped_steps"] == 1
    assert math.isfinite(metrics["gradient_norm"])
    assert 1 < metrics["train_loss"] < 4


def test_a_window_without_a_step_has_the_loss_of_the_one_before_and_is_no_divergence(tiny, text):
    run = Run(tiny(precision="fp16", evaluate_every=2), text)
    overflowing(run, [2, 3])
    reports = []
    for _ in range(6):
        run.step()
        if run.due:
            reports.append(run.evaluate().metrics)
    assert [r["skipped_steps"] for r in reports] == [0, 2, 2]
    before, none, after = (report["train_loss"] for report in reports)
    assert before == none != after
    assert math.isnan(reports[1]["gradient_norm"])
    assert reports[1]["validation_loss"] == reports[0]["validation_loss"]  # nothing was moved


def test_a_run_that_overflows_at_every_step_diverges(tiny, text):
    run = Run(tiny(precision="fp16", steps=100), text)
    overflowing(run, range(100))
    for _ in range(CHECK_EVERY - 1):
        run.step()
    with pytest.raises(Diverged, match="overflow fp16"):
        run.step()


def test_a_penalty_is_not_touched_by_the_loss_scale(tiny, fit):
    knobs = {"regularizer": "l2", "lambda": 0.5, "optimizer": "sgd", "gradient_clip": 0.0}
    losses = [fit(tiny(precision=p, **knobs))[1].losses for p in ("fp32", "fp16")]
    assert losses[0] == pytest.approx(losses[1], rel=1e-3)
