"""The whole validation split, every token but the first exactly once."""

import pytest
import torch
from torch.nn import functional

from trainer import evaluate as module
from trainer.evaluate import evaluate
from trainer.models import build_model
from trainer.models.base import LanguageModel

VOCABULARY = 11


class Counting(LanguageModel):
    """Gives the target away to a reader of its calls: records (input, position) pairs."""

    def __init__(self):
        super().__init__()
        self.seen = []

    def forward(self, x_BT, state):
        self.seen.append(x_BT.clone())
        return functional.one_hot((x_BT + 1) % VOCABULARY, VOCABULARY).double() * 3, state


@pytest.mark.parametrize("length", [2, 3, 16, 17, 18, 999, 2_000, 5_000])
def test_every_token_but_the_first_is_predicted_once(length):
    tokens_N = torch.arange(length) % VOCABULARY
    model = Counting()
    loss = evaluate(model, tokens_N, 16, VOCABULARY)
    right = torch.tensor(3.0).exp() / (torch.tensor(3.0).exp() + VOCABULARY - 1)
    assert loss == pytest.approx(-right.log().item(), rel=1e-6)
    assert all(x_BT.shape[1] == 16 for x_BT in model.seen)


def test_an_lstm_carries_its_memory_along_each_stream(tiny, monkeypatch):
    monkeypatch.setattr(module, "STREAMS", 3)
    torch.manual_seed(0)
    model = build_model(tiny(kind="lstm").model, VOCABULARY, 16)
    tokens_N = torch.randint(VOCABULARY, (301,), dtype=torch.uint8)
    length = 7 * 16  # 300 predictions are 19 windows: 7, 7 and 5
    with torch.no_grad():
        model.eval()
        total = sum(
            functional.cross_entropy(
                model(tokens_N[None, at : min(at + length, 300)].long(), [])[0][0],
                tokens_N[at + 1 : at + length + 1].long(),
                reduction="sum",
            )
            for at in range(0, 300, length)
        )
    assert evaluate(model, tokens_N, 16, VOCABULARY) == pytest.approx(total.item() / 300, rel=1e-6)


def test_a_gpt_sees_windows_that_do_not_overlap(tiny):
    torch.manual_seed(0)
    model = build_model(tiny(kind="gpt").model, VOCABULARY, 16)
    tokens_N = torch.randint(VOCABULARY, (331,))
    with torch.no_grad():
        model.eval()
        losses = [
            functional.cross_entropy(
                model(tokens_N[None, at : min(at + 16, 330)], [])[0][0],
                tokens_N[at + 1 : at + 17],
                reduction="none",
            )
            for at in range(0, 330, 16)
        ]
    expected = torch.cat(losses).mean().item()
    assert evaluate(model, tokens_N, 16, VOCABULARY) == pytest.approx(expected, rel=1e-6)


@pytest.mark.parametrize("kind", ["lstm", "gpt"])
def test_the_loss_does_not_depend_on_how_much_is_read_at_once(tiny, kind, monkeypatch):
    torch.manual_seed(0)
    model = build_model(tiny(kind=kind).model, VOCABULARY, 16)
    tokens_N = torch.randint(VOCABULARY, (3_000,))
    whole = evaluate(model, tokens_N, 16, VOCABULARY)
    monkeypatch.setattr(module, "TOKENS_AT_ONCE", 32)
    assert evaluate(model, tokens_N, 16, VOCABULARY) == pytest.approx(whole, rel=1e-6)


def test_the_model_is_left_in_training_mode(tiny):
    model = build_model(tiny().model, VOCABULARY, 16)
    evaluate(model, torch.randint(VOCABULARY, (50,)), 16, VOCABULARY)
    assert model.training
    assert all(p.requires_grad for p in model.parameters())
