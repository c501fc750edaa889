"""The recipe: every knob of a training run once, with its unit, bounds, default and source.

A `Recipe` is what a worker trains. A study fixes some knobs (sections `data`, `model`, `train`)
and searches others (section `search`); knob names are unique across the sections, so a search
names a knob without its section. `KNOBS` is the table, derived from the fields below.
"""

from __future__ import annotations

import hashlib
from typing import Any, Final, Literal

from pydantic import BaseModel, ConfigDict, model_validator

from studies.errors import FieldError
from studies.knobs import Knob, SectionName, knob, row

SHA256: Final = r"^[0-9a-f]{64}$"


def _misfit(field: str, message: str, remedy: str) -> ValueError:
    """Returns the error of model knobs that do not fit together, with its own remedy."""
    return ValueError(FieldError(f"model.{field}", message, remedy))


class Section(BaseModel):
    """A frozen group of knobs; an unknown name is an error."""

    model_config = ConfigDict(
        frozen=True, extra="forbid", populate_by_name=True, allow_inf_nan=False
    )


class DataRecipe(Section):
    """Which text is trained on, and how it becomes tokens."""

    builtin: Literal["stdlib"] | None = knob(
        None,
        "a text every CPython carries: its documentation and some of its source",
        searchable=False,
    )
    path: str | None = knob(
        None, "a UTF-8 text file; `lmtune` uploads it and replaces it by sha256", searchable=False
    )
    sha256: str | None = knob(
        None, "the hash of an uploaded text", pattern=SHA256, searchable=False
    )
    tokenizer: Literal["bytes", "characters", "words"] = knob(
        "bytes", "what a token is; words are runs of non-space, spaces dropped, lines kept"
    )
    vocabulary_size: int = knob(
        10_000, "kept words, the most frequent first; others become one unknown token",
        unit="words", source="assumption", ge=2, le=1_000_000,
    )  # fmt: skip
    validation_fraction: float = knob(
        0.1, "the last part of the text, never trained on, evaluated whole",
        source="nanoGPT's split", ge=0.001, le=0.5,
    )  # fmt: skip

    @model_validator(mode="after")
    def _one_source(self) -> DataRecipe:
        given = [n for n in ("builtin", "path", "sha256") if getattr(self, n) is not None]
        if len(given) != 1:
            raise ValueError(
                "name exactly one text: `builtin: stdlib`, `path: FILE` or `sha256: HASH`"
                + (f", not {' and '.join(given)}" if given else "")
            )
        return self


class ModelRecipe(Section):
    """The shape of the language model."""

    kind: Literal["lstm", "gpt"] = knob("lstm", "the architecture")
    embedding_dim: int = knob(
        128, "width of a token's embedding; for gpt the width of the model",
        unit="features", source="assumption", ge=1, le=65_536,
    )  # fmt: skip
    hidden_dim: int = knob(
        256, "units of an LSTM layer; for gpt the width of the MLP",
        unit="features", source="assumption", ge=1, le=262_144,
    )  # fmt: skip
    layers: int = knob(1, "LSTM layers or transformer blocks", unit="layers", ge=1, le=256)
    heads: int = knob(
        4, "attention heads (gpt); divides embedding_dim", unit="heads", ge=1, le=1_024
    )
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


class TrainRecipe(Section):
    """How the model is trained."""

    steps: int = knob(
        1_000, "optimizer steps", unit="steps", ge=1, le=100_000_000, searchable=False
    )
    batch_size: int = knob(32, "sequences per step", unit="sequences", ge=1, le=1_000_000)
    sequence_length: int = knob(128, "tokens per sequence", unit="tokens", ge=1, le=1_048_576)
    optimizer: Literal["sgd", "adam", "adamw"] = knob(
        "adamw", "the update rule", source="arXiv:1412.6980, arXiv:1711.05101"
    )
    learning_rate: float = knob(
        1e-3, "peak step size of the optimizer", source="Adam's default", gt=0.0, le=1e6
    )
    momentum: float = knob(0.9, "momentum (sgd)", source="Sutskever et al. 2013", ge=0.0, lt=1.0)
    beta1: float = knob(0.9, "decay of Adam's first moment", source="Adam", ge=0.0, lt=1.0)
    beta2: float = knob(0.999, "decay of Adam's second moment", source="Adam", ge=0.0, lt=1.0)
    epsilon: float = knob(1e-8, "Adam's denominator floor", source="Adam", gt=0.0, le=1.0)
    weight_decay: float = knob(
        0.0, "AdamW's own decoupled decay; adds to λ where the regularizer is decoupled",
        source="0 so that λ alone regularizes", ge=0.0, le=1e3,
    )  # fmt: skip
    schedule: Literal["constant", "cosine", "ladder"] = knob(
        "cosine", "learning rate after the warm-up: flat, half a cosine, or steps down",
        source="SGDR, arXiv:1608.03983",
    )  # fmt: skip
    warmup: float = knob(
        0.0, "part of the steps in which the learning rate rises linearly from 0",
        unit="fraction", source="arXiv:1706.02677", ge=0.0, le=1.0,
    )  # fmt: skip
    final_fraction: float = knob(
        0.0, "where cosine ends, as a part of the peak", unit="fraction", ge=0.0, le=1.0
    )
    ladder_every: float = knob(
        0.25, "length of a stair (ladder), as a part of the steps",
        unit="fraction", source="assumption", gt=0.0, le=1.0,
    )  # fmt: skip
    ladder_factor: float = knob(
        0.5, "learning rate of a stair over that of the one before (ladder)",
        source="assumption", gt=0.0, lt=1.0,
    )  # fmt: skip
    regularizer: Literal["none", "l1", "l2", "decoupled"] = knob(
        "none", "l1: J + λ‖θ‖₁; l2: J + λ‖θ‖₂²; decoupled: θ ← θ − ηλθ beside the step",
        source="arXiv:1711.05101 (decoupled)",
    )  # fmt: skip
    lambda_: float = knob(0.0, "λ, the weight of the regularizer", alias="lambda", ge=0.0, le=1e3)
    regularized: Literal["weights", "all"] = knob(
        "weights", "which parameters θ means: matrices and embeddings, or biases and gains too",
        source="common practice",
    )  # fmt: skip
    gradient_clip: float = knob(
        1.0, "largest global norm of the gradient; 0 is off",
        unit="norm", source="arXiv:1211.5063", ge=0.0, le=1e9,
    )  # fmt: skip
    precision: Literal["fp32", "tf32", "bf16", "fp16"] = knob(
        "fp32", "number format of the forward and backward pass; fp16 scales the loss",
        source="arXiv:1710.03740",
    )  # fmt: skip
    evaluate_every: int = knob(
        100, "steps between evaluations on the whole validation split (and one at the end)",
        unit="steps", ge=1, le=100_000_000, searchable=False,
    )  # fmt: skip
    patience: int = knob(
        0, "evaluations without a better validation loss before training stops; 0 is off",
        unit="evaluations", source="Prechelt 1998", ge=0, le=1_000_000,
    )  # fmt: skip
    seed: int | None = knob(
        None, "seed of initialisation, batches and dropout; drawn per trial unless fixed",
        ge=0, lt=2**63, searchable=False,
    )  # fmt: skip


class Recipe(Section):
    """One complete training run: what a worker is given and what `--recipe FILE` reads."""

    data: DataRecipe
    model: ModelRecipe = ModelRecipe()
    train: TrainRecipe = TrainRecipe()

    @model_validator(mode="after")
    def _fits_together(self) -> Recipe:
        model = self.model
        if model.kind == "gpt" and model.embedding_dim % model.heads:
            raise _misfit(
                "heads",
                f"{model.heads} heads do not divide embedding_dim {model.embedding_dim}",
                "make embedding_dim a multiple of heads",
            )
        rotary = model.kind == "gpt" and model.positions == "rotary"
        if rotary and model.embedding_dim // model.heads % 2:
            raise _misfit(
                "heads",
                f"rotary positions need an even embedding_dim / heads, "
                f"not {model.embedding_dim // model.heads}",
                "double embedding_dim, or take learned positions",
            )
        if model.kind == "lstm" and model.tied_weights and model.embedding_dim != model.hidden_dim:
            raise _misfit(
                "tied_weights",
                f"an lstm's tied weights need embedding_dim ({model.embedding_dim}) "
                f"equal to hidden_dim ({model.hidden_dim})",
                "make them equal, or set tied_weights: false",
            )
        return self

    def with_knobs(self, values: dict[str, Any]) -> Recipe:
        """Returns a copy with these knobs moved, validated again.

        Args:
            values: knob name, as in `KNOBS` (`lambda`, not `lambda_`), to value.

        Raises:
            pydantic.ValidationError: a value is out of bounds or the knobs do not fit together.
        """
        document = self.model_dump(by_alias=True)
        for name, value in values.items():
            document[KNOBS[name].section][name] = value
        return Recipe.model_validate(document)


_SECTIONS: Final[dict[SectionName, type[Section]]] = {
    "data": DataRecipe,
    "model": ModelRecipe,
    "train": TrainRecipe,
}
KNOBS: Final[dict[str, Knob]] = {
    (info.alias or field): row(section, field, info)
    for section, model in _SECTIONS.items()
    for field, info in model.model_fields.items()
}


def trial_seed(study_seed: int, number: int) -> int:
    """Returns the seed of a trial [0, 2**63), from the study's seed and the trial's number only."""
    digest = hashlib.sha256(f"lmtune trial {study_seed} {number}".encode()).digest()
    return int.from_bytes(digest[:8], "big") >> 1
