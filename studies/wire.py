"""The bodies of the REST API and of the worker protocol, the same for server, command and worker.

Times are RFC 3339 in UTC; durations say their unit in the name. A number that is not finite
travels as "NaN", "Infinity" or "-Infinity" (JSON has none).
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from datetime import datetime
from typing import Annotated, Any, Final, Generic, Literal, TypeVar

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, PlainSerializer

from studies.recipe import SHA256, Recipe
from studies.trial import Decision, Desired, Outcome, StudyState, TrialState

PROTOCOL: Final = 1  # raised when a worker of the one before could misread an answer
SPOKEN: Final = range(max(1, PROTOCOL - 1), PROTOCOL + 1)  # by a server: its own and the one before
LEASE_HEADER: Final = "Lmtune-Lease"  # carries the attempt's lease token beside every write
MAX_ITEMS: Final = 1_000  # reports in one request
MAX_LOG_BYTES: Final = 65_536  # of an attempt's log in one request
_NON_FINITE: Final = {"NaN": math.nan, "Infinity": math.inf, "-Infinity": -math.inf}


def number_to_json(value: float | None) -> float | str | None:
    """Returns the number as JSON can carry it."""
    if value is None or math.isfinite(value):
        return value
    return "NaN" if math.isnan(value) else "Infinity" if value > 0 else "-Infinity"


def number_from_json(value: Any) -> Any:
    """Returns the number that `number_to_json` wrote; anything else is left as it is."""
    return _NON_FINITE.get(value, value) if isinstance(value, str) else value


Number = Annotated[float, BeforeValidator(number_from_json), PlainSerializer(number_to_json)]
Metrics = dict[str, Number]


class Body(BaseModel):
    """A frozen body; a field nobody knows is an error."""

    model_config = ConfigDict(frozen=True, extra="forbid")


class View(BaseModel):
    """An answer; a reader of an older version passes over fields it does not know."""

    model_config = ConfigDict(frozen=True, extra="ignore")


# ---------------------------------------------------------------- what people read and send


class BestTrial(View):
    """The best trial so far, in brief."""

    number: int
    value: Number


class StudyView(View):
    """A study as the API shows it."""

    name: str
    description: str
    state: StudyState
    reason: str | None = Field(description="why PAUSED or ENDED: person, failing, budget ...")
    archived: bool
    created_at: datetime
    ended_at: datetime | None
    running_seconds: float = Field(description="time spent RUNNING [s]")
    spec: dict[str, Any] = Field(description="the study file")
    counts: dict[TrialState, int] = Field(description="trials by state")
    slots: int = Field(description="trials that count against budget.trials")
    best: BestTrial | None
    revision: int = Field(description="rises with every change of the study or of a trial")
    error: str | None = Field(None, description="the first error when the study is failing")
    lacking: str | None = Field(None, description="what no connected worker has, yet it needs")


class Point(View):
    """The visible report of one step."""

    step: int
    attempt: int
    metrics: Metrics
    tokens: int = Field(description="tokens trained on so far")
    wall_ms: int = Field(description="training time so far, all attempts [ms]")


class AttemptView(View):
    """One grant of a trial to a worker."""

    attempt: int
    worker: str
    started_at: datetime
    ended_at: datetime | None
    outcome: Outcome | Literal["superseded"] | None
    reason: str | None
    start_step: int = Field(description="the checkpoint's step it went on from, or 0")
    environment: dict[str, Any] = Field(description="device, versions, emulated, unigram_loss ...")


class TrialView(View):
    """A trial as lists show it."""

    study: str
    number: int
    state: TrialState
    desired: Desired
    reason: str | None
    params: dict[str, Any]
    value: Number | None
    step: int = Field(description="the last visible step, 0 before the first report")
    max_step: int
    attempt: int = Field(description="attempts granted so far")
    worker: str | None = Field(description="who trains it; in lists and details: or had it last")
    created_at: datetime
    started_at: datetime | None
    ended_at: datetime | None


class TrialDetail(TrialView):
    """A trial with its curve, attempts and full recipe."""

    recipe: Recipe
    curve: list[Point]
    attempts: list[AttemptView]


ItemT = TypeVar("ItemT")


class Page(View, Generic[ItemT]):
    """One page of a list; ask again with `cursor=next` until it is null."""

    items: list[ItemT]
    next: str | None


class EnqueueBody(Body):
    """A configuration to try next; searched knobs left out are sampled."""

    model_config = ConfigDict(json_schema_extra={"examples": [{"params": {"learning_rate": 3e-3}}]})

    params: dict[str, Any]


class WorkerView(View):
    """A worker as the API shows it."""

    id: int
    name: str
    host: str
    pid: int
    device: str
    state: Literal["idle", "busy", "lost", "gone"]
    study: str | None
    trial: int | None
    draining: bool = Field(False, description="it gets no new trial")
    utilisation: float | None = Field(None, description="part of its time in which it held a trial")
    registered_at: datetime
    seen_at: datetime


class WorkerCommand(View):
    """How a worker is started by hand on another machine; no text here has a secret."""

    command: str = Field(description="one line that starts it")
    token: str = Field(description="one line that brings the token's file to NODE first")
    note: str | None = Field(description="why the line would not work as it stands")


class DataView(View):
    """An uploaded text."""

    sha256: str
    name: str
    bytes: int
    created_at: datetime


class LoginLink(View):
    """A link that signs one browser in, once."""

    url: str
    expires_at: datetime


# ---------------------------------------------------------------- the worker protocol


class RegisterBody(Body):
    """What a worker says of itself, once in its life."""

    name: str = Field(min_length=1, max_length=200, description="unique for this life")
    host: str = Field(max_length=255)
    pid: int
    device: str = Field(max_length=200, description="cpu, or the GPU's name")
    protocol: int
    code_hash: str = Field(max_length=64, description="hash of the worker's own code")


class Registered(View):
    """The server's answer to a registration."""

    worker_id: int
    lease_ms: int
    heartbeat_ms: int


class ClaimBody(Body):
    """Asks for a trial; `lease_token` is drawn by the worker, `seq` rises by one per claim."""

    seq: int = Field(ge=1)
    lease_token: str = Field(pattern=r"^[0-9a-f]{32}$")
    protocol: int
    code_hash: str = Field(max_length=64)
    resources: dict[str, Any] = Field(default_factory=dict)
    count: Literal[1] = 1
    wait_ms: int = Field(0, ge=0, le=20_000)


class Resume(View):
    """The checkpoint that an attempt goes on from."""

    step: int
    sha256: str
    bytes: int
    format: int = Field(
        1, description="of the checkpoint; a worker that lacks it resumes from null"
    )
    code_hash: str = Field("", description="of the code that wrote it: only the same is bit-equal")


class Grant(View):
    """A trial, granted: attempt is the fencing token."""

    trial_id: int
    study: str
    number: int
    attempt: int
    lease_ms: int
    heartbeat_ms: int
    recipe: Recipe
    resume: Resume | None
    older: Resume | None = Field(None, description="to fall back on when `resume` is unusable")
    max_step: int


class HeartbeatBody(Body):
    """Renews the lease; the first of an attempt carries the environment."""

    step: int = Field(ge=0)
    environment: dict[str, Any] | None = None


class DecisionView(View):
    """What the worker is to do with the trial."""

    decision: Decision


class ReportItem(Body):
    """The metrics of one evaluation."""

    step: int = Field(ge=1)
    metrics: Metrics
    tokens: int = Field(0, ge=0)
    wall_ms: int = Field(0, ge=0)

    def canonical(self) -> str:
        """Returns the one JSON text of this item: the same report has the same text."""
        return canonical_json(self.model_dump(mode="json"))


class ReportBody(Body):
    """Reports in order of step, at most 1,000."""

    items: list[ReportItem] = Field(min_length=1, max_length=MAX_ITEMS)


class ReportAnswer(View):
    """Which reports were taken, and what to do now."""

    accepted_through: int
    decision: Decision
    duplicate: bool = False


class CheckpointBody(Body):
    """Points at an uploaded blob; the pointer is the commit."""

    step: int = Field(ge=1)
    sha256: str = Field(pattern=SHA256)
    bytes: int = Field(ge=1)
    format: int = 1
    code_hash: str = Field(max_length=64)
    last_report_step: int = Field(ge=0)


class ResumeBody(Body):
    """Where the worker really starts: null when its checkpoint cannot be used."""

    step: int | None = Field(ge=0)


class FinishBody(Body):
    """The end of an attempt."""

    outcome: Outcome
    final_step: int = Field(ge=0)
    reason: str | None = Field(None, max_length=2_000)


class FinishAnswer(View):
    """What the end of the attempt made of the trial."""

    state: TrialState


def canonical_json(value: Mapping[str, Any]) -> str:
    """Returns JSON text with sorted keys and no spaces: equal values give equal text."""
    return json.dumps(value, sort_keys=True, separators=(",", ":"), allow_nan=False)
