"""The gradient of a step: forward and backward pass, in as many parts as fit into memory.

Shapes: B sequences, b sequences of a part, T tokens, V vocabulary.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from typing import Any, Final

import torch
from torch import Tensor
from torch.nn import functional

from studies.errors import OutOfMemory
from studies.recipe import TrainRecipe
from trainer import device
from trainer.models import LanguageModel, State
from trainer.objective import IGNORED
from trainer.precision import LossScaler, Precision
from trainer.ranks import Ranks

logger = logging.getLogger(__name__)
_Forward = Callable[[Tensor, State], tuple[Tensor, State]]
_ALONE: Final = Ranks()
_GRAPHS_KEPT: Final = 4  # compiled, when a run begins; half of torch's limit


class Backward:
    """Leaves the gradient of a batch in the parameters' .grad.

    A batch that does not fit into memory is computed once more in twice as many parts; the
    gradient is the same but for rounding, and dropout draws other masks. It stays so for the run,
    saved and resumed; what does not fit then ends the trial. Several ranks find out together, by
    `rehearse`; what does not fit on one of them in a step ends the trial.
    """

    def __init__(
        self,
        model: LanguageModel,
        precision: Precision,
        scaler: LossScaler,
        train: TrainRecipe,
        ranks: Ranks = _ALONE,
    ) -> None:
        self._model, self._precision, self._scaler = model, precision, scaler
        self._ranks = ranks
        self._alone: _Forward = _compiled(model) if train.compile else model
        self._forward: _Forward = ranks.wrap(self._alone)
        self._smoothing, self._carries = train.label_smoothing, train.windows == "streams"
        self._device = next(model.parameters()).device
        self._most = max(1, train.batch_size // ranks.world)  # parts of a rank's share
        self._parts = self._asked = min(train.accumulate, self._most)
        self._memory: State = []  # of the whole batch, after the last step

    def gradients(self, x_BT: Tensor, y_BT: Tensor, seed: int, continues: bool) -> Tensor:
        """Returns J, the mean cross-entropy of the batch [nats per token], without the penalty.

        Among several ranks it is this one's part of J, and the gradient is the whole batch's.

        Args:
            x_BT: token ids.
            y_BT: what is to be predicted; IGNORED where nothing is.
            seed: of dropout.
            continues: whether the rows go on where those of the last call ended.
        """
        if not continues:
            self._memory = []
        try:
            return self._batch(self._forward, x_BT, y_BT, seed)
        except Exception as error:
            alone = self._ranks.world == 1  # others would wait for this rank
            if not (device.is_out_of_memory(error) and alone and self._may_halve):
                raise
            reason = device.out_of_memory_reason(error, self._device)
        # Here, where no traceback holds the activations any more.
        self._halve(reason, len(x_BT))
        return self._batch(self._forward, x_BT, y_BT, seed)

    def rehearse(self, x_BT: Tensor, y_BT: Tensor, seed: int) -> None:
        """Has every rank compute its share of a batch for itself, to see whether it fits on all.

        In a step the others wait for the gradient of a rank that has no memory, and cannot be
        told. Where it does not fit on one, all compute theirs in twice as many parts from now on.

        Raises:
            OutOfMemory: it does not fit then either; on every rank.
        """
        reason = ""
        try:
            self._batch(self._alone, x_BT, y_BT, seed)
        except Exception as error:
            if not device.is_out_of_memory(error):
                raise
            reason = device.out_of_memory_reason(error, self._device)
        self._model.zero_grad(set_to_none=True)
        if self._ranks.any(bool(reason)):
            reason = reason or "another device has no memory left"
            if not self._may_halve:
                raise OutOfMemory(reason)
            self._halve(reason, len(x_BT))
            self.rehearse(x_BT, y_BT, seed)

    def _batch(self, forward: _Forward, x_BT: Tensor, y_BT: Tensor, seed: int) -> Tensor:
        device.seed_generators(self._device, seed)
        loss = torch.zeros((), device=self._device)
        memories: list[State] = []
        own = [self._ranks.share(z).tensor_split(self._parts) for z in (x_BT, y_BT)]
        scale = self._scaler.scale * self._ranks.world  # of which the ranks' mean is taken
        with self._precision.computing():
            for x_bT, y_bT, memory in zip(*own, self._split(), strict=True):
                share, more = self._share(y_bT, y_BT), len(memories) + 1 < self._parts
                with self._ranks.holding_back(forward, more):
                    with self._precision.forward():
                        part, memory = self._loss(forward, x_bT, y_bT, memory)
                    (part * (share * scale)).backward()
                loss += share * part.detach()
                memories.append([(h.detach(), c.detach()) for h, c in memory])
        self._memory = _joined(memories) if self._carries else []
        return loss

    def _share(self, y_bT: Tensor, y_BT: Tensor) -> float | Tensor:
        """Returns which part of the batch's targets is in a part of it."""
        if len(y_bT) == len(y_BT):
            return 1.0
        return (y_bT != IGNORED).sum() / (y_BT != IGNORED).sum()

    def _loss(
        self, forward: _Forward, x_bT: Tensor, y_bT: Tensor, memory: State
    ) -> tuple[Tensor, State]:
        logits_bTV, memory = forward(x_bT, memory)
        logits, targets = logits_bTV.flatten(0, 1).float(), y_bT.flatten()
        return functional.cross_entropy(logits, targets, label_smoothing=self._smoothing), memory

    def _split(self) -> list[State]:
        """Returns the memory of each part."""
        layers = [
            list(zip(h.tensor_split(self._parts, 1), c.tensor_split(self._parts, 1), strict=True))
            for h, c in self._memory
        ]
        return [[layer[i] for layer in layers] for i in range(self._parts)]

    @property
    def _may_halve(self) -> bool:
        return self._parts <= self._asked and 2 * self._parts <= self._most

    def _halve(self, reason: str, rows: int) -> None:
        self._model.zero_grad(set_to_none=True)
        device.keep_no_memory()
        device.release_memory()
        before, self._parts = self._parts, 2 * self._parts
        logger.warning(
            "%s; the batch of %s is now computed in %s parts, not %s",
            reason, rows, self._parts, before,
        )  # fmt: skip

    @property
    def parts(self) -> int:
        """In how many parts a batch is computed."""
        return self._parts

    def tensors(self) -> dict[str, Tensor]:
        """Returns the memory by name, not copied."""
        named = enumerate(self._memory)
        return {f"{i}.{which}": t for i, hc in named for which, t in zip("hc", hc, strict=True)}

    def restore(self, tensors: Mapping[str, Tensor], state: Mapping[str, Any]) -> None:
        """Goes on from saved tensors and the number of parts."""
        layers = range(len(tensors) // 2)
        self._memory = [(tensors[f"{i}.h"], tensors[f"{i}.c"]) for i in layers]
        self._parts = min(int(state["parts"]), self._most)  # fewer ranks may have saved it

    def state(self) -> dict[str, Any]:
        """Returns what `restore` needs besides the tensors."""
        return {"parts": self._parts}


def _compiled(model: LanguageModel) -> Any:
    """Returns the model compiled, LSTMs too; torch keeps what it compiled on disk for the next.

    In memory it keeps eight graphs of a function and then runs the others uncompiled, so a worker
    drops them before: a run compiles one or two, and one more where parts differ in size.
    """
    torch._dynamo.config.allow_rnn = True
    compiled = torch._dynamo.utils.counters["stats"]
    if compiled["unique_graphs"] >= _GRAPHS_KEPT:
        device.forget_compiled()
        compiled.clear()
    return torch.compile(model, dynamic=False)


def _joined(memories: list[State]) -> State:
    """Returns the parts' memories as that of the whole batch."""
    if len(memories) == 1:
        return memories[0]
    return [
        (torch.cat([h for h, _ in layer], 1), torch.cat([c for _, c in layer], 1))
        for layer in zip(*memories, strict=True)
    ]
