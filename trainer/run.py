"""One training run: what a recipe builds, what a step does to it, its loss, its saved state.

Shapes: B sequences, T tokens, V vocabulary, N tokens of a split.
"""

from __future__ import annotations

import hashlib
import math
import time
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any, Final

import torch
from torch import Tensor

from studies.corpus import require_enough
from studies.errors import InvalidInput
from studies.recipe import Recipe, TrainRecipe
from studies.wire import ReportItem
from trainer import checkpoint, device
from trainer.backward import Backward
from trainer.batches import build_batches
from trainer.checkpoint import CheckpointFile, CheckpointUnusable
from trainer.data import Dataset, dataset, draw_seed
from trainer.evaluate import evaluate
from trainer.feed import Batch, build_feed
from trainer.memory import require_memory
from trainer.meter import Meter, require_sane
from trainer.models import LanguageModel, beginning, build_model
from trainer.noise import build_noise
from trainer.objective import build_objective
from trainer.optim import Updater
from trainer.precision import build_precision, build_scaler
from trainer.provenance import provenance
from trainer.ranks import build_ranks
from trainer.schedule import trunk_steps

# Times ln V, the loss of a uniform guess. Measured on tinyshakespeare, LSTM of 256, Adam: the mean
# training loss of a run that recovers peaks at 2.0 ln V (learning rate 0.3); 3 reaches 15 ln V.
DIVERGED_ABOVE: Final = 4.0
_REHEARSED: Final = 2  # steps among several ranks: the optimizer takes its memory in the first
CHECK_EVERY: Final = 25  # steps between looks at the training loss; each waits for the device


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

    def __init__(self, recipe: Recipe, text: str | Path) -> None:
        train = recipe.train
        self.recipe, self.progress = recipe, Progress()
        self.device = device.choose_device()
        self.ranks = build_ranks(self.device)
        _require_shares(train, self.ranks.world)
        self._data = dataset(text, recipe.data)
        require_enough(self._data.lengths, recipe)
        build = partial(_build_model, recipe, self._data)
        require_memory(build, train.optimizer, self.device)
        device.reset_peak_memory(self.device)
        self._beginning = beginning(recipe.model)
        self._seed = train.seed or 0
        device.seed_generators(self.device, draw_seed(self._seed, 0, "initialisation"))
        self._model = build()
        self._model.to(self.device).checkpointing = train.gradient_checkpointing
        self._precision = build_precision(train.precision, self._model, self.device)
        self._scaler = build_scaler(train.precision)
        self._updater = Updater(self._model, train, self._scaler)
        self._backward = Backward(self._model, self._precision, self._scaler, train, self.ranks)
        train_N = self._data.train_N
        self._batches, self._noise = build_batches(train_N, train), build_noise(train_N, train)
        self._objective = build_objective(recipe, self._data)
        self._feed = build_feed(self._batch, self.device)
        self._validation_N = self._data.validation_N.to(self.device)
        self._meter = Meter(self.device, self.ranks)
        self._limit = DIVERGED_ABOVE * math.log(max(2, self._data.vocabulary))
        self._rehearsals = _REHEARSED if self.ranks.world > 1 else 0  # left to do
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
        if self._rehearsals:
            self._rehearse(step)
        self._meter.start()
        x_BT, y_BT = self._feed.at(step)
        seed = draw_seed(self._seed, step, self.ranks.purpose)
        continues = self._batches.continues(step)
        loss = self._backward.gradients(x_BT, y_BT, seed, continues)
        skipped_before = self._scaler.skipped_steps
        norm = self._updater.update(step)
        taken = self._scaler.skipped_steps == skipped_before
        self._meter.add(loss, norm, taken)
        if taken and self._rehearsals:
            self._rehearsals -= 1
        self.progress.step += 1
        if self.progress.step % CHECK_EVERY == 0:
            self.check()

    def _rehearse(self, step: int) -> None:
        """Has several ranks find out whether their shares fit, before one waits for another."""
        x_BT, y_BT = (part.to(self.device) for part in self._batch(step))
        self._backward.rehearse(x_BT, y_BT, draw_seed(self._seed, step, self.ranks.purpose))

    def _batch(self, step: int) -> Batch:
        x_BT, y_BT = self._objective.training(*self._batches.at(step), step)
        return self._noise(x_BT, step), y_BT

    def check(self) -> tuple[float, float]:
        """Returns mean training loss and gradient norm since the last report; raises Diverged.

        Where fp16's scaler took no step since, the loss is the one before and the norm nan.
        """
        self._scaler.require_sane()
        return self._meter.read(self._limit)

    def evaluate(self) -> ReportItem:
        """Returns the report of this step; raises Diverged."""
        train_loss, norm = self.check()
        tokens_per_step = self.recipe.train.batch_size * self.recipe.train.sequence_length
        tokens_per_second = self._meter.reset() * tokens_per_step
        loss = self._loss(self._validation_N)
        require_sane("validation loss", loss, self._limit, self._meter.before)
        self._note(loss)
        metrics = {
            "validation_loss": loss,
            **self._of_bytes(loss, "validation"),
            "perplexity": math.exp(loss),
            "train_loss": train_loss,
            "learning_rate": self._updater.learning_rate(self.progress.step - 1),
            "gradient_norm": norm,
            "tokens_per_second": tokens_per_second,
            "data_wait_seconds": self._feed.waited,
            "peak_memory_bytes": device.peak_memory_bytes(self.device),
            "skipped_steps": self._scaler.skipped_steps,
            "batch_parts": self._backward.parts,
        }
        tokens, wall_ms = self.progress.step * tokens_per_step, round(self._seconds * 1_000)
        return ReportItem(step=self.progress.step, metrics=metrics, tokens=tokens, wall_ms=wall_ms)

    def _of_bytes(self, loss: float, split: str) -> dict[str, float]:
        if not self._objective.bytewise:
            return {}
        return {"bits_per_byte": self._data.bits_per_byte(loss, split)}

    def _loss(self, split_N: Tensor) -> float:
        """Returns the loss on a whole split [nats per token], as trained: rounded."""
        window, vocabulary = self.recipe.train.sequence_length, self._data.vocabulary
        with self._precision.computing(), self._precision.forward():
            loss = evaluate(self._model, split_N, window, vocabulary, self._objective)
        return self.ranks.agree_on(loss)

    def test(self) -> dict[str, float]:
        """Returns loss, perplexity and bits per byte on the test split; changes nothing."""
        loss = self._loss(self._data.test_N.to(self.device))
        return {
            "test_loss": loss,
            **self._of_bytes(loss, "test"),
            "perplexity": math.exp(loss),
        }

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
            **provenance(),
            "recipe": self.recipe.model_dump(mode="json", by_alias=True),
            "devices": self.ranks.world,
            "precision": self.recipe.train.precision,
            "emulated": self._precision.emulated,
            "parameters": sum(p.numel() for p in self._model.parameters()),
            "data_sha256": self._data.sha256,
            "tokenizer_sha256": self._data.tokenizer_sha256,
            "vocabulary": self._data.vocabulary,
            "train_tokens": len(self._data.train_N),
            "validation_tokens": len(self._data.validation_N),
            "test_tokens": len(self._data.test_N),
            "unigram_loss": self._data.unigram_loss,
            **self._beginning,
        }

    def save(self, path: Path) -> CheckpointFile:
        """Writes the run's whole state to a file."""
        weights = {f"model.{name}": p for name, p in self._model.named_parameters()}
        moments = {f"optimizer.{name}": t for name, t in self._updater.tensors().items()}
        memory = {f"memory.{name}": t for name, t in self._backward.tensors().items()}
        state = {
            **self._identity(),
            "trunk": self._trunk(),
            "backward": self._backward.state(),
            "progress": {**asdict(self.progress), "seconds": self._seconds},
            "scaler": self._scaler.state(),
            "meter": self._meter.state(),
        }
        tensors = {**weights, **moments, **memory}
        return checkpoint.save(path, tensors, state, self._data.tokenizer)

    def resume(self, file: CheckpointFile) -> None:
        """Goes on from a saved state; raises CheckpointUnusable, and then the run is spoilt."""
        tensors, state = checkpoint.load(file, self.device)
        try:
            self._require_own(state, file.path.name)
            if file.step not in (None, state["progress"]["step"]):
                raise CheckpointUnusable(f"{file.path.name} is of another step")
            self._restore(tensors, state)
        except (LookupError, ArithmeticError, TypeError, ValueError, RuntimeError) as error:
            raise CheckpointUnusable(f"{file.path.name} does not fit: {error}") from error

    def _require_own(self, state: Mapping[str, Any], name: str) -> None:
        """Raises CheckpointUnusable for another run's state, unless it is of a trunk we share."""
        own, trunk = dict(self._identity()), self._trunk()
        common = min(trunk["steps"], state["trunk"]["steps"])
        if trunk["sha256"] == state["trunk"]["sha256"] and state["progress"]["step"] <= common:
            del own["recipe"]
        for what, value in own.items():
            if state.get(what) != value:
                raise CheckpointUnusable(f"{name} belongs to another {what}")

    def _identity(self) -> Mapping[str, str | None]:
        said = self.recipe.model_dump_json(by_alias=True)
        digest = hashlib.sha256(said.encode()).hexdigest()
        config = self._beginning.get("model_config_sha256")
        return {
            "recipe": digest,
            "text": self._data.sha256,
            "tokenizer": self._data.tokenizer_sha256,
            "start": self._beginning["initial_weights_sha256"] or config,
        }

    def _trunk(self) -> dict[str, Any]:
        """Returns what all runs have in common that branch from one trunk, and how long it is."""
        train = self.recipe.train
        free = {"steps": 1, "cooldown": 1.0, "final_fraction": 0.0, "warmup": 0.0}
        said = self.recipe.with_knobs(free).model_dump_json(by_alias=True)
        warm = round(train.warmup * train.steps)
        digest = hashlib.sha256(f"{warm} {said}".encode()).hexdigest()
        return {"sha256": digest, "steps": trunk_steps(train)}

    @torch.no_grad()
    def _restore(self, tensors: Mapping[str, Tensor], state: Mapping[str, Any]) -> None:
        for name, parameter in self._model.named_parameters():
            parameter.copy_(tensors[f"model.{name}"].view(parameter.shape))
        prefix = "optimizer."
        moments = {n.removeprefix(prefix): t for n, t in tensors.items() if n.startswith(prefix)}
        self._updater.restore(moments)
        prefix = "memory."
        memory = {n.removeprefix(prefix): t for n, t in tensors.items() if n.startswith(prefix)}
        self._backward.restore(memory, state["backward"])
        self._scaler.restore(state["scaler"])
        self._meter.restore(state["meter"])
        self.progress = Progress(**state["progress"])


def _build_model(recipe: Recipe, data: Dataset) -> LanguageModel:
    return build_model(recipe.model, data.vocabulary, recipe.train.sequence_length, data.mask)


def _require_shares(train: TrainRecipe, world: int) -> None:
    """Raises InvalidInput where a batch cannot be shared among so many devices."""
    if train.batch_size < world:
        message = f"{train.batch_size} sequences do not go round {world} devices"
        raise InvalidInput.of("train.batch_size", message, "raise it, or take fewer devices")
    if world > 1 and train.windows == "streams":
        message = "streams keep their memory on one device"
        raise InvalidInput.of("train.windows", message, "take random or shuffled, or one device")
