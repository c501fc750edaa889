"""Augmentation: input tokens replaced at random, while the targets stay.

A replaced token is drawn from the training split, so that frequent tokens come often: the unigram
noise of Xie et al. 2017 (arXiv:1703.02573, section 3.2).

Shapes: N tokens of the split, B sequences, T tokens of a sequence.
"""

from __future__ import annotations

import torch
from torch import Tensor

from studies.recipe import TrainRecipe
from trainer.data import draw_seed


class NoNoise:
    """Leaves the inputs as they are."""

    def __call__(self, x_BT: Tensor, step: int) -> Tensor:
        """Returns x_BT."""
        return x_BT


class Noise(NoNoise):
    """Replaces single tokens (`token_dropout`) and spans of them (`span_masking`).

    Invariant:
        What is replaced, and by what, is a function of (seed, step) and the split only.
    """

    def __init__(self, train_N: Tensor, train: TrainRecipe) -> None:
        self._train_N, self._seed = train_N, train.seed or 0
        self._token, self._length = train.token_dropout, train.span_length
        # A token is left when none of the `length` spans that would reach it begins.
        self._span = 1 - (1 - train.span_masking) ** (1 / train.span_length)

    def __call__(self, x_BT: Tensor, step: int) -> Tensor:
        """Returns x_BT with some of its tokens replaced."""
        generator = torch.Generator().manual_seed(draw_seed(self._seed, step, "augmentation"))
        single_BT = torch.rand(x_BT.shape, generator=generator) < self._token
        drawn_BT = torch.randint(len(self._train_N), x_BT.shape, generator=generator)
        replaced_BT = single_BT | self._spans(x_BT.shape, generator)
        device = x_BT.device
        other_BT = self._train_N[drawn_BT.to(device, non_blocking=True)].long()
        return torch.where(replaced_BT.to(device, non_blocking=True), other_BT, x_BT)

    def _spans(self, shape: torch.Size, generator: torch.Generator) -> Tensor:
        """Returns where spans lie; one may begin before the sequence does."""
        rows, length = shape
        begins_BL = torch.rand(rows, length + self._length - 1, generator=generator) < self._span
        begun_BL = torch.nn.functional.pad(begins_BL.int().cumsum(1), (1, 0))
        return begun_BL[:, self._length :] > begun_BL[:, : -self._length]


def build_noise(train_N: Tensor, train: TrainRecipe) -> NoNoise:
    """Returns the augmentation of a recipe; nothing is drawn where there is none."""
    return Noise(train_N, train) if train.token_dropout or train.span_masking else NoNoise()
