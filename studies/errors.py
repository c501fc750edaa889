"""Every error lmtune raises on purpose, each with the problem code that travels on the wire.

LmtuneError
|-- InvalidInput            invalid          a field is wrong; names the field and the remedy
|-- NotFound                not_found        no such study, trial, worker or blob
|-- Unauthorized            unauthorized     no token, or one the server does not know
|-- Forbidden               forbidden        a cross-site request or a foreign host name
|-- TooLarge                too_large        a body over its cap
|-- TooSlow                 too_slow         an upload that does not come along
|-- StorageFull             storage_full     no room for an upload
|-- Conflict                conflict         the state of things does not allow it
|   |-- DuplicateName       duplicate_name   a study of this name exists
|   |-- StaleClaim          stale_claim      a newer claim of this worker was seen
|   |-- Incompatible        incompatible     a worker's protocol that the server does not speak
|   |-- Unreported          unreported       no visible report at that step
|   |-- BlobMissing         blob_missing     upload the blob first
|   |-- Superseded          superseded       a newer attempt holds the trial
|   |-- Finished            finished         the trial is terminal
|   |-- Stopped             stopped          the trial was stopped and is not RUNNING
|   |-- Cancelled           cancelled        the trial was cancelled
|   `-- Paused              paused           the trial is paused
|-- Unavailable             unavailable      try again later (database busy, shutting down)
|-- ServerUnreachable       unreachable      no answer at the address (raised by the client)
|-- ServerFailed            failed           HTTP 500, or no lmtune server (raised by the client)
|-- StartupError            startup          the server or worker cannot start; one clear line
`-- TrialError              trial            raised by the training loop, ends one trial
    |-- Diverged            diverged         loss or gradient is not finite
    `-- OutOfMemory         oom              the device or host has no memory left
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, ClassVar


@dataclass(frozen=True)
class FieldError:
    """One wrong field: its dotted path, what is wrong, and what to do about it."""

    field: str
    message: str
    remedy: str = ""

    def __str__(self) -> str:
        return f"{self.field}: {self.message}" + (f" ({self.remedy})" if self.remedy else "")


class LmtuneError(Exception):
    """Base of every error that lmtune raises on purpose."""

    code: ClassVar[str] = "internal"


class InvalidInput(LmtuneError):
    """Input that cannot be used; `errors` holds one FieldError for each wrong field."""

    code = "invalid"

    def __init__(self, errors: Iterable[FieldError]) -> None:
        self.errors = tuple(errors)
        super().__init__("; ".join(map(str, self.errors)))

    @classmethod
    def of(cls, field: str, message: str, remedy: str = "") -> InvalidInput:
        """Returns the error for a single field."""
        return cls([FieldError(field, message, remedy)])


class NotFound(LmtuneError):
    """The named thing does not exist."""

    code = "not_found"


class Unauthorized(LmtuneError):
    """No credentials, or unknown ones."""

    code = "unauthorized"


class Forbidden(LmtuneError):
    """The request comes from a place that may not make it."""

    code = "forbidden"


class TooLarge(LmtuneError):
    """A body over its cap."""

    code = "too_large"


class TooSlow(LmtuneError):
    """An upload that comes so slowly that it only holds a place."""

    code = "too_slow"


class StorageFull(LmtuneError):
    """The server has no room for an upload; what is not uploaded goes on as ever."""

    code = "storage_full"


class Conflict(LmtuneError):
    """The request is well formed but the present state does not allow it."""

    code = "conflict"


class DuplicateName(Conflict):
    """A study of this name exists."""

    code = "duplicate_name"


class StaleClaim(Conflict):
    """The server has seen a newer claim of this worker."""

    code = "stale_claim"


class Incompatible(Conflict):
    """The worker speaks a protocol that this server does not."""

    code = "incompatible"


class Unreported(Conflict):
    """The step has no visible report yet."""

    code = "unreported"


class BlobMissing(Conflict):
    """The blob is not (or no longer) in the store; upload it again."""

    code = "blob_missing"


class Superseded(Conflict):
    """A newer attempt holds the trial; the caller's attempt is over."""

    code = "superseded"


class Finished(Conflict):
    """The trial is terminal."""

    code = "finished"


class Stopped(Conflict):
    """The trial was stopped."""

    code = "stopped"


class Cancelled(Conflict):
    """The trial was cancelled."""

    code = "cancelled"


class Paused(Conflict):
    """The trial is paused."""

    code = "paused"


class Unavailable(LmtuneError):
    """The server cannot answer now; the same request may be sent again."""

    code = "unavailable"
    retry_after: float = 0.0  # the least wait that it asks for [s]


class ServerUnreachable(LmtuneError):
    """Nobody answers at the server's address."""

    code = "unreachable"


class ServerFailed(LmtuneError):
    """The server failed, or what answered is no lmtune server; the request may be sent again."""

    code = "failed"


class StartupError(LmtuneError):
    """A process cannot start; the message is one line that names the cause and the remedy."""

    code = "startup"


class TrialError(LmtuneError):
    """Ends one trial, never the worker that runs it."""

    code = "trial"


class Diverged(TrialError):
    """The loss or the gradient is not finite, or the loss has run away."""

    code = "diverged"


class OutOfMemory(TrialError):
    """The device or the host has no memory left for this recipe."""

    code = "oom"


def _tree(root: type[LmtuneError]) -> Iterable[type[LmtuneError]]:
    yield root
    for child in root.__subclasses__():
        yield from _tree(child)


BY_CODE: Mapping[str, type[LmtuneError]] = {error.code: error for error in _tree(LmtuneError)}


def from_problem(problem: Mapping[str, Any]) -> LmtuneError:
    """Returns the error that a problem+json body stands for: the inverse of the server's map."""
    code, detail = str(problem.get("code", "")), str(problem.get("detail", ""))
    if code == InvalidInput.code:
        return InvalidInput(
            FieldError(e["field"], e["message"], e.get("remedy", ""))
            for e in problem.get("errors") or [{"field": "request", "message": detail}]
        )
    return BY_CODE.get(code, LmtuneError)(detail)
