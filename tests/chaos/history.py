"""Every call as it was seen by who made it: invoke, then ok, fail or info (unknown).

Each process appends lines of JSON to a file of its own; a line is one write, so a killed process
leaves whole lines. Times are of the machine's monotonic clock, which all processes share.
"""

from __future__ import annotations

import json
import os
import time
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Literal

Result = Literal["ok", "fail", "info"]


@dataclass(frozen=True)
class Call:
    """One call; without an answer it is `info`: it happened or not."""

    id: str
    op: str  # claim, heartbeat, report, checkpoint, resume, finish, upload, download, person ...
    who: str
    begun: float
    ended: float | None = None
    result: Result = "info"
    status: int = 0
    study: str | None = None
    trial: int | None = None  # our id, not the number
    attempt: int | None = None
    body: dict[str, Any] = field(default_factory=dict)
    answer: dict[str, Any] = field(default_factory=dict)

    @property
    def ok(self) -> bool:
        """True when the server has said yes."""
        return self.result == "ok"


@dataclass(frozen=True)
class Away:
    """When no server ticked: it was down or frozen."""

    begun: float
    ended: float


class History:
    """Writes one process's file."""

    def __init__(self, path: Path) -> None:
        self._name, self._count = path.stem, 0
        self._file = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o644)

    def invoke(self, op: str, who: str, **what: Any) -> str:
        """Records that a call is about to be sent; returns its id."""
        self._count += 1
        name = f"{self._name}-{self._count}"
        self._write({"id": name, "p": "invoke", "op": op, "who": who, **what})
        return name

    def done(self, name: str, result: Result, status: int = 0, answer: Any = None) -> None:
        """Records how a call ended."""
        self._write({"id": name, "p": result, "status": status, "answer": answer or {}})

    def away(self, begun: float, ended: float) -> None:
        """Records that no server ticked."""
        self._write({"p": "away", "begun": begun, "ended": ended})

    def _write(self, line: dict[str, Any]) -> None:
        line = {"t": time.monotonic(), **line}
        os.write(self._file, (json.dumps(line, separators=(",", ":")) + "\n").encode())


def read(folder: Path) -> tuple[list[Call], list[Away]]:
    """Returns the calls of every file of a folder by time of their beginning, and the absences."""
    lines: list[dict[str, Any]] = []
    for path in sorted(folder.glob("*.jsonl")):
        lines += [json.loads(line) for line in path.read_text().splitlines() if line]
    return pair(sorted(lines, key=lambda line: line["t"]))


def pair(lines: Iterable[dict[str, Any]]) -> tuple[list[Call], list[Away]]:
    """Joins each call's two lines."""
    calls: dict[str, Call] = {}
    away: list[Away] = []
    for line in lines:
        if line["p"] == "away":
            away.append(Away(line["begun"], line["ended"]))
        elif line["p"] == "invoke":
            said = {k: v for k, v in line.items() if k not in ("p", "t")}
            calls[line["id"]] = Call(begun=line["t"], **said)
        elif line["id"] in calls:
            said = {"result": line["p"], "status": line["status"], "answer": line["answer"]}
            calls[line["id"]] = replace(calls[line["id"]], ended=line["t"], **said)
    return list(calls.values()), away


def write(path: Path, calls: Sequence[Call]) -> None:
    """Writes calls as lines of JSON, for people."""
    path.write_text("".join(json.dumps(vars(call)) + "\n" for call in calls))
