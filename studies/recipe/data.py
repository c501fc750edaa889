"""The data knobs: which text, its tokens, its splits."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final, Literal

from pydantic import model_validator

from studies.errors import FieldError
from studies.knobs import knob
from studies.recipe.section import Section

BPE_LEAST: Final = 257  # ids: all bytes and one merge
SHA256: Final = r"^[0-9a-f]{64}$"
_FRACTIONS: Final = ("validation_fraction", "test_fraction")


class DataRecipe(Section):
    """Which text is trained on, and how it becomes tokens."""

    builtin: Literal["stdlib"] | None = knob(
        None,
        "a text every CPython carries: its documentation and some of its source",
        searchable=False,
    )
    path: str | None = knob(
        None, "a text file, jsonl, a folder or a saved dataset (docs/data.md); `lmtune` uploads its"
        " text and replaces it by sha256", searchable=False,
    )  # fmt: skip
    sha256: str | None = knob(
        None, "the hash of an uploaded text", pattern=SHA256, searchable=False
    )
    text_field: str = knob(
        "text", "the field of a jsonl line or dataset row that is the document", searchable=False
    )
    separator: str = knob(
        "\n\n", "what stands between two documents of one split", searchable=False
    )
    tokenizer: Literal["bytes", "characters", "words", "bpe", "file"] = knob(
        "bytes", "what a token is; words are runs of non-space, spaces dropped, lines kept; bpe"
        " merges byte pairs of the training split; file is a tokenizer_file",
        source="arXiv:1508.07909 (bpe)",
    )  # fmt: skip
    tokenizer_file: str | None = knob(
        None, "a Hugging Face tokenizer.json on each worker's disk, or the folder that holds it",
        searchable=False,
    )  # fmt: skip
    vocabulary_size: int = knob(
        10_000, "how many ids words and bpe have at most: the most frequent words, others become"
        " one unknown token; or the 256 bytes and the merges",
        unit="ids", source="assumption", ge=2, le=1_000_000,
    )  # fmt: skip
    validation_fraction: float = knob(
        0.1, "the part of the text after the training split, never trained on, evaluated whole",
        source="nanoGPT's split", ge=0.001, le=0.5, searchable=False,
    )  # fmt: skip
    test_fraction: float = knob(
        0.0, "the last part of the text, neither trained on nor evaluated while tuning",
        source="0: no test split", ge=0.0, le=0.4, searchable=False,
    )  # fmt: skip
    validation_at: int | None = knob(
        None, "where the validation split begins, in place of a fraction; set for a source that"
        " brings its own splits", unit="characters", ge=1, searchable=False,
    )  # fmt: skip
    test_at: int | None = knob(
        None, "where the test split begins, in place of a fraction",
        unit="characters", ge=1, searchable=False,
    )  # fmt: skip

    @property
    def has_test(self) -> bool:
        """Whether a part of the text is kept back for the end."""
        return self.test_at is not None or self.test_fraction > 0

    def cuts(self, length: int) -> tuple[int, int]:
        """Returns where the validation and the test split begin in a text [characters].

        The training split comes first, then validation, then test. Where no cut is given, the
        training split has int((1 - fractions) * length) characters: nanoGPT's rule, whatever a
        token is. A fraction is one of the whole text or, where only `test_at` is given, of what
        lies before it.
        """
        test = self.test_at
        if test is None:
            test = int((1 - self.test_fraction) * length)
        if self.validation_at is not None:
            return self.validation_at, test
        if self.test_at is not None:
            return int((1 - self.validation_fraction) * test), test
        return int((1 - (self.validation_fraction + self.test_fraction)) * length), test

    def errors_of_cuts(self) -> Iterator[FieldError]:
        """Yields what is wrong with cuts that are given beside fractions, or out of order."""
        fixed = {"validation_fraction": self.validation_at, "test_fraction": self.test_at}
        for name in _FRACTIONS:
            default = DataRecipe.model_fields[name].default
            if fixed[name] is not None and getattr(self, name) != default:
                yield FieldError(f"data.{name}", "the text brings its own split", "remove it")
        if self.validation_at and self.test_at and self.validation_at >= self.test_at:
            message = f"{self.test_at} is not after data.validation_at ({self.validation_at})"
            yield FieldError("data.test_at", message, "training, validation, test: in this order")

    @model_validator(mode="after")
    def _fits_together(self) -> DataRecipe:
        given = [n for n in ("builtin", "path", "sha256") if getattr(self, n) is not None]
        if len(given) != 1:
            raise ValueError(
                "name exactly one text: `builtin: stdlib`, `path: PATH` or `sha256: HASH`"
                + (f", not {' and '.join(given)}" if given else "")
            )
        for error in (*self.errors_of_cuts(), *self._errors_of_tokens()):
            raise ValueError(error)
        return self

    def _errors_of_tokens(self) -> Iterator[FieldError]:
        if self.tokenizer == "file" and self.tokenizer_file is None:
            remedy = "name a tokenizer.json on the workers' disks"
            yield FieldError("data.tokenizer_file", "tokenizer: file needs it", remedy)
        if self.tokenizer == "bpe" and self.vocabulary_size < BPE_LEAST:
            message = f"bpe begins with the 256 bytes, and {self.vocabulary_size} leaves no merge"
            yield FieldError("data.vocabulary_size", message, f"give it at least {BPE_LEAST}")
