"""The checkpoints of one attempt, on their way from the child's folder to the server."""

from __future__ import annotations

import logging
from collections.abc import Callable
from pathlib import Path
from typing import Final

from studies.client import Attempt
from studies.errors import BlobMissing, LmtuneError
from studies.trial import Decision
from studies.wire import CheckpointBody
from trainer.inbox import Message

logger = logging.getLogger(__name__)
_TRIES: Final = 2  # a blob may be collected between its upload and its pointer
Call = Callable[[Callable[[], Decision]], Decision]


class Uploads:
    """Uploads each checkpoint; keeps the file of the best one, and removes the others."""

    def __init__(self, calls: Attempt, call: Call, code_hash: str) -> None:
        """`call` makes a fenced call for as long as the server does not answer."""
        self._calls, self._call, self._code_hash = calls, call, code_hash
        self.reported = 0  # the last step whose report of this attempt the server has
        self.left_out: int | None = None  # step of the first report that it did not take
        self._best: Message | None = None
        self._newest = 0  # step of the pointer that the server took last

    def leave_out(self, step: int) -> None:
        """A report was not taken: no checkpoint from its step on may be resumed from."""
        self.left_out = self.left_out or step

    def take(self, message: Message) -> Decision:
        """Uploads a checkpoint (step, path, sha256, best); returns the server's decision."""
        if self.left_out is not None and message["step"] >= self.left_out:
            Path(message["path"]).unlink(missing_ok=True)
            return Decision.CONTINUE
        decision = self._upload(message)
        done: Message | None = message
        if message["best"]:
            done, self._best = self._best, message
        if done is not None and (self._best is None or done["path"] != self._best["path"]):
            Path(done["path"]).unlink(missing_ok=True)
        return decision

    def close(self, final_step: int) -> None:
        """Makes the checkpoint of the final step the newest: the one that is kept."""
        best = self._best
        if best is not None and best["step"] == final_step != self._newest:
            self._upload(best)

    def _upload(self, message: Message) -> Decision:
        """Uploads the file, then points at it; a failing server does not end the trial."""
        path, step = Path(message["path"]), message["step"]
        body = CheckpointBody(
            step=step,
            sha256=message["sha256"],
            bytes=path.stat().st_size,
            code_hash=self._code_hash,
            last_report_step=min(self.reported, step),
        )

        def upload_and_point() -> Decision:
            self._calls.upload(body.sha256, path)
            return self._calls.checkpoint(body).decision

        for _ in range(_TRIES):
            try:
                decision = self._call(upload_and_point)
            except BlobMissing:
                continue
            except (LmtuneError, OSError) as error:
                logger.warning("checkpoint of step %s was not kept: %s", step, error)
                return Decision.CONTINUE
            self._newest = step
            return decision
        logger.warning("checkpoint of step %s was not kept: its blob is gone", step)
        return Decision.CONTINUE
