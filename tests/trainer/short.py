"""One of two ranks, of which the second has too little memory: run by test_ranks.py.

    torchrun ... short.py RECIPE TEXT SHARE ...

SHARE: of what lies between half a batch's need (0) and a whole one's (1), what the second has.
"""

import os
import re
import resource
import sys
import traceback
from pathlib import Path

from studies.errors import OutOfMemory
from studies.recipe import Recipe
from trainer.run import Run


def address_space() -> dict[str, int]:
    """Returns this process's address space, now and at most so far [bytes]."""
    status = Path("/proc/self/status").read_text()
    return {name: 1024 * int(kib) for name, kib in re.findall(r"(Vm\w+):\s+(\d+) kB", status)}


def need(recipe: Recipe, text: str, parts: int) -> int:
    """Returns what a step takes beside what the run has, where nobody else trains [bytes]."""
    read, write = os.pipe()
    if not os.fork():  # before there is a group
        try:
            os.environ["WORLD_SIZE"] = "1"
            share = recipe.train.batch_size // 2
            run = Run(recipe.with_knobs({"accumulate": parts, "batch_size": share}), text)
            before = address_space()["VmSize"]
            run.step()
            os.write(write, str(address_space()["VmPeak"] - before).encode())
        except BaseException:
            traceback.print_exc()
        os._exit(0)
    os.close(write)  # ours: a child that fails writes nothing
    os.wait()
    return int(os.read(read, 99))


def train(recipe: Recipe, text: str, room: int | None) -> str:
    """Returns how two steps went, of which this rank has so little room for what they take."""
    run = Run(recipe, text)
    if room is not None:
        limit = address_space()["VmSize"] + room
        resource.setrlimit(resource.RLIMIT_AS, (limit, resource.RLIM_INFINITY))
    try:
        run.step()
        run.step()
    except OutOfMemory as error:
        return str(error)
    finally:
        resource.setrlimit(resource.RLIMIT_AS, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
    metrics = run.evaluate().metrics
    return f"{metrics['batch_parts']} {metrics['validation_loss']}"


def main() -> None:
    """Trains once with each share; says how on a line for each."""
    recipe, text = Recipe.model_validate_json(sys.argv[1]), Path(sys.argv[2]).read_text()
    shares: list[float] = [float(share) for share in sys.argv[3:]]
    rank, rooms = os.environ["RANK"], [None] * len(shares)
    if rank == "1":
        whole, half = need(recipe, text, 1), need(recipe, text, 2)
        rooms = [int(half + share * (whole - half)) for share in shares]
    for share, room in zip(shares, rooms, strict=True):
        sys.stdout.write(f"{share} rank {rank}: {train(recipe, text, room)}\n")


if __name__ == "__main__":
    main()
