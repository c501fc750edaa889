"""Some knobs that a study may search in vain: whatever their value, its trials train alike.

They are said, not refused: nothing is lost but trials that could have tried something else.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, Final

from studies.errors import FieldError
from studies.knobs import written
from studies.recipe import KNOBS
from studies.recipe.model import MASKED
from studies.spec import StudySpec, taken

_ADAM: Final = ("adam", "adamw", "muon")
_TRANSFORMERS: Final = tuple(k for k in KNOBS["kind"].choices or () if k not in ("lstm", "script"))
_POSITIVE: Final = ()  # any value above 0
# A knob, and the values of another with one of which it changes what a trial learns.
NEEDS: Final[Mapping[str, tuple[str, tuple[Any, ...]]]] = {
    "regularizer": ("lambda", _POSITIVE),
    "momentum": ("optimizer", ("sgd", "muon")),
    "beta1": ("optimizer", _ADAM),
    "beta2": ("optimizer", _ADAM),
    "epsilon": ("optimizer", _ADAM),
    "weight_decay": ("optimizer", ("adamw", "muon")),
    "final_fraction": ("schedule", ("linear", "cosine", "wsd")),
    "cooldown": ("schedule", ("wsd",)),
    "ladder_every": ("schedule", ("ladder",)),
    "ladder_factor": ("schedule", ("ladder",)),
    "span_length": ("span_masking", _POSITIVE),
    "mask_probability": ("kind", MASKED),
    "heads": ("kind", _TRANSFORMERS),
    "attention_dropout": ("kind", _TRANSFORMERS),
    "positions": ("kind", ("gpt",)),
}


def idle(spec: StudySpec) -> Iterator[FieldError]:
    """Yields a notice for each searched knob of NEEDS that changes nothing in any trial."""
    if spec.model.kind == "script":
        return  # its knobs are its own
    for name in spec.search:
        other, values = NEEDS.get(name, ("", ()))
        had = taken(spec, other) if other else []
        if any(value in values if values else value > 0 for value in had) or not other:
            continue
        wanted = " or ".join(map(written, values)) if values else "above 0"
        yield FieldError(
            f"search.{name}",
            f"changes nothing while {other} is {' or '.join(map(written, had))}",
            f"remove it, or let {other} be {wanted}",
        )
