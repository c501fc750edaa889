"""What a simulated worker trains: losses that are a pure function of (recipe, step).

The state is a chain of hashes, so a trial that was resumed from another state than its own ends
with another loss. A dropout of `BEHAVIOURS` makes a trial misbehave in one way; people enqueue
such configurations; a sampler draws one of these very numbers with probability 0.
"""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

BEHAVIOURS: Final[Mapping[float, str]] = {
    0.01: "nan",  # the loss is NaN from the middle on, and the worker says so: diverged
    0.02: "infinite",  # the loss is infinite from the middle on, and trained to its end
    0.03: "blink",  # one loss is NaN, then it goes on
    0.04: "error",  # always fails before its first checkpoint
    0.06: "abort",  # always takes its process down
    0.07: "hang",  # its first attempt hangs with a live heartbeat
    0.08: "oom",  # its first attempt runs out of memory
}
BLOB_BYTES: Final = 2_048  # of a checkpoint
_BASE: Final = 1.0  # loss that the best configuration tends to


@dataclass(frozen=True)
class Trained:
    """How an undisturbed training ends."""

    outcome: str  # ok, diverged; error and abort never end well
    final_step: int
    value: float


class Run:
    """One training: `advance` step by step; `save` and `load` its whole state."""

    def __init__(self, recipe: Mapping[str, Any]) -> None:
        train, model = recipe["train"], recipe["model"]
        self.rate, self.dropout = float(train["learning_rate"]), float(model["dropout"])
        self.steps, self.every = int(train["steps"]), int(train["evaluate_every"])
        self.patience = int(train["patience"])
        self.seed = int(train["seed"])
        self.behaviour = BEHAVIOURS.get(self.dropout, "normal")
        self.step = 0
        self.best_step, self.best_loss = 0, math.inf
        self._state = _hash(f"{self.seed} {self.rate!r} {self.dropout!r}".encode())

    @property
    def odd_step(self) -> int:
        """The evaluation at which a misbehaving trial begins to."""
        return max(self.steps // self.every // 2, 1) * self.every

    def advance(self) -> None:
        """Trains one step; looks at the loss at each evaluation."""
        self.step += 1
        self._state = _hash(self._state)
        if self.evaluates and self.loss() < self.best_loss:
            self.best_step, self.best_loss = self.step, self.loss()

    @property
    def evaluates(self) -> bool:
        """True after a step whose loss is reported."""
        return self.step % self.every == 0 or self.step == self.steps

    @property
    def over(self) -> bool:
        """True when training ends by itself: at the last step, early, or diverged."""
        if self.behaviour == "nan" and self.step >= self.odd_step:
            return True
        waited = (self.step - self.best_step) // self.every
        return self.step >= self.steps or 0 < self.patience <= waited

    @property
    def ended(self) -> Trained:
        """How it ended, once it is over."""
        if self.behaviour == "nan":
            return Trained("diverged", self.step, math.nan)
        if self.step >= self.steps and not self.patience:
            return Trained("ok", self.step, self.loss())
        return Trained("ok", self.best_step, self.best_loss)

    def loss(self) -> float:
        """Returns the validation loss at this step."""
        if self.behaviour in ("nan", "blink") and self.step == self.odd_step:
            return math.nan
        if self.behaviour == "infinite" and self.step >= self.odd_step:
            return math.inf
        noise = int.from_bytes(self._state[:6], "big") / 2.0**48
        far = (math.log10(self.rate) + 2.0) ** 2
        return _BASE + 0.3 * far + self.dropout + math.exp(-self.step / 4.0) + 0.2 * noise

    def save(self) -> bytes:
        """Returns the state as a checkpoint; the same state gives the same bytes."""
        state = {
            "step": self.step,
            "state": self._state.hex(),
            "best_step": self.best_step,
            "best_loss": None if self.best_step == 0 else self.best_loss,
        }
        head = json.dumps(state).encode() + b"\n"
        return head + (self._state * (BLOB_BYTES // 32 + 1))[: BLOB_BYTES - len(head)]

    def load(self, blob: bytes) -> None:
        """Goes on from a checkpoint."""
        state = json.loads(blob.split(b"\n", 1)[0])
        self.step, self._state = state["step"], bytes.fromhex(state["state"])
        self.best_step = state["best_step"]
        self.best_loss = math.inf if state["best_loss"] is None else state["best_loss"]


def undisturbed(recipe: Mapping[str, Any]) -> tuple[dict[int, float], Trained]:
    """Returns the loss at every evaluation of a training that nothing disturbs, and its end."""
    run, curve = Run(recipe), dict[int, float]()
    while not run.over:
        run.advance()
        if run.evaluates:
            curve[run.step] = run.loss()
    return curve, run.ended


def _hash(value: bytes) -> bytes:
    return hashlib.sha256(value).digest()
