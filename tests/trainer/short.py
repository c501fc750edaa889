"""One of two ranks, of which the second has too little memory: run by test_ranks.py.

    torchrun ... short.py RECIPE TEXT

Prints two lines of JSON, each with what the ranks said: of too little memory, and of enough for
half a batch. How much a run needs is not the same twice, hence several shares.
"""

import json
import os
import re
import resource
import sys
import traceback
from collections.abc import Callable
from pathlib import Path

import torch.distributed

from studies.errors import OutOfMemory
from studies.recipe import Recipe
from trainer.device import release_memory
from trainer.run import Run

# Of what lies between half a batch's need (0) and a whole one's (1), what the second may have.
# By the parts that a batch is then computed in; 0: there is too little memory.
SHARES = {0: (-0.4, -0.6, -0.2), 2: (0.5, 0.7, 0.3)}
Said = tuple[int, str | float]


def address_space() -> dict[str, int]:
    """Returns this process's address space, now and at most so far [bytes]."""
    status = Path("/proc/self/status").read_text()
    return {name: 1024 * int(kib) for name, kib in re.findall(r"(Vm\w+):\s+(\d+) kB", status)}


def apart(work: Callable[[], str]) -> str:
    """Returns what is found in a process of its own, which begins with our heap; "" if it fails."""
    read, write = os.pipe()
    if not os.fork():
        try:
            os.write(write, work().encode())
        except BaseException:
            traceback.print_exc()
        os._exit(0)
    os.close(write)  # ours: a child that fails writes nothing
    os.wait()
    with os.fdopen(read) as answer:
        return answer.read()


def need(recipe: Recipe, text: str, parts: int) -> int:
    """Returns what a step takes beside what the run has, where nobody else trains [bytes]."""

    def step() -> str:
        os.environ["WORLD_SIZE"] = "1"
        share = recipe.train.batch_size // 2
        run = Run(recipe.with_knobs({"accumulate": parts, "batch_size": share}), text)
        before = address_space()["VmSize"]
        run.step()
        return str(address_space()["VmPeak"] - before)

    return int(apart(step))  # before there is a group


def train(recipe: Recipe, text: str, room: int | None) -> Said:
    """Returns the parts of a batch and the loss after two steps that have so little room."""
    release_memory()
    run = Run(recipe, text)
    if room is not None:
        limit = address_space()["VmSize"] + room
        resource.setrlimit(resource.RLIMIT_AS, (limit, resource.RLIM_INFINITY))
    try:
        run.step()
        run.step()
    except OutOfMemory as error:
        return 0, str(error)
    finally:
        resource.setrlimit(resource.RLIMIT_AS, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
    metrics = run.evaluate().metrics
    return metrics["batch_parts"], metrics["validation_loss"]


def search(recipe: Recipe, text: str, parts: int, rooms: list[int | None]) -> list[Said]:
    """Returns what both ranks say of the first room that gives so many parts, else of the last."""
    said: list[Said] = [(-1, ""), (-1, "")]
    for room in rooms:
        torch.distributed.all_gather_object(said, train(recipe, text, room))
        if all(found == parts for found, _ in said):
            break
    return said


def main() -> None:
    """Searches a share for either end; the first rank prints what came of it."""
    recipe, text = Recipe.model_validate_json(sys.argv[1]), Path(sys.argv[2]).read_text()
    second = os.environ["RANK"] == "1"
    whole, half = (need(recipe, text, parts) for parts in (1, 2)) if second else (0, 0)
    for parts, shares in SHARES.items():
        rooms = [int(half + share * (whole - half)) if second else None for share in shares]
        said = search(recipe, text, parts, rooms)
        if not second:
            sys.stdout.write(json.dumps(said) + "\n")


if __name__ == "__main__":
    main()
