"""What a model has to predict: the next token, or hidden ones.

Shapes: B sequences, T tokens, S streams, L tokens of a stream, N tokens of all streams.
"""

from __future__ import annotations

from typing import Final

import torch
from torch import Tensor
from torch.nn import functional

from studies.recipe import Recipe
from studies.recipe.model import MASKED
from trainer.data import Dataset, draw_seed

IGNORED: Final = -100  # the target that cross_entropy passes over
# In evaluations the same tokens are hidden for every trial, so that losses compare.
_EVALUATION_SEED: Final = 0
_EVALUATION_PROBABILITY: Final = 0.15  # arXiv:1810.04805, section 3.1
_HIDDEN, _RANDOM = 0.8, 0.1  # the rest stays as it is; arXiv:1810.04805, appendix A.1


class Causal:
    """Predicts each next token from those before it."""

    bytewise = True  # the loss of a text says how many bits its bytes take

    def training(self, x_BT: Tensor, y_BT: Tensor, step: int) -> tuple[Tensor, Tensor]:
        """Returns inputs and targets of a step's windows."""
        return x_BT, y_BT

    def evaluation(self, x_SL: Tensor, y_SL: Tensor) -> tuple[Tensor, Tensor]:
        """Returns inputs and targets of the validation split's streams."""
        return x_SL, y_SL


class Masked(Causal):
    """Predicts tokens that were hidden from the model, which sees both sides (BERT).

    Of the chosen tokens 80 % become the tokenizer's id for it, or else one that no text has, 10 % a
    random one, and 10 % stay. At least one of each row is chosen.

    Invariant:
        What is chosen is a function of (seed, step) only; in an evaluation, of the split only.
    """

    bytewise = False

    def __init__(
        self, vocabulary: int, probability: float, seed: int, mask: int | None = None
    ) -> None:
        """`vocabulary` counts the text's ids, with the one that hides if it is given."""
        self._mask = vocabulary if mask is None else mask
        self._vocabulary, self._probability, self._seed = vocabulary, probability, seed

    def training(self, x_BT: Tensor, y_BT: Tensor, step: int) -> tuple[Tensor, Tensor]:
        """Returns the windows with tokens hidden, and the hidden ones as targets."""
        return self._hide(x_BT, self._probability, draw_seed(self._seed, step, "mask"))

    def evaluation(self, x_SL: Tensor, y_SL: Tensor) -> tuple[Tensor, Tensor]:
        """Returns the streams with tokens hidden; where they are padded nothing is predicted."""
        seed, real = draw_seed(_EVALUATION_SEED, 0, "mask"), int((y_SL != IGNORED).sum())
        inputs_1N, targets_1N = self._hide(
            x_SL.view(1, -1)[:, :real], _EVALUATION_PROBABILITY, seed
        )
        padding = (0, x_SL.numel() - real)  # it stands at the very end
        inputs = functional.pad(inputs_1N, padding)
        targets = functional.pad(targets_1N, padding, value=IGNORED)
        return inputs.view_as(x_SL), targets.view_as(y_SL)

    def _hide(self, x_BT: Tensor, probability: float, seed: int) -> tuple[Tensor, Tensor]:
        generator = torch.Generator().manual_seed(seed)
        chosen_BT = torch.rand(x_BT.shape, generator=generator)
        chosen_BT = (chosen_BT < probability) | (chosen_BT == chosen_BT.amin(1, keepdim=True))
        fate_BT = torch.rand(x_BT.shape, generator=generator).to(x_BT.device)
        random_BT = torch.randint(self._vocabulary, x_BT.shape, generator=generator)
        chosen_BT = chosen_BT.to(x_BT.device)
        hidden_BT = torch.where(fate_BT < _HIDDEN, self._mask, x_BT)
        replaced = (fate_BT >= _HIDDEN) & (fate_BT < _HIDDEN + _RANDOM)
        hidden_BT = torch.where(replaced, random_BT.to(x_BT.device), hidden_BT)
        return (
            torch.where(chosen_BT, hidden_BT, x_BT),
            torch.where(chosen_BT, x_BT, IGNORED),
        )


def build_objective(recipe: Recipe, data: Dataset) -> Causal:
    """Returns what the recipe's model has to predict."""
    if recipe.model.kind not in MASKED:
        return Causal()
    train = recipe.train
    return Masked(data.vocabulary, train.mask_probability, train.seed or 0, data.mask)
