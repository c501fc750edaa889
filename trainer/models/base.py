"""The interface of a language model: what the loop, evaluation and checkpoints count on.

Shapes: B sequences, T tokens, V vocabulary.
"""

from __future__ import annotations

from typing import Any, ClassVar

from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

State = list[tuple[Tensor, Tensor]]  # (h, c) of each LSTM layer; empty for a model without memory


class LanguageModel(nn.Module):
    """Predicts each next token from the tokens before it.

    Invariants:
        The logits at t depend on tokens 0..t and on the state alone. All randomness in training
        mode comes from torch's default generators. Tied weights are one parameter.
    """

    OUTER: ClassVar[tuple[str, ...]] = ("embedding", "positions", "output")
    """Names of the parts that face tokens and positions, not features."""

    checkpointing = False  # whether `through` keeps inputs only; set after the building

    def through(self, block: nn.Module, *inputs: Any) -> Any:
        """Returns block(*inputs); while checkpointing, its backward pass computes it again."""
        if self.checkpointing and self.training:
            return checkpoint(block, *inputs, use_reentrant=False)
        return block(*inputs)

    def hidden_matrices(self) -> list[nn.Parameter]:
        """Returns the matrices between features, which Muon orthogonalises."""
        outer = {id(p) for name, p in self.named_parameters() if name.startswith(self.OUTER)}
        return [p for p in self.parameters() if p.ndim == 2 and id(p) not in outer]

    def matrix_layers(self) -> list[nn.Module]:
        """Returns the layers that multiply by matrices, which lower precisions speed up."""
        return [module for module in self.modules() if isinstance(module, (nn.Linear, nn.LSTM))]

    def spread_evenly(self, initial_range: float | None) -> None:
        """Has embedding and output start uniform in ±initial_range, if it is given."""
        if initial_range is not None:
            for name in ("embedding", "output"):
                nn.init.uniform_(getattr(self, name).weight, -initial_range, initial_range)

    def forward(self, x_BT: Tensor, state: State) -> tuple[Tensor, State]:
        """Returns the logits of the next tokens, and what the model remembers.

        Args:
            x_BT: token ids.
            state: what the last call on the same streams returned; empty at their start.

        Shapes:
            logits_BTV.
        """
        raise NotImplementedError
