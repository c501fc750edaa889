"""The model knobs: kind, shape, dropouts, initialisation."""

from __future__ import annotations

from typing import Final, Literal

from pydantic import model_validator

from studies.knobs import knob
from studies.recipe.section import Section, misfit

# What Hugging Face's transformers builds.
FAMILIES: Final = ("gpt2", "llama", "qwen2", "qwen3", "bert")
MASKED: Final = ("bert",)  # predict hidden tokens from both sides, not the next one
_ROTARY: Final = ("llama", "qwen2", "qwen3")


class ModelRecipe(Section):
    """The shape of the language model."""

    kind: Literal["lstm", "gpt", "gpt2", "llama", "qwen2", "qwen3", "bert", "script"] = knob(
        "lstm",
        "the architecture; gpt2, llama, qwen2, qwen3 and bert are Hugging Face's (docs/models.md);"
        " script is a training script of your own (docs/custom-scripts.md)",
        source="Hochreiter and Schmidhuber 1997 (lstm), arXiv:1706.03762 (transformers)",
    )
    command: tuple[str, ...] | None = knob(
        None, "what runs a script: [python, FILE, ...], where the worker's operator allows FILE",
        searchable=False, min_length=1,
    )  # fmt: skip
    folder: str | None = knob(
        None, "a folder on the worker, saved by transformers: its shape and weights are the start;"
        " where it has only a config.json, weights are drawn",
        searchable=False,
    )  # fmt: skip
    embedding_dim: int = knob(
        128, "width of a token's embedding; for transformers the width of the model",
        unit="features", source="assumption", ge=1, le=65_536,
    )  # fmt: skip
    hidden_dim: int = knob(
        256, "units of an LSTM layer; for transformers the width of the MLP",
        unit="features", source="assumption", ge=1, le=262_144,
    )  # fmt: skip
    layers: int = knob(
        1, "LSTM layers or transformer blocks",
        unit="layers", source="arXiv:1308.0850 (stacked LSTMs)", ge=1, le=256,
    )  # fmt: skip
    heads: int = knob(
        4, "attention heads (transformers); divides embedding_dim",
        unit="heads", source="arXiv:1706.03762, section 3.2.2", ge=1, le=1_024,
    )  # fmt: skip
    positions: Literal["rotary", "learned"] = knob(
        "rotary", "how attention knows order (gpt)", source="RoFormer, arXiv:2104.09864"
    )
    tied_weights: bool = knob(
        False, "the output layer shares the embedding's weights", source="arXiv:1608.05859"
    )
    dropout: float = knob(
        0.0, "probability that a feature is zeroed in training, at each place named in the docs",
        unit="probability", source="Srivastava et al. 2014", ge=0.0, lt=1.0,
    )  # fmt: skip
    embedding_dropout: float | None = knob(
        None, "dropout of the embeddings; not given: `dropout`",
        unit="probability", source="arXiv:1409.2329", ge=0.0, lt=1.0,
    )  # fmt: skip
    hidden_dropout: float | None = knob(
        None, "dropout between LSTM layers, or of what a block adds; not given: `dropout`",
        unit="probability", source="arXiv:1409.2329", ge=0.0, lt=1.0,
    )  # fmt: skip
    attention_dropout: float | None = knob(
        None, "dropout of the attention weights (transformers); not given: `dropout`",
        unit="probability", source="arXiv:1706.03762", ge=0.0, lt=1.0,
    )  # fmt: skip
    output_dropout: float | None = knob(
        None, "dropout before the output layer; not given: `dropout` (lstm), 0 (gpt)",
        unit="probability", source="arXiv:1409.2329", ge=0.0, lt=1.0,
    )  # fmt: skip
    initial_range: float | None = knob(
        None, "embedding and output weights start uniform in ± this; not given: the kind's own",
        source="arXiv:1409.2329", gt=0.0, le=10.0,
    )  # fmt: skip

    def dropout_of(self, place: Literal["embedding", "hidden", "attention", "output"]) -> float:
        """Returns the dropout at a place of the model."""
        own: float | None = getattr(self, f"{place}_dropout")
        return self.dropout if own is None else own

    @model_validator(mode="after")
    def _fits_together(self) -> ModelRecipe:
        if (self.kind == "script") != (self.command is not None):
            message = "is for kind script, which needs it"
            raise misfit("command", message, "write `kind: script, command: [python, FILE]`")
        if self.kind == "script":
            return self  # whose shape is the script's
        if self.folder is not None:
            if self.kind not in FAMILIES:
                remedy = f"set kind to the folder's family: {', '.join(FAMILIES)}"
                raise misfit("folder", f"no {self.kind} is loaded from a folder", remedy)
            if self.initial_range is not None:
                message = "would overwrite what the folder's model has learned"
                raise misfit("initial_range", message, "remove it")
            return self  # whose shape is the folder's
        if self.kind == "lstm":
            self._check_lstm()
        else:
            self._check_heads()
        return self

    def _check_lstm(self) -> None:
        if self.tied_weights and self.embedding_dim != self.hidden_dim:
            raise misfit(
                "tied_weights",
                f"an lstm's tied weights need embedding_dim ({self.embedding_dim}) "
                f"equal to hidden_dim ({self.hidden_dim})",
                "make them equal, or set tied_weights: false",
            )

    def _check_heads(self) -> None:
        if self.embedding_dim % self.heads:
            raise misfit(
                "heads",
                f"{self.heads} heads do not divide embedding_dim {self.embedding_dim}",
                "make embedding_dim a multiple of heads",
            )
        rotary = self.kind in _ROTARY or (self.kind == "gpt" and self.positions == "rotary")
        if rotary and self.embedding_dim // self.heads % 2:
            raise misfit(
                "heads",
                f"rotary positions need an even embedding_dim / heads, "
                f"not {self.embedding_dim // self.heads}",
                "double embedding_dim, or take learned positions",
            )
