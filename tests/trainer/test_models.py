"""Both models: causal, remembering where they should, and shaped as the recipe says."""

import math

import pytest
import torch
from torch.nn import functional

from trainer.models import build_model
from trainer.models.gpt import Rotary

MODELS = [{"kind": "lstm"}, {"kind": "gpt"}, {"kind": "gpt", "positions": "learned"}]


def model_of(tiny, **knobs):
    torch.manual_seed(0)
    return build_model(tiny(**knobs).model, 11, 16)


@pytest.mark.parametrize("knobs", MODELS, ids=lambda k: "-".join(k.values()))
def test_no_logit_sees_the_future(tiny, knobs):
    model = model_of(tiny, **knobs).eval()
    x_BT = torch.randint(11, (2, 16))
    changed_BT = x_BT.clone()
    changed_BT[:, 9:] = (changed_BT[:, 9:] + 1) % 11
    before_BTV, after_BTV = (model(x, [])[0] for x in (x_BT, changed_BT))
    torch.testing.assert_close(before_BTV[:, :9], after_BTV[:, :9])
    assert (before_BTV[:, 9:] != after_BTV[:, 9:]).all(dim=-1).all()


@pytest.mark.parametrize("knobs", MODELS, ids=lambda k: "-".join(k.values()))
def test_all_parameters_learn(tiny, knobs):
    model = model_of(tiny, **knobs)
    model(torch.randint(11, (2, 16)), [])[0].square().sum().backward()
    assert all(p.grad is not None and p.grad.any() for p in model.parameters())


def test_an_lstm_reads_on_where_it_stopped(tiny):
    model = model_of(tiny, kind="lstm").eval()
    x_BT = torch.randint(11, (2, 16))
    whole_BTV, _ = model(x_BT, [])
    first_BTV, state = model(x_BT[:, :7], [])
    second_BTV, _ = model(x_BT[:, 7:], state)
    torch.testing.assert_close(torch.cat([first_BTV, second_BTV], dim=1), whole_BTV)


@pytest.mark.parametrize("kind", ["lstm", "gpt"])
def test_tied_weights_are_one_parameter(tiny, kind):
    def count(tied):
        model = model_of(tiny, kind=kind, tied_weights=tied)
        return sum(p.numel() for p in model.parameters())

    assert count(False) - count(True) == 11 * 8


@pytest.mark.parametrize("kind", ["lstm", "gpt"])
def test_dropout_acts_in_training_only(tiny, kind):
    model = model_of(tiny, kind=kind, dropout=0.5)
    x_BT = torch.randint(11, (2, 16))
    assert not torch.equal(model(x_BT, [])[0], model(x_BT, [])[0])
    model.eval()
    assert torch.equal(model(x_BT, [])[0], model(x_BT, [])[0])


@pytest.mark.parametrize("kind", ["lstm", "gpt"])
def test_a_fresh_model_guesses_nearly_uniformly(tiny, kind):
    model = model_of(tiny, kind=kind, embedding_dim=64, hidden_dim=64)
    x_BT = torch.randint(11, (8, 17))
    logits_BTV, _ = model(x_BT[:, :-1], [])
    loss = functional.cross_entropy(logits_BTV.flatten(0, 1), x_BT[:, 1:].flatten())
    assert loss.item() == pytest.approx(math.log(11), abs=0.05)


def test_rotary_products_depend_on_distance_only():
    turn, vectors = Rotary(32, 8), torch.randn(2, 1, 1, 1, 8).expand(2, 1, 1, 32, 8)
    q_TK, k_TK = turn(vectors[0])[0, 0], turn(vectors[1])[0, 0]
    products = q_TK @ k_TK.T
    torch.testing.assert_close(products[0, 5], products[20, 25])
    assert not torch.isclose(products[0, 5], products[0, 6])
