"""What people do while the storm lasts: open studies, enqueue, cancel, pause, resume, stop.

They call the server directly, since their calls carry no number: sent twice, an enqueue counts
twice.
"""

from __future__ import annotations

import asyncio
import contextlib
import random
import time
from collections.abc import Callable, Mapping
from typing import Any, Final

from tests.chaos.history import History
from tests.chaos.model import BEHAVIOURS
from tests.chaos.net import Http, Unreachable
from tests.chaos.processes import TOKEN

STEPS: Final = 16  # of a trial
EVERY: Final = 2  # steps between two reports
STUDY_TRIALS: Final = 40  # of a study, at most
PAUSED_SECONDS: Final = 1.5  # how long people leave a study paused
KINDS: Final[list[dict[str, Any]]] = [
    {"sampler": {"kind": "random"}},
    {"sampler": {"kind": "tpe"}, "scheduler": {"kind": "asha", "min_steps": 4}},
    {
        "sampler": {"kind": "random"},
        "scheduler": {"kind": "asha", "mode": "promote", "min_steps": 4, "reduction_factor": 2},
    },
    {"sampler": {"kind": "qmc"}, "scheduler": {"kind": "median", "min_steps": 6}},
    {"sampler": {"kind": "random"}, "patience": 2},
    {"sampler": {"kind": "grid"}, "scheduler": {"kind": "asha", "min_steps": 2}},
]


def document(name: str, kind: Mapping[str, Any], trials: int, seed: int) -> dict[str, Any]:
    """Returns a study file."""
    points = {"points": 8} if kind["sampler"]["kind"] == "grid" else {}
    return {
        "name": name,
        "data": {"builtin": "stdlib"},
        "model": {"kind": "lstm", "embedding_dim": 8, "hidden_dim": 8},
        "train": {"steps": STEPS, "evaluate_every": EVERY, "patience": kind.get("patience", 0)},
        "search": {
            "learning_rate": {"log": [1e-4, 1e-1], **points},
            "dropout": {"uniform": [0.0, 0.3], **points},
        },
        "sampler": {**kind["sampler"], "seed": seed},
        "scheduler": kind.get("scheduler", {"kind": "none"}),
        "budget": {"trials": trials},
    }


class People:
    """The people of one storm, and what they know of its studies."""

    def __init__(self, port: Callable[[], int], history: History, seed: int, trials: int) -> None:
        self._port, self._history, self._seed, self._wanted = port, history, seed, trials
        self._rng = random.Random(f"{seed} people")
        self.open: dict[str, dict[str, Any]] = {}  # studies that have not ended, as last seen
        self.ended: dict[str, dict[str, Any]] = {}
        self._paused: dict[str, float] = {}
        self._wishes: list[tuple[str, asyncio.Future[bool]]] = []

    @property
    def unopened(self) -> int:
        """Trials that no study has been opened for."""
        ended = sum(view["slots"] for view in self.ended.values())
        return self._wanted - ended - sum(budget(view) for view in self.open.values())

    @property
    def room(self) -> int:
        """Trials that the open studies will still create."""
        return sum(budget(view) - view["slots"] for view in self.open.values())

    @property
    def done(self) -> int:
        """Trials that have ended."""
        every = [*self.open.values(), *self.ended.values()]
        live = ("WAITING", "RUNNING", "PAUSED", "CANCELLED")
        return sum(n for view in every for s, n in view["counts"].items() if s not in live)

    @property
    def seen(self) -> tuple[object, ...]:
        """Something that changes whenever anything goes on."""
        return tuple((view["revision"], view["state"]) for view in self.open.values())

    async def open_study(self) -> None:
        """Opens the next study; one that exists was opened by a call without an answer."""
        number = len(self.open) + len(self.ended)
        trials = min(STUDY_TRIALS, self.unopened)
        if trials > STUDY_TRIALS // 2 and self._wanted < 4 * STUDY_TRIALS:
            trials = max(trials // 2, 1)  # small storms have every kind of study too
        name = f"storm-{number}"
        kind = KINDS[(number + self._seed) % len(KINDS)]
        spec = document(name, kind, trials, self._seed * 1_000 + number)
        status, view = await self._call("open", "POST", "/studies", spec, study=name)
        if status == 409:
            status, view = await self._call("show", "GET", f"/studies/{name}", study=name)
        if status not in (200, 201):
            return
        self.open[name] = view
        for behaviour, wish in [w for w in self._wishes if not w[1].done()]:
            if await self._enqueue(name, behaviour) and not wish.done():
                wish.set_result(True)

    async def look(self) -> None:
        """Looks at every open study, and resumes those that have been paused for long enough."""
        for name in list(self.open):
            status, view = await self._call("show", "GET", f"/studies/{name}", study=name)
            if status != 200:
                continue
            self.open[name] = view
            if view["state"] == "ENDED":
                self.ended[name] = self.open.pop(name)
            elif view["state"] == "PAUSED":
                since = self._paused.setdefault(name, time.monotonic())
                if time.monotonic() - since > PAUSED_SECONDS:
                    await self._act(name, "resume")
            else:
                self._paused.pop(name, None)

    async def meddle(self) -> None:
        """Does one thing that people do."""
        running = [n for n, view in self.open.items() if view["state"] == "RUNNING"]
        if not running:
            return
        name, draw = self._rng.choice(running), self._rng.random()
        if draw < 0.25:
            await self._act(name, "pause")
        elif draw < 0.65:
            await self._cancel(name)
        elif draw < 0.68 and self.open[name]["slots"] > budget(self.open[name]) // 2:
            # Not before: a small storm has one study of each kind, which is to show something.
            await self._act(name, "stop")
        else:
            await self.enqueue("normal")

    async def enqueue(self, behaviour: str, seconds: float = 0.0) -> bool:
        """Enqueues a configuration that behaves so, within so long [s]; False where none takes it.

        Workers fill a study quickly; the next one that is opened takes what is wished for.
        """
        takes = [
            n for n, v in self.open.items() if v["state"] == "RUNNING" and v["slots"] < budget(v)
        ]
        if takes and await self._enqueue(self._rng.choice(takes), behaviour):
            return True
        wish = (behaviour, asyncio.get_running_loop().create_future())
        self._wishes.append(wish)
        try:
            return await asyncio.wait_for(wish[1], seconds)
        except TimeoutError:
            return False
        finally:
            with contextlib.suppress(ValueError):
                self._wishes.remove(wish)

    async def _enqueue(self, name: str, behaviour: str) -> bool:
        dropout = next((d for d, b in BEHAVIOURS.items() if b == behaviour), 0.123)
        params = {"learning_rate": 10 ** self._rng.uniform(-4, -1), "dropout": dropout}
        path, body = f"/studies/{name}/trials", {"params": params}
        status, _ = await self._call("enqueue", "POST", path, body, study=name)
        return status == 201

    async def _cancel(self, name: str) -> None:
        number = self._rng.randrange(max(self.open[name]["slots"], 1))
        path = f"/studies/{name}/trials/{number}/cancel"
        await self._call("cancel", "POST", path, {"number": number}, study=name)

    async def _act(self, name: str, action: str) -> None:
        await self._call(action, "POST", f"/studies/{name}/{action}", study=name)

    async def _call(
        self, op: str, method: str, path: str, body: Any = None, *, study: str
    ) -> tuple[int, Any]:
        """Makes a call once and records it; (0, None) without an answer."""
        call = self._history.invoke(op, "people", study=study, body=body or {})
        http = Http(self._port(), TOKEN)
        sent = None if op == "cancel" else body
        try:
            status, answer = await http.request(method, path, sent, timeout=5.0)
        except Unreachable as error:
            self._history.done(call, "info", 0, {"error": str(error)[:100]})
            return 0, None
        finally:
            http.close()
        told = answer if op in ("enqueue", "cancel") or status >= 300 else {}
        self._history.done(call, "ok" if status < 300 else "fail", status, told)
        return status, answer


def budget(view: Mapping[str, Any]) -> int:
    """Returns how many trials a study will have."""
    return int(view["spec"]["budget"]["trials"])
