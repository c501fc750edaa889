"""Workers as Ray actors, on a cluster that is there or on one of this machine."""

from __future__ import annotations

import importlib.util
import json
import logging
import select
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, Final

from pydantic import BaseModel, ConfigDict, Field

from service.launcher.keeper import End, Keeper, Slot, Unreachable, gpus_of, inherited, scripts
from studies.errors import StartupError

logger = logging.getLogger(__name__)
COMMAND: Final = ("-m", "trainer")  # of the node's own Python, in which Ray runs
_ANSWER: Final = 60.0  # for Ray to start, or to answer [s]; assumption


class RayOptions(BaseModel):
    """`LMTUNE_LAUNCHER_OPTIONS` of this launcher."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    address: str = Field(
        "auto", description="HOST:PORT of a cluster; auto: find it; local: a new one"
    )
    num_gpus: float = Field(1, ge=0, description="of each worker, for each trial; 0: the CPU")
    num_cpus: float = Field(1, gt=0, description="of each worker")


@dataclass(frozen=True)
class Life:
    """One worker: its name is also its actor's."""

    name: str
    created: float


class RayLauncher(Keeper[Life]):
    """Supervises one actor per slot, through a process that speaks to Ray."""

    file: ClassVar[str] = "workers-ray.json"
    life_type: ClassVar[type[Life]] = Life

    def __init__(
        self,
        slots: Sequence[Slot[Life]],
        url: str,
        token: str,
        home: Path,
        options: RayOptions,
        command: Sequence[str] = COMMAND,
    ) -> None:
        super().__init__(slots, home, url, idle=0)
        if importlib.util.find_spec("ray") is None:
            raise StartupError("Ray is missing; pip install 'lmtune[ray]' here and on its nodes")
        self._options, self._command = options, command
        own = {"LMTUNE_TOKEN": token, "LMTUNE_LAUNCHED": "1"}
        self._given = own | gpus_of(options.num_gpus) | scripts()
        self._agent: subprocess.Popen[str] | None = None
        self._seen: dict[str, Any] = {}
        self._ends: dict[str, int] = {}  # of the logs that are here [bytes]

    def stop(self, grace: float) -> list[Any]:
        """Asks every worker to go, waits up to `grace` [s], then ends them; returns the lost."""
        lost = super().stop(grace)
        self._hang_up()
        return lost

    def _look_around(self) -> None:
        lives = [slot.life for slot in self._slots if slot.life] + list(self._known[1].values())
        starts = {life.name: self._ends.get(life.name, -1) for life in lives}
        self._seen = self._call("look", starts=starts) if starts else {}
        for slot in self._slots:
            if slot.life and (seen := self._seen.get(slot.life.name, {})).get("log"):
                with self._log_path(slot.key).open("a", encoding="utf-8") as file:
                    file.write(seen["log"])
        self._ends |= {name: seen["end"] for name, seen in self._seen.items() if "end" in seen}

    def _launch(self, slots: Mapping[str, Slot[Life]]) -> dict[str, Life]:
        lives: dict[str, Life] = {}
        command = [*self._command, "--server", self._url]
        try:
            for name, slot in slots.items():
                lives[name] = Life(name, time.time())
                environment = {**slot.environment, **self._given}
                self._call("launch", names=[name], command=command, environment=environment)
                self._ends[name] = 0
        except Unreachable as error:  # those that were made are ours, maybe the last one too
            logger.warning("not all workers were started: %s", error)
        return lives

    def _look(self, life: Life) -> End | None:
        seen = self._seen.get(life.name, {})  # nothing: it is queued, or does not answer now
        if "gone" in seen:
            return End(seen["gone"])
        code = seen.get("code")
        return None if code is None else End(f"it ended with {code}", code == 0)

    def _ask(self, life: Life) -> None:
        self._call("ask", name=life.name)

    def _end(self, life: Life) -> None:
        self._call("end", name=life.name)
        self._ends.pop(life.name, None)

    # ------------------------------------------------------------ the process that speaks to Ray

    def _call(self, do: str, **said: Any) -> Any:
        """Returns the agent's answer; raises Unreachable where there is none."""
        if self._agent is None or self._agent.poll() is not None:
            self._dial()
        return self._exchange({"do": do, **said})

    def _dial(self) -> None:
        self._hang_up()
        with self._log_path("ray").open("ab") as log:
            self._agent = subprocess.Popen(
                [sys.executable, "-m", "service.launcher.ray_agent"],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=log,
                text=True,
                env={**inherited(), "RAY_DEDUP_LOGS": "0"},
            )
        self._exchange(self._options.model_dump())

    def _exchange(self, said: Mapping[str, Any]) -> Any:
        agent = self._agent
        assert agent is not None  # noqa: S101 - it was started
        assert agent.stdin is not None  # noqa: S101 - a pipe
        assert agent.stdout is not None  # noqa: S101 - a pipe
        try:
            agent.stdin.write(json.dumps(said) + "\n")
            agent.stdin.flush()
            ready, _, _ = select.select([agent.stdout], [], [], _ANSWER)
            if ready and (line := agent.stdout.readline()):
                return json.loads(line)
        except OSError:
            pass
        self._hang_up()
        raise Unreachable(
            f"Ray at {self._options.address} does not answer, see logs/worker-ray.log"
        )

    def _hang_up(self) -> None:
        agent, self._agent = self._agent, None
        if agent is not None and agent.stdin is not None and agent.stdout is not None:
            agent.kill()
            agent.wait()
            agent.stdin.close()
            agent.stdout.close()
