"""`make bench-trainer`: tokens/s of our training loop beside two others that train the same.

One loop is written by hand in plain PyTorch, the other is Hugging Face's Trainer; all in turn, in
one process, on the GPU where there is one. docs/benchmarks.md says what each number is.
"""

from __future__ import annotations

import argparse
import json
import re
import statistics
import tempfile
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Final

import torch
from rich.console import Console
from rich.progress import track
from rich.table import Table
from torch import nn

from studies.recipe import KNOBS
from tests.benchmarks._loops import by_hand, hand_model, hugging_face, ours, prepare
from tests.benchmarks._shapes import ON_A_GPU, SHAPES, Setting, Shape
from tests.benchmarks.service import machine
from trainer import device
from trainer.precision import native_precisions

PAIRS: Final = 11
OURS: Final = "lmtune"
# Dense peaks [FLOP/s] by the device's name, from NVIDIA's data sheets: half of what they give with
# sparsity. fp32 runs on the plain units, the others on the matrix units.
_FORMATS: Final = ("fp32", "tf32", "bf16", "fp16")
_PEAKS: Final[Mapping[str, Sequence[float | None]]] = {
    "NVIDIA (H200|H100 80GB HBM3)": (67e12, 494.5e12, 989.5e12, 989.5e12),  # SXM
    "NVIDIA H100 PCIe": (51e12, 378e12, 756.5e12, 756.5e12),
    "NVIDIA A100-(SXM4|PCIE)-[48]0GB|NVIDIA A100 80GB PCIe": (19.5e12, 156e12, 312e12, 312e12),
    "NVIDIA L4": (30.3e12, 60e12, 121e12, 121e12),
    "Tesla T4": (8.1e12, None, None, 65e12),
}
console = Console(stderr=True)


def main() -> None:
    """Runs what the command line asks for."""
    where = device.choose_device()
    parser = argparse.ArgumentParser(prog="make bench-trainer", description=__doc__)
    parser.add_argument("--out", type=Path, help="write the figures here as JSON")
    parser.add_argument("--pairs", type=int, default=PAIRS, help="rounds of each shape")
    parser.add_argument("--models", nargs="+", choices=SHAPES, help=f"[{' '.join(shapes(where))}]")
    parser.add_argument("--precision", choices=KNOBS["precision"].choices, default="fp32")
    parser.add_argument("--compile", action="store_true", help="torch.compile in all three loops")
    parser.add_argument("--quick", action="store_true", help="QUICK=1: one round, small shapes")
    said = parser.parse_args()
    if said.precision not in native_precisions(where):
        parser.error(f"--precision {said.precision}: the {where.type} here has no such units")
    setting, pairs = Setting(said.precision, said.compile), 1 if said.quick else said.pairs
    names = said.models or shapes(where)
    chosen = [name for name in names if not said.quick or name.endswith("small")]
    found = {name: compare(name, setting, pairs) for name in chosen}
    console.print(table(found, setting))
    if said.out:
        facts = {"machine": {**machine(), **device.describe(where)}, "pairs": pairs}
        how = {"precision": setting.precision, "compile": setting.compile}
        said.out.write_text(json.dumps({**facts, **how, **found}, indent=1))


def shapes(where: torch.device) -> list[str]:
    """Returns the shapes that are measured unless others are asked for."""
    return [name for name in SHAPES if where.type == "cuda" or name not in ON_A_GPU]


def compare(name: str, setting: Setting, pairs: int) -> dict[str, Any]:
    """Returns the tokens/s of each loop, a number per round, and the ratios of the rounds."""
    shape = SHAPES[name]
    with tempfile.TemporaryDirectory(prefix="lmtune-bench-") as folder:
        loops: dict[str, Callable[[Shape, Setting], float]] = {
            OURS: ours,
            "by hand": by_hand,
            "Hugging Face": lambda *what: hugging_face(*what, Path(folder)),
        }
        speeds: dict[str, list[float]] = {loop: [] for loop in loops}
        for number in track(range(pairs), f"{name}:", console=console):
            order = list(loops) if number % 2 else list(loops)[::-1]
            for loop in order:
                prepare(setting)
                with setting.units():
                    speeds[loop].append(shape.tokens / loops[loop](shape, setting))
    ratios = {
        other: spread([a / b for a, b in zip(speeds[OURS], speeds[other], strict=True)])
        for other in loops
        if other != OURS
    }
    share = utilisation(shape, setting, statistics.median(speeds[OURS]))
    return {"tokens_per_second": speeds, "ratios": ratios, "mfu": share}


def spread(ratios: list[float]) -> dict[str, float]:
    """Returns median and quartiles."""
    low, median, high = (
        statistics.quantiles(ratios, n=4, method="inclusive") if len(ratios) > 1 else 3 * ratios
    )
    return {"low": low, "median": median, "high": high}


def peak(name: str, precision: str) -> float | None:
    """Returns the most that a GPU of that name computes in a format [FLOP/s], where it is known."""
    known = next((known for pattern, known in _PEAKS.items() if re.fullmatch(pattern, name)), None)
    return None if known is None else known[_FORMATS.index(precision)]


def utilisation(shape: Shape, setting: Setting, speed: float) -> float | None:
    """Returns the share of the GPU's peak that is used at so many tokens/s; None on a CPU."""
    if not torch.cuda.is_available():
        return None
    most = peak(torch.cuda.get_device_name(), setting.precision)
    return None if most is None else speed * token_cost(shape, hand_model(shape)) / most


def token_cost(shape: Shape, model: nn.Module) -> int:
    """Returns what training on a token costs [FLOP].

    6 for each weight that multiplies, and 12 L E T for a gpt's attention (PaLM, arXiv:2204.02311,
    appendix B).
    """
    named = model.named_parameters(remove_duplicate=False)  # a tied output layer multiplies too
    matrices = sum(p.numel() for n, p in named if not n.startswith(("emb", "pos")))
    attention = 12 * shape.layers * shape.width * shape.length if shape.kind == "gpt" else 0
    return 6 * matrices + attention


def table(found: dict[str, Any], setting: Setting) -> Table:
    """Returns the medians as people read them."""
    how = f"{setting.precision}{', compiled' if setting.compile else ''}"
    title = f"tokens/s, median ({how}); in brackets the quartiles of the rounds' ratios"
    shown = Table(title=title)
    for head in ("model", OURS, "by hand", "Hugging Face", "over by hand", "over HF", "MFU"):
        shown.add_column(head, no_wrap=True)
    for name, one in found.items():
        speeds = [f"{statistics.median(s):,.0f}" for s in one["tokens_per_second"].values()]
        ratios = [
            f"{r['median']:.2f} ({r['low']:.2f}-{r['high']:.2f})" for r in one["ratios"].values()
        ]
        shown.add_row(name, *speeds, *ratios, "-" if one["mfu"] is None else f"{one['mfu']:.1%}")
    return shown


if __name__ == "__main__":
    main()
