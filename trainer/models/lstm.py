"""The LSTM language model: embedding, dropout, LSTM, dropout, linear.

Shapes: B sequences, T tokens, E embedding_dim, H hidden_dim, V vocabulary.
"""

from __future__ import annotations

from itertools import zip_longest
from typing import Final

import torch
from torch import Tensor, nn

from studies.recipe import ModelRecipe
from trainer.models.base import LanguageModel, State

FORGET_BIAS: Final = 1.0  # remember at first; Jozefowicz et al. 2015, section 2.2


class LSTM(LanguageModel):
    """Layers of one LSTM each, with dropout before the first, between and after the last.

    One module per layer rather than one fused stack: cuDNN would draw its own dropout masks,
    which no seed of ours reaches.
    """

    def __init__(self, recipe: ModelRecipe, vocabulary: int) -> None:
        super().__init__()
        widths = [recipe.embedding_dim, *[recipe.hidden_dim] * recipe.layers]
        self.embedding = nn.Embedding(vocabulary, recipe.embedding_dim)
        self.layers = nn.ModuleList(
            nn.LSTM(width, recipe.hidden_dim, batch_first=True) for width in widths[:-1]
        )
        self.dropout = nn.Dropout(recipe.dropout_of("embedding"))
        between = [recipe.dropout_of("hidden")] * (recipe.layers - 1)
        self.dropouts = nn.ModuleList(
            nn.Dropout(p) for p in [*between, recipe.dropout_of("output")]
        )
        self.output = nn.Linear(recipe.hidden_dim, vocabulary)
        if recipe.tied_weights:
            self.output.weight = self.embedding.weight
        self._initialise()
        self.spread_evenly(recipe.initial_range)

    @torch.no_grad()
    def _initialise(self) -> None:
        """Sets what differs from torch's own start: N(0, 1) embeddings, the rest +-1/sqrt(H).

        Small embeddings (+-0.1, AWD-LSTM) learn slower: 1.83 against 1.71 nats per character after
        600 steps on Tiny Shakespeare (measured, docs/decisions). As output weights N(0, 1) would
        be far too large, so tied ones are scaled down.
        """
        if self.output.weight is self.embedding.weight:
            nn.init.normal_(self.embedding.weight, std=self.embedding.embedding_dim**-0.5)
        nn.init.zeros_(self.output.bias)
        for layer in self.layers:
            width = layer.hidden_size  # gates stand in the order input, forget, cell, output
            layer.bias_ih_l0[width : 2 * width] = FORGET_BIAS
            layer.bias_hh_l0[width : 2 * width] = 0.0

    def forward(self, x_BT: Tensor, state: State) -> tuple[Tensor, State]:
        """Returns logits_BTV and the (h, c) of each layer; see LanguageModel."""
        h_BTH = self.dropout(self.embedding(x_BT))
        after: State = []
        for layer, dropout, before in zip_longest(self.layers, self.dropouts, state):
            h_BTH, memory = self.through(layer, h_BTH, before)
            h_BTH = dropout(h_BTH)
            after.append(memory)
        return self.output(h_BTH), after
