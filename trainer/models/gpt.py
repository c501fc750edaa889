"""The GPT: a pre-norm transformer decoder (GPT-2's layout, without biases).

Dropout stands where GPT-2 has it: after the embedding, on the attention weights, and on what
attention and MLP add to the residual stream; before the output only where it is asked for.

Shapes: B sequences, T tokens, E embedding_dim, F hidden_dim, H heads, K = E / H, V vocabulary.
"""

from __future__ import annotations

from typing import Final

import torch
from torch import Tensor, nn
from torch.nn import functional

from studies.recipe import ModelRecipe
from trainer.models.base import LanguageModel, State

INIT_STD: Final = 0.02  # GPT-2's; residual projections / sqrt(2 layers), section 2.3
ROTARY_BASE: Final = 10_000.0  # RoFormer, arXiv:2104.09864, section 3.2.2


class GPT(LanguageModel):
    """Embedding, blocks, norm, linear; remembers nothing between calls."""

    def __init__(self, recipe: ModelRecipe, vocabulary: int, sequence_length: int) -> None:
        super().__init__()
        width = recipe.embedding_dim
        self.embedding = nn.Embedding(vocabulary, width)
        learned = recipe.positions == "learned"
        self.positions = Learned(sequence_length, width) if learned else nn.Identity()
        turn = nn.Identity() if learned else Rotary(sequence_length, width // recipe.heads)
        self.dropout = nn.Dropout(recipe.dropout_of("embedding"))
        self.blocks = nn.ModuleList(Block(recipe, turn) for _ in range(recipe.layers))
        self.norm = nn.LayerNorm(width, bias=False)
        self.last_dropout = nn.Dropout(recipe.output_dropout or 0.0)
        self.output = nn.Linear(width, vocabulary, bias=False)
        if recipe.tied_weights:
            self.output.weight = self.embedding.weight
        self._initialise(recipe.layers)
        self.spread_evenly(recipe.initial_range)

    def _initialise(self, layers: int) -> None:
        for name, weight in self.named_parameters():
            residual = name.endswith(("project.weight", "down.weight"))
            if weight.ndim > 1:
                nn.init.normal_(weight, std=INIT_STD / ((2 * layers) ** 0.5 if residual else 1.0))

    def matrix_layers(self) -> list[nn.Module]:
        """Returns linear layers and the products of attention; see LanguageModel."""
        kinds = (nn.Linear, ScaledDotProduct)
        return [module for module in self.modules() if isinstance(module, kinds)]

    def forward(self, x_BT: Tensor, state: State) -> tuple[Tensor, State]:
        """Returns logits_BTV and the empty state; see LanguageModel."""
        h_BTE = self.dropout(self.positions(self.embedding(x_BT)))
        for block in self.blocks:
            h_BTE = self.through(block, h_BTE)
        return self.output(self.last_dropout(self.norm(h_BTE))), state


class Block(nn.Module):
    """Adds attention, then an MLP, to the residual stream; each reads it normed."""

    def __init__(self, recipe: ModelRecipe, turn: nn.Module) -> None:
        super().__init__()
        width = recipe.embedding_dim
        self.attention_norm = nn.LayerNorm(width, bias=False)
        self.attention = Attention(recipe, turn)
        self.mlp_norm = nn.LayerNorm(width, bias=False)
        self.up = nn.Linear(width, recipe.hidden_dim, bias=False)
        self.down = nn.Linear(recipe.hidden_dim, width, bias=False)
        self.dropout = nn.Dropout(recipe.dropout_of("hidden"))

    def forward(self, h_BTE: Tensor) -> Tensor:
        """Returns the residual stream after this block."""
        h_BTE = h_BTE + self.dropout(self.attention(self.attention_norm(h_BTE)))
        a_BTF = functional.gelu(self.up(self.mlp_norm(h_BTE)))
        return h_BTE + self.dropout(self.down(a_BTF))


class Attention(nn.Module):
    """Causal self-attention with several heads."""

    def __init__(self, recipe: ModelRecipe, turn: nn.Module) -> None:
        super().__init__()
        width = recipe.embedding_dim
        self.heads = recipe.heads
        self.queries_keys_values = nn.Linear(width, 3 * width, bias=False)
        self.turn = turn
        self.product = ScaledDotProduct(recipe.dropout_of("attention"))
        self.project = nn.Linear(width, width, bias=False)

    def forward(self, h_BTE: Tensor) -> Tensor:
        """Returns what each token gathers from those up to itself."""
        qkv_BT3E = self.queries_keys_values(h_BTE)
        q_BHTK, k_BHTK, v_BHTK = (
            part_BTE.unflatten(-1, (self.heads, -1)).transpose(1, 2)
            for part_BTE in qkv_BT3E.chunk(3, dim=-1)
        )
        a_BHTK = self.product(self.turn(q_BHTK), self.turn(k_BHTK), v_BHTK)
        return self.project(a_BHTK.transpose(1, 2).flatten(2))


class ScaledDotProduct(nn.Module):
    """softmax(q k^T / sqrt(K)) v, causal; a module of its own so that its inputs can be rounded."""

    def __init__(self, dropout: float) -> None:
        super().__init__()
        self.dropout = dropout

    def forward(self, q_BHTK: Tensor, k_BHTK: Tensor, v_BHTK: Tensor) -> Tensor:
        """Returns the weighted values, shaped as v."""
        dropout = self.dropout if self.training else 0.0
        return functional.scaled_dot_product_attention(
            q_BHTK, k_BHTK, v_BHTK, dropout_p=dropout, is_causal=True
        )


class Learned(nn.Module):
    """Adds a learned vector per position."""

    def __init__(self, sequence_length: int, width: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.empty(sequence_length, width))

    def forward(self, h_BTE: Tensor) -> Tensor:
        """Returns the stream with positions added."""
        return h_BTE + self.weight[: h_BTE.shape[1]]


class Rotary(nn.Module):
    """Turns pairs of features by an angle that grows with the position."""

    cos_TK: Tensor
    sin_TK: Tensor

    def __init__(self, sequence_length: int, head_width: int) -> None:
        super().__init__()
        here = torch.device("cpu")  # also where the model is built without memory
        pairs = torch.arange(0, head_width, 2, device=here) / head_width
        angle_TP = torch.outer(torch.arange(sequence_length, device=here), ROTARY_BASE**-pairs)
        angle_TK = torch.cat([angle_TP, angle_TP], dim=-1)
        self.register_buffer("cos_TK", angle_TK.cos(), persistent=False)
        self.register_buffer("sin_TK", angle_TK.sin(), persistent=False)

    def forward(self, q_BHTK: Tensor) -> Tensor:
        """Returns queries or keys, turned; their dot products depend on distance only."""
        length = q_BHTK.shape[2]
        first, second = q_BHTK.chunk(2, dim=-1)
        swapped_BHTK = torch.cat([-second, first], dim=-1)
        return q_BHTK * self.cos_TK[:length] + swapped_BHTK * self.sin_TK[:length]
