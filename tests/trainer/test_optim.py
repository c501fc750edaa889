"""Schedules, penalties, decay and clipping against their formulas."""

import math

import pytest
import torch
from torch import nn

from trainer.models import build_model
from trainer.optim import Updater, build_penalty, regularized
from trainer.precision import NoScaler
from trainer.rules import build_rules
from trainer.schedule import schedule_factor, trunk_steps


def model_of(recipe):
    torch.manual_seed(0)
    return build_model(recipe.model, 10, 16)


def with_gradients(model, seed=1):
    torch.manual_seed(seed)
    for p in model.parameters():
        p.grad = torch.randn_like(p)
    return model


@pytest.mark.parametrize(("kind", "formula"), [
    ("l1", lambda p: p.abs().sum()),
    ("l2", lambda p: p.square().sum()),
])  # fmt: skip
@pytest.mark.parametrize("which", ["weights", "all"])
def test_a_penaltys_gradient_is_that_of_the_closed_form(tiny, kind, formula, which):
    recipe = tiny(regularizer=kind, **{"lambda": 0.03}, regularized=which)
    model = with_gradients(model_of(recipe))
    before = [p.grad.clone() for p in model.parameters()]
    penalty = build_penalty(model, recipe.train)
    theta = [p for p in model.parameters() if which == "all" or p.ndim > 1]
    expected = 0.03 * sum(formula(p) for p in theta)
    slopes = dict(zip(map(id, theta), torch.autograd.grad(expected, theta), strict=True))
    penalty.add_gradient_()
    for p, was in zip(model.parameters(), before, strict=True):
        torch.testing.assert_close(p.grad, was + slopes.get(id(p), 0.0), rtol=1e-6, atol=1e-7)


def test_l1_has_no_slope_at_zero(tiny):
    recipe = tiny(regularizer="l1", **{"lambda": 1.0})
    model = model_of(recipe)
    for p in model.parameters():
        p.data.zero_()
        p.grad = torch.zeros_like(p)
    build_penalty(model, recipe.train).add_gradient_()
    assert all(not p.grad.any() for p in model.parameters())


def test_tied_weights_count_once(tiny):
    recipe = tiny(kind="lstm", tied_weights=True)
    model = model_of(recipe)
    assert sum(p is model.embedding.weight for p in regularized(model, recipe.train)) == 1
    assert model.output.weight is model.embedding.weight


@pytest.mark.parametrize("name", ["sgd", "adam", "adamw"])
def test_decoupled_decay_is_adamws_for_every_optimizer(tiny, name):
    recipe = tiny(
        optimizer=name, regularizer="decoupled", **{"lambda": 0.1}, regularized="all",
        schedule="constant", gradient_clip=0.0,
    )  # fmt: skip
    ours, theirs = model_of(recipe), model_of(recipe)
    updater = Updater(ours, recipe.train, NoScaler())
    rate = recipe.train.learning_rate
    if name == "sgd":
        reference = torch.optim.SGD(theirs.parameters(), lr=rate, momentum=0.9)
    else:
        reference = torch.optim.AdamW(theirs.parameters(), lr=rate, weight_decay=0.1)
    for step in range(3):
        with_gradients(ours, step), with_gradients(theirs, step)
        if name == "sgd":
            for p in theirs.parameters():
                p.data.mul_(1 - rate * 0.1)
        updater.update(step)
        reference.step()
    for a, b in zip(ours.parameters(), theirs.parameters(), strict=True):
        torch.testing.assert_close(a, b, rtol=1e-5, atol=1e-7)


@pytest.mark.parametrize(("name", "momentum"), [("sgd", 0.0), ("sgd", 0.9), ("adam", 0.9)])
def test_a_rules_steps_are_torchs_bit_for_bit(tiny, name, momentum):
    recipe = tiny(optimizer=name, momentum=momentum, beta2=0.95, epsilon=1e-6)
    ours, theirs = model_of(recipe), model_of(recipe)
    (rule,) = build_rules(ours, recipe.train)
    if name == "sgd":
        reference = torch.optim.SGD(theirs.parameters(), momentum=momentum, fused=True)
    else:
        reference = torch.optim.Adam(theirs.parameters(), betas=(0.9, 0.95), eps=1e-6, fused=True)
    for step in range(5):
        with_gradients(ours, step), with_gradients(theirs, step)
        reference.param_groups[0]["lr"] = 0.1 / (step + 1)
        reference.step()
        rule.move(0.1 / (step + 1))
    for a, b in zip(ours.parameters(), theirs.parameters(), strict=True):
        assert torch.equal(a, b)


@pytest.mark.parametrize("optimizer", ["sgd", "adam"])
def test_a_parameter_without_a_gradient_stays(tiny, optimizer):
    recipe = tiny(optimizer=optimizer)
    model = with_gradients(model_of(recipe))
    first, *rest = model.parameters()
    first.grad = None
    before = [p.detach().clone() for p in (first, *rest)]
    (rule,) = build_rules(model, recipe.train)
    rule.move(0.1)
    assert torch.equal(first, before[0])
    assert not any(torch.equal(a, b) for a, b in zip(rest, before[1:], strict=True))


@pytest.mark.parametrize("kind", ["lstm", "gpt"])
def test_muon_moves_hidden_matrices_by_orthogonal_steps_and_adam_the_rest(tiny, kind):
    """Newton-Schulz leaves singular values near 1; the step is 0.2 sqrt(max(A, B)) of them."""
    recipe = tiny(
        kind=kind, optimizer="muon", momentum=0.0, schedule="constant", gradient_clip=0.0,
        embedding_dim=16, hidden_dim=16,
    )  # fmt: skip
    model = with_gradients(model_of(recipe))
    before = {n: p.detach().clone() for n, p in model.named_parameters()}
    adams = build_model(recipe.model, 10, 16)
    adams.load_state_dict(before)
    for ours, theirs in zip(model.parameters(), adams.parameters(), strict=True):
        theirs.grad = ours.grad.clone()
    Updater(model, recipe.train, NoScaler()).update(0)
    Updater(adams, recipe.train.model_copy(update={"optimizer": "adam"}), NoScaler()).update(0)
    hidden = {id(p) for p in model.hidden_matrices()}
    assert hidden
    for (name, p), other in zip(model.named_parameters(), adams.parameters(), strict=True):
        if id(p) not in hidden:
            assert torch.equal(p, other), name
            continue
        step = (before[name] - p.detach()) / (0.2 * max(p.shape) ** 0.5 * 1e-2)
        assert ((torch.linalg.svdvals(step) > 0.5) & (torch.linalg.svdvals(step) < 1.5)).all()


def test_adamws_own_decay_adds_to_a_decoupled_lambda(tiny):
    knobs = {"optimizer": "adamw", "regularizer": "decoupled"}
    models = []
    for own, weight in ((0.1, 0.2), (0.0, 0.3)):
        recipe = tiny(**knobs, weight_decay=own, **{"lambda": weight})
        models.append(with_gradients(model_of(recipe)))
        Updater(models[-1], recipe.train, NoScaler()).update(0)
    for a, b in zip(*(m.parameters() for m in models), strict=True):
        torch.testing.assert_close(a, b)


def test_gradients_are_clipped_with_the_penalty_and_the_norm_is_the_one_before(tiny):
    recipe = tiny(
        optimizer="sgd", momentum=0.0, schedule="constant", learning_rate=1.0,
        gradient_clip=0.5, regularizer="l2", **{"lambda": 3.0},
    )  # fmt: skip
    model = with_gradients(model_of(recipe))
    theta = {id(p) for p in regularized(model, recipe.train)}
    whole = [p.grad + (6 * p.detach() if id(p) in theta else 0) for p in model.parameters()]
    before = [p.detach().clone() for p in model.parameters()]
    norm = Updater(model, recipe.train, NoScaler()).update(0)
    assert norm.item() == pytest.approx(nn.utils.get_total_norm(whole).item(), rel=1e-5)
    moved = [a - b.detach() for a, b in zip(before, model.parameters(), strict=True)]
    assert nn.utils.get_total_norm(moved).item() == pytest.approx(0.5, rel=1e-4)


def test_each_step_goes_as_far_as_the_schedule_says(tiny):
    """Four steps of warm-up to 0.5, then half a cosine over eight."""
    recipe = tiny(
        optimizer="sgd", momentum=0.0, learning_rate=0.5, gradient_clip=0.0,
        steps=12, warmup=1 / 3, schedule="cosine",
    )  # fmt: skip
    model = model_of(recipe)
    updater = Updater(model, recipe.train, NoScaler())
    for step in range(12):
        with_gradients(model, step)
        rise, fall = (step + 1) / 4, (1 + math.cos(math.pi * (step - 4) / 8)) / 2
        rate = 0.5 * (rise if step < 4 else fall)
        expected = [p.detach() - rate * p.grad for p in model.parameters()]
        updater.update(step)
        for p, moved in zip(model.parameters(), expected, strict=True):
            torch.testing.assert_close(p.detach(), moved, rtol=1e-6, atol=1e-7)


def test_warm_up_rises_linearly_and_reaches_the_peak(tiny):
    train = tiny(steps=100, warmup=0.1, schedule="constant").train
    assert [schedule_factor(k, train) for k in (0, 4, 9, 10, 99)] == [0.1, 0.5, 1.0, 1.0, 1.0]


def test_cosine_goes_from_one_to_the_final_fraction(tiny):
    train = tiny(steps=100, warmup=0.2, schedule="cosine", final_fraction=0.1).train
    assert schedule_factor(20, train) == 1.0
    assert schedule_factor(60, train) == pytest.approx(0.55)
    assert schedule_factor(99, train) == pytest.approx(0.1, abs=1e-3)


def test_ladder_goes_down_in_stairs(tiny):
    train = tiny(steps=100, schedule="ladder", ladder_every=0.25, ladder_factor=0.1).train
    factors = [schedule_factor(k, train) for k in range(100)]
    assert factors[0] == factors[24] == 1.0
    assert factors[25] == factors[49] == pytest.approx(0.1)
    assert factors[99] == pytest.approx(1e-3)
    assert factors == sorted(factors, reverse=True)


def test_linear_goes_down_in_a_line(tiny):
    train = tiny(steps=100, warmup=0.2, schedule="linear", final_fraction=0.2).train
    assert [schedule_factor(k, train) for k in (20, 60, 99)] == pytest.approx([1.0, 0.6, 0.21])


def test_wsd_is_flat_and_then_cools_down_by_a_square_root(tiny):
    train = tiny(steps=100, warmup=0.1, schedule="wsd", cooldown=0.25, final_fraction=0.1).train
    factors = [schedule_factor(k, train) for k in range(100)]
    assert factors[9:76] == [1.0] * 67
    assert factors[75 + 16] == pytest.approx(1 - 0.9 * math.sqrt(16 / 25))
    assert trunk_steps(train) == 75
    assert trunk_steps(tiny(schedule="cosine").train) == 0


@pytest.mark.parametrize("schedule", ["constant", "linear", "cosine", "ladder", "wsd"])
@pytest.mark.parametrize("warmup", [0.0, 0.5, 1.0])
@pytest.mark.parametrize("steps", [1, 2, 7])
def test_every_step_of_every_schedule_has_a_factor(tiny, schedule, warmup, steps):
    train = tiny(steps=steps, schedule=schedule, warmup=warmup).train
    factors = [schedule_factor(k, train) for k in range(steps)]
    assert all(0 < f <= 1 and math.isfinite(f) for f in factors)
