"""One training step and one prediction of RatLesNetv2, against the network written down without any trick.

python benchmarks/ratlesnetv2.py [--device cuda] [--size 18 256 256] [--repeats 3]

Both have the same weights; their outputs are compared. Memory is given twice: counted (live_memory.py, float32
elements per voxel, V being the number of voxels) and measured (largest size of the process, on CUDA of the allocated
memory). On CUDA also images per second in float32 and bfloat16, and how many voxels of the masks differ, after training
on one made image. The goals are shares of the published network's figures, which holds more than the plain one here
(778 V in training, 307 V in prediction).
"""

from __future__ import annotations

import argparse
import contextlib
import math
import multiprocessing
import resource
import statistics
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from live_memory import LiveMemory
from torch import nn

from autoseg import networks
from autoseg.labels import LabelSet
from autoseg.training import losses

LABELS = LabelSet.from_labels({"background": 0, "lesion": 1})
PUBLISHED_PEAK = 917_341_760  # float32 elements of the published network, training on 18 x 256 x 256
GOALS = {"training": 0.70 * PUBLISHED_PEAK / (18 * 256 * 256), "prediction": 192.0}  # per voxel
TRAINING_STEPS = 200  # before masks are compared
SIDES: dict[str, Callable[[], nn.Module]] = {
    "plain": lambda: Plain(32),
    "autoseg": lambda: networks.build("ratlesnetv2", in_channels=1, out_channels=2),
    "autoseg, checkpointing": lambda: networks.build(
        "ratlesnetv2", in_channels=1, out_channels=2, checkpointing=True
    ),
}


class Plain(nn.Module):
    """The network as its description reads, width w, three levels."""

    def __init__(self, w: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv3d(1, w, 1)
        self.block1, self.block2, self.block3 = PlainBlock(w), PlainBlock(w), PlainBlock(w)
        self.bottleneck1, self.block4 = PlainSqueeze(w, w), PlainBlock(2 * w)
        self.bottleneck2, self.block5 = PlainSqueeze(2 * w, w), PlainBlock(2 * w)
        self.bottleneck3, self.block6 = PlainSqueeze(2 * w, w), PlainBlock(2 * w)
        self.bottleneck4 = PlainSqueeze(2 * w, 2)

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        """Logits of the size of the image."""
        skip0 = self.block1(self.conv1(image))
        skip1 = self.block2(F.max_pool3d(skip0, 2, ceil_mode=True))
        skip2 = self.block3(F.max_pool3d(skip1, 2, ceil_mode=True))
        bottom = F.max_pool3d(skip2, 2, ceil_mode=True)
        x = F.interpolate(self.bottleneck1(bottom), skip2.shape[2:], mode="trilinear")
        x = self.block4(torch.cat([x, skip2], 1))
        x = F.interpolate(self.bottleneck2(x), skip1.shape[2:], mode="trilinear")
        x = self.block5(torch.cat([x, skip1], 1))
        x = F.interpolate(self.bottleneck3(x), skip0.shape[2:], mode="trilinear")
        x = self.block6(torch.cat([x, skip0], 1))
        return self.bottleneck4(x)


class PlainBlock(nn.Module):
    """Residual block of :class:`Plain`."""

    def __init__(self, c: int) -> None:
        super().__init__()
        half = lambda: (nn.ReLU(), nn.BatchNorm3d(c), nn.Conv3d(c, c, 3, padding=1))  # noqa: E731
        self.seq = nn.Sequential(*half(), *half())

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """``x + f(x)``."""
        return x + self.seq(x)


class PlainSqueeze(nn.Module):
    """Change of channels of :class:`Plain`."""

    def __init__(self, c: int, k: int) -> None:
        super().__init__()
        self.seq = nn.Sequential(nn.ReLU(), nn.BatchNorm3d(c), nn.Conv3d(c, k, 1))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Other channels."""
        return self.seq(x)


@dataclass(frozen=True)
class Job:
    """What is run: a side of the comparison, "training" or "prediction", where, how precisely."""

    side: str
    kind: str
    size: tuple[int, ...]
    device: str
    precision: str = "float32"


@dataclass(frozen=True)
class Taken:
    """Median seconds of one run, and GB at most."""

    seconds: float
    gb: float


class Worker:
    """A job in a process of its own, so that its peak memory is its own; it waits between its runs."""

    def __init__(self, job: Job) -> None:
        self._pool = ProcessPoolExecutor(1, mp_context=multiprocessing.get_context("spawn"))
        self._pool.submit(_prepare, job).result()
        self.seconds: list[float] = []

    def run(self) -> None:
        """Once more."""
        self.seconds.append(self._pool.submit(_run).result())

    def finish(self) -> Taken:
        """What it took."""
        gb = self._pool.submit(_peak_gb).result()
        self._pool.shutdown()
        return Taken(statistics.median(self.seconds), gb)


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
    image, label = made_image(job.size, job.device)
    step = _step(made_network(job.side, job.device), job, image, label)
    _prepared.update(step=step, device=job.device)
    _run()


def _run() -> float:
    """Seconds of one run."""
    _wait(_prepared["device"])
    started = time.perf_counter()
    _prepared["step"]()
    _wait(_prepared["device"])
    return time.perf_counter() - started


def _peak_gb() -> float:
    if _prepared["device"] == "cuda":
        return torch.cuda.max_memory_allocated() / 1e9
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 / 1e9


def made_image(size: Sequence[int], device: str) -> tuple[torch.Tensor, torch.Tensor]:
    """A noisy image with a bright ellipsoid off the centre, and the ellipsoid as label."""
    axes = [torch.linspace(-1, 1, n, device=device) for n in size]
    z, y, x = torch.meshgrid(*axes, indexing="ij")
    label = (z**2 / 0.4 + (y - 0.1) ** 2 / 0.1 + (x - 0.35) ** 2 / 0.08 < 1).long()
    noise = torch.rand(*size, generator=torch.Generator().manual_seed(0)).to(device)
    image = label + 0.5 * noise + (z**2 + y**2 + x**2 < 1)
    return ((image - image.mean()) / image.std())[None, None], label[None]


def made_network(side: str, device: str) -> nn.Module:
    """One side, with the same weights whichever it is."""
    torch.manual_seed(0)
    weights = SIDES["autoseg"]().state_dict()
    network = SIDES[side]()
    network.load_state_dict(weights)
    return network.to(device)


def counted(side: str, kind: str, size: Sequence[int]) -> float:
    """Peak of live float32 elements per voxel."""
    with torch.device("meta"):
        network, loss = SIDES[side](), losses.build("ratlesnetv2", labels=LABELS)
        image, label = torch.zeros(1, 1, *size), torch.zeros(1, *size, dtype=torch.uint8)
    network.train(kind == "training")
    free = [*network.parameters(), *network.buffers(), *loss.buffers()]
    with LiveMemory([image], free) as memory:
        if kind == "training":
            loss(network(image), label).backward()
        else:
            with torch.no_grad():
                network(image)
    return memory.peak / math.prod(size)


def _step(network: nn.Module, job: Job, image: torch.Tensor, label: torch.Tensor) -> Callable[[], object]:
    """What is timed."""
    autocast = _autocast(job.device, job.precision)
    if job.kind == "prediction":
        network.eval()
        return lambda: _predict(network, image, autocast)
    network.train()
    loss = losses.build("ratlesnetv2", labels=LABELS).to(job.device)
    optimiser = torch.optim.Adam(network.parameters(), lr=1e-4)

    def train() -> None:
        optimiser.zero_grad(set_to_none=True)
        with autocast():
            logits = network(image)
        loss(logits, label).backward()
        optimiser.step()

    return train


@torch.no_grad()
def _predict(
    network: nn.Module, image: torch.Tensor, autocast: Callable[[], contextlib.AbstractContextManager]
) -> torch.Tensor:
    with autocast():
        return network(image)


def _autocast(device: str, precision: str) -> Callable[[], contextlib.AbstractContextManager]:
    if precision == "float32":
        return contextlib.nullcontext
    return lambda: torch.autocast(device, getattr(torch, precision))


def _wait(device: str) -> None:
    if device == "cuda":
        torch.cuda.synchronize()


def compare(size: tuple[int, ...], device: str, repeats: int) -> None:
    """Both sides, training and prediction, in a table."""
    print("| what | side | counted, V | share of goal | s | share of plain | GB | share of plain |")
    print("|---|---|---|---|---|---|---|---|")
    for kind, goal in GOALS.items():
        sides = [side for side in SIDES if kind == "training" or "checkpointing" not in side]
        taken = in_turn([Job(side, kind, size, device) for side in sides], repeats)
        for side, found in zip(sides, taken, strict=True):
            elements = counted(side, kind, size)
            print(
                f"| {kind} | {side} | {elements:.1f} | {elements / goal:.2f} of {goal:.0f} "
                f"| {found.seconds:.2f} | {found.seconds / taken[0].seconds:.2f} "
                f"| {found.gb:.2f} | {found.gb / taken[0].gb:.2f} |",
                flush=True,
            )


def largest_difference(size: Sequence[int], device: str) -> float:
    """Between the logits of both sides."""
    image, _ = made_image(size, device)
    results = [
        _predict(made_network(s, device).eval(), image, contextlib.nullcontext) for s in ("plain", "autoseg")
    ]
    return float((results[0] - results[1]).abs().max())


def precisions(size: tuple[int, ...], repeats: int) -> None:
    """Images per second on CUDA in both precisions, and the share of voxels whose mask differs."""
    print("\n| what | precision | images per s | ratio | GB |")
    print("|---|---|---|---|---|")
    for kind in GOALS:
        jobs = [Job("autoseg", kind, size, "cuda", precision) for precision in ("float32", "bfloat16")]
        taken = in_turn(jobs, repeats)
        for job, found in zip(jobs, taken, strict=True):
            rate, ratio = 1 / found.seconds, taken[0].seconds / found.seconds
            print(f"| {kind} | {job.precision} | {rate:.2f} | {ratio:.2f} | {found.gb:.2f} |")
    share, lesion = differing_voxels(size, "cuda")
    print(
        f"\nvoxels whose mask differs between the precisions: {share:.4%} (goal: under 0.1 %); lesion: {lesion:.2%}"
    )


def differing_voxels(size: tuple[int, ...], device: str) -> tuple[float, float]:
    """Share of voxels whose mask differs in bfloat16, and of lesion voxels, after some training."""
    image, label = made_image(size, device)
    network = made_network("autoseg", device)
    train = _step(network, Job("autoseg", "training", size, device), image, label)
    for _ in range(TRAINING_STEPS):
        train()
    network.eval()
    masks = [_predict(network, image, _autocast(device, p)).argmax(1) for p in ("float32", "bfloat16")]
    return float((masks[0] != masks[1]).float().mean()), float(masks[0].float().mean())


def main() -> None:
    """Run the benchmark."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--size", type=int, nargs=3, default=(18, 256, 256), metavar="N")
    parser.add_argument("--repeats", type=int, default=3)
    arguments = parser.parse_args()
    size = tuple(arguments.size)
    print(f"largest difference of logits: {largest_difference(size, arguments.device):.1e}")
    compare(size, arguments.device, arguments.repeats)
    if arguments.device == "cuda":
        precisions(size, arguments.repeats)


if __name__ == "__main__":
    main()
