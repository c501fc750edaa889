"""The interface of a language model: what the loop, evaluation and checkpoints count on.

Shapes: B sequences, T tokens, V vocabulary.
"""

from __future__ import annotations

from torch import Tensor, nn

State = list[tuple[Tensor, Tensor]]  # (h, c) of each LSTM layer; empty for a model without memory


class LanguageModel(nn.Module):
    """Predicts each next token from the tokens before it.

    Invariants:
        The logits at t depend on tokens 0..t and on the state alone. All randomness in training
        mode comes from torch's default generators. Tied weights are one parameter.
    """

    def forward(self, x_BT: Tensor, state: State) -> tuple[Tensor, State]:
        """Returns the logits of the next tokens, and what the model remembers.

        Args:
            x_BT: token ids.
            state: what the last call on the same streams returned; empty at their start.

        Shapes:
            logits_BTV.
        """
        raise NotImplementedError
