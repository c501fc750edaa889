"""What a Slurm job does: it runs one worker, and has it go before the job's time is over.

Slurm sends each signal to every process of a job (by cgroup or linuxproc). SIGTERM, before it
preempts or cancels, so reaches the worker without us; SIGUSR2, which submitit asks for before the
end of the job's time, would end it, and is told to it as SIGTERM.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Mapping, Sequence
from contextlib import suppress


def run_worker(command: Sequence[str], environment: Mapping[str, str], log: str) -> None:
    """Returns when the worker has ended in order; raises RuntimeError where it has not."""
    signal.signal(signal.SIGUSR2, signal.SIG_IGN)  # the worker inherits it
    signal.signal(signal.SIGTERM, lambda *_: None)
    with open(log, "ab") as file:
        worker = subprocess.Popen(  # noqa: S603 - our own program
            [sys.executable, *command],
            env={**os.environ, **environment},
            stdout=file,
            stderr=file,
            start_new_session=True,
        )
    signal.signal(signal.SIGUSR2, lambda *_: worker.terminate())
    code = worker.wait()
    with suppress(ProcessLookupError):
        os.killpg(worker.pid, signal.SIGKILL)  # whatever it has left
    if code:
        raise RuntimeError(f"the worker ended with {code}")
