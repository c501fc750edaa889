"""The typed client of the REST API: `Client` for people, `WorkerClient` for workers.

Every method raises the error that the server's problem stands for (studies/errors.py), and
ServerUnreachable when nobody answers. A method sends its request once; workers retry.
docs/python-client.md shows all of it at work.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, TypeVar
from urllib.parse import quote

import httpx
from pydantic import BaseModel

from studies import wire
from studies.changes import EventView
from studies.corpus import read_text
from studies.documents import resolve
from studies.errors import NotFound
from studies.files import home
from studies.fleet import WorkerCount
from studies.frames import trials_frame
from studies.http import DEFAULT_URL, Http, find_token, find_url, read, retry_after
from studies.imports import ImportedTrial
from studies.script import Trial, current_trial
from studies.spec import NAME_PATTERN, StudySpec, parse_spec
from studies.trial import TrialState

if TYPE_CHECKING:
    import pandas as pd

__all__ = [
    "DEFAULT_URL",
    "Attempt",
    "Claimed",
    "Client",
    "Http",
    "Trial",
    "WorkerClient",
    "current_trial",
    "find_token",
    "find_url",
    "home",
]
_CHUNK: Final = 1 << 20  # of an upload, sent at once [bytes]
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

    def create(self, spec: StudySpec | Mapping[str, Any], base: Path = Path()) -> wire.StudyView:
        """Creates the study; uploads the text it names by path (relative to `base`) first."""
        spec = spec if isinstance(spec, StudySpec) else parse_spec(spec)
        if path := spec.data.path:
            data, text = resolve(spec.data, base)
            Data(self._http).add_text(text, Path(path).name)
            spec = spec.model_copy(update={"data": data})
        return read(self._http.post("/studies", spec.document()), wire.StudyView)

    def bring_in(self, spec: StudySpec, trials: Sequence[ImportedTrial]) -> wire.StudyView:
        """Creates a study whose trials are over; all of it, or nothing."""
        own = [trial.model_dump(mode="json", exclude_defaults=True) for trial in trials]
        answer = self._http.post("/imports", {"study": spec.document(), "trials": own})
        return wire.StudyView.model_validate(answer.json())

    def list(self, archived: bool = False) -> Iterator[wire.StudyView]:
        """Yields the studies, newest first."""
        yield from self._pages("/studies", wire.StudyView, archived=archived)

    def get(self, name: str) -> wire.StudyView:
        """Returns one study."""
        return self._http.get(_study(name), wire.StudyView)

    def act(self, name: str, action: str) -> wire.StudyView:
        """Does pause, resume, stop, archive or unarchive; returns the study."""
        return read(self._http.post(f"{_study(name)}/{action}"), wire.StudyView)

    def change(self, name: str, **parts: Any) -> wire.StudyView:
        """Changes `budget`, or narrows `search`, as a ChangeBody has them; returns the study."""
        return read(self._http.request("PATCH", _study(name), json=parts), wire.StudyView)

    def history(self, name: str) -> Iterator[EventView]:
        """Yields what became of a study and what people did to it, newest first."""
        yield from self._pages(f"{_study(name)}/history", EventView)

    def trials(self, name: str, state: TrialState | None = None) -> Iterator[wire.TrialView]:
        """Yields the trials in order of their numbers."""
        yield from self._pages(f"{_study(name)}/trials", wire.TrialView, state=state)

    def frame(self, name: str) -> pd.DataFrame:
        """Returns the trials as a pandas DataFrame, where pandas is installed."""
        return trials_frame(self.trials(name))

    def trial(self, name: str, number: int) -> wire.TrialDetail:
        """Returns a trial with its curve and attempts."""
        return self._http.get(f"{_study(name)}/trials/{number}", wire.TrialDetail)

    def best(self, name: str) -> wire.TrialDetail:
        """Returns the best complete trial; raises NotFound before there is one."""
        return self._http.get(f"{_study(name)}/best", wire.TrialDetail)

    def report(self, name: str) -> str:
        """Returns the study's report as one HTML page that stands alone."""
        return self._http.request("GET", f"{_study(name)}/report").text

    def checkpoint(self, name: str, number: int, target: Path) -> int:
        """Downloads a trial's checkpoint into a file, whole or not at all; returns its bytes."""
        partial = target.with_name(f"{target.name}.partial")
        try:
            self._http.stream_to(f"{_study(name)}/trials/{number}/checkpoint", partial)
            partial.replace(target)
        finally:
            partial.unlink(missing_ok=True)
        return target.stat().st_size

    def enqueue(self, name: str, params: dict[str, Any]) -> wire.TrialView:
        """Adds a configuration that is tried next."""
        answer = self._http.post(f"{_study(name)}/trials", wire.EnqueueBody(params=params))
        return wire.TrialView.model_validate(answer.json())

    def cancel(self, name: str, number: int) -> wire.TrialView:
        """Cancels a trial."""
        return read(self._http.post(f"{_study(name)}/trials/{number}/cancel"), wire.TrialView)

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
        """Uploads a text file; returns its hash, and its name when it first came."""
        return self.add_text(read_text(path), path.name)

    def add_text(self, text: str, name: str) -> wire.DataView:
        """Uploads a text; returns as `add` does."""
        content = text.encode()
        pieces = (content[i : i + _CHUNK] for i in range(0, len(content), _CHUNK))
        url = f"/data/{hashlib.sha256(content).hexdigest()}"
        answer = self._http.request("PUT", url, params={"name": name}, content=pieces)
        return wire.DataView.model_validate(answer.json())

    def download(self, sha256: str, target: Path) -> str:
        """Downloads a text into a file; returns the hash of what came."""
        return self._http.stream_to(f"/data/{sha256}", target)

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

    def workers(self, **wanted: Any) -> list[wire.WorkerView]:
        """Returns workers, those heard of last first: of a `name`, or up to a `limit`."""
        rows = self.http.request("GET", "/workers", params=wanted).json()
        return [wire.WorkerView.model_validate(row) for row in rows]

    def worker_counts(self) -> list[WorkerCount]:
        """Returns how many workers there are, by device and state."""
        rows = self.http.request("GET", "/worker-counts").json()
        return [WorkerCount.model_validate(row) for row in rows]

    def worker_log(self, name: str) -> str:
        """Returns the end of what a worker printed that the server's launcher started."""
        ids = [worker.id for worker in self.workers(name=name) if worker.name == name]
        if not ids:
            raise NotFound(f"no worker is named {name}; `lmtune workers` lists them")
        return self.http.request("GET", f"/workers/{ids[0]}/log").text

    def worker_command(self) -> wire.WorkerCommand:
        """Returns the line that starts a worker on another machine."""
        return self.http.get("/worker-command", wire.WorkerCommand)

    def login_link(self, page: str = "/") -> wire.LoginLink:
        """Returns a new link that signs one browser in, once, and leads to a page of the server."""
        link = wire.LoginLink.model_validate(self.http.post("/login-links").json())
        if page == "/":
            return link
        return link.model_copy(update={"url": f"{link.url}&next={quote(page, safe='')}"})


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
        return Data(self.http).download(sha256, target)
