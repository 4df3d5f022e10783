"""What the checksums of the store and of checkpoints cost, as a share of an epoch; both sides in one run.

    python benchmarks/checksums.py [--kind t1] [-n 6] [--scale 0.5] [--epoch_seconds 30]

Phantoms are made and planned for the general U-Net. Reading: patches of every case through a cache that keeps none,
from records with and without checksums, each in processes of their own (a file is verified once in each process).
Checkpoints: writing and reading the network of the plan with its optimiser, with and without. Both are CPU time,
the least of the runs. The epoch: iterations of the network on this device, or what ``--epoch_seconds`` says, such as
that of a fast card.
"""

from __future__ import annotations

import argparse
import contextlib
import io
import json
import os
import shutil
import statistics
import tempfile
import time
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path
from unittest import mock

import numpy as np

PATCHES = 20


def without_checksums(store: Path, copy: Path) -> Path:
    """The store as an earlier autoseg would have left it."""
    shutil.copytree(store, copy)
    for path in copy.glob("*.json"):
        content = json.loads(path.read_text())
        del content["checksum"]
        for part in content["arrays"].values():
            del part["checksum"]
        path.write_text(json.dumps(content))
    return copy


def read_patches(folder: Path, patch: tuple[int, ...], channels: int) -> tuple[float, float]:
    """Seconds for the first patch of every case, and for one of the later ones on average."""
    import blosc2  # noqa: F401  (not timed)

    from autoseg.preprocessing.store import Store
    from autoseg.sampling.case_cache import CaseCache

    random, store = np.random.default_rng(0), Store(folder)
    cache = CaseCache(store, [(1,)], channels, limit_gb=0)
    seconds = []
    for _ in range(1 + PATCHES):
        started = time.process_time()
        for name in store.names():
            image, label = cache.arrays(name)
            at = [int(random.integers(0, max(1, n - p + 1))) for n, p in zip(label.shape, patch, strict=True)]
            box = tuple(slice(a, a + p) for a, p in zip(at, patch, strict=True))
            image[(slice(None), *box)], label[box]
        seconds.append(time.process_time() - started)
    return seconds[0], statistics.mean(seconds[1:]) / len(store.names())


def in_a_process(*arguments: object) -> tuple[float, float]:
    """:func:`read_patches` in a process that has verified nothing yet."""
    with ProcessPoolExecutor(1, get_context("spawn")) as pool:
        return pool.submit(read_patches, *arguments).result()


def timed(function: Callable[[], object], clock: Callable[[], float] = time.process_time) -> float:
    """Seconds that a call takes."""
    started = clock()
    function()
    return clock() - started


def checkpoints(plan_path: Path, work: Path, runs: int) -> tuple[float, float, float, float]:
    """Seconds for writing and reading with and without checksum, GB of the file, seconds of an epoch on this device."""
    import torch

    from autoseg.bundle.networks import build_network
    from autoseg.files import read_model
    from autoseg.plan import Plan
    from autoseg.training import checkpoint

    plan = read_model(plan_path, Plan)
    stage = plan.recipe.stages[0]
    network = build_network(plan, "main").module
    optimiser = torch.optim.SGD(network.parameters(), 1e-5, momentum=0.99)
    patches = torch.randn(stage.batch_size, plan.in_channels, *stage.patch_size)

    def step() -> None:
        found = network(patches)
        loss = sum(one.square().mean() for one in (found if isinstance(found, (list, tuple)) else [found]))
        loss.backward()
        optimiser.step()
        optimiser.zero_grad()

    step()
    epoch = timed(step, time.perf_counter) * (stage.iterations_per_epoch or 250)
    state = checkpoint.Checkpoint(checkpoint.Position(), "", network.state_dict(), optimiser.state_dict())
    path, sides = work / "checkpoint.safetensors", ([], [])

    def both() -> None:
        checkpoint.save(path, state)
        checkpoint.load(path)

    for _ in range(runs):
        sides[0].append(timed(both))
        with mock.patch.object(checkpoint, "_checksum", return_value=""):
            sides[1].append(timed(both))
    return *(min(side) for side in sides), path.stat().st_size / 1e9, epoch


def main() -> None:
    """Run the benchmark."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--kind", default="t1")
    parser.add_argument("-n", default="6")
    parser.add_argument("--scale", default="0.5")
    parser.add_argument("--epoch_seconds", type=float)
    parser.add_argument("--runs", type=int, default=5)
    arguments = parser.parse_args()
    from autoseg.cli import make_phantom, plan_and_preprocess
    from autoseg.files import read_model
    from autoseg.plan import Plan

    with tempfile.TemporaryDirectory() as folder:
        work = Path(folder)
        os.environ |= {f"autoseg_{kind}": str(work / kind) for kind in ("raw", "preprocessed", "results")}
        with contextlib.redirect_stdout(io.StringIO()):
            make_phantom.main([arguments.kind, "-n", arguments.n, "--scale", arguments.scale, "-id", "900"])
            plan_and_preprocess.main(["-d", "900", "-pl", "unet"])
        plan_path = next(work.glob("preprocessed/*/unet/plan.json"))
        plan, store = read_model(plan_path, Plan), plan_path.parent / "store"
        bare = without_checksums(store, work / "bare" / "store")
        patch = tuple(plan.recipe.stages[0].patch_size)
        sides = [(in_a_process(store, patch, plan.in_channels), in_a_process(bare, patch, plan.in_channels))
                 for _ in range(arguments.runs)]  # fmt: skip
        (first, later), (bare_first, bare_later) = (
            [min(one[side][i] for one in sides) for i in (0, 1)] for side in (0, 1)
        )
        gb = sum(path.stat().st_size for path in store.glob("*.b2nd")) / 1e9
        with_sum, without, checkpoint_gb, here = checkpoints(plan_path, work, arguments.runs)
    epoch = arguments.epoch_seconds or here
    stage = plan.recipe.stages[0]
    n_patches = (stage.iterations_per_epoch or 250) * stage.batch_size
    print(
        f"store of {gb:.3f} GB: first patches {first:.4f} s, without {bare_first:.4f} s, once in a process;"
    )
    print(f"a later patch {later * 1e3:.3f} ms, without {bare_later * 1e3:.3f} ms; {n_patches} in an epoch")
    print(
        f"checkpoint of {checkpoint_gb:.3f} GB, written and read: {with_sum:.3f} s, without {without:.3f} s"
    )
    print(f"an epoch: {epoch:.0f} s{'' if arguments.epoch_seconds else ' on this device'}")
    every = max(0.0, with_sum - without) + max(0.0, later - bare_later) * n_patches
    print(
        f"share of the first epoch {(first - bare_first + every) / epoch:.2%}, of each later one {every / epoch:.2%}"
    )


if __name__ == "__main__":
    main()
