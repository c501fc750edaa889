"""Workers as Slurm jobs, in arrays, through submitit; the home folder is shared by all nodes."""

from __future__ import annotations

import importlib.util
import logging
import os
import secrets
import shutil
import subprocess
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, Final

from pydantic import BaseModel, ConfigDict, Field

from service.launcher.keeper import End, Keeper, Slot, Unreachable, gpus_of, scripts
from service.launcher.slurm_job import run_worker
from studies.errors import StartupError

logger = logging.getLogger(__name__)
COMMAND: Final = ("-m", "trainer")  # of the Python that the server runs in, on every node
_ANSWER: Final = 30.0  # for one of Slurm's commands [s]; assumption
_OVER: Final = frozenset(
    {"BOOT_FAIL", "CANCELLED", "COMPLETED", "DEADLINE", "FAILED", "NODE_FAIL", "OUT_OF_MEMORY"}
    | {"PREEMPTED", "REVOKED", "TIMEOUT"}
)


class SlurmOptions(BaseModel):
    """`LMTUNE_LAUNCHER_OPTIONS` of this launcher: what each worker's job asks for."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    partition: str | None = None
    minutes: int = Field(60 * 24, ge=1, description="time limit of a job; another follows it")
    warning: int = Field(120, ge=1, description="so long before the limit a worker goes [s]")
    gpus: int = Field(1, ge=0, description="of each worker, for each trial; 0: the CPU")
    cpus: int = Field(4, ge=1, description="of each worker")
    memory_gb: float | None = Field(None, gt=0)
    sbatch: dict[str, Any] = Field(default_factory=dict, description="further options of sbatch")
    poll: float = Field(5.0, gt=0, description="between looks at the queue [s]")


@dataclass(frozen=True)
class Life:
    """One worker and the job, or the element of an array, that runs it."""

    name: str
    created: float
    job: str


class SlurmLauncher(Keeper[Life]):
    """Supervises one job per slot."""

    file: ClassVar[str] = "workers-slurm.json"
    life_type: ClassVar[type[Life]] = Life

    def __init__(
        self,
        slots: Sequence[Slot[Life]],
        url: str,
        home: Path,
        options: SlurmOptions,
        command: Sequence[str] = COMMAND,
    ) -> None:
        super().__init__(slots, home, url, idle=0)
        if importlib.util.find_spec("submitit") is None or shutil.which("sbatch") is None:
            raise StartupError("sbatch or submitit is missing; pip install 'lmtune[slurm]'")
        self._options, self._command = options, command
        self._states: dict[str, str] = {}
        self._looked = 0.0  # [unix s]
        self._next_look = 0.0  # [monotonic s]

    def _look_around(self) -> None:
        if time.monotonic() < self._next_look:
            return
        looked = time.time()
        rows = _ask("squeue", "--me", "--array", "--states=all", "--noheader", "--format=%i %T")
        self._states = dict(row.split(maxsplit=1) for row in rows.splitlines())
        self._looked, self._next_look = looked, time.monotonic() + self._options.poll

    def _launch(self, slots: Mapping[str, Slot[Life]]) -> dict[str, Life]:
        said = [
            (
                [*self._command, "--server", self._url, "--name", name],
                {**slot.environment, **self._given()},
                str(self._log_path(slot.key)),
            )
            for name, slot in slots.items()
        ]
        created = time.time()
        jobs = self._submit(said)
        return {n: Life(n, created, job) for n, job in zip(slots, jobs, strict=True)}

    def _given(self) -> dict[str, str]:
        """Returns where the token is, not what: jobs' environments are kept by Slurm."""
        given = {"LMTUNE_TOKEN_FILE": str(self._home / "token"), "LMTUNE_HOME": str(self._home)}
        given["LMTUNE_LAUNCHED"] = "1"
        return given | gpus_of(self._options.gpus) | scripts()

    def _submit(self, said: Sequence[tuple[Any, ...]]) -> list[str]:
        """Returns the ids of an array's elements."""
        import submitit  # 0.2 s, and an extra

        folder = self._home / "slurm" / secrets.token_hex(4)
        executor = submitit.SlurmExecutor(folder)
        executor.update_parameters(**self._parameters(len(said)))
        try:
            jobs = executor.map_array(run_worker, *zip(*said, strict=True))
        except (submitit.core.utils.FailedJobError, OSError) as error:
            shutil.rmtree(folder, ignore_errors=True)
            raise Unreachable(f"sbatch: {str(error).splitlines()[-1]}") from None
        return [job.job_id for job in jobs]

    def _parameters(self, count: int) -> dict[str, Any]:
        """Returns submitit's parameters. A job is never requeued: another follows it."""
        o = self._options
        inherited = [n for n in os.environ if n.isidentifier() and not n.startswith("LMTUNE_")]
        further = {"no-requeue": True, "export": ",".join(inherited), **o.sbatch}
        said = {
            "job_name": "lmtune-worker",
            "partition": o.partition,
            "time": o.minutes,
            "signal_delay_s": o.warning,
            "gres": f"gpu:{o.gpus}" if o.gpus else None,
            "cpus_per_task": o.cpus,
            "mem": f"{o.memory_gb:g}GB" if o.memory_gb else None,
            "array_parallelism": count,
            "srun_args": ["--export=ALL"],  # of what the job has
            "additional_parameters": further,
        }
        return {name: value for name, value in said.items() if value is not None}

    def _look(self, life: Life) -> End | None:
        state = self._states.get(life.job)
        if state is None:  # too new to have been seen, or Slurm has forgotten it
            return None if life.created >= self._looked else End("its job is over", clean=True)
        if state not in _OVER:
            return None
        return End(f"its job is {state}", clean=state == "COMPLETED")

    def _ask(self, life: Life) -> None:
        if self._states.get(life.job) == "RUNNING":
            _ask("scancel", "--signal=TERM", life.job)
        else:
            _ask("scancel", life.job)

    def _end(self, life: Life) -> None:
        _ask("scancel", "--quiet", "--signal=KILL", life.job)
        _ask("scancel", "--quiet", life.job)


def _ask(*command: str) -> str:
    """Returns what one of Slurm's commands prints; raises Unreachable."""
    try:
        done = subprocess.run(  # noqa: S603 - Slurm's own
            command, capture_output=True, text=True, timeout=_ANSWER, check=False
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        raise Unreachable(f"{command[0]}: {error}") from None
    if done.returncode and command[0] == "squeue":
        raise Unreachable(f"{command[0]}: {done.stderr.strip()}")
    return done.stdout
