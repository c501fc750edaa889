"""One training run three ways: our loop, a loop written by hand, Hugging Face's Trainer.

Each trains the same shape on the same tokens, batch, optimizer, schedule and clipping, in the same
number format, compiled or not, and returns the seconds of the timed steps, which follow untimed
ones. Nothing is evaluated meanwhile.

Shapes: B sequences, T tokens, E width, V vocabulary, N tokens of the text.
"""

from __future__ import annotations

import math
import time
import warnings
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import Any, Final

import torch
from torch import Tensor, nn
from torch.nn import functional

from studies.trial import Outcome
from tests.benchmarks._shapes import (
    CLIP,
    LEARNING_RATE,
    PLAIN,
    Setting,
    Shape,
    recipe,
    synchronize,
    text,
    tokens_N,
)
from trainer.device import choose_device
from trainer.loop import NullReporter, train

LOGGED_EVERY: Final = 25  # steps: all three look at the loss so often, as our loop does


def prepare(setting: Setting) -> None:
    """Drops what earlier loops compiled: torch keeps eight graphs of a function, then runs none."""
    if setting.compile:
        torch.compiler.reset()
        torch._dynamo.config.allow_rnn = True


# -------------------------------------------------------------------------------- ours


class _Clock(NullReporter):
    """Takes the time between two steps, then ends the run."""

    def __init__(self, warm: int, steps: int) -> None:
        self._warm, self._steps, self.seconds = warm, steps, math.nan
        self._began = 0.0

    def ending(self, step: int) -> Outcome | None:
        """Ends the run when the timed steps are done."""
        if step == self._warm:
            synchronize()
            self._began = time.perf_counter()
        if step < self._warm + self._steps:
            return None
        synchronize()
        self.seconds = time.perf_counter() - self._began
        return Outcome.PRUNED


def ours(shape: Shape, setting: Setting) -> float:
    """Returns the seconds of our loop."""
    clock = _Clock(setting.warm, shape.steps)
    train(recipe(shape, setting), text(shape.vocabulary), clock)
    return clock.seconds


# -------------------------------------------------------------------------------- by hand


class HandLSTM(nn.Module):
    """Embedding, nn.LSTM, linear."""

    def __init__(self, shape: Shape) -> None:
        super().__init__()
        self.embedding = nn.Embedding(shape.vocabulary, shape.width)
        self.lstm = nn.LSTM(shape.width, shape.hidden, shape.layers, batch_first=True)
        self.output = nn.Linear(shape.hidden, shape.vocabulary)

    def forward(self, x_BT: Tensor) -> Tensor:
        """Returns logits_BTV."""
        return self.output(self.lstm(self.embedding(x_BT))[0])


class HandBlock(nn.Module):
    """A pre-norm block with torch's attention function."""

    def __init__(self, shape: Shape) -> None:
        super().__init__()
        width, self.heads = shape.width, shape.heads
        self.first = nn.LayerNorm(width, bias=False)
        self.qkv = nn.Linear(width, 3 * width, bias=False)
        self.project = nn.Linear(width, width, bias=False)
        self.second = nn.LayerNorm(width, bias=False)
        self.up = nn.Linear(width, shape.hidden, bias=False)
        self.down = nn.Linear(shape.hidden, width, bias=False)

    def forward(self, h_BTE: Tensor) -> Tensor:
        """Returns the residual stream."""
        batch, length, width = h_BTE.shape
        q, k, v = self.qkv(self.first(h_BTE)).view(batch, length, 3, self.heads, -1).unbind(2)
        a = functional.scaled_dot_product_attention(
            q.transpose(1, 2), k.transpose(1, 2), v.transpose(1, 2), is_causal=True
        )
        h_BTE = h_BTE + self.project(a.transpose(1, 2).reshape(batch, length, width))
        return h_BTE + self.down(functional.gelu(self.up(self.second(h_BTE))))


class HandGPT(nn.Module):
    """Embeddings, blocks, norm, linear."""

    def __init__(self, shape: Shape) -> None:
        super().__init__()
        self.embedding = nn.Embedding(shape.vocabulary, shape.width)
        self.positions = nn.Embedding(shape.length, shape.width)
        self.blocks = nn.Sequential(*(HandBlock(shape) for _ in range(shape.layers)))
        self.norm = nn.LayerNorm(shape.width, bias=False)
        self.output = nn.Linear(shape.width, shape.vocabulary, bias=False)
        if shape.tied:
            self.output.weight = self.embedding.weight

    def forward(self, x_BT: Tensor) -> Tensor:
        """Returns logits_BTV."""
        place_T = torch.arange(x_BT.shape[1], device=x_BT.device)
        return self.output(self.norm(self.blocks(self.embedding(x_BT) + self.positions(place_T))))


def hand_model(shape: Shape) -> nn.Module:
    """Returns the model written by hand."""
    torch.manual_seed(1)
    return (HandLSTM if shape.kind == "lstm" else HandGPT)(shape).to(choose_device())


class ByHand:
    """The step that one writes into a script."""

    def __init__(self, model: nn.Module, setting: Setting = PLAIN) -> None:
        self.model, self._autocast = model, setting.autocast
        self._forward: Callable[[Tensor], Tensor] = (
            torch.compile(model, dynamic=False) if setting.compile else model
        )
        self._optimizer = torch.optim.AdamW(
            model.parameters(), lr=LEARNING_RATE, weight_decay=0.0, fused=True
        )
        self._scaler = torch.amp.GradScaler("cuda", enabled=setting.precision == "fp16")

    def step(self, x_BT: Tensor, y_BT: Tensor) -> tuple[Tensor, Tensor]:
        """Returns the loss, and the gradient's norm before it was clipped."""
        with self._computing():
            logits_BTV = self._forward(x_BT)
            loss = functional.cross_entropy(logits_BTV.flatten(0, 1), y_BT.flatten())
        self._optimizer.zero_grad(set_to_none=True)
        self._scaler.scale(loss).backward()
        self._scaler.unscale_(self._optimizer)
        norm = nn.utils.clip_grad_norm_(self.model.parameters(), CLIP)
        self._scaler.step(self._optimizer)
        self._scaler.update()
        return loss, norm

    def _computing(self) -> AbstractContextManager[Any]:
        if self._autocast is None:
            return nullcontext()
        return torch.autocast("cuda", dtype=self._autocast)


def by_hand(shape: Shape, setting: Setting) -> float:
    """Returns the seconds of the loop that one writes into a script."""
    device = choose_device()
    data_N, training = tokens_N(shape, device), ByHand(hand_model(shape), setting)
    offsets_T = torch.arange(shape.length + 1, device=device)
    began = 0.0
    for step in range(setting.warm + shape.steps):
        if step == setting.warm:
            synchronize()
            began = time.perf_counter()
        start_B = torch.randint(len(data_N) - shape.length, (shape.batch,), device=device)
        window_BT = data_N[start_B[:, None] + offsets_T].long()
        loss, _ = training.step(window_BT[:, :-1], window_BT[:, 1:])
        if (step + 1) % LOGGED_EVERY == 0:
            loss.item()
    synchronize()
    return time.perf_counter() - began


# -------------------------------------------------------------------------------- Hugging Face


class WithLoss(nn.Module):
    """The model by hand as Trainer wants it."""

    def __init__(self, inner: nn.Module) -> None:
        super().__init__()
        self.inner = inner

    def forward(self, input_ids: Tensor, labels: Tensor) -> dict[str, Tensor]:
        """Returns loss and logits."""
        logits_BTV = self.inner(input_ids)
        loss = functional.cross_entropy(logits_BTV.flatten(0, 1), labels.flatten())
        return {"loss": loss, "logits": logits_BTV}


class _Windows(torch.utils.data.Dataset[dict[str, Tensor]]):
    """Every window of the text."""

    def __init__(self, shape: Shape) -> None:
        self._tokens_N, self._length = tokens_N(shape, torch.device("cpu")).long(), shape.length

    def __len__(self) -> int:
        return len(self._tokens_N) - self._length

    def __getitem__(self, start: int) -> dict[str, Tensor]:
        window_T = self._tokens_N[start : start + self._length + 1]
        return {"input_ids": window_T[:-1], "labels": window_T[1:]}


def hugging_face(shape: Shape, setting: Setting, folder: Path) -> float:
    """Returns the seconds of transformers.Trainer, set as fast as its arguments allow."""
    import transformers  # takes seconds

    begins, ends = setting.warm, setting.warm + shape.steps

    class Clock(transformers.TrainerCallback):  # type: ignore[misc]
        began = ended = 0.0

        def on_step_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
            if state.global_step in (begins, ends):
                synchronize()
                now = time.perf_counter()
                self.began, self.ended = (
                    (now, 0.0) if state.global_step == begins else (self.began, now)
                )

    clock = Clock()
    arguments = transformers.TrainingArguments(
        output_dir=str(folder), max_steps=ends, report_to=[], save_strategy="no",
        per_device_train_batch_size=shape.batch, learning_rate=LEARNING_RATE, weight_decay=0.0,
        lr_scheduler_type="constant", optim="adamw_torch_fused", max_grad_norm=CLIP,
        logging_steps=LOGGED_EVERY, disable_tqdm=True, use_cpu=choose_device().type == "cpu",
        dataloader_pin_memory=choose_device().type == "cuda", seed=1,
        bf16=setting.precision == "bf16", fp16=setting.precision == "fp16",
        torch_compile=setting.compile,
    )  # fmt: skip
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        trainer = transformers.Trainer(
            model=WithLoss(hand_model(shape)), args=arguments, callbacks=[clock],
            train_dataset=_Windows(shape),
        )  # fmt: skip
        trainer.remove_callback(transformers.PrinterCallback)
        trainer.train()
    return clock.ended - clock.began
