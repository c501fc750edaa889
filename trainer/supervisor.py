"""The supervisor: owns HTTP, the lease and the files of one worker; its child owns torch.

It claims a trial, has it trained, settles it, and claims the next. SIGTERM or Ctrl-C lets the
trial checkpoint and go back to the server; a second one ends at once.
"""

from __future__ import annotations

import hashlib
import logging
import os
import random
import secrets
import signal
import socket
import threading
import time
from pathlib import Path
from typing import Final

import studies
import trainer
from studies import wire
from studies.client import Claimed, WorkerClient
from studies.errors import LmtuneError, NotFound, ServerFailed, StaleClaim, StartupError
from studies.files import home
from studies.trial import Outcome
from trainer.attempt import AttemptRun
from trainer.cache import TextCache
from trainer.patience import GaveUp, Patience
from trainer.scratch import Scratch
from trainer.team import ONE, Devices, parse_devices
from trainer.warm import Child

logger = logging.getLogger(__name__)
WAIT_MS: Final = 20_000  # a claim waits so long for work at the server
_ANSWER_SECONDS: Final = 15.0  # for the answer beyond that wait
_IDLE_SECONDS: Final = 6 * 3600.0  # then one that a cluster's launcher started goes; assumption
_DEFAULT_LEASE: Final = 60.0  # until the server has said its own [s]


class _AskedToGo(BaseException):
    """Raised by the signal handler into a claim that waits."""


def code_hash() -> str:
    """Returns the hash of the code that decides a trial's losses."""
    digest = hashlib.sha256()
    for package in (studies, trainer):
        for path in sorted(Path(package.__file__ or "").parent.rglob("*.py")):
            digest.update(path.read_bytes())
    return digest.hexdigest()


class Supervisor:
    """One worker: one life of this process."""

    def __init__(
        self, client: WorkerClient, name: str | None, launched: bool = False, devices: Devices = ONE
    ) -> None:
        self._client, self._launched = client, launched
        self._given_name = name or f"{socket.gethostname()}-{os.getpid()}-{secrets.token_hex(4)}"
        self._name = self._given_name
        self._code_hash = code_hash()
        self._child = Child(devices)
        self._going = threading.Event()
        self._patience = Patience(_DEFAULT_LEASE)
        self._texts = TextCache(client, self._patience)
        self._run: AttemptRun | None = None
        self._idle = False
        self._seq = 0
        self._worker_id = 0
        self._busy_at = 0.0  # when it last held a trial, or began [monotonic s]

    def serve(self) -> int:
        """Works until it is asked to go; returns the exit code."""
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, self._asked)
        scratch = _make_scratch()
        try:
            self._child.start()
            self._register()
            while not self._going.is_set() and not self._forgotten:
                self._child.start()
                self._work(scratch)
            self._goodbye()
        except _AskedToGo:
            logger.info("asked to go before it was known to the server")
        except (GaveUp, ServerFailed) as error:
            logger.error("giving up: %s", error)
            return 1
        finally:
            self._child.close()
            scratch.close()
        return 0

    @property
    def _forgotten(self) -> bool:
        """True when no launcher seems to look after this worker any more: it holds a GPU in vain.

        One that does asks a worker to go that no study wants.
        """
        return self._launched and time.monotonic() - self._busy_at > _IDLE_SECONDS

    def _goodbye(self) -> None:
        logger.info("going: no trial is held")
        try:
            self._client.goodbye(self._worker_id)
        except LmtuneError as error:
            logger.warning("could not say goodbye: %s", error)

    def _asked(self, number: int, _: object) -> None:
        """Signal handler: the first ask is gentle, the second is not."""
        if self._going.is_set():
            self._child.kill()
            os._exit(128 + number)
        self._going.set()
        # In a thread: this one may hold, just now, a lock that the calls need.
        threading.Thread(target=self._hasten, args=(self._run,), name="asked").start()
        if self._run is None and self._idle:
            raise _AskedToGo

    def _hasten(self, run: AttemptRun | None) -> None:
        self._patience.hurry()
        if run is not None:
            run.ask(Outcome.PREEMPTED)

    def _register(self) -> None:
        body = wire.RegisterBody(
            name=self._name,
            host=socket.gethostname(),
            pid=os.getpid(),
            device=self._child.device,
            protocol=wire.PROTOCOL,
            code_hash=self._code_hash,
        )
        self._idle = True
        known = self._patience.call(lambda: self._client.register(body))
        self._idle = False
        self._worker_id = known.worker_id
        self._patience.lease, self._busy_at = known.lease_ms / 1_000, time.monotonic()
        logger.info("worker %s on %s is ready", self._name, self._child.device)

    def _register_anew(self, name: str, reason: str) -> None:
        """Becomes another worker to the server."""
        logger.warning("%s; registering anew as %s", reason, name)
        self._name, self._seq = name, 0
        self._register()

    def _work(self, scratch: Scratch) -> None:
        """Claims one trial and sees it to its end; nothing to do is no error."""
        token = secrets.token_hex(16)
        try:
            claimed = self._claim(token)
        except StaleClaim:
            if self._launched:  # an orphan: its node seemed dead, and another is in its place
                raise GaveUp("its launcher has replaced this worker") from None
            own = f"{self._given_name}-{secrets.token_hex(4)}"
            self._register_anew(own, f"a worker named {self._name} claims, or did before this one")
            return
        except NotFound:
            self._register_anew(self._name, "the server knows this worker no more")
            return
        if claimed.grant is None:
            self._rest(claimed.retry_after)
            return
        grant = claimed.grant
        logger.info(
            "trial %s of %s, attempt %s%s",
            grant.number,
            grant.study,
            grant.attempt,
            f", from step {grant.resume.step}" if grant.resume else "",
        )
        calls = self._client.attempt(grant, token)
        self._run = AttemptRun(calls, self._child, self._patience, self._code_hash)
        if self._going.is_set():  # asked while the grant was on its way
            self._run.ask(Outcome.PREEMPTED)
        try:
            self._run.train(self._texts.fetch, scratch)
        finally:
            self._run, self._busy_at = None, time.monotonic()

    def _rest(self, seconds: float) -> None:
        """Waits at least so long, unless it is asked to go."""
        try:
            self._idle = True
            if not self._going.is_set():
                time.sleep(seconds * random.uniform(1, 2))  # noqa: S311 - not a secret
        except _AskedToGo:
            pass
        finally:
            self._idle = False

    def _claim(self, token: str) -> Claimed:
        """Returns what is granted; when asked to go meanwhile, what was granted already."""
        self._seq += 1
        body = wire.ClaimBody(
            seq=self._seq,
            lease_token=token,
            protocol=wire.PROTOCOL,
            code_hash=self._code_hash,
            resources=self._child.resources,
            wait_ms=WAIT_MS,
        )
        try:
            self._idle = True
            if self._going.is_set():  # asked just before: nothing interrupts the wait
                return Claimed(None)
            claimed = self._patience.call(lambda: self._client.claim(self._worker_id, body))
            self._idle = False
        except _AskedToGo:
            again = body.model_copy(update={"wait_ms": 0})
            claimed = self._patience.call(lambda: self._client.claim(self._worker_id, again))
        finally:
            self._idle = False
        return claimed


def _make_scratch() -> Scratch:
    try:
        return Scratch(home() / "work")
    except OSError as error:
        reason = f"{error.filename or home()}: {error.strerror}"
        raise StartupError(f"cannot write in {reason}; set LMTUNE_HOME") from None


def work(url: str | None, token: str | None, name: str | None, devices: str | None) -> int:
    """Runs a worker until it is asked to go; returns the process's exit code.

    One that a cluster's launcher started (LMTUNE_LAUNCHED) never goes on as another worker: it is
    replaced.
    """
    launched = bool(os.environ.get("LMTUNE_LAUNCHED"))
    timeout = WAIT_MS / 1_000 + _ANSWER_SECONDS
    return Supervisor(
        WorkerClient(url, token, timeout=timeout), name, launched, parse_devices(devices)
    ).serve()
