"""How the command ends: exit codes, and errors as plain lines on stderr."""

from __future__ import annotations

import json
from typing import Final

from pydantic import ValidationError

from studies.cli.output import clean, warn
from studies.errors import (
    InvalidInput,
    LmtuneError,
    NotFound,
    ServerUnreachable,
    Unauthorized,
    Unavailable,
)

OK: Final = 0
FAILED: Final = 1  # the server refuses, or a study ended with no complete trial
INVALID: Final = 2  # a wrong option, study file or text
NOT_FOUND: Final = 3
UNREACHABLE: Final = 4  # no server there, or it does not know our token
INTERRUPTED: Final = 130  # Ctrl-C, as shells count it

EPILOG: Final = (
    "**Exit codes**: 0 done; 1 failed, or the study has no complete trial; 2 wrong usage, study"
    " file or text; 3 no such study or trial, or no best one yet; 4 no server answers, or it"
    " refuses the token; 130 `up --once` interrupted.\n\n"
    "The server is found by LMTUNE_URL and LMTUNE_TOKEN, or in the folder LMTUNE_HOME"
    " (./.lmtune), where `lmtune up` and `lmtune-server` leave both."
)
_CODES: Final[dict[type[LmtuneError], int]] = {
    InvalidInput: INVALID,
    NotFound: NOT_FOUND,
    ServerUnreachable: UNREACHABLE,
    Unauthorized: UNREACHABLE,
    Unavailable: UNREACHABLE,
}
# What a foreign answer raises while it is read: something else listens at the address.
FOREIGN: Final = (ValidationError, json.JSONDecodeError, UnicodeDecodeError)


def report(error: LmtuneError) -> int:
    """Prints the error, one line for each wrong field; returns the exit code."""
    lines = map(str, error.errors) if isinstance(error, InvalidInput) else [str(error)]
    for line in lines:
        warn(f"error: {' '.join(clean(line).split())}")
    return next((_CODES[kind] for kind in type(error).__mro__ if kind in _CODES), FAILED)


def report_foreign() -> int:
    """Prints that the answer was not lmtune's; returns the exit code."""
    warn("error: what answers there is no lmtune server, or one of another version (see --url)")
    return UNREACHABLE
