"""The typed client of the REST API: `Client` for people, `WorkerClient` for workers.

    client = Client("http://127.0.0.1:8080", token="lmt_...")
    study = client.studies.create(load_spec(Path("study.yaml")))
    print(client.studies.best(study.name).params)

Every method raises the error that the server's problem stands for (studies/errors.py), and
ServerUnreachable when nobody answers. A method sends its request once; workers retry.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, TypeVar

import httpx
from pydantic import BaseModel

from studies import wire
from studies.errors import InvalidInput, NotFound
from studies.http import DEFAULT_URL, Http, find_token, find_url, home, read, retry_after
from studies.spec import NAME_PATTERN, StudySpec
from studies.trial import TrialState

__all__ = [
    "DEFAULT_URL",
    "Attempt",
    "Claimed",
    "Client",
    "Http",
    "WorkerClient",
    "find_token",
    "find_url",
    "home",
]
_CHUNK: Final = 1 << 20  # bytes per read of an uploaded file
_PAGE: Final = 1_000  # items asked for at once; the server gives no more
# How long a worker waits for an answer, as parts of the lease: a connection that carries requests
# and loses answers must not cost it. With short leases no less than a busy machine needs.
_BEAT: Final = (1 / 4, 0.5)  # of a heartbeat: (part, at least [s])
_WRITE: Final = (1 / 2, 5.0)  # of any other fenced call
ModelT = TypeVar("ModelT", bound=BaseModel)


def _study(name: str) -> str:
    """Returns the path of a study; a name that none can have is not found."""
    if re.fullmatch(NAME_PATTERN, name) is None:
        raise NotFound(f"no study is named {name!r}")
    return f"/studies/{name}"


class Studies:
    """Studies and their trials."""

    def __init__(self, http: Http) -> None:
        self._http = http

    def create(self, spec: StudySpec, base: Path = Path()) -> wire.StudyView:
        """Creates the study; uploads the text it names by path (relative to `base`) first."""
        document = spec.document()
        if path := document["data"].pop("path", None):
            document["data"]["sha256"] = Data(self._http).add(base / path).sha256
        answer = self._http.post("/studies", document)
        return wire.StudyView.model_validate(answer.json())

    def list(self, archived: bool = False) -> Iterator[wire.StudyView]:
        """Yields the studies, newest first."""
        yield from self._pages("/studies", wire.StudyView, archived=archived)

    def get(self, name: str) -> wire.StudyView:
        """Returns one study."""
        return self._http.get(_study(name), wire.StudyView)

    def act(self, name: str, action: str) -> wire.StudyView:
        """Does pause, resume, stop, archive or unarchive; returns the study."""
        answer = self._http.post(f"{_study(name)}/{action}")
        return wire.StudyView.model_validate(answer.json())

    def trials(self, name: str, state: TrialState | None = None) -> Iterator[wire.TrialView]:
        """Yields the trials in order of their numbers."""
        yield from self._pages(f"{_study(name)}/trials", wire.TrialView, state=state)

    def trial(self, name: str, number: int) -> wire.TrialDetail:
        """Returns a trial with its curve and attempts."""
        return self._http.get(f"{_study(name)}/trials/{number}", wire.TrialDetail)

    def best(self, name: str) -> wire.TrialDetail:
        """Returns the best complete trial; raises NotFound before there is one."""
        return self._http.get(f"{_study(name)}/best", wire.TrialDetail)

    def enqueue(self, name: str, params: dict[str, Any]) -> wire.TrialView:
        """Adds a configuration that is tried next."""
        answer = self._http.post(f"{_study(name)}/trials", wire.EnqueueBody(params=params))
        return wire.TrialView.model_validate(answer.json())

    def cancel(self, name: str, number: int) -> wire.TrialView:
        """Cancels a trial."""
        answer = self._http.post(f"{_study(name)}/trials/{number}/cancel")
        return wire.TrialView.model_validate(answer.json())

    def _pages(self, path: str, model: type[ModelT], **params: Any) -> Iterator[ModelT]:
        cursor: str | None = None
        while True:
            asked = {**params, "cursor": cursor, "limit": _PAGE}
            said = {k: v for k, v in asked.items() if v is not None}
            page = self._http.request("GET", path, params=said).json()
            yield from map(model.model_validate, page["items"])
            cursor = page["next"]
            if cursor is None:
                return


class Data:
    """Uploaded texts."""

    def __init__(self, http: Http) -> None:
        self._http = http

    def add(self, path: Path) -> wire.DataView:
        """Uploads a file; returns its hash, and the name under which the server first got it."""
        try:
            with path.open("rb") as file:
                digest = hashlib.file_digest(file, "sha256").hexdigest()
                file.seek(0)
                chunks = iter(lambda: file.read(_CHUNK), b"")
                answer = self._http.request(
                    "PUT", f"/data/{digest}", params={"name": path.name}, content=chunks
                )
        except OSError as error:
            reason = error.strerror or str(error)
            raise InvalidInput.of("data.path", f"{path}: {reason}", "name a text file") from None
        return wire.DataView.model_validate(answer.json())

    def list(self) -> Sequence[wire.DataView]:
        """Returns the uploaded texts."""
        return [wire.DataView.model_validate(d) for d in self._http.request("GET", "/data").json()]


class Client:
    """The API for people; address and token are found in LMTUNE_HOME unless given."""

    def __init__(
        self,
        url: str | None = None,
        token: str | None = None,
        *,
        transport: httpx.BaseTransport | None = None,
    ) -> None:
        self.http = Http(url, token, transport=transport)
        self.studies = Studies(self.http)
        self.data = Data(self.http)

    def workers(self) -> list[wire.WorkerView]:
        """Returns the workers that the server knows, the newest first."""
        rows = self.http.request("GET", "/workers").json()
        return [wire.WorkerView.model_validate(row) for row in rows]

    def login_link(self) -> wire.LoginLink:
        """Returns a new link that signs one browser in, once."""
        return wire.LoginLink.model_validate(self.http.post("/login-links").json())


class Attempt:
    """The calls of one attempt, each fenced by its number and lease token."""

    def __init__(self, http: Http, grant: wire.Grant, lease_token: str) -> None:
        self._http, self.grant = http, grant
        self._path = f"/trials/{grant.trial_id}/attempts/{grant.attempt}"
        self._headers = {wire.LEASE_HEADER: lease_token}
        lease = grant.lease_ms / 1_000
        self._beat, self._write = (max(part * lease, least) for part, least in (_BEAT, _WRITE))

    def _post(
        self, verb: str, body: BaseModel, model: type[ModelT], timeout: float | None = None
    ) -> ModelT:
        path, timeout = f"{self._path}/{verb}", timeout or self._write
        return read(self._http.post(path, body, headers=self._headers, timeout=timeout), model)

    def heartbeat(self, step: int, environment: dict[str, Any] | None = None) -> wire.DecisionView:
        """Renews the lease; returns the standing decision."""
        body = wire.HeartbeatBody(step=step, environment=environment)
        return self._post("heartbeat", body, wire.DecisionView, self._beat)

    def report(self, items: Sequence[wire.ReportItem]) -> wire.ReportAnswer:
        """Stores reports in order; the same report may be sent again."""
        return self._post("reports", wire.ReportBody(items=list(items)), wire.ReportAnswer)

    def checkpoint(self, body: wire.CheckpointBody) -> wire.DecisionView:
        """Commits an uploaded blob as the trial's newest checkpoint."""
        return self._post("checkpoints", body, wire.DecisionView)

    def resume(self, step: int | None) -> wire.DecisionView:
        """Says where this attempt really starts, before its first report."""
        return self._post("resume", wire.ResumeBody(step=step), wire.DecisionView)

    def finish(self, body: wire.FinishBody) -> wire.FinishAnswer:
        """Ends the attempt; the same finish may be sent again."""
        return self._post("finish", body, wire.FinishAnswer)

    def log(self, text: str) -> None:
        """Appends to the attempt's log, the last 64 KiB of the text; best effort."""
        headers = {**self._headers, "Content-Type": "text/plain; charset=utf-8"}
        tail = text.encode(errors="replace")[-wire.MAX_LOG_BYTES :]
        content = tail.decode(errors="ignore").encode()  # begins with a whole character
        path = f"{self._path}/log"
        self._http.request("POST", path, content=content, headers=headers, timeout=self._write)

    def upload(self, sha256: str, path: Path) -> None:
        """Uploads a checkpoint file; the same file again changes nothing."""
        headers = {**self._headers, "Content-Length": str(path.stat().st_size)}
        with path.open("rb") as file:
            chunks = iter(lambda: file.read(_CHUNK), b"")
            self._http.request("PUT", f"/blobs/{sha256}", content=chunks, headers=headers)

    def download(self, sha256: str, target: Path) -> str:
        """Downloads a checkpoint into a file; returns the hash of what came."""
        return self._http.stream_to(f"/blobs/{sha256}", target)


@dataclass(frozen=True)
class Claimed:
    """The answer to a claim."""

    grant: wire.Grant | None  # None: there is nothing to do now
    retry_after: float = 0.0  # then the least wait before the next claim [s]


class WorkerClient:
    """The worker protocol."""

    def __init__(
        self,
        url: str | None = None,
        token: str | None = None,
        *,
        timeout: float = 30.0,
        transport: httpx.BaseTransport | None = None,
    ) -> None:
        self.http = Http(url, token, timeout=timeout, transport=transport)

    def register(self, body: wire.RegisterBody) -> wire.Registered:
        """Makes this process known; once in its life."""
        return read(self.http.post("/workers", body), wire.Registered)

    def claim(self, worker_id: int, body: wire.ClaimBody) -> Claimed:
        """Returns a granted trial, or how long to wait when there is nothing to do now."""
        answer = self.http.post(f"/workers/{worker_id}/claim", body)
        if answer.status_code == 204:
            return Claimed(None, retry_after(answer))
        return Claimed(read(answer, wire.Grant))

    def goodbye(self, worker_id: int) -> None:
        """Says that this worker ends and holds no trial."""
        self.http.request("DELETE", f"/workers/{worker_id}")

    def attempt(self, grant: wire.Grant, lease_token: str) -> Attempt:
        """Returns the calls of a granted attempt."""
        return Attempt(self.http, grant, lease_token)

    def download_data(self, sha256: str, target: Path) -> str:
        """Downloads a text into a file; returns the hash of what came."""
        return self.http.stream_to(f"/data/{sha256}", target)
