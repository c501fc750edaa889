"""What the sections of a recipe share."""

from __future__ import annotations

from pydantic import BaseModel, ConfigDict

from studies.errors import FieldError


class Section(BaseModel):
    """A frozen group of knobs; an unknown name is an error."""

    model_config = ConfigDict(
        frozen=True, extra="forbid", populate_by_name=True, allow_inf_nan=False
    )


def misfit(field: str, message: str, remedy: str) -> ValueError:
    """Returns the error of model knobs that do not fit together, with its own remedy."""
    return ValueError(FieldError(f"model.{field}", message, remedy))
