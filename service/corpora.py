"""Checks a study's text before the study is made: it is there, it is text, it is long enough."""

from __future__ import annotations

from service.blobs import BlobFolder
from studies.corpus import check_corpus, load_text
from studies.errors import InvalidInput
from studies.spec import StudySpec, check


def check_corpus_of(spec: StudySpec, blobs: BlobFolder) -> None:
    """Raises InvalidInput unless every trial of the study can train on its text."""
    check(spec)
    if spec.data.path is not None:
        remedy = "upload it with `lmtune data add FILE` and name its sha256; `lmtune create` does"
        raise InvalidInput.of("data.path", "the server reads no paths", remedy)
    if spec.data.sha256 is not None and not blobs.path(spec.data.sha256).exists():
        remedy = "upload it with `lmtune data add FILE`"
        raise InvalidInput.of("data.sha256", "no such text was uploaded", remedy)
    check_corpus(load_text(spec.data, blobs.path), spec.neediest())
