"""The update rules: how far a gradient moves each parameter.

SGD and Adam call torch's fused kernels themselves. torch.optim would call the same ones, but
imports torch's compiler first: two fifths of a training process's start (docs/decisions/0022).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Final, Protocol

import torch
from torch import Tensor, nn

from studies.recipe import TrainRecipe
from trainer.models import LanguageModel

_PLAIN: Final = {"weight_decay": 0.0, "maximize": False}  # decay is the Updater's task


class Rule(Protocol):
    """Moves some of a model's parameters, and remembers what it needs for the next step."""

    def move(self, learning_rate: float) -> None:
        """Takes one step along the gradients; a parameter without one stays."""

    def tensors(self) -> dict[str, Tensor]:
        """Returns what it remembers, by name, not copied."""

    def restore(self, tensors: Mapping[str, Tensor]) -> None:
        """Goes on from what was saved; raises LookupError or RuntimeError where it does not fit."""


class _Fused:
    """Memories of the shape of each parameter, zero at the first step; subclasses name them."""

    names: tuple[str, ...] = ()

    def __init__(self, parameters: Sequence[nn.Parameter]) -> None:
        self._parameters = list(parameters)
        self._memories: dict[str, list[Tensor]] = {}

    def _with_gradients(self) -> tuple[list[Tensor], list[Tensor], list[list[Tensor]]]:
        """Returns parameters, their gradients and each of their memories."""
        for name in self.names:
            if name not in self._memories:
                self._memories[name] = [torch.zeros_like(p) for p in self._parameters]
        used = [i for i, p in enumerate(self._parameters) if p.grad is not None]
        parameters: list[Tensor] = [self._parameters[i] for i in used]
        gradients = [p.grad for p in parameters if p.grad is not None]
        return parameters, gradients, [[m[i] for i in used] for m in self._memories.values()]

    def tensors(self) -> dict[str, Tensor]:
        """Returns what it remembers: nothing before the first step."""
        return {f"{n}.{i}": t for n, each in self._memories.items() for i, t in enumerate(each)}

    def restore(self, tensors: Mapping[str, Tensor]) -> None:
        """Goes on from what was saved, with these very tensors: twice would be too much memory."""
        if not tensors:
            return
        self._memories = {
            name: [tensors[f"{name}.{i}"].view_as(p) for i, p in enumerate(self._parameters)]
            for name in self.names
        }


class Sgd(_Fused):
    """v ← μ v + g, θ ← θ - η v; without momentum θ ← θ - η g."""

    def __init__(self, parameters: Sequence[nn.Parameter], momentum: float) -> None:
        self.names = ("velocity",) if momentum else ()
        super().__init__(parameters)
        self._options = {"momentum": momentum, "dampening": 0.0, "nesterov": False, **_PLAIN}

    @torch.no_grad()
    def move(self, learning_rate: float) -> None:
        """Takes one step."""
        parameters, gradients, memories = self._with_gradients()
        torch._fused_sgd_(
            parameters, gradients, *(memories or [[]]),
            lr=learning_rate, is_first_step=False, **self._options,
        )  # fmt: skip


class Adam(_Fused):
    """Kingma and Ba, arXiv:1412.6980, algorithm 1."""

    names = ("first", "second")  # moments

    def __init__(self, parameters: Sequence[nn.Parameter], train: TrainRecipe) -> None:
        super().__init__(parameters)
        self._step = torch.zeros((), dtype=torch.float32, device=self._parameters[0].device)
        self._options = {"beta1": train.beta1, "beta2": train.beta2, "eps": train.epsilon, **_PLAIN}

    @torch.no_grad()
    def move(self, learning_rate: float) -> None:
        """Takes one step."""
        parameters, gradients, memories = self._with_gradients()
        self._step += 1
        torch._fused_adam_(
            parameters, gradients, *memories, [], [self._step] * len(parameters),
            lr=learning_rate, amsgrad=False, **self._options,
        )  # fmt: skip

    def tensors(self) -> dict[str, Tensor]:
        """Returns what it remembers: nothing before the first step."""
        memories = super().tensors()
        return {**memories, "step": self._step} if memories else {}

    def restore(self, tensors: Mapping[str, Tensor]) -> None:
        """Goes on from what was saved."""
        super().restore(tensors)
        if tensors:
            self._step = tensors["step"].view(())


class Muon:
    """torch's own: orthogonal steps of matrices, as long as AdamW's: one rate serves both."""

    def __init__(self, parameters: Sequence[nn.Parameter], momentum: float) -> None:
        self._optimizer = torch.optim.Muon(
            parameters, lr=0.0, weight_decay=0.0, momentum=momentum, adjust_lr_fn="match_rms_adamw"
        )

    def move(self, learning_rate: float) -> None:
        """Takes one step."""
        self._optimizer.param_groups[0]["lr"] = learning_rate
        self._optimizer.step()

    def tensors(self) -> dict[str, Tensor]:
        """Returns what it remembers."""
        return {
            f"{key}.{i}": value
            for i, state in self._optimizer.state_dict()["state"].items()
            for key, value in state.items()
            if isinstance(value, Tensor)
        }

    def restore(self, tensors: Mapping[str, Tensor]) -> None:
        """Goes on from what was saved."""
        states: dict[int, dict[str, Any]] = {}
        for name, tensor in tensors.items():
            key, index = name.rsplit(".", 1)
            states.setdefault(int(index), {})[key] = tensor
        groups = self._optimizer.state_dict()["param_groups"]
        self._optimizer.load_state_dict({"state": states, "param_groups": groups})


def build_rules(model: LanguageModel, train: TrainRecipe) -> list[Rule]:
    """Returns the recipe's rules; each parameter belongs to one."""
    parameters = list(model.parameters())
    if train.optimizer == "sgd":
        return [Sgd(parameters, train.momentum)]
    if train.optimizer != "muon":
        return [Adam(parameters, train)]
    hidden = model.hidden_matrices()
    chosen = {id(p) for p in hidden}
    return [
        Muon(hidden, train.momentum),
        Adam([p for p in parameters if id(p) not in chosen], train),
    ]
