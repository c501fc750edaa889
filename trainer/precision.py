"""Number formats of the forward and backward pass: native where the device can, else emulated.

Emulation rounds the weights and the inputs of every matrix layer to the format, and gradients on
their way back, and computes in fp32: what the format does to learning, on any device, without its
speed. The CPU always emulates, whatever instructions it has: results must not depend on its
model, and torch's LSTM fails under CPU autocast (measured, torch 2.13).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import Any, Final

import torch
from torch import Tensor, nn

from studies.errors import Diverged
from trainer.models.base import LanguageModel

Round = Callable[[Tensor], Tensor]

_TF32_DROPPED: Final = 13  # mantissa bits: fp32 has 23, tf32 keeps 10
_CAPABILITY: Final = {"tf32": (8, 0), "bf16": (8, 0), "fp16": (7, 0)}  # CUDA C++ guide, table 27
_DTYPES: Final = {"bf16": torch.bfloat16, "fp16": torch.float16}


def round_tf32(x: Tensor) -> Tensor:
    """Returns x with 10 bits of mantissa, nearest, ties away from zero (PTX `cvt.rna.tf32`)."""
    bits = x.contiguous().view(torch.int32) + (1 << (_TF32_DROPPED - 1))
    return bits.bitwise_and_(-1 << _TF32_DROPPED).view(torch.float32)


def round_bf16(x: Tensor) -> Tensor:
    """Returns x in bfloat16's values, as fp32."""
    return x.to(torch.bfloat16).float()


def round_fp16(x: Tensor) -> Tensor:
    """Returns x in half precision's values, as fp32; over 65,504 it is infinite."""
    return x.to(torch.float16).float()


_ROUND: Final[dict[str, Round]] = {"tf32": round_tf32, "bf16": round_bf16, "fp16": round_fp16}


class Precision:
    """How a run computes; this one is fp32, as the device has it."""

    emulated: bool = False

    def computing(self) -> AbstractContextManager[None]:
        """Around forward and backward pass together."""
        return nullcontext()

    def forward(self) -> AbstractContextManager[None]:
        """Around the forward pass alone, inside `computing`."""
        return nullcontext()


class Native(Precision):
    """A GPU's own formats: the matrix units' mode, and autocast for the 16-bit ones."""

    def __init__(self, name: str) -> None:
        self._mode = "tf32" if name == "tf32" else "ieee"
        self._dtype = _DTYPES.get(name)

    @contextmanager
    def computing(self) -> Iterator[None]:
        """Holds torch's fp32 mode; without it cuDNN's LSTM would use tf32 unasked."""
        units = (torch.backends.cuda.matmul, torch.backends.cudnn.rnn)
        before = [unit.fp32_precision for unit in units]
        for unit in units:
            unit.fp32_precision = self._mode
        try:
            yield
        finally:
            for unit, mode in zip(units, before, strict=True):
                unit.fp32_precision = mode

    def forward(self) -> AbstractContextManager[None]:
        """Autocast to the 16-bit format."""
        if self._dtype is None:
            return nullcontext()
        return torch.autocast("cuda", dtype=self._dtype)


class Emulated(Precision):
    """Rounded weights, layer inputs and gradients; straight-through where rounding has no slope."""

    emulated = True

    def __init__(self, model: LanguageModel, round_: Round) -> None:
        self._round = round_
        layers = model.matrix_layers()
        self._weights: list[Tensor] = list(
            {p: None for layer in layers for p in layer.parameters()}
        )
        for layer in layers:
            layer.register_forward_pre_hook(self._round_inputs)

    def _round_inputs(self, layer: nn.Module, inputs: tuple[Any, ...]) -> tuple[Any, ...]:
        return tuple(
            _StraightThrough.apply(x, self._round) if isinstance(x, Tensor) else x for x in inputs
        )

    @contextmanager
    def computing(self) -> Iterator[None]:
        """Lends rounded weights; afterwards the fp32 ones are back and gradients are rounded."""
        with torch.no_grad():
            masters = [weight.clone() for weight in self._weights]
            torch._foreach_copy_(self._weights, [self._round(weight) for weight in masters])
        try:
            yield
        finally:
            with torch.no_grad():
                torch._foreach_copy_(self._weights, masters)
        for weight in self._weights:
            if weight.grad is not None:
                weight.grad = self._round(weight.grad)


class _StraightThrough(torch.autograd.Function):
    """Rounds forward, and rounds the gradient backward, as if the slope were 1."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, round_: Round) -> Tensor:
        ctx.round = round_
        return round_(x)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None]:
        return ctx.round(gradients[0]), None


def native_precisions(device: torch.device) -> list[str]:
    """Returns the formats that the device computes in itself; the others are emulated there."""
    if device.type != "cuda":
        return ["fp32"]
    capability = torch.cuda.get_device_capability(device)
    return ["fp32", *(name for name, needed in _CAPABILITY.items() if capability >= needed)]


def build_precision(name: str, model: LanguageModel, device: torch.device) -> Precision:
    """Returns how to compute in the named format on the device; prepares the model for it."""
    if device.type == "cuda":
        capable = torch.cuda.get_device_capability(device) >= _CAPABILITY.get(name, (0, 0))
        if capable:
            return Native(name)
    return Emulated(model, _ROUND[name]) if name in _ROUND else Precision()


class LossScaler:
    """Scales the loss so that small gradients survive fp16; skips a step that overflows.

    Source:
        arXiv:1710.03740, section 3.2; the constants are torch.amp.GradScaler's.
    """

    INITIAL: Final = 2.0**16
    GROWTH: Final = 2.0
    INTERVAL: Final = 2_000  # steps without overflow before the scale grows
    LARGEST: Final = 2.0**24  # assumption: beyond it nothing is won

    def __init__(self) -> None:
        self.scale = self.INITIAL
        self.skipped_steps = 0
        self._clean_steps = 0

    def unscale_(self, gradients: list[Tensor]) -> None:
        """Divides the gradients by the scale, in place."""
        torch._foreach_mul_(gradients, 1.0 / self.scale)

    def accepts(self, norm: Tensor) -> bool:
        """True if the step may be taken; else counts it as skipped. Waits for the device."""
        if math.isfinite(norm.item()):
            self._clean_steps += 1
            if self._clean_steps % self.INTERVAL == 0:
                self.scale = min(self.scale * self.GROWTH, self.LARGEST)
            return True
        self.scale /= self.GROWTH
        self._clean_steps = 0
        self.skipped_steps += 1
        return False

    def require_sane(self) -> None:
        """Raises Diverged when gradients overflow however little the loss is scaled."""
        if self.scale < 1:
            raise Diverged(f"gradients overflow fp16 at a loss scale of {self.scale:g}")

    def state(self) -> dict[str, Any]:
        """Returns what `restore` needs."""
        return {
            "scale": self.scale,
            "skipped_steps": self.skipped_steps,
            "clean_steps": self._clean_steps,
        }

    def restore(self, state: dict[str, Any]) -> None:
        """Goes on from a saved state."""
        self.scale, self.skipped_steps = float(state["scale"]), int(state["skipped_steps"])
        self._clean_steps = int(state["clean_steps"])


class NoScaler(LossScaler):
    """Takes every step and scales nothing: the scaler of all formats but fp16."""

    def __init__(self) -> None:
        super().__init__()
        self.scale = 1.0

    def unscale_(self, gradients: list[Tensor]) -> None:
        """Leaves the gradients as they are."""

    def accepts(self, norm: Tensor) -> bool:
        """True, without waiting for the device."""
        return True


def build_scaler(name: str) -> LossScaler:
    """Returns the loss scaler that the named format needs."""
    return LossScaler() if name == "fp16" else NoScaler()
