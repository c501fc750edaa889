"""One update of the parameters: learning rate, penalty, clipping, rule, decay."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Final

import torch
from torch import Tensor, nn

from studies.recipe import TrainRecipe
from trainer.models import LanguageModel
from trainer.precision import LossScaler
from trainer.rules import build_rules
from trainer.schedule import schedule_factor


def regularized(model: nn.Module, train: TrainRecipe) -> list[Tensor]:
    """Returns θ, the parameters that λ acts on; a tied weight is in it once."""
    return [p for p in model.parameters() if train.regularized == "all" or p.ndim > 1]


class Penalty:
    """What λ adds to J; this one adds nothing (regularizer none, and decoupled: see Updater)."""

    def __init__(self, weight: float, parameters: Sequence[Tensor]) -> None:
        self.weight, self.parameters = weight, list(parameters)

    @property
    def gradients(self) -> list[Tensor]:
        """The parameters' gradients, as the backward pass left them."""
        return [p.grad for p in self.parameters if p.grad is not None]

    def add_gradient_(self) -> None:
        """Adds the penalty's exact gradient to .grad: the same as adding its value to the loss.

        After unscaling, so that the loss scale does not touch λ, and before clipping, so that
        the whole of J + penalty is clipped.
        """


class L1(Penalty):
    """λ‖θ‖₁, with gradient λ sign(θ), 0 at 0."""

    @torch.no_grad()
    def add_gradient_(self) -> None:
        """Adds λ sign(θ)."""
        signs = torch._foreach_sign(self.parameters)
        torch._foreach_add_(self.gradients, signs, alpha=self.weight)


class L2(Penalty):
    """λ‖θ‖₂², the squared norm, with gradient 2λθ."""

    @torch.no_grad()
    def add_gradient_(self) -> None:
        """Adds 2λθ."""
        torch._foreach_add_(self.gradients, self.parameters, alpha=2 * self.weight)


_PENALTIES: Final[Mapping[str, type[Penalty]]] = {
    "none": Penalty,
    "decoupled": Penalty,
    "l1": L1,
    "l2": L2,
}


def build_penalty(model: nn.Module, train: TrainRecipe) -> Penalty:
    """Returns the penalty of the recipe over its θ."""
    return _PENALTIES[train.regularizer](train.lambda_, regularized(model, train))


def decoupled_decay(train: TrainRecipe) -> float:
    """Returns the rate of θ ← θ − η·rate·θ: λ where it is decoupled, and the optimizer's own."""
    own = train.weight_decay if train.optimizer in ("adamw", "muon") else 0.0
    return own + (train.lambda_ if train.regularizer == "decoupled" else 0.0)


class Updater:
    """Turns the gradients of one backward pass into one step of the parameters."""

    def __init__(self, model: LanguageModel, train: TrainRecipe, scaler: LossScaler) -> None:
        self._train, self._scaler = train, scaler
        self._parameters: list[Tensor] = list(model.parameters())
        self._rules = build_rules(model, train)
        self._penalty = build_penalty(model, train)
        self._decay, self._decayed = decoupled_decay(train), regularized(model, train)

    def update(self, step: int) -> Tensor:
        """Moves the parameters and clears their gradients; returns the gradient's norm.

        The norm is that of J + penalty, unscaled, before clipping. A step that fp16's scaler
        does not accept leaves parameters and optimizer as they were.
        """
        self._scaler.unscale_([p.grad for p in self._parameters if p.grad is not None])
        self._penalty.add_gradient_()
        largest = self._train.gradient_clip or math.inf
        norm = nn.utils.clip_grad_norm_(self._parameters, largest, foreach=True)
        if self._scaler.accepts(norm):
            self._move(self.learning_rate(step))
        self.clear()
        return norm

    def clear(self) -> None:
        """Frees the gradients."""
        for parameter in self._parameters:
            parameter.grad = None

    def learning_rate(self, step: int) -> float:
        """Returns the step size of a step."""
        return self._train.learning_rate * schedule_factor(step, self._train)

    @torch.no_grad()
    def _move(self, learning_rate: float) -> None:
        if self._decay:
            torch._foreach_mul_(self._decayed, 1 - learning_rate * self._decay)
        for rule in self._rules:
            rule.move(learning_rate)

    def tensors(self) -> dict[str, Tensor]:
        """Returns the rules' memory by name, not copied."""
        return {
            f"{place}.{name}": tensor
            for place, rule in enumerate(self._rules)
            for name, tensor in rule.tensors().items()
        }

    def restore(self, tensors: Mapping[str, Tensor]) -> None:
        """Goes on from saved tensors; raises LookupError or RuntimeError where they do not fit."""
        saved: list[dict[str, Tensor]] = [{} for _ in self._rules]
        for name, tensor in tensors.items():
            place, _, own = name.partition(".")
            saved[int(place)][own] = tensor
        for rule, theirs in zip(self._rules, saved, strict=True):
            rule.restore(theirs)
