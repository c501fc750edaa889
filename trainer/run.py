"""One training run: what a recipe builds, what a step does to it, its loss, its saved state.

Shapes: B sequences, T tokens, V vocabulary, N tokens of a split.
"""

from __future__ import annotations

import hashlib
import math
import time
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Final

import torch
from torch import Tensor
from torch.nn import functional

from studies.corpus import require_enough
from studies.errors import OutOfMemory
from studies.recipe import Recipe
from studies.wire import ReportItem
from trainer import checkpoint, device
from trainer.checkpoint import CheckpointFile, CheckpointUnusable
from trainer.data import Batches, dataset, draw_seed, lengths
from trainer.evaluate import evaluate
from trainer.meter import Meter, require_sane
from trainer.models import build_model
from trainer.optim import Updater
from trainer.precision import build_precision, build_scaler

# Times ln V, the loss of a uniform guess. Measured on tinyshakespeare, LSTM of 256, Adam: the mean
# training loss of a run that recovers peaks at 2.0 ln V (learning rate 0.3); 3 reaches 15 ln V.
DIVERGED_ABOVE: Final = 4.0
CHECK_EVERY: Final = 25  # steps between looks at the training loss; each waits for the device
_COPIES: Final = {"sgd": 3, "adam": 4, "adamw": 4}  # weight, gradient, and moments of each
_FP32: Final = 4  # bytes
_GIB: Final = 2**30  # bytes


@dataclass
class Progress:
    """How far a run is."""

    step: int = 0  # updates done, skipped ones too
    best_step: int = 0
    best_loss: float | None = None  # validation loss at best_step [nats per token]
    stale_evaluations: int = 0  # since the best
    seconds: float = 0.0  # training time in earlier processes


class Run:
    """A recipe being trained on a text.

    Invariant:
        After step k all state is a function of (recipe, text, k) on a given device, however
        often the run was saved and resumed on the way: bit for bit on the CPU.
    """

    def __init__(self, recipe: Recipe, text: str) -> None:
        require_enough(*lengths(text, recipe.data), recipe)
        train = recipe.train
        self.recipe, self.progress = recipe, Progress()
        self.device = device.choose_device()
        self._data = dataset(text, recipe.data)
        _require_memory(recipe, self._data.vocabulary, self.device)
        device.reset_peak_memory(self.device)
        self._seed = train.seed or 0
        device.seed_generators(self.device, draw_seed(self._seed, 0, "initialisation"))
        self._model = build_model(recipe.model, self._data.vocabulary, train.sequence_length)
        self._model.to(self.device)
        self._precision = build_precision(train.precision, self._model, self.device)
        self._scaler = build_scaler(train.precision)
        self._updater = Updater(self._model, train, self._scaler)
        shape = (train.batch_size, train.sequence_length)
        self._batches = Batches(self._data.train_N.to(self.device), shape, self._seed)
        self._validation_N = self._data.validation_N.to(self.device)
        self._meter = Meter(self.device)
        self._limit = DIVERGED_ABOVE * math.log(max(2, self._data.vocabulary))
        self._started = time.perf_counter()

    @property
    def due(self) -> bool:
        """True after a step at which the validation split is evaluated."""
        train = self.recipe.train
        return self.progress.step % train.evaluate_every == 0 or self.progress.step == train.steps

    @property
    def finished(self) -> bool:
        """True when all steps are done, or patience is at its end."""
        train, progress = self.recipe.train, self.progress
        impatient = 0 < train.patience <= progress.stale_evaluations
        return impatient or progress.step >= train.steps

    @property
    def final_step(self) -> int:
        """The step whose value counts: the last or, with early stopping, the best."""
        return self.progress.best_step if self.recipe.train.patience else self.progress.step

    def step(self) -> None:
        """Does one update; waits for the device only for fp16's scaler and to look at the loss."""
        step = self.progress.step
        self._meter.start()
        device.seed_generators(self.device, draw_seed(self._seed, step, "dropout"))
        x_BT, y_BT = self._batches.at(step)
        with self._precision.computing():
            with self._precision.forward():
                loss = self._loss(x_BT, y_BT)
            (loss * self._scaler.scale).backward()
        skipped_before = self._scaler.skipped_steps
        norm = self._updater.update(step)
        self._meter.add(loss, norm, taken=self._scaler.skipped_steps == skipped_before)
        self.progress.step += 1
        if self.progress.step % CHECK_EVERY == 0:
            self.check()

    def _loss(self, x_BT: Tensor, y_BT: Tensor) -> Tensor:
        """Returns J, the mean cross-entropy [nats per token], without the penalty."""
        logits_BTV, _ = self._model(x_BT, [])
        return functional.cross_entropy(logits_BTV.flatten(0, 1).float(), y_BT.flatten())

    def check(self) -> tuple[float, float]:
        """Returns mean training loss and gradient norm since the last report; raises Diverged."""
        self._scaler.require_sane()
        return self._meter.read(self._limit)

    def evaluate(self) -> ReportItem:
        """Returns the report of this step; raises Diverged."""
        train_loss, norm = self.check()
        tokens_per_step = self.recipe.train.batch_size * self.recipe.train.sequence_length
        tokens_per_second = self._meter.reset() * tokens_per_step
        loss = self._validation_loss()
        self._note(loss)
        metrics = {
            "validation_loss": loss,
            "bits_per_byte": self._data.bits_per_byte(loss),
            "perplexity": math.exp(loss),
            "train_loss": train_loss,
            "learning_rate": self._updater.learning_rate(self.progress.step - 1),
            "gradient_norm": norm,
            "tokens_per_second": tokens_per_second,
            "peak_memory_bytes": device.peak_memory_bytes(self.device),
            "skipped_steps": self._scaler.skipped_steps,
        }
        tokens, wall_ms = self.progress.step * tokens_per_step, round(self._seconds * 1_000)
        return ReportItem(step=self.progress.step, metrics=metrics, tokens=tokens, wall_ms=wall_ms)

    def _validation_loss(self) -> float:
        """Returns the loss on the whole validation split [nats per token], as trained: rounded."""
        window, vocabulary = self.recipe.train.sequence_length, self._data.vocabulary
        with self._precision.computing(), self._precision.forward():
            loss = evaluate(self._model, self._validation_N, window, vocabulary)
        require_sane("validation loss", loss, self._limit)
        return loss

    def _note(self, loss: float) -> None:
        """Keeps the score for early stopping."""
        progress = self.progress
        progress.stale_evaluations += 1
        if progress.best_loss is None or loss < progress.best_loss:
            progress.best_loss, progress.best_step = loss, progress.step
            progress.stale_evaluations = 0

    @property
    def _seconds(self) -> float:
        return self.progress.seconds + time.perf_counter() - self._started

    def environment(self) -> dict[str, Any]:
        """Returns where and on what this run trains, as facts that a trial shows."""
        return {
            **device.describe(self.device),
            "precision": self.recipe.train.precision,
            "emulated": self._precision.emulated,
            "parameters": sum(p.numel() for p in self._model.parameters()),
            "data_sha256": self._data.sha256,
            "vocabulary": self._data.vocabulary,
            "train_tokens": len(self._data.train_N),
            "validation_tokens": len(self._data.validation_N),
            "unigram_loss": self._data.unigram_loss,
        }

    def save(self, path: Path) -> CheckpointFile:
        """Writes the run's whole state to a file."""
        weights = {f"model.{name}": p for name, p in self._model.named_parameters()}
        moments = {f"optimizer.{name}": t for name, t in self._updater.tensors().items()}
        state = {
            **self._identity(),
            "progress": {**asdict(self.progress), "seconds": self._seconds},
            "scaler": self._scaler.state(),
            "meter": self._meter.state(),
        }
        return checkpoint.save(path, {**weights, **moments}, state)

    def resume(self, file: CheckpointFile) -> None:
        """Goes on from a saved state; raises CheckpointUnusable, and then the run is spoilt."""
        tensors, state = checkpoint.load(file, self.device)
        for what, value in self._identity().items():
            if state.get(what) != value:
                raise CheckpointUnusable(f"{file.path.name} belongs to another {what}")
        try:
            if file.step not in (None, state["progress"]["step"]):
                raise CheckpointUnusable(f"{file.path.name} is of another step")
            self._restore(tensors, state)
        except (KeyError, TypeError, ValueError, RuntimeError) as error:
            raise CheckpointUnusable(f"{file.path.name} does not fit: {error}") from error

    def _identity(self) -> Mapping[str, str]:
        said = self.recipe.model_dump_json(by_alias=True)
        return {"recipe": hashlib.sha256(said.encode()).hexdigest(), "text": self._data.sha256}

    @torch.no_grad()
    def _restore(self, tensors: Mapping[str, Tensor], state: Mapping[str, Any]) -> None:
        for name, parameter in self._model.named_parameters():
            parameter.copy_(tensors[f"model.{name}"].view(parameter.shape))
        prefix = "optimizer."
        moments = {n.removeprefix(prefix): t for n, t in tensors.items() if n.startswith(prefix)}
        self._updater.restore(moments)
        self._scaler.restore(state["scaler"])
        self._meter.restore(state["meter"])
        self.progress = Progress(**state["progress"])


def _require_memory(recipe: Recipe, vocabulary: int, where: torch.device) -> None:
    """Raises OutOfMemory when not even the parameters and their optimizer fit.

    Linux lets a process allocate more than there is and kills it later; so we ask first.
    """
    with torch.device("meta"):
        model = build_model(recipe.model, vocabulary, recipe.train.sequence_length)
    numbers = sum(p.numel() for p in model.parameters()) * _COPIES[recipe.train.optimizer]
    needed, free = numbers * _FP32, device.free_memory_bytes(where)
    if needed > free:
        raise OutOfMemory(
            f"parameters, gradients and optimizer need {needed / _GIB:.1f} GiB,"
            f" {free / _GIB:.1f} GiB are free"
        )
