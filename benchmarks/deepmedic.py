"""DeepMedic: a whole scan in dense chunks against the segments of the software, and segments a second in training.

    python benchmarks/deepmedic.py [--device cuda] [--scale 0.5] [--memory 8] [--batch 24] [--threads 1] [--repeats 2]

Counted at full size and from the code alone: multiplications (torch's FLOP counter) and the memory of live tensors
(live_memory.py, without workspace of convolutions). Measured on a scan whose edges are --scale of the published one:
both ways of predicting in turn, the least of the repetitions, on a CPU in seconds of the processor (of all threads),
which depend little on what else the machine does. Weights are fresh, the scan is noise.
"""

from __future__ import annotations

import argparse
import math
from typing import Any

import torch
from live_memory import LiveMemory
from rates import seconds_of
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from autoseg import networks
from autoseg.inference.tiling import extent, make_tiling, predict_logits
from autoseg.plan import Inference
from autoseg.planners._deepmedic_settings import CONTEXT, FAITHFUL_TILE, HALO, PATCH, chunk_for

SCAN = (86, 161, 161)
CHANNELS = 3
GOALS = {"cpu": 1.4, "cuda": 3.0}


def main() -> None:
    """Count, measure and print."""
    options = parse()
    torch.set_num_threads(options.threads)
    z, y, x = (max(1, round(n * options.scale)) for n in SCAN)
    ways = {"dense": dense(SCAN, options.memory), "segments": faithful()}
    for name, way in ways.items():
        tiling = make_tiling(SCAN, way)
        seen = [extent(tiling.around(tile)) for tile in tiling]
        counted, memory = sum(map(gmac, seen)), peak_gb(max(seen, key=math.prod))
        print(f"{name:9} {len(seen):4} tiles  {counted:7.1f} GMAC  {memory:.2f} GB")
    ways = {"dense": dense((z, y, x), options.memory), "segments": faithful()}
    measured = predictions((z, y, x), ways, options)
    print(f"a scan of {z} x {y} x {x} on {options.device}:")
    for name, seconds in measured.items():
        print(
            f"{name:9} {seconds:8.2f} s  {math.prod((z, y, x)) / seconds / 1e6:.3f} million voxels a second"
        )
    ratio = measured["segments"] / measured["dense"]
    print(f"dense is {ratio:.2f} times as fast (goal at full size: {GOALS[options.device]:g})")
    seconds = training(options)
    print(
        f"training: {seconds:.2f} s a batch of {options.batch}, {options.batch / seconds:.2f} segments a second"
    )


def parse() -> Any:
    """The options."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--device", default="cpu", choices=["cpu", "cuda"])
    parser.add_argument("--scale", type=float, default=0.5, help="edges of the measured scan (default: 0.5)")
    parser.add_argument(
        "--memory", type=float, default=8.0, help="GB that a dense chunk is planned for (default: 8)"
    )
    parser.add_argument("--batch", type=int, default=24)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--repeats", type=int, default=2)
    return parser.parse_args()


def dense(shape: tuple[int, int, int], memory_gb: float) -> Inference:
    """As the planner has it."""
    chunk = list(chunk_for(shape, memory_gb))
    return Inference(patch_size=chunk, context=[CONTEXT] * 3, tiles="chunks", halo=[HALO] * 3, mirror_axes=())


def faithful() -> Inference:
    """As the software has it, one segment at a time."""
    return Inference(patch_size=[FAITHFUL_TILE] * 3, context=[CONTEXT] * 3, tiles="flush", mirror_axes=())


def make(device: str) -> nn.Module:
    """The network with three maps."""
    with torch.device(device):
        return networks.build("deepmedic", in_channels=CHANNELS, out_channels=2)


def gmac(patch: tuple[int, ...]) -> float:
    """Multiplications of a forward pass, in 1e9."""
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        make("meta").eval()(around(patch, "meta"))
    return counter.get_total_flops() / 2e9


def peak_gb(patch: tuple[int, ...]) -> float:
    """Of a forward pass, in 1e9 bytes."""
    network, image = make("meta").eval(), around(patch, "meta")
    with torch.no_grad(), LiveMemory([image], [*network.parameters(), *network.buffers()]) as memory:
        network(image)
    return memory.peak * 4 / 1e9


def around(patch: tuple[int, ...], device: str, batch: int = 1) -> torch.Tensor:
    """What the network sees of so many voxels."""
    return torch.zeros(batch, CHANNELS, *(n + 2 * CONTEXT for n in patch), device=device)


def predictions(shape: tuple[int, int, int], ways: dict[str, Inference], options: Any) -> dict[str, float]:
    """Seconds of each way."""
    network, image = make(options.device), torch.randn(CHANNELS, *shape)
    found = dict.fromkeys(ways, math.inf)
    for _ in range(options.repeats):
        for name, way in ways.items():
            run = lambda way=way: predict_logits(network, image, way, 2, options.device, mirror=False)  # noqa: E731
            found[name] = min(found[name], seconds_of(run, options.device))
    return found


def training(options: Any) -> float:
    """Seconds of a forward and backward pass, without the optimiser."""
    network = make(options.device).train()
    image = around((PATCH,) * 3, options.device, options.batch).normal_()
    run = lambda: network(image).square().mean().backward()  # noqa: E731
    return min(seconds_of(run, options.device) for _ in range(options.repeats))


if __name__ == "__main__":
    main()
