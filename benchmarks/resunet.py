"""A training step of 3D-ResU-Net on both crops, in float32 and bfloat16, with and without activation checkpointing.

    python benchmarks/resunet.py [--device cuda] [--scale 0.25] [--width 32] [--threads 1] [--repeats 3]

Counted are, at full size and from the code alone, the multiplications of a step (torch's FLOP counter) and its memory
(live_memory.py; weights, gradients and the optimiser's two moments are added). Measured are seconds and the memory of
the process (of the card on CUDA), on crops whose edges are --scale of the published ones: a CPU needs minutes for a
step on the full ones. Both sides of a comparison run in turn, each in a process of its own; the least of the
repetitions counts, on a CPU in seconds of the processor (of all threads), which depend little on what else the machine
does.

The rate is that of the multiplications of the step, and its share is of what a product of two large matrices reaches in
the same process and precision; with checkpointing no convolution runs twice, so the multiplications are the same.
"""

from __future__ import annotations

import argparse
import contextlib
import math
import multiprocessing
import resource
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from typing import Any

import torch
from live_memory import LiveMemory
from rates import matrix_rate, seconds_of
from torch import nn
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.utils.flop_counter import FlopCounterMode

from autoseg import networks
from autoseg.labels import LabelSet
from autoseg.planners._resunet_settings import CROPS
from autoseg.plugins.parts import Loss
from autoseg.training import losses

LABELS = LabelSet.from_labels({"background": 0, "lesion": 1})
PRECISIONS = ("float32", "bfloat16")
GOAL_GB, GOAL_TIME, GOAL_RATE = 12.0, 1.35, 0.35
STEPS = 245_700  # of a whole training on 182 scans: 218,400 and 27,300
LEARNING_RATE = 1e-3


@dataclass(frozen=True)
class Job:
    """What is run: on crops of this size, z, y, x, in which precision, with or without checkpointing."""

    size: tuple[int, int, int]
    precision: str
    checkpointing: bool
    width: int
    device: str
    threads: int


@dataclass(frozen=True)
class Taken:
    """Least seconds of a step, GB at most, and multiply-adds a second (x 2) of a product of matrices."""

    seconds: float
    gb: float
    matrix_rate: float


# ------------------------------------------------------------------------------------------------------- one step


def make(job: Job) -> tuple[nn.Module, Loss, torch.Tensor, torch.Tensor]:
    """Network, loss, image ``[1, 1, z, y, x]`` and label ``[1, z, y, x]``, on the CPU."""
    torch.manual_seed(0)
    arguments = {"in_channels": 1, "out_channels": 2, "width": job.width, "checkpointing": job.checkpointing}
    network = networks.build("resunet", **arguments).train()
    label = torch.zeros(1, *job.size, dtype=torch.int16)
    label[:, : job.size[0] // 4] = 1
    return network, losses.build("resunet", labels=LABELS), torch.rand(1, 1, *job.size), label


def autocast(job: Job) -> contextlib.AbstractContextManager[object]:
    """As a training in the job's precision uses it."""
    return torch.autocast(job.device, torch.bfloat16, enabled=job.precision == "bfloat16")


def one_step(job: Job, network: nn.Module, loss: Loss, image: torch.Tensor, label: torch.Tensor) -> None:
    """Forward and backward."""
    with autocast(job):
        logits = network(image)
    loss(logits, label).backward()


# -------------------------------------------------------------------------------------------------------- counted


def counted(job: Job) -> tuple[float, float]:
    """Peak of live float32 elements per voxel, and GB with weights, gradients and moments."""
    with FakeTensorMode():
        network, loss, image, label = make(job)
        weights = list(network.parameters())
        with LiveMemory([image, label], weights) as memory:
            one_step(job, network, loss, image, label)
    n_weights = sum(weight.numel() for weight in weights)
    return memory.peak / math.prod(job.size), 4e-9 * (memory.peak + 4 * n_weights)


def multiplications(job: Job) -> float:
    """Floating point operations of a step: multiply-adds x 2, of convolutions and their gradients."""
    with FakeTensorMode(), FlopCounterMode(display=False) as counter:
        one_step(job, *make(job))
    return float(counter.get_total_flops())


def print_counted(width: int) -> None:
    """Both crops at full size."""
    print("counted at full size")
    print("| crop | precision | checkpointing | elements a voxel | GB | of plain | goal | TFLOP a step |")
    print("|---|---|---|---|---|---|---|---|")
    for name, size in CROPS.items():
        work = multiplications(Job(size, "float32", False, width, "cpu", 1))
        for precision in PRECISIONS:
            plain_gb = 0.0
            for saving in (False, True):
                job = Job(size, precision, saving, width, "cpu", 1)
                elements, gb = counted(job)
                plain_gb = plain_gb or gb
                goal = f"{GOAL_GB:g} GB" if name == "zoom_out" and saving else ""
                print(
                    f"| {name} | {precision} | {_yes(saving)} | {elements:.0f} | {gb:.2f} | {gb / plain_gb:.2f} "
                    f"| {goal} | {work / 1e12:.2f} |",
                    flush=True,
                )


# ------------------------------------------------------------------------------------------------------- measured


class Worker:
    """A job in a process of its own, so that its peak memory is its own; it waits between its steps."""

    def __init__(self, job: Job) -> None:
        self._pool = ProcessPoolExecutor(1, mp_context=multiprocessing.get_context("spawn"))
        self._pool.submit(_prepare, job).result()
        self.seconds: list[float] = []

    def run(self) -> None:
        """One step more."""
        self.seconds.append(self._pool.submit(_timed_step).result())

    def finish(self) -> Taken:
        """What it took; the matrices come last, so that they are not in the memory."""
        gb = self._pool.submit(_peak_gb).result()
        rate = self._pool.submit(_matrix_rate).result()
        self._pool.shutdown()
        return Taken(min(self.seconds), gb, rate)


def in_turn(jobs: Sequence[Job], repeats: int) -> list[Taken]:
    """Run jobs in turn, ``repeats`` times each, so that the load of the machine meets all alike."""
    workers = [Worker(job) for job in jobs]
    for _ in range(repeats):
        for worker in workers:
            worker.run()
    return [worker.finish() for worker in workers]


_prepared: dict[str, Any] = {}  # of a worker process


def _prepare(job: Job) -> None:
    """Make what is needed and run once to warm up."""
    torch.set_num_threads(job.threads)
    network, loss, image, label = make(job)
    network, image, label = network.to(job.device), image.to(job.device), label.to(job.device)
    loss = loss.to(job.device) if isinstance(loss, nn.Module) else loss
    optimiser = torch.optim.Adam(network.parameters(), lr=LEARNING_RATE, weight_decay=1e-4)

    def step() -> None:
        optimiser.zero_grad(set_to_none=True)
        one_step(job, network, loss, image, label)
        optimiser.step()

    _prepared.update(step=step, job=job)
    _timed_step()


def _timed_step() -> float:
    seconds = seconds_of(_prepared["step"], _prepared["job"].device)
    if _prepared["job"].device == "cuda":
        torch.cuda.empty_cache()  # the other side runs on the same card
    return seconds


def _peak_gb() -> float:
    if _prepared["job"].device == "cuda":
        return torch.cuda.max_memory_allocated() / 1e9
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 / 1e9


def _matrix_rate() -> float:
    return matrix_rate(_prepared["job"].device, _prepared["job"].precision)


def print_measured(scale: float, width: int, device: str, threads: int, repeats: int) -> None:
    """Both crops, each in both precisions, with and without checkpointing: in turn for each crop."""
    print(f"\nmeasured on {device}, {threads} threads, {scale:g} of the edges")
    print(
        "| crop | precision | checkpointing | s a step | of plain | GB | of plain | GFLOP/s | of the matrix rate |"
    )
    print("|---|---|---|---|---|---|---|---|---|")
    for name, full in CROPS.items():
        z, y, x = (max(8, round(n * scale)) for n in full)
        jobs = [
            Job((z, y, x), precision, saving, width, device, threads)
            for precision in PRECISIONS
            for saving in (False, True)
        ]
        work = multiplications(Job((z, y, x), "float32", False, width, "cpu", 1))
        found = in_turn(jobs, repeats)
        for job, taken in zip(jobs, found, strict=True):
            plain = found[jobs.index(job) - job.checkpointing]
            rate = work / taken.seconds
            print(
                f"| {name}, {z} x {y} x {x} | {job.precision} | {_yes(job.checkpointing)} | {taken.seconds:.2f} "
                f"| {taken.seconds / plain.seconds:.2f} | {taken.gb:.2f} | {taken.gb / plain.gb:.2f} "
                f"| {rate / 1e9:.0f} | {rate / taken.matrix_rate:.2f} |",
                flush=True,
            )


def _yes(flag: bool) -> str:
    return "yes" if flag else "no"


def main() -> None:
    """Run the benchmark."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--device", choices=("cpu", "cuda"), default="cuda" if torch.cuda.is_available() else "cpu"
    )
    parser.add_argument("--scale", type=float, default=1.0, help="edges of the measured crops (default: 1)")
    parser.add_argument("--width", type=int, default=32, help="feature maps of the first block (default: 32)")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--repeats", type=int, default=3)
    arguments = parser.parse_args()
    print_counted(arguments.width)
    print_measured(arguments.scale, arguments.width, arguments.device, arguments.threads, arguments.repeats)
    print(
        f"\ngoals: checkpointing within {GOAL_GB:g} GB for zoom_out and at most {GOAL_TIME:g} times the time; "
        f"on a GPU at least {GOAL_RATE:.0%} of the matrix rate; {STEPS:,} steps are a whole training"
    )


if __name__ == "__main__":
    main()
