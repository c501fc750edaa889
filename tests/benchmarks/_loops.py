"""One training run three ways: our loop, a loop written by hand, Hugging Face's Trainer.

Each trains the same shape on the same tokens, batch, optimizer, schedule and clipping, and returns
the seconds of the timed steps, which follow untimed ones. Nothing is evaluated meanwhile.

Shapes: B sequences, T tokens, N tokens of the text.
"""

from __future__ import annotations

import math
import time
import warnings
from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any, Final

import torch
from torch import Tensor, nn
from torch.nn import functional

from studies.corpus import builtin_text
from studies.recipe import Recipe
from studies.trial import Outcome
from trainer.device import choose_device
from trainer.loop import NullReporter, train

LEARNING_RATE: Final = 1e-3
CLIP: Final = 1.0
LOGGED_EVERY: Final = 25  # steps: all three look at the loss so often, as our loop does
WARM: Final = 10  # untimed steps


@dataclass(frozen=True)
class Shape:
    """A model and its batch."""

    kind: str  # lstm or gpt
    width: int  # embedding_dim
    hidden: int  # hidden_dim
    layers: int
    batch: int  # sequences
    length: int  # tokens
    steps: int  # timed

    @property
    def tokens(self) -> int:
        """Tokens of the timed steps."""
        return self.steps * self.batch * self.length


SHAPES: Final[Mapping[str, Shape]] = {
    "lstm-small": Shape("lstm", 64, 128, 1, 8, 32, 100),
    "gpt-small": Shape("gpt", 64, 256, 2, 8, 32, 60),
    "lstm-medium": Shape("lstm", 256, 512, 2, 16, 64, 10),
    "gpt-medium": Shape("gpt", 256, 1024, 4, 16, 64, 10),
}
HEADS: Final = 4


@lru_cache(maxsize=1)
def text() -> str:
    """The text that all train on."""
    return builtin_text("stdlib")


def tokens_N(device: torch.device) -> Tensor:
    """Returns the training split as bytes, on the device."""
    part = text()[: int(0.9 * len(text()))].encode()
    return torch.frombuffer(bytearray(part), dtype=torch.uint8).to(device)


def synchronize() -> None:
    """Waits for the device."""
    if torch.cuda.is_available():
        torch.cuda.synchronize()


# -------------------------------------------------------------------------------- ours


class _Clock(NullReporter):
    """Takes the time between two steps, then ends the run."""

    def __init__(self, steps: int) -> None:
        self._steps, self.seconds = steps, math.nan
        self._began = 0.0

    def ending(self, step: int) -> Outcome | None:
        """Ends the run when the timed steps are done."""
        if step == WARM:
            synchronize()
            self._began = time.perf_counter()
        if step < WARM + self._steps:
            return None
        synchronize()
        self.seconds = time.perf_counter() - self._began
        return Outcome.PRUNED


def ours(shape: Shape) -> float:
    """Returns the seconds of our loop."""
    recipe = Recipe.model_validate({
        "data": {"builtin": "stdlib"},
        "model": {
            "kind": shape.kind, "embedding_dim": shape.width, "hidden_dim": shape.hidden,
            "layers": shape.layers, "heads": HEADS, "positions": "learned",
        },
        "train": {
            "batch_size": shape.batch, "sequence_length": shape.length, "optimizer": "adamw",
            "learning_rate": LEARNING_RATE, "gradient_clip": CLIP, "schedule": "constant",
            "steps": 10**6, "evaluate_every": 10**6, "seed": 1,
        },
    })  # fmt: skip
    clock = _Clock(shape.steps)
    train(recipe, text(), clock)
    return clock.seconds


# -------------------------------------------------------------------------------- by hand


class HandLSTM(nn.Module):
    """Embedding, nn.LSTM, linear."""

    def __init__(self, shape: Shape) -> None:
        super().__init__()
        self.embedding = nn.Embedding(256, shape.width)
        self.lstm = nn.LSTM(shape.width, shape.hidden, shape.layers, batch_first=True)
        self.output = nn.Linear(shape.hidden, 256)

    def forward(self, x_BT: Tensor) -> Tensor:
        """Returns logits_BTV."""
        return self.output(self.lstm(self.embedding(x_BT))[0])


class HandBlock(nn.Module):
    """A pre-norm block with torch's attention function."""

    def __init__(self, shape: Shape) -> None:
        super().__init__()
        width = shape.width
        self.first, self.second = (nn.LayerNorm(width, bias=False) for _ in range(2))
        self.qkv = nn.Linear(width, 3 * width, bias=False)
        self.project = nn.Linear(width, width, bias=False)
        self.up = nn.Linear(width, shape.hidden, bias=False)
        self.down = nn.Linear(shape.hidden, width, bias=False)

    def forward(self, h_BTE: Tensor) -> Tensor:
        """Returns the residual stream."""
        batch, length, width = h_BTE.shape
        q, k, v = self.qkv(self.first(h_BTE)).view(batch, length, 3, HEADS, -1).unbind(2)
        a = functional.scaled_dot_product_attention(
            q.transpose(1, 2), k.transpose(1, 2), v.transpose(1, 2), is_causal=True
        )
        h_BTE = h_BTE + self.project(a.transpose(1, 2).reshape(batch, length, width))
        return h_BTE + self.down(functional.gelu(self.up(self.second(h_BTE))))


class HandGPT(nn.Module):
    """Embeddings, blocks, norm, linear."""

    def __init__(self, shape: Shape) -> None:
        super().__init__()
        self.embedding = nn.Embedding(256, shape.width)
        self.positions = nn.Embedding(shape.length, shape.width)
        self.blocks = nn.Sequential(*(HandBlock(shape) for _ in range(shape.layers)))
        self.norm = nn.LayerNorm(shape.width, bias=False)
        self.output = nn.Linear(shape.width, 256, bias=False)

    def forward(self, x_BT: Tensor) -> Tensor:
        """Returns logits_BTV."""
        place_T = torch.arange(x_BT.shape[1], device=x_BT.device)
        return self.output(self.norm(self.blocks(self.embedding(x_BT) + self.positions(place_T))))


def hand_model(shape: Shape) -> nn.Module:
    """Returns the model written by hand."""
    torch.manual_seed(1)
    return (HandLSTM if shape.kind == "lstm" else HandGPT)(shape).to(choose_device())


def by_hand(shape: Shape) -> float:
    """Returns the seconds of the loop that one writes into a script."""
    device = choose_device()
    data_N, model = tokens_N(device), hand_model(shape)
    optimizer = torch.optim.AdamW(
        model.parameters(), lr=LEARNING_RATE, weight_decay=0.0, fused=True
    )
    offsets_T = torch.arange(shape.length + 1, device=device)
    began = 0.0
    for step in range(WARM + shape.steps):
        if step == WARM:
            synchronize()
            began = time.perf_counter()
        start_B = torch.randint(len(data_N) - shape.length, (shape.batch,), device=device)
        window_BT = data_N[start_B[:, None] + offsets_T].long()
        logits_BTV = model(window_BT[:, :-1])
        loss = functional.cross_entropy(logits_BTV.flatten(0, 1), window_BT[:, 1:].flatten())
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        nn.utils.clip_grad_norm_(model.parameters(), CLIP)
        optimizer.step()
        if (step + 1) % LOGGED_EVERY == 0:
            loss.item()
    synchronize()
    return time.perf_counter() - began


# -------------------------------------------------------------------------------- Hugging Face


class _WithLoss(nn.Module):
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

    def __init__(self, length: int) -> None:
        self._tokens_N, self._length = tokens_N(torch.device("cpu")).long(), length

    def __len__(self) -> int:
        return len(self._tokens_N) - self._length

    def __getitem__(self, start: int) -> dict[str, Tensor]:
        window_T = self._tokens_N[start : start + self._length + 1]
        return {"input_ids": window_T[:-1], "labels": window_T[1:]}


def hugging_face(shape: Shape, folder: Path) -> float:
    """Returns the seconds of transformers.Trainer, set as fast as its arguments allow."""
    import transformers  # takes seconds

    class Clock(transformers.TrainerCallback):  # type: ignore[misc]
        began = ended = 0.0

        def on_step_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
            if state.global_step in (WARM, WARM + shape.steps):
                synchronize()
                now = time.perf_counter()
                self.began, self.ended = (
                    (now, 0.0) if state.global_step == WARM else (self.began, now)
                )

    clock = Clock()
    arguments = transformers.TrainingArguments(
        output_dir=str(folder), max_steps=WARM + shape.steps, report_to=[], save_strategy="no",
        per_device_train_batch_size=shape.batch, learning_rate=LEARNING_RATE, weight_decay=0.0,
        lr_scheduler_type="constant", optim="adamw_torch_fused", max_grad_norm=CLIP,
        logging_steps=LOGGED_EVERY, disable_tqdm=True, use_cpu=choose_device().type == "cpu",
        dataloader_pin_memory=choose_device().type == "cuda", seed=1,
    )  # fmt: skip
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        trainer = transformers.Trainer(
            model=_WithLoss(hand_model(shape)), args=arguments, callbacks=[clock],
            train_dataset=_Windows(shape.length),
        )  # fmt: skip
        trainer.remove_callback(transformers.PrinterCallback)
        trainer.train()
    return clock.ended - clock.began
