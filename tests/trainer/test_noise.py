"""Augmentation: how much is replaced, where, and by what."""

import pytest
import torch

from studies.recipe import TrainRecipe
from trainer.noise import build_noise

X_BT = torch.full((64, 256), 9)  # the split below has no 9: a replaced token shows


def replaced(step=0, seed=1, **knobs):
    train_N = torch.tensor([0, 0, 0, 1], dtype=torch.uint8)
    noised_BT = build_noise(train_N, TrainRecipe(seed=seed, **knobs))(X_BT, step)
    return noised_BT, noised_BT != 9


@pytest.mark.parametrize(("knobs", "share"), [
    ({"token_dropout": 0.2}, 0.2),
    ({"span_masking": 0.3, "span_length": 5}, 0.3),
    ({"span_masking": 0.1, "span_length": 1}, 0.1),
    ({"token_dropout": 0.2, "span_masking": 0.3}, 1 - 0.8 * 0.7),
])  # fmt: skip
def test_the_share_of_replaced_tokens_is_the_one_asked_for(knobs, share):
    shares = torch.stack([replaced(step, **knobs)[1].float().mean(0) for step in range(16)]).mean(0)
    assert shares.mean().item() == pytest.approx(share, rel=0.03)
    assert shares[:8].mean().item() == pytest.approx(share, rel=0.15)  # the first tokens too


def test_spans_have_their_length():
    _, mask = replaced(span_masking=0.05, span_length=6)
    for row in mask.int():
        runs = torch.diff(torch.diff(torch.nn.functional.pad(row, (1, 1))).nonzero().flatten())[::2]
        inner = runs[1:-1]  # the first and the last may be cut by the sequence's ends
        assert all(run >= 6 for run in inner.tolist())


def test_replacements_are_as_frequent_as_in_the_text():
    noised_BT, mask = replaced(token_dropout=0.5)
    assert noised_BT[mask].float().mean().item() == pytest.approx(1 / 4, rel=0.1)


def test_noise_depends_on_seed_and_step_only():
    first, _ = replaced(token_dropout=0.3)
    torch.manual_seed(77)
    assert torch.equal(first, replaced(token_dropout=0.3)[0])
    assert not torch.equal(first, replaced(token_dropout=0.3, seed=2)[0])
    assert not torch.equal(first, replaced(token_dropout=0.3, step=1)[0])


def test_without_augmentation_the_inputs_are_the_same_object():
    assert replaced()[0] is X_BT
