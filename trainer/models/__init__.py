"""The language models; a new kind is one file here and one line in `build_model`."""

from __future__ import annotations

from studies.recipe import ModelRecipe
from trainer.models.base import LanguageModel, State
from trainer.models.gpt import GPT
from trainer.models.huggingface import HuggingFace, beginning
from trainer.models.lstm import LSTM

__all__ = ["LanguageModel", "State", "beginning", "build_model"]


def build_model(
    recipe: ModelRecipe, vocabulary: int, sequence_length: int, mask: int | None = None
) -> LanguageModel:
    """Returns a freshly initialised model on torch's default device.

    Args:
        recipe: kind and shape.
        vocabulary: how many token ids there are.
        sequence_length: the most tokens of one call, for models that must know [tokens].
        mask: the id that hides a token, where it is among these; else a masked model has one more.

    Raises:
        InvalidInput: the recipe's folder holds no such model.
        StartupError: the kind needs a package that is not installed.
    """
    if recipe.kind == "lstm":
        return LSTM(recipe, vocabulary)
    if recipe.kind == "gpt":
        return GPT(recipe, vocabulary, sequence_length)
    return HuggingFace(recipe, vocabulary, sequence_length, mask)
