"""What all launchers do alike: places for workers, pauses after deaths, and who was there before.

A launcher adds how one worker is started, looked at, asked to go and ended. What is known of the
workers stands in a file of the home folder, so that the next server adopts those that live.
"""

from __future__ import annotations

import json
import logging
import os
import secrets
import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, ClassVar, Final, Generic, Protocol, TypeVar

from service.launcher.base import Lost
from studies.script import ALLOWED

logger = logging.getLogger(__name__)
_BACKOFF: Final = (0.0, 1.0, 2.0, 5.0, 10.0, 30.0, 60.0)  # before the next start [s]
_STEADY: Final = 60.0  # a worker that lived this long starts over in the backoff [s]
_GRACE: Final = 120.0  # for one that is asked to go while the others stay [s]; assumption
_POLL: Final = 0.1  # between looks while workers go [s]
_LOG_BYTES: Final = 65_536  # of a log that is shown


class Named(Protocol):
    """One life of a worker, as a dataclass of JSON values: it is found again by what it says."""

    __dataclass_fields__: ClassVar[dict[str, Any]]

    @property
    def name(self) -> str:
        """The name it registers under."""

    @property
    def created(self) -> float:
        """When it was started [unix s]."""


LifeT = TypeVar("LifeT", bound=Named)


class Unreachable(Exception):
    """The cluster does not answer: nothing is known of its workers, so nothing changes."""


@dataclass(frozen=True)
class End:
    """How a life ended."""

    reason: str = "it ended"
    clean: bool = False  # it ended by itself, in order


@dataclass
class Slot(Generic[LifeT]):
    """A place for one worker, and the life that is in it now."""

    key: str
    environment: dict[str, str] = field(default_factory=dict)  # for its worker, beside the others
    life: LifeT | None = None
    asked: float | None = None  # to go, at [monotonic s]
    deaths: int = 0
    next_start: float = 0.0  # [monotonic s]


def make_places(kind: str, count: int) -> list[Slot[Any]]:
    """Returns so many slots that are all alike."""
    return [Slot(f"{kind}{number}") for number in range(count)]


def gpus_of(count: float) -> dict[str, str]:
    """Returns what a worker is told that has so many GPUs: it trains each trial on all of them."""
    given = {"LMTUNE_DEVICES": "all" if count > 1 else ""}  # empty: one, whatever we were told
    return given if count else {**given, "CUDA_VISIBLE_DEVICES": ""}


def inherited() -> dict[str, str]:
    """Returns what of our environment a worker's may hold: not the database and its password."""
    return {name: said for name, said in os.environ.items() if name != "LMTUNE_DATABASE_URL"}


def scripts() -> dict[str, str]:
    """Returns what lets a worker elsewhere run the scripts that our operator has listed."""
    listed = os.environ.get(ALLOWED)
    return {ALLOWED: listed} if listed else {}


class Keeper(ABC, Generic[LifeT]):
    """Supervises one worker per slot.

    Args:
        slots: the places; no more workers than that run at once.
        home: the folder with the logs and the file of the lives.
        url: where workers find the server; one that was started for another is ended.
        idle: workers that are kept though no study wants them.
    """

    file: ClassVar[str] = "workers.json"
    life_type: ClassVar[type[Any]]
    elsewhere: ClassVar[bool] = True  # its workers may live on where they seem to be dead

    def __init__(self, slots: Sequence[Slot[LifeT]], home: Path, url: str, *, idle: int) -> None:
        self._slots, self._home, self._url = slots, home.absolute(), url
        self._idle, self._grace = idle, _GRACE
        self._stopping, self._trouble = False, ""
        (self._home / "logs").mkdir(parents=True, exist_ok=True)
        self._known = self._read()
        self._names: set[str] = set()  # of the workers that were ours since we began
        self._lost: list[Lost] = []  # and not told yet

    # ------------------------------------------------------------ what a launcher adds

    @abstractmethod
    def _launch(self, slots: Mapping[str, Slot[LifeT]]) -> Mapping[str, LifeT]:
        """Starts a worker under each name, for its slot; returns the lives by name.

        Also of those that may have started: the next look says. Raises Unreachable: none has.
        """

    @abstractmethod
    def _look(self, life: LifeT) -> End | None:
        """Returns how it ended, None while it lives."""

    @abstractmethod
    def _ask(self, life: LifeT) -> None:
        """Asks it to checkpoint and go (SIGTERM)."""

    @abstractmethod
    def _end(self, life: LifeT) -> None:
        """Ends it at once with all that belongs to it; also one that seems to be over."""

    def _look_around(self) -> None:
        """Called before each round of looks; raises Unreachable."""

    # ------------------------------------------------------------ what all do

    def keep(self, wanted: int, busy: Collection[str] = ()) -> list[Lost]:
        """Has so many workers run, as far as there are slots; returns those that died."""
        try:
            self._look_around()
            self._adopt()
            for slot in self._slots:
                self._reap(slot)
            if not self._stopping:
                self._fit(min(max(wanted, self._idle), len(self._slots)), busy)
            self._trouble = ""
        except Unreachable as error:
            self._tell_once(error)
        lost, self._lost = self._lost, []
        return lost

    def stop(self, grace: float) -> list[Lost]:
        """Asks every worker to go, waits up to `grace` [s], then ends them; returns the lost."""
        self._stopping = True
        lost = self.keep(0)
        self._each(self._let_go)
        end = time.monotonic() + grace
        while self._living() and time.monotonic() < end:
            time.sleep(_POLL)
            lost += self.keep(0)
        self._each(self._cut)
        lost, self._lost = lost + self._lost, []
        return lost

    def _each(self, do: Callable[[Slot[LifeT]], None]) -> None:
        """Does it with each living worker; one that cannot be reached holds no other up."""
        for slot in self._living():
            try:
                do(slot)
            except Unreachable as error:
                self._tell_once(error)

    def _tell_once(self, error: Unreachable) -> None:
        """Logs what is in the way when it begins, and when it becomes another."""
        if str(error) != self._trouble:
            logger.warning("workers cannot be looked after now: %s", error)
        self._trouble = str(error)

    def log(self, worker: str) -> str | None:
        """Returns the end of the log of the worker's slot; None: it was in none of ours.

        Another server's workers may be called like ours; ours name themselves in our logs.
        """
        key = worker.rpartition("-")[0]
        if key not in {slot.key for slot in self._slots}:
            return None
        try:
            with self._log_path(key).open("rb") as file:
                file.seek(max(0, file.seek(0, os.SEEK_END) - _LOG_BYTES))
                said = file.read().decode(errors="replace")
        except OSError:
            return None
        return said if worker in self._names or worker in said else None

    def _log_path(self, key: str) -> Path:
        return self._home / "logs" / f"worker-{key}.log"

    def _living(self) -> list[Slot[LifeT]]:
        return [slot for slot in self._slots if slot.life is not None]

    def _fit(self, count: int, busy: Collection[str]) -> None:
        """Starts what is missing, and asks those too many to go: the idle first, then the last."""
        now = time.monotonic()
        staying = [slot for slot in self._living() if slot.asked is None]
        staying.sort(key=lambda slot: slot.life is None or slot.life.name not in busy)
        for slot in staying[count:]:
            self._let_go(slot)
        for slot in self._living():
            if slot.asked is not None and now - slot.asked > self._grace:
                self._cut(slot)
        free = [slot for slot in self._slots if slot.life is None and now >= slot.next_start]
        self._start(free[: max(count - len(staying), 0)])

    def _start(self, slots: Sequence[Slot[LifeT]]) -> None:
        if not slots:
            return
        named = {f"{slot.key}-{secrets.token_hex(4)}": slot for slot in slots}
        try:
            lives = self._launch(named)
        except Unreachable:
            for slot in slots:
                self._put_off(slot)
            raise
        for name, life in lives.items():
            named[name].life, named[name].asked = life, None
            self._names.add(name)
            logger.info("worker %s started, log %s", name, self._log_path(named[name].key))
        self._write()

    def _lose(self, life: LifeT, reason: str) -> None:
        self._lost.append(Lost(life.name, reason, self.elsewhere))

    def _put_off(self, slot: Slot[LifeT], lived: float = 0.0) -> None:
        """Plans the slot's next start, after a life of so many seconds: ever later."""
        slot.deaths = 1 if lived > _STEADY else slot.deaths + 1
        slot.next_start = time.monotonic() + _BACKOFF[min(slot.deaths, len(_BACKOFF) - 1)]

    def _let_go(self, slot: Slot[LifeT]) -> None:
        if slot.life is not None and slot.asked is None:
            slot.asked = time.monotonic()
            self._ask(slot.life)

    def _cut(self, slot: Slot[LifeT]) -> None:
        """Ends one that was asked to go and is still there."""
        if slot.life is not None:
            self._end(slot.life)
            self._lose(slot.life, "it did not end in time")
        slot.life = slot.asked = None
        self._write()

    def _reap(self, slot: Slot[LifeT]) -> None:
        """Where the slot's worker has ended: ends its rest, and plans the next start."""
        if slot.life is None or (end := self._look(slot.life)) is None:
            return
        life, asked = slot.life, slot.asked is not None
        self._end(life)
        slot.life = slot.asked = None
        self._write()
        lived = time.time() - life.created
        if end.clean and (asked or lived > _STEADY):  # in order, if nobody asked: it had no work
            slot.deaths = 0
            return
        self._put_off(slot, lived)
        logger.warning("worker %s: %s after %.0f s; see its log", life.name, end.reason, lived)
        self._lose(life, end.reason)

    # ------------------------------------------------------------ the workers of a server before

    def _adopt(self) -> None:
        """Puts living workers of a server before us into their slots; the dead are lost.

        A worker that speaks to another address, or has no slot any more, is ended.
        """
        url, lives = self._known
        slots = {slot.key: slot for slot in self._slots}
        for key, life in lives.items():
            if self._look(life) is not None:
                self._end(life)
                self._lose(life, "it ended while no server watched")
            elif key in slots and url == self._url:
                slots[key].life = life
                self._names.add(life.name)
                logger.info("worker %s goes on", life.name)
            else:
                self._end(life)
                self._lose(life, "it was started for another address or device")
        self._known = "", {}

    def _read(self) -> tuple[str, dict[str, LifeT]]:
        try:
            known = json.loads((self._home / self.file).read_text(encoding="utf-8"))
            lives = {key: self.life_type(**said) for key, said in known["lives"].items()}
            return str(known["url"]), lives
        except (OSError, ValueError, TypeError, KeyError, AttributeError):
            return "", {}  # there is none, or it is not ours

    def _write(self) -> None:
        lives = {slot.key: asdict(slot.life) for slot in self._slots if slot.life}
        path = self._home / self.file
        temporary = path.with_suffix(".tmp")
        temporary.write_text(json.dumps({"url": self._url, "lives": lives}), encoding="utf-8")
        temporary.replace(path)
