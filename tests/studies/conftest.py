"""Fixtures of the vocabulary's tests: a fake server, and the command run in this process."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import pytest

from studies.cli import main
from tests.studies.fake import TOKEN, FakeServer, serving


@dataclass(frozen=True)
class Ran:
    """What the command left: its exit code and its output."""

    code: int
    out: str
    err: str


Run = Callable[..., Ran]


@pytest.fixture
def run(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Run:
    """Runs `lmtune` with these arguments in this process."""

    def run(*arguments: str) -> Ran:
        monkeypatch.setattr(sys, "argv", ["lmtune", *arguments])
        capsys.readouterr()
        code: object = 0
        try:
            main()
        except SystemExit as end:
            code = end.code
        out, err = capsys.readouterr()
        return Ran(code if isinstance(code, int) else int(code is not None), out, err)

    return run


@pytest.fixture
def fake(monkeypatch: pytest.MonkeyPatch) -> Iterator[FakeServer]:
    """A fake server that the environment names."""
    server = FakeServer()
    with serving(server) as url:
        monkeypatch.setenv("LMTUNE_URL", url)
        monkeypatch.setenv("LMTUNE_TOKEN", TOKEN)
        yield server
