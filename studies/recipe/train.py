"""The training knobs: batches, augmentation, optimizer, schedule, λ, precision, early stopping."""

from __future__ import annotations

from typing import Literal

from studies.knobs import knob
from studies.recipe.section import Section


class TrainRecipe(Section):
    """How the model is trained."""

    steps: int = knob(
        1_000, "optimizer steps", unit="steps", ge=1, le=100_000_000, searchable=False
    )
    batch_size: int = knob(
        32, "sequences per step", unit="sequences", source="assumption", ge=1, le=1_000_000
    )
    accumulate: int = knob(
        1, "parts a batch is computed in, one after another (at most batch_size): less memory",
        unit="parts", source="1: the whole batch at once", ge=1, le=1_000_000,
    )  # fmt: skip
    sequence_length: int = knob(
        128, "tokens per sequence", unit="tokens", source="assumption", ge=1, le=1_048_576
    )
    windows: Literal["random", "shuffled", "streams"] = knob(
        "random", "where sequences begin: at random offsets; on a grid, each once a pass; or where"
        " the last ended, an lstm's memory carried on (truncated backpropagation)",
        source="nanoGPT; Williams and Peng 1990 (streams)",
    )  # fmt: skip
    token_dropout: float = knob(
        0.0, "augmentation: share of input tokens replaced by tokens drawn from the training text",
        unit="probability", source="unigram noise, arXiv:1703.02573", ge=0.0, lt=1.0,
    )  # fmt: skip
    span_masking: float = knob(
        0.0, "augmentation: share of input tokens that lie in replaced spans",
        unit="probability", source="SpanBERT, arXiv:1907.10529", ge=0.0, lt=1.0,
    )  # fmt: skip
    span_length: int = knob(
        4, "length of a replaced span (span_masking)",
        unit="tokens", source="SpanBERT's mean, 3.8", ge=1, le=1_048_576,
    )  # fmt: skip
    mask_probability: float = knob(
        0.15, "share of the tokens that a masked model has to predict in training (bert)",
        unit="probability", source="arXiv:1810.04805, section 3.1", gt=0.0, lt=1.0,
    )  # fmt: skip
    label_smoothing: float = knob(
        0.0, "share of the target spread over the vocabulary, in training only",
        unit="probability", source="arXiv:1512.00567, section 7", ge=0.0, lt=1.0,
    )  # fmt: skip
    optimizer: Literal["sgd", "adam", "adamw", "muon"] = knob(
        "adamw", "the update rule; muon moves hidden matrices, and AdamW the rest",
        source="arXiv:1412.6980, arXiv:1711.05101, arXiv:2502.16982",
    )  # fmt: skip
    learning_rate: float = knob(
        1e-3, "peak step size of the optimizer", source="Adam's default", gt=0.0, le=1e6
    )
    momentum: float = knob(
        0.9, "momentum (sgd, muon)", source="Sutskever et al. 2013", ge=0.0, lt=1.0
    )
    beta1: float = knob(0.9, "decay of Adam's first moment", source="Adam", ge=0.0, lt=1.0)
    beta2: float = knob(0.999, "decay of Adam's second moment", source="Adam", ge=0.0, lt=1.0)
    epsilon: float = knob(1e-8, "Adam's denominator floor", source="Adam", gt=0.0, le=1.0)
    weight_decay: float = knob(
        0.0, "own decoupled decay (adamw, muon); adds to λ where the regularizer is decoupled",
        source="0 so that λ alone regularizes", ge=0.0, le=1e3,
    )  # fmt: skip
    schedule: Literal["constant", "linear", "cosine", "ladder", "wsd"] = knob(
        "cosine", "learning rate after the warm-up: flat, a line, half a cosine, steps down, or"
        " flat and then a cool-down", source="arXiv:1608.03983 (cosine), arXiv:2405.18392 (wsd)",
    )  # fmt: skip
    warmup: float = knob(
        0.0, "part of the steps in which the learning rate rises linearly from 0",
        unit="fraction", source="arXiv:1706.02677", ge=0.0, le=1.0,
    )  # fmt: skip
    final_fraction: float = knob(
        0.0, "where linear, cosine and wsd end, as a part of the peak", unit="fraction",
        source="arXiv:1608.03983, equation 5", ge=0.0, le=1.0,
    )  # fmt: skip
    cooldown: float = knob(
        0.2, "last part of the steps, in which the learning rate falls (wsd); after the warm-up",
        unit="fraction", source="arXiv:2405.18392", gt=0.0, le=1.0,
    )  # fmt: skip
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
    lambda_: float = knob(
        0.0, "λ, the weight of the regularizer",
        source="Tibshirani 1996 (l1), Krogh and Hertz 1991 (l2)", alias="lambda", ge=0.0, le=1e3,
    )  # fmt: skip
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
    gradient_checkpointing: bool = knob(
        False, "compute each layer again in the backward pass instead of keeping its activations",
        source="arXiv:1604.06174",
    )  # fmt: skip
    compile: bool = knob(
        False, "compile the model (torch.compile); pays off on long runs",
        source="PyTorch's documentation",
    )  # fmt: skip
    deterministic: bool = knob(
        False, "only algorithms that give the same bits each time, or an error; a CPU's do anyway",
        searchable=False,
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
        None, "seed of initialisation, batches and dropout; not given: one of each trial's own,"
        " from the sampler's seed and the trial's number",
        source="ours", ge=0, lt=2**63,
    )  # fmt: skip
