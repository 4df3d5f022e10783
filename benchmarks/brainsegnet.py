"""Brain SegNet: operations, the rate of training and prediction, a whole scan through the commands, waiting for data.

    python benchmarks/brainsegnet.py [--device cuda] [--scale 0.5] [--width 32] [--refine_width 128] [--threads 1]

Counted at full size are the multiply-adds of a prediction (64.17, 195.29 and 1773.60 GMAC with the published widths).
Measured, on sizes whose edges are --scale of the published ones, are the operations a second of a training step and of
a prediction, as a share of what a product of two large matrices reaches in the same precision. Then three phantoms of
tumours with four contrasts (155 x 240 x 240 voxels times --scale, raw intensities) are planned and trained on for some
iterations, which says how long the training waits for data, and a fourth is predicted through autoseg_predict's own
functions: from its files to its mask, against the network alone on the same voxels in memory.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import statistics
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import SimpleITK as sitk
import torch
from measure import measure
from rates import matrix_rate, seconds_of
from torch import nn
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.utils.flop_counter import FlopCounterMode

from autoseg import networks
from autoseg.dataset.images_to_predict import list_images
from autoseg.device import autocast, choose_device, lower_precision
from autoseg.inference.folder import predict_cases
from autoseg.inference.predictor import Predictor
from autoseg.labels import LabelSet
from autoseg.planners._brainsegnet_settings import REFINE_WIDTH, WIDTH
from autoseg.training import losses

NAME = "Dataset915_PhantomTumour"
CHANNELS = ("FLAIR", "T1", "T1c", "T2")
LABELS = {"background": 0, "necrosis": 1, "oedema": 2, "non_enhancing": 3, "enhancing": 4}
SCAN = (155, 240, 240)
PRECISIONS = ("float32", "bfloat16")
GOAL_RATE, GOAL_SCAN, GOAL_WAIT = 0.4, 1.5, 0.05


@dataclass(frozen=True)
class Size:
    """What is counted and measured: image channels, classes, voxels z, y, x, and the published count in GMAC."""

    channels: int
    classes: int
    voxels: tuple[int, int, int]
    gmac: float


SIZES = (
    Size(6, 2, (7, 96, 96), 64.165183488),
    Size(4, 5, (12, 128, 128), 195.28679424),
    Size(4, 5, (31, 240, 240), 1773.600768),
)


def make(size: Size, options: argparse.Namespace) -> nn.Module:
    """The network, freshly initialised."""
    torch.manual_seed(0)
    widths = {"width": options.width, "refine_width": options.refine_width}
    return networks.build("brainsegnet", in_channels=size.channels, out_channels=size.classes, **widths)


def gmac(size: Size, options: argparse.Namespace) -> float:
    """Multiply-adds of a prediction, 1e9, from the code alone."""
    with FakeTensorMode(), torch.no_grad(), FlopCounterMode(display=False) as counter:
        make(size, options).eval()(torch.zeros(1, size.channels, *size.voxels))
    return counter.get_total_flops() / 2e9


# -------------------------------------------------------------------------------------------------------- counted


def print_counted(options: argparse.Namespace) -> None:
    """All sizes in full, with the published widths and with those that are measured."""
    as_published = argparse.Namespace(width=WIDTH, refine_width=REFINE_WIDTH)
    print(
        "| voxels | channels | classes | GMAC | published | GMAC with these widths |\n|---|---|---|---|---|---|"
    )
    for size in SIZES:
        counts = [gmac(size, as_published), size.gmac, gmac(size, options)]
        row = [_times(size.voxels), size.channels, size.classes, *(f"{count:.2f}" for count in counts)]
        print("| " + " | ".join(map(str, row)) + " |", flush=True)


def _times(voxels: Sequence[int]) -> str:
    return " x ".join(map(str, voxels))


# ----------------------------------------------------------------------------------------------------------- rates


def scaled(size: Size, scale: float) -> Size:
    """The same with edges of this share, and its count."""
    z, y, x = (max(8, round(n * scale)) for n in size.voxels)
    return Size(size.channels, size.classes, (min(z, size.voxels[0]), y, x), size.gmac)


def print_rates(options: argparse.Namespace) -> None:
    """A training step on two sub-volumes, and a prediction; each in both precisions."""
    print(f"\n{options.device}, {options.threads} threads, {options.scale:g} of the edges")
    print(
        "| what | voxels | precision | s | GFLOP/s | of the matrix rate | goal |\n|---|---|---|---|---|---|---|"
    )
    best = dict.fromkeys(
        PRECISIONS, 0.0
    )  # of the whole run: other work on the machine makes single ones too small
    for full in SIZES:
        size = scaled(full, options.scale)
        work = 2e9 * gmac(size, options)
        whole = full is SIZES[-1]
        for precision in PRECISIONS:
            taken = (
                time_prediction(size, precision, options) if whole else time_step(size, precision, options)
            )
            rate = (work if whole else 6 * work) / taken  # forward, and twice as much backward, of two
            best[precision] = max(
                best[precision], *(matrix_rate(options.device, precision) for _ in range(3))
            )
            share = rate / best[precision]
            goal = f"{GOAL_RATE:.0%} on a GPU" if precision == "bfloat16" else ""
            what = "prediction" if whole else "training, batch 2"
            row = (
                what,
                _times(size.voxels),
                precision,
                f"{taken:.2f}",
                f"{rate / 1e9:.0f}",
                f"{share:.2f}",
                goal,
            )
            print("| " + " | ".join(row) + " |", flush=True)


def in_precision(precision: str, device: str) -> contextlib.AbstractContextManager[object]:
    """As autoseg runs a network."""
    return autocast(torch.device(device), torch.bfloat16 if precision == "bfloat16" else None)


def time_step(size: Size, precision: str, options: argparse.Namespace) -> float:
    """Seconds of a step on two sub-volumes with the focal loss and Adam; the least of the repetitions."""
    network = make(size, options).train().to(options.device)
    labels = LabelSet.from_labels({"background": 0, **{f"l{i}": i for i in range(1, size.classes)}})
    loss = losses.build("brainsegnet", labels=labels)
    loss = loss.to(options.device) if isinstance(loss, nn.Module) else loss
    optimiser = torch.optim.Adam(network.parameters(), lr=1e-4)
    image = torch.rand(2, size.channels, *size.voxels, device=options.device)
    target = torch.randint(size.classes, (2, *size.voxels), device=options.device, dtype=torch.int16)

    def step() -> None:
        optimiser.zero_grad(set_to_none=True)
        with in_precision(precision, options.device):
            logits = network(image)
        loss(logits, target).backward()
        optimiser.step()

    return min(seconds_of(step, options.device) for _ in range(options.repeats + 1))


def time_prediction(size: Size, precision: str, options: argparse.Namespace) -> float:
    """Seconds of one pass; the least of the repetitions."""
    network = make(size, options).eval().to(options.device)
    image = torch.rand(1, size.channels, *size.voxels, device=options.device)
    with torch.inference_mode(), in_precision(precision, options.device):
        return min(seconds_of(lambda: network(image), options.device) for _ in range(options.repeats + 1))


# ------------------------------------------------------------------------------------------------ phantoms, commands


def write_phantoms(raw: Path, scale: float) -> None:
    """Three cases to train on and one to predict: a head of smooth tissue, in it a tumour of four shells."""
    folder = raw / NAME
    shape = tuple(max(16, round(n * scale)) for n in SCAN)
    for number in range(4):
        part = "Tr" if number < 3 else "Ts"
        image, label = phantom(number, shape)
        for channel, values in enumerate(image):
            write(folder / f"images{part}" / f"tumour_{number}_{channel:04}.nii.gz", values)
        if part == "Tr":
            write(folder / f"labels{part}" / f"tumour_{number}.nii.gz", label)
    info = {
        "channel_names": {str(i): name for i, name in enumerate(CHANNELS)},
        "labels": LABELS,
        "numTraining": 3,
        "file_ending": ".nii.gz",
    }
    (folder / "dataset.json").write_text(json.dumps(info))


def phantom(seed: int, shape: tuple[int, ...]) -> tuple[np.ndarray, np.ndarray]:
    """Raw intensities ``[4, z, y, x]`` (int16, 0 outside the head) and labels ``[z, y, x]``."""
    rng = np.random.default_rng(seed)
    grid = np.meshgrid(*(np.linspace(-1, 1, n, dtype=np.float32) for n in shape), indexing="ij")
    head = sum(axis**2 for axis in grid) < 0.8
    distance = np.sqrt(sum((axis - c) ** 2 for axis, c in zip(grid, rng.uniform(-0.3, 0.3, 3), strict=True)))
    label = np.select([distance < 0.08, distance < 0.14, distance < 0.18, distance < 0.3], [1, 4, 3, 2], 0)
    image = np.empty((len(CHANNELS), *shape), np.int16)
    for channel in range(len(CHANNELS)):
        level = rng.uniform(200, 500, 5)[label] + rng.normal(0, 25, shape).astype(np.float32)
        image[channel] = np.where(head, level, 0)
    return image, label.astype(np.uint8)


def write(path: Path, array: np.ndarray) -> None:
    """One volume with voxels of 1 mm."""
    path.parent.mkdir(parents=True, exist_ok=True)
    sitk.WriteImage(sitk.GetImageFromArray(array), str(path))


def run_commands(work: Path, options: argparse.Namespace) -> tuple[Path, float]:
    """Plan and train; the model's folder, and the share of the second epoch's time without a batch."""
    environment = {f"autoseg_{kind}": str(work / kind) for kind in ("raw", "preprocessed", "results")}
    environment["OMP_NUM_THREADS"] = str(options.threads)
    bin_folder = Path(sys.executable).parent
    widths = [f"planner.width={options.width}", f"planner.refine_width={options.refine_width}"]
    widths.append("planner.curriculum=off")  # one stage, of which every sample is augmented
    plan = [str(bin_folder / "autoseg_plan_and_preprocess"), "-d", NAME, "-pl", "brainsegnet", "-np", "1"]
    measure([*plan, "-gpu_memory_target", str(options.memory_gb), "--set", *widths], environment)
    short = ["epochs=2", "batch_size=2", f"iterations_per_epoch={options.iterations}", "validation.cases=0"]
    command = [str(bin_folder / "autoseg_train"), NAME, "0", "-p", "brainsegnet", "-device", options.device]
    measure([*command, "--set", *short], environment)
    model = work / "results" / NAME / "brainsegnet__brainsegnet"
    log = (model / "fold_0" / "log.jsonl").read_text().splitlines()
    return model, float(json.loads(log[-1])["wait_share"])


def time_scan(work: Path, model: Path, precision: str, options: argparse.Namespace) -> tuple[float, float]:
    """Seconds of a scan from its files to its mask, and of the network alone; medians of the repetitions in turn."""
    predictor = Predictor(model, device=options.device, overrides={"precision": precision})
    cases = list_images(work / "raw" / NAME / "imagesTs", predictor.model.info)
    scan = predictor.read(cases[0])
    image = torch.from_numpy(predictor.preprocess(cases[0].name, scan.image, scan.geometry).image)[None]
    network, image = predictor._network.module, image.to(predictor.device)

    def alone() -> None:
        with torch.inference_mode(), autocast(predictor.device, lower_precision(predictor.device, precision)):
            network(image)

    def all_of_it() -> None:
        predict_cases(predictor, cases, work / "masks" / precision, overwrite=True)

    alone()
    pairs = [
        (seconds_of(all_of_it, options.device), seconds_of(alone, options.device))
        for _ in range(options.repeats)
    ]
    whole, pure = zip(*pairs, strict=True)
    return statistics.median(whole), statistics.median(pure)


def print_commands(work: Path, options: argparse.Namespace) -> None:
    """Training and prediction through the commands."""
    write_phantoms(work / "raw", options.scale)
    model, waits = run_commands(work, options)
    print(f"\ntraining, every sample augmented, waits for data: {waits:.1%}; goal under {GOAL_WAIT:.0%}")
    voxels = _times([max(16, round(n * options.scale)) for n in SCAN])
    print(
        f"\n| scan of {voxels} | s from files to mask | s of the network alone | ratio | goal |\n|---|---|---|---|---|"
    )
    for precision in PRECISIONS:
        whole, pure = time_scan(work, model, precision, options)
        print(f"| {precision} | {whole:.2f} | {pure:.2f} | {whole / pure:.2f} | {GOAL_SCAN:g} |", flush=True)


def main() -> None:
    """Run the benchmark."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--device", help="cuda or cpu (default: cuda if there is one)")
    parser.add_argument("--scale", type=float, default=1.0, help="edges of what is measured (default: 1)")
    parser.add_argument("--width", type=int, default=32)
    parser.add_argument("--refine_width", type=int, default=128)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--iterations", type=int, default=8, help="of an epoch in training (default: 8)")
    parser.add_argument("--memory_gb", type=float, default=8.0, help="what the plan may take (default: 8)")
    options = parser.parse_args()
    options.device = choose_device(options.device).type
    torch.set_num_threads(options.threads)
    os.environ["OMP_NUM_THREADS"] = str(options.threads)
    print_counted(options)
    print_rates(options)
    with tempfile.TemporaryDirectory() as work:
        print_commands(Path(work), options)


if __name__ == "__main__":
    main()
