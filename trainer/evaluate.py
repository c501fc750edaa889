"""The loss on the whole validation split.

Shapes: N tokens of the split, S streams, L tokens of a stream, T tokens of a window, V vocabulary.
"""

from __future__ import annotations

from typing import Final

import torch
from torch import Tensor
from torch.nn import functional

from trainer.models import LanguageModel, State
from trainer.objective import IGNORED, Causal

STREAMS: Final = 64  # contiguous pieces read side by side; assumption: fast, and few cold starts
TOKENS_AT_ONCE: Final = 2**14  # in one forward pass; assumption: less than a training step's
LOGITS_AT_ONCE: Final = 2**26  # 256 MiB of fp32

_CAUSAL: Final = Causal()


@torch.inference_mode()
def evaluate(
    model: LanguageModel,
    tokens_N: Tensor,
    window: int,
    vocabulary: int,
    objective: Causal = _CAUSAL,
) -> float:
    """Returns the mean loss [nats per token] over the split; every target counts once.

    A causal model's targets are all tokens but the first, a masked one's those that are hidden.

    The split is cut into contiguous streams, read in windows. An LSTM carries its memory from
    window to window, and starts cold once per stream; a GPT sees its window alone. The number
    depends on model, split and window only, never on how many streams fit into memory at once.

    Args:
        model: is left in training mode.
        tokens_N: the validation split.
        window: tokens that a GPT sees at most [tokens].
        vocabulary: V, decides how much is read at once.
        objective: what is predicted.
    """
    x_SL, y_SL = objective.evaluation(*_streams(tokens_N, window))
    at_once = max(1, min(TOKENS_AT_ONCE // window, LOGITS_AT_ONCE // (window * vocabulary)))
    total = torch.zeros((), dtype=torch.float64, device=tokens_N.device)
    model.eval()
    for x_sL, y_sL in zip(x_SL.split(at_once), y_SL.split(at_once), strict=True):
        total += _loss_of_streams(model, x_sL, y_sL, window)
    model.train()
    return float(total) / int((y_SL != IGNORED).sum())


def _streams(tokens_N: Tensor, window: int) -> tuple[Tensor, Tensor]:
    """Returns inputs and targets cut into streams of whole windows, padded at the very end."""
    predicted = len(tokens_N) - 1
    windows = -(-predicted // window)
    length = window * -(-windows // min(STREAMS, windows))
    padding = -predicted % length
    x_SL = functional.pad(tokens_N[:-1].long(), (0, padding)).view(-1, length)
    y_SL = functional.pad(tokens_N[1:].long(), (0, padding), value=IGNORED).view(-1, length)
    return x_SL, y_SL


def _loss_of_streams(model: LanguageModel, x_SL: Tensor, y_SL: Tensor, window: int) -> Tensor:
    """Returns the summed loss [nats] of streams read side by side, window after window."""
    total = torch.zeros((), dtype=torch.float64, device=x_SL.device)
    state: State = []
    for x_ST, y_ST in zip(x_SL.split(window, dim=1), y_SL.split(window, dim=1), strict=True):
        logits_STV, state = model(x_ST, state)
        targets = y_ST.flatten()
        total += functional.cross_entropy(
            logits_STV.flatten(0, 1).float(), targets, ignore_index=IGNORED, reduction="sum"
        )
    return total
