"""The table of faults, F1 to F25: how each is injected, how often, and on which database."""

from __future__ import annotations

import random
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import Final

from tests.chaos import breaking
from tests.chaos.breaking import Inject


@dataclass(frozen=True)
class Fault:
    """One kind of fault."""

    inject: Inject
    weight: int  # how often, against the others
    only: str = ""  # the database it belongs to
    early: bool = False  # takes long to be got over: not near the end


FAULTS: Final[dict[str, Fault]] = {
    "F1": Fault(breaking.kill_workers, 12),
    "F2": Fault(breaking.lose_answer_and_kill, 8),
    "F3": Fault(breaking.zombie, 8),
    "F4": Fault(breaking.preempt, 6),
    "F5": Fault(breaking.preempt_and_kill, 4),
    "F6": Fault(breaking.kill_server, 5),
    "F7": Fault(breaking.crash_point, 6),
    "F8": Fault(breaking.freeze_server, 1),
    "F9": Fault(breaking.restart_postgres, 6, only="postgres"),
    "F11": Fault(breaking.trouble_sqlite, 6, only="sqlite"),
    "F12": Fault(breaking.cut_everybody_off, 3),
    "F13": Fault(breaking.cut_some_off, 8),
    "F14": Fault(breaking.half_open, 8),
    "F15": Fault(breaking.copies, 10),
    "F16": Fault(breaking.slow_uploads, 3),
    "F17": Fault(breaking.herd, 1),
    "F18": Fault(breaking.fill_disk, 3, only="postgres"),
    "F19": Fault(breaking.jump_clock, 3),
    "F20": Fault(breaking.corrupt, 4),
    "F21": Fault(breaking.enqueue("nan", "infinite", "blink"), 4),
    "F22": Fault(breaking.enqueue("oom"), 2),
    "F23": Fault(breaking.enqueue("hang"), 1, early=True),
    "F24": Fault(breaking.enqueue("error", "abort"), 2),
    "F25": Fault(breaking.stranger, 3),
}


def on(database: str, kinds: Collection[str] = ()) -> dict[str, Fault]:
    """Returns the faults that belong to a database; of these kinds only, where any are named."""
    fitting = {k: f for k, f in FAULTS.items() if f.only in ("", database)}
    return {k: f for k, f in fitting.items() if not kinds or k in kinds}


def deck(count: int, kinds: Mapping[str, Fault], rng: random.Random) -> list[str]:
    """Returns the kinds of `count` faults in a random order: each kind by its weight, and once."""
    weights = [fault.weight for fault in kinds.values()]
    drawn = [*kinds][:count]
    drawn += rng.choices([*kinds], weights, k=count - len(drawn))
    rng.shuffle(drawn)
    early = [kind for kind in drawn if kinds[kind].early]
    rest = [kind for kind in drawn if not kinds[kind].early]
    for kind in early:
        rest.insert(rng.randrange(len(rest) // 2 + 1), kind)
    return rest
