"""What a training step takes, counted: the table of docs/speed.md. No card is needed; seconds a plan.

    python benchmarks/counts.py [PLAN.json ...]

Without plans those of benchmarks/gpu.py, each at the size that its planner chooses. The floor is that of an H100: the
longer of arithmetic (790 TFLOP/s in bfloat16, half of it where the plan asks for float32, which is TF32's rate and more
than float32 itself has) and of bytes (3.35 TB/s); launches are counted at 5 microseconds and come beside it.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch

sys.path.insert(0, str(Path(__file__).parent))
import gpu

from autoseg import plugins
from autoseg.files import read_model
from autoseg.plan import Plan
from autoseg.training.step_count import count_step

LAUNCH_SECONDS = 5e-6
COLUMNS = ("plan, stage", "patch, batch", "precision", "TFLOP", "GB moved", "kernels", "GB at once")
COLUMNS += ("ms of arithmetic", "of bytes", "of launches")


def plans(paths: list[Path]) -> Iterator[tuple[str, Plan, tuple[int, ...]]]:
    """Name, plan, and the shape of a case for plans that take whole images."""
    for path in paths:
        yield path.parent.name, read_model(path, Plan), (18, 256, 256)
    for study in () if paths else gpu.STUDIES:
        yield f"{study.planner}, {study.name}", gpu.planned(study, quick=False), study.shape


def line(name: str, plan: Plan, stage: Any, shape: tuple[int, ...]) -> str:
    """One row of the table."""
    dtype = None if plan.recipe.precision == "float32" else torch.bfloat16
    count = count_step(plan, stage, plugins.load(plugins.TRAINERS, plan.trainer), dtype=dtype, shape=shape)
    arithmetic = count.flop / gpu.H100["flop"] * (2 if dtype is None else 1)
    moved, launches = count.moved_gb * 1e9 / gpu.H100["bytes"], count.kernels * LAUNCH_SECONDS
    size = " x ".join(map(str, stage.patch_size or shape))
    ms = [f"{1000 * seconds:.1f}" for seconds in (arithmetic, moved, launches)]
    numbers = [
        f"{count.flop / 1e12:.2f}",
        f"{count.moved_gb:.1f}",
        str(count.kernels),
        f"{count.peak_gb:.2f}",
        *ms,
    ]
    kind = "float32" if dtype is None else "bfloat16"
    return f"| {name}, {stage.name} | {size}, {stage.batch_size} | {kind} | {' | '.join(numbers)} |"


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("plan", nargs="*", type=Path)
    print("| " + " | ".join(COLUMNS) + " |\n" + "|---" * len(COLUMNS) + "|")
    for name, plan, shape in plans(parser.parse_args().plan):
        seen: set[Any] = set()
        for stage in plan.recipe.stages:
            if (kind := (stage.network, tuple(stage.patch_size), stage.batch_size)) not in seen:
                print(line(name, plan, stage, shape), flush=True)
            seen.add(kind)


if __name__ == "__main__":
    main()
