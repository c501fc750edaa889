"""Workers that people start: the line to copy, without the token in a process's arguments."""

from __future__ import annotations

import shlex
from typing import Final
from urllib.parse import urlsplit

from studies.wire import WorkerCommand

_FILE: Final = ".lmtune/token"  # in the home of whom the worker runs as, and in a server's folder
_HERE: Final = ("127.0.0.1", "::1", "localhost")


def worker_command(url: str) -> WorkerCommand:
    """Returns how a worker of the server at this address is started on another machine."""
    note = None
    if urlsplit(url).hostname in _HERE:
        note = (
            f"{url} is reached from this machine only: open the server to others and set "
            "LMTUNE_PUBLIC_URL (docs/operations.md)"
        )
    return WorkerCommand(
        command=f"LMTUNE_TOKEN_FILE=~/{_FILE} lmtune-worker --server {shlex.quote(url)}",
        token=f"ssh NODE 'umask 077; mkdir -p ~/.lmtune; cat >~/{_FILE}' <{_FILE}",
        note=note,
    )
