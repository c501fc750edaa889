"""One update of the parameters: learning rate, penalty, clipping, optimizer, decay."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final

import torch
from torch import Tensor, nn

from studies.recipe import TrainRecipe
from trainer.precision import LossScaler


def schedule_factor(step: int, train: TrainRecipe) -> float:
    """Returns the learning rate of a step as a part of the recipe's.

    Rises linearly through the warm-up, whose last step has factor 1; then the schedule runs over
    the steps that are left.

    Args:
        step: 0 for the first update [steps].
        train: `schedule`, its knobs, `warmup` and `steps`.
    """
    warm = round(train.warmup * train.steps)
    if step < warm:
        return (step + 1) / warm
    return _SCHEDULES[train.schedule](step - warm, train.steps - warm, train)


def _constant(step: int, steps: int, train: TrainRecipe) -> float:
    return 1.0


def _cosine(step: int, steps: int, train: TrainRecipe) -> float:
    """Half a cosine from 1 to final_fraction (SGDR, arXiv:1608.03983, equation 5)."""
    height = (1 + math.cos(math.pi * step / steps)) / 2
    return train.final_fraction + (1 - train.final_fraction) * height


def _ladder(step: int, steps: int, train: TrainRecipe) -> float:
    """Stairs down: learning rates from large to small within one run."""
    stair = max(1, round(train.ladder_every * train.steps))
    return train.ladder_factor ** (step // stair)


_SCHEDULES: Final[Mapping[str, Callable[[int, int, TrainRecipe], float]]] = {
    "constant": _constant,
    "cosine": _cosine,
    "ladder": _ladder,
}


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

    def value(self) -> Tensor:
        """Returns the penalty itself; training needs only its gradient."""
        return torch.zeros(())

    def add_gradient_(self) -> None:
        """Adds the penalty's exact gradient to .grad: the same as adding its value to the loss.

        After unscaling, so that the loss scale does not touch λ, and before clipping, so that
        the whole of J + penalty is clipped.
        """


class L1(Penalty):
    """λ‖θ‖₁, with gradient λ sign(θ), 0 at 0."""

    def value(self) -> Tensor:
        """Returns λ Σ|θ|."""
        return self.weight * torch.stack(torch._foreach_norm(self.parameters, 1)).sum()

    @torch.no_grad()
    def add_gradient_(self) -> None:
        """Adds λ sign(θ)."""
        signs = torch._foreach_sign(self.parameters)
        torch._foreach_add_(self.gradients, signs, alpha=self.weight)


class L2(Penalty):
    """λ‖θ‖₂², the squared norm, with gradient 2λθ."""

    def value(self) -> Tensor:
        """Returns λ Σθ²."""
        return self.weight * torch.stack(torch._foreach_norm(self.parameters, 2)).square().sum()

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
    """Returns the rate of θ ← θ − η·rate·θ: λ where it is decoupled, and AdamW's own beside."""
    own = train.weight_decay if train.optimizer == "adamw" else 0.0
    return own + (train.lambda_ if train.regularizer == "decoupled" else 0.0)


def _torch_optimizer(parameters: list[Tensor], train: TrainRecipe) -> torch.optim.Optimizer:
    """Returns torch's update rule; AdamW is Adam plus the decay that Updater does for all."""
    if train.optimizer == "sgd":
        return torch.optim.SGD(parameters, lr=0.0, momentum=train.momentum, fused=True)
    betas = (train.beta1, train.beta2)
    return torch.optim.Adam(parameters, lr=0.0, betas=betas, eps=train.epsilon, fused=True)


class Updater:
    """Turns the gradients of one backward pass into one step of the parameters."""

    def __init__(self, model: nn.Module, train: TrainRecipe, scaler: LossScaler) -> None:
        self._train, self._scaler = train, scaler
        self._parameters: list[Tensor] = list(model.parameters())
        self._optimizer = _torch_optimizer(self._parameters, train)
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
        self._optimizer.zero_grad(set_to_none=True)
        return norm

    def learning_rate(self, step: int) -> float:
        """Returns the step size of a step."""
        return self._train.learning_rate * schedule_factor(step, self._train)

    @torch.no_grad()
    def _move(self, learning_rate: float) -> None:
        if self._decay:
            torch._foreach_mul_(self._decayed, 1 - learning_rate * self._decay)
        self._optimizer.param_groups[0]["lr"] = learning_rate
        self._optimizer.step()

    def tensors(self) -> dict[str, Tensor]:
        """Returns the optimizer's state by name, not copied."""
        return {
            f"{i}.{key}": value
            for i, state in self._optimizer.state_dict()["state"].items()
            for key, value in state.items()
            if isinstance(value, Tensor)
        }

    def restore(self, tensors: Mapping[str, Tensor]) -> None:
        """Goes on from saved tensors."""
        state: dict[int, dict[str, Any]] = {}
        for name, tensor in tensors.items():
            index, _, key = name.partition(".")
            state.setdefault(int(index), {})[key] = tensor
        groups = self._optimizer.state_dict()["param_groups"]
        self._optimizer.load_state_dict({"state": state, "param_groups": groups})
