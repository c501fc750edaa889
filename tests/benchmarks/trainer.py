"""`make bench-trainer`: tokens/s of our training loop beside two others that train the same.

One loop is written by hand in plain PyTorch, the other is Hugging Face's Trainer; all in turn, in
one process, on the GPU where there is one. docs/benchmarks.md says what each number is.
"""

from __future__ import annotations

import argparse
import json
import statistics
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

import torch
from rich.console import Console
from rich.progress import track
from rich.table import Table

from tests.benchmarks._loops import SHAPES, Shape, by_hand, hand_model, hugging_face, ours
from tests.benchmarks.service import machine
from trainer import device

PAIRS: Final = 11
OURS: Final = "lmtune"
# Dense bf16 and tf32 peaks [FLOP/s], NVIDIA's data sheets; fp32 runs on the plain units.
FP32_PEAK: Final = {"H100": 67e12, "H200": 67e12, "A100": 19.5e12, "L4": 30.3e12, "T4": 8.1e12}
console = Console(stderr=True)


def main() -> None:
    """Runs what the command line asks for."""
    parser = argparse.ArgumentParser(prog="make bench-trainer", description=__doc__)
    parser.add_argument("--out", type=Path, help="write the figures here as JSON")
    parser.add_argument("--pairs", type=int, default=PAIRS, help="rounds of each shape")
    parser.add_argument("--models", nargs="+", choices=SHAPES, default=list(SHAPES))
    parser.add_argument("--quick", action="store_true", help="QUICK=1: one round, small shapes")
    said = parser.parse_args()
    pairs = 1 if said.quick else said.pairs
    chosen = [name for name in said.models if not said.quick or name.endswith("small")]
    found = {name: compare(name, SHAPES[name], pairs) for name in chosen}
    console.print(table(found))
    if said.out:
        where = {**machine(), **device.describe(device.choose_device())}
        said.out.write_text(json.dumps({"machine": where, "pairs": pairs, **found}, indent=1))


def compare(name: str, shape: Shape, pairs: int) -> dict[str, Any]:
    """Returns the tokens/s of each loop, a number per round, and the ratios of the rounds."""
    with tempfile.TemporaryDirectory(prefix="lmtune-bench-") as folder:
        loops: dict[str, Callable[[Shape], float]] = {
            OURS: ours,
            "by hand": by_hand,
            "Hugging Face": lambda shape: hugging_face(shape, Path(folder)),
        }
        speeds: dict[str, list[float]] = {loop: [] for loop in loops}
        for number in track(range(pairs), f"{name}:", console=console):
            order = list(loops) if number % 2 else list(loops)[::-1]
            for loop in order:
                speeds[loop].append(shape.tokens / loops[loop](shape))
    ratios = {
        other: spread([a / b for a, b in zip(speeds[OURS], speeds[other], strict=True)])
        for other in loops
        if other != OURS
    }
    return {"tokens_per_second": speeds, "ratios": ratios, "mfu": utilisation(shape, speeds[OURS])}


def spread(ratios: list[float]) -> dict[str, float]:
    """Returns median and quartiles."""
    low, median, high = (
        statistics.quantiles(ratios, n=4, method="inclusive") if len(ratios) > 1 else 3 * ratios
    )
    return {"low": low, "median": median, "high": high}


def utilisation(shape: Shape, speeds: list[float]) -> float | None:
    """Returns the share of the GPU's fp32 peak that our loop uses; None on a CPU.

    A token costs 6 FLOP a parameter that multiplies, and 12 L E T for a gpt's attention (PaLM,
    arXiv:2204.02311, appendix B).
    """
    if not torch.cuda.is_available():
        return None
    known = [peak for name, peak in FP32_PEAK.items() if name in torch.cuda.get_device_name()]
    if not known:
        return None
    model = hand_model(shape)
    matrices = sum(
        p.numel() for n, p in model.named_parameters() if not n.startswith(("emb", "pos"))
    )
    attention = 12 * shape.layers * shape.width * shape.length if shape.kind == "gpt" else 0
    return statistics.median(speeds) * (6 * matrices + attention) / known[0]


def table(found: dict[str, Any]) -> Table:
    """Returns the medians as people read them."""
    shown = Table(title="tokens/s, median; in brackets the quartiles of the rounds' ratios")
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
