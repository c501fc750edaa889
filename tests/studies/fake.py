"""A tiny real HTTP server that answers as lmtune's would, from views held in memory."""

from __future__ import annotations

import hashlib
import json
import re
import threading
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from pydantic import BaseModel

from studies import errors, wire
from studies.fleet import WorkerCount
from studies.spec import parse_spec
from studies.trial import Desired, Outcome, StudyState, TrialState

NOON = datetime(2026, 11, 23, 12, 0, tzinfo=UTC)
LINK = wire.LoginLink(url="http://x/login?code=1", expires_at=NOON)
COMMAND = wire.WorkerCommand.model_validate({"command": "c", "token": "ssh NODE", "note": "a note"})
TOKEN = "lmt_fake"  # noqa: S105


def study(document: dict[str, Any], **changes: Any) -> wire.StudyView:
    """Returns the view of a new study."""
    values: dict[str, Any] = {
        "name": document["name"],
        "description": "",
        "state": StudyState.RUNNING,
        "reason": None,
        "archived": False,
        "created_at": NOON,
        "ended_at": None,
        "running_seconds": 125.0,
        "spec": document,
        "counts": {},
        "slots": 0,
        "best": None,
        "revision": 0,
    }
    return wire.StudyView.model_validate({**values, **changes})


def trial(view: wire.StudyView, number: int, **changes: Any) -> wire.TrialDetail:
    """Returns a complete trial of the study with a curve of one point and one attempt."""
    params = {"learning_rate": 0.01}
    values: dict[str, Any] = {
        "study": view.name,
        "number": number,
        "state": TrialState.COMPLETE,
        "desired": Desired.RUN,
        "reason": None,
        "params": params,
        "value": 2.5,
        "step": 4,
        "max_step": 4,
        "attempt": 1,
        "worker": "w1",
        "created_at": NOON,
        "started_at": NOON,
        "ended_at": NOON,
        "recipe": parse_spec(view.spec).recipe(params, number),
        "curve": [wire.Point(step=4, attempt=1, metrics={"train_loss": 2.6}, tokens=64, wall_ms=9)],
        "attempts": [
            {
                "attempt": 1,
                "worker": "w1",
                "started_at": NOON,
                "ended_at": NOON,
                "outcome": Outcome.OK,
                "reason": None,
                "start_step": 0,
                "environment": {"unigram_loss": 3.25},
            }
        ],
    }  # fmt: skip
    return wire.TrialDetail.model_validate({**values, **changes})


class FakeServer:
    """Studies, trials and workers that the handler below shows; `said` are the requests."""

    def __init__(self) -> None:
        self.studies: dict[str, wire.StudyView] = {}
        self.trials: dict[str, list[wire.TrialDetail]] = {}
        self.workers: list[wire.WorkerView] = []
        self.data: dict[str, wire.DataView] = {}
        self.said: list[tuple[str, str, Any]] = []
        self.on_read: Callable[[str], None] = lambda name: None

    def ended(self, document: dict[str, Any], trials: int = 2) -> wire.StudyView:
        """Adds a study that has ended with so many complete trials, the last the best."""
        view = study(
            document,
            state=StudyState.ENDED,
            reason="budget",
            counts={TrialState.COMPLETE: trials},
            slots=trials,
            best={"number": trials - 1, "value": 2.5},
        )
        self.studies[view.name] = view
        self.trials[view.name] = [trial(view, n, value=2.5 + trials - 1 - n) for n in range(trials)]
        return view

    def of(self, name: str) -> wire.StudyView:
        self.on_read(name)
        if name not in self.studies:
            raise errors.NotFound(f"no study is named {name}")
        return self.studies[name]

    def change(self, name: str, **changes: Any) -> wire.StudyView:
        view = self.of(name)
        changes = {"revision": view.revision + 1, **changes}
        self.studies[name] = view.model_copy(update=changes)
        return self.studies[name]

    def create(self, document: dict[str, Any]) -> wire.StudyView:
        if document["name"] in self.studies:
            raise errors.DuplicateName(f"a study named {document['name']} exists")
        self.studies[document["name"]] = study(document)
        return self.studies[document["name"]]

    def counted(self) -> list[WorkerCount]:
        counts = Counter((worker.device, worker.state) for worker in self.workers)
        return [WorkerCount(device=d, state=s, workers=n) for (d, s), n in counts.items()]

    def answer(self, method: str, path: str, query: str, body: bytes) -> Any:
        """Returns the JSON values of an answer, or raises the error that it is."""
        for verb, pattern, function in _ROUTES:
            match = re.fullmatch(pattern, path)
            if verb == method and match is not None:
                return function(self, body, *match.groups())
        raise errors.NotFound(f"{method} {path}{query}")


def _json(value: Any) -> Any:
    if isinstance(value, BaseModel):
        return value.model_dump(mode="json", by_alias=True)
    return [_json(item) for item in value] if isinstance(value, list) else value


def _page(items: Any) -> dict[str, Any]:
    return {"items": [_json(item) for item in items], "next": None}


def _detail(fake: FakeServer, name: str, number: str) -> wire.TrialDetail:
    found = [t for t in fake.trials.get(fake.of(name).name, []) if t.number == int(number)]
    if not found:
        raise errors.NotFound(f"{name} has no trial {number}")
    return found[0]


def _best(fake: FakeServer, name: str) -> wire.TrialDetail:
    best = fake.of(name).best
    if best is None:
        raise errors.NotFound(f"{name} has no complete trial yet")
    return _detail(fake, name, str(best.number))


def _upload(fake: FakeServer, body: bytes, sha256: str) -> wire.DataView:
    assert hashlib.sha256(body).hexdigest() == sha256
    view = wire.DataView(sha256=sha256, name="text", bytes=len(body), created_at=NOON)
    return fake.data.setdefault(sha256, view)


_STATES = {"pause": StudyState.PAUSED, "resume": StudyState.RUNNING, "stop": StudyState.ENDING}


def _act(fake: FakeServer, name: str, action: str) -> wire.StudyView:
    if action in ("archive", "unarchive"):
        return fake.change(name, archived=action == "archive")
    return fake.change(name, state=_STATES[action])


def _enqueue(fake: FakeServer, body: bytes, name: str) -> wire.TrialDetail:
    view = fake.of(name)
    params = json.loads(body)["params"]
    return trial(view, len(fake.trials.get(name, [])), state=TrialState.WAITING, params=params)


_STUDY = "/api/v1/studies/([^/]+)"
_ROUTES: list[tuple[str, str, Callable[..., Any]]] = [
    ("GET", "/readyz", lambda f, b: {"ready": True}),
    ("GET", "/api/v1/studies", lambda f, b: _page(f.studies.values())),
    ("POST", "/api/v1/studies", lambda f, b: f.create(json.loads(b))),
    ("GET", _STUDY, lambda f, b, n: f.of(n)),
    ("GET", f"{_STUDY}/trials", lambda f, b, n: _page(f.trials.get(f.of(n).name, []))),
    ("POST", f"{_STUDY}/trials", lambda f, b, n: _enqueue(f, b, n)),
    ("GET", f"{_STUDY}/trials/([0-9]+)", lambda f, b, n, t: _detail(f, n, t)),
    ("POST", f"{_STUDY}/trials/([0-9]+)/cancel", lambda f, b, n, t: _detail(f, n, t)),
    ("GET", f"{_STUDY}/report", lambda f, b, n: f"the report of {f.of(n).name}"),
    ("GET", f"{_STUDY}/best", lambda f, b, n: _best(f, n)),
    ("POST", f"{_STUDY}/([a-z]+)", lambda f, b, n, a: _act(f, n, a)),
    ("GET", "/api/v1/workers", lambda f, b: f.workers),
    ("GET", "/api/v1/worker-counts", lambda f, b: f.counted()),
    ("GET", "/api/v1/workers/1/log", lambda f, b: "a line"),
    ("GET", "/api/v1/worker-command", lambda f, b: COMMAND),
    ("GET", "/api/v1/data", lambda f, b: list(f.data.values())),
    ("PUT", "/api/v1/data/([0-9a-f]{64})", _upload),
    ("POST", "/api/v1/login-links", lambda f, b: LINK),
]  # fmt: skip
_STATUS = {"not_found": 404, "duplicate_name": 409, "unauthorized": 401, "invalid": 422}


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    wbufsize = 1 << 16  # one packet for an answer: no delayed acknowledgement in between
    fake: FakeServer  # set by the subclass that `serving` makes

    def _do(self) -> None:
        path, mark, query = self.path.partition("?")
        body = self._body()
        self.fake.said.append((self.command, path, body))
        try:
            if path.startswith("/api") and self.headers["Authorization"] != f"Bearer {TOKEN}":
                raise errors.Unauthorized("send a token the server knows")
            self._send(200, _json(self.fake.answer(self.command, path, mark + query, body)))
        except errors.LmtuneError as error:
            problem = {"code": error.code, "detail": str(error)}
            self._send(_STATUS.get(error.code, 409), problem)

    def _body(self) -> bytes:
        if self.headers.get("Transfer-Encoding") != "chunked":
            return self.rfile.read(int(self.headers.get("Content-Length") or 0))
        body = b""
        while size := int(self.rfile.readline(), 16):
            body += self.rfile.read(size)
            self.rfile.readline()
        self.rfile.readline()
        return body

    def _send(self, status: int, value: Any) -> None:
        content = json.dumps(value).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)

    do_GET = do_POST = do_PUT = do_DELETE = _do

    def log_message(self, format: str, *args: Any) -> None:
        """Keeps the tests' output clean."""


@contextmanager
def serving(fake: FakeServer) -> Iterator[str]:
    """Serves the fake on a free port; gives its address."""
    server = ThreadingHTTPServer(("127.0.0.1", 0), type("Handler", (_Handler,), {"fake": fake}))
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}"
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
