"""Scoring folders of masks against nnU-Net, and single metrics against MONAI, in turn, in one run.

    python benchmarks/evaluation.py --peers PYTHON [--cases 20] [--runs 3]

PYTHON is that of an environment with nnU-Net (2.8.1 was used) and MONAI (1.6.1). Masks are synthetic: ellipsoids of
0.05 to 80 ml in volumes of 197 x 233 x 189 voxels of 1 mm, the size of ATLAS, a prediction being its truth moved by
up to 3 mm and grown or shrunk. Prints medians of the runs and the ratios of paired runs.
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
from measure import Measured, measure

SHAPE = (189, 233, 197)  # z, y, x
SPACING_MM = (1.0, 1.0, 1.0)
LABELS = {"channel_names": {"0": "T1"}, "labels": {"background": 0, "lesion": 1}, "file_ending": ".nii.gz"}


def make_masks(folder: Path, n: int) -> None:
    """Truths, predictions and dataset.json; the same masks as arrays for the single metrics."""
    import SimpleITK as sitk

    rng = np.random.default_rng(0)
    for kind in ("truth", "prediction", "arrays"):
        (folder / kind).mkdir()
    for i in range(n):
        truth, prediction = make_case(rng)
        for kind, mask in (("truth", truth), ("prediction", prediction)):
            sitk.WriteImage(
                sitk.GetImageFromArray(mask.astype(np.uint8)), folder / kind / f"case_{i:03}.nii.gz"
            )
        np.savez_compressed(folder / "arrays" / f"{i:03}.npz", truth=truth, prediction=prediction)
    (folder / "dataset.json").write_text(json.dumps({**LABELS, "numTraining": n}))


def make_case(rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """Truth and prediction: one large lesion and a few small ones."""
    truth, prediction = (np.zeros(SHAPE, bool) for _ in range(2))
    volumes = [
        np.exp(rng.uniform(np.log(50), np.log(80_000))),
        *np.exp(rng.uniform(2, 7, rng.integers(0, 5))),
    ]
    for volume in volumes:
        radius = (volume * 3 / 4 / np.pi) ** (1 / 3) * np.exp(rng.normal(0, 0.2, 3))
        centre = rng.uniform(0.25, 0.75, 3) * SHAPE
        paint(truth, centre, radius)
        if rng.random() < 0.9:
            paint(prediction, centre + rng.uniform(-3, 3, 3), radius * rng.uniform(0.8, 1.2))
    return truth, prediction


def paint(mask: np.ndarray, centre: np.ndarray, radius: np.ndarray) -> None:
    """Add an ellipsoid."""
    low = np.maximum(np.floor(centre - radius).astype(int), 0)
    high = np.minimum(np.ceil(centre + radius).astype(int) + 1, mask.shape)
    box = tuple(slice(a, b) for a, b in zip(low, high, strict=True))
    grid = np.ogrid[box]
    inside = sum(((g - c) / r) ** 2 for g, c, r in zip(grid, centre, radius, strict=True)) <= 1
    mask[box] |= inside


# --------------------------------------------------------------------------------------------------- whole folders


def autoseg(folder: Path, out: Path, processes: int, *extra: str) -> Measured:
    """One run of autoseg_evaluate."""
    tool = Path(sys.executable).parent / "autoseg_evaluate"
    command = [str(tool), "-p", str(folder / "prediction"), "-g", str(folder / "truth"), "-o", str(out)]
    return measure([*command, "-djfile", str(folder / "dataset.json"), "-np", str(processes), *extra], {})


def nnunet(folder: Path, out: Path, processes: int, python: Path) -> Measured:
    """One run of nnU-Net's evaluation: Dice, IoU and counts."""
    tool = str(python.parent / "nnUNetv2_evaluate_simple")
    command = [tool, str(folder / "truth"), str(folder / "prediction"), "-l", "1", "-np", str(processes)]
    unused = {f"nnUNet_{kind}": str(out) for kind in ("raw", "preprocessed", "results")}
    return measure([*command, "-o", str(out / "nnunet.json")], unused)


def compare_folders(folder: Path, out: Path, arguments: argparse.Namespace) -> list[str]:
    """Rows: what autoseg computes, seconds and memory of both, ratios."""
    ways: dict[str, tuple[str, ...]] = {
        "default preset, no distances": ("--without", "distance", "surface"),
        "default preset": (),
        "all metrics, no distances": ("--preset", "full", "--without", "distance", "surface"),
        "all metrics": ("--preset", "full"),
    }
    measured: dict[str, list[Measured]] = {name: [] for name in [*ways, "nnU-Net"]}
    for _ in range(arguments.runs):
        for name, extra in ways.items():
            measured[name].append(autoseg(folder, out, arguments.processes, *extra))
        measured["nnU-Net"].append(nnunet(folder, out, arguments.processes, arguments.peers))
    rows = []
    for name, runs in measured.items():
        cells = [name]
        for get in (lambda m: m.seconds, lambda m: m.tree_gb):
            pairs = zip(runs, measured["nnU-Net"], strict=True)
            ratio = statistics.median(get(a) / get(b) for a, b in pairs)
            cells += [f"{statistics.median(get(m) for m in runs):.2f}", f"{ratio:.2f}"]
        rows.append("| " + " | ".join(cells) + " |")
    return rows


def flat_memory(folder: Path, out: Path, processes: int) -> list[str]:
    """The same masks under ten and under fifty times as many names."""
    rows = []
    for times in (10, 50):
        many = folder.parent / f"times{times}"
        for kind in ("truth", "prediction"):
            (many / kind).mkdir(parents=True)
            for path in sorted((folder / kind).iterdir()):
                for copy in range(times):
                    (many / kind / f"copy{copy}_{path.name}").symlink_to(path)
        (many / "dataset.json").symlink_to(folder / "dataset.json")
        found = autoseg(many, out, processes, "--without", "distance", "surface")
        n = len(list((many / "truth").iterdir()))
        rows.append(f"| {n} | {found.seconds:.1f} | {found.tree_gb:.3f} | {found.process_gb:.3f} |")
    return rows


# -------------------------------------------------------------------------------------------------- single metrics

METRICS = ("hd95", "all of MONAI's")


def time_metrics(
    folder: Path, calls: dict[str, Callable[[np.ndarray, np.ndarray], float]]
) -> dict[str, list[float]]:
    """Seconds of each metric for each case, and the sum of its values under ``NAME value``."""
    import time

    found: dict[str, list[float]] = {}
    for path in sorted((folder / "arrays").iterdir()):
        masks = np.load(path)
        truth, prediction = masks["truth"], masks["prediction"]
        for name, call in calls.items():
            started = time.perf_counter()
            value = call(prediction, truth)
            found.setdefault(name, []).append(time.perf_counter() - started)
            found.setdefault(f"{name} value", []).append(float(value))
    return found


def ours() -> dict[str, Callable[[np.ndarray, np.ndarray], float]]:
    """The same quantities by autoseg."""
    from autoseg.evaluation.metrics.catalogue import METRICS as TABLE
    from autoseg.evaluation.metrics.catalogue import hd95_mm, score
    from autoseg.evaluation.metrics.pair import Pair

    names = ("dice", "iou", "tpr", "tnr", "ppv", "hd95_mm", "hausdorff_mm", "assd_mm", "nsd_1mm")
    rows = [TABLE[name] for name in names]
    return {
        METRICS[0]: lambda p, t: hd95_mm(p, t, SPACING_MM),
        METRICS[1]: lambda p, t: score(Pair(p, t, SPACING_MM), rows)["hd95_mm"],
    }


def monai() -> dict[str, Callable[[np.ndarray, np.ndarray], float]]:
    """Runs in the peers' environment."""
    import torch
    from monai import metrics

    def tensors(*masks: np.ndarray) -> list[torch.Tensor]:
        return [torch.from_numpy(mask)[None, None] for mask in masks]

    def hd95(prediction: np.ndarray, truth: np.ndarray) -> float:
        p, t = tensors(prediction, truth)
        return float(
            metrics.compute_hausdorff_distance(
                p, t, include_background=True, percentile=95, spacing=SPACING_MM
            )
        )

    def everything(prediction: np.ndarray, truth: np.ndarray) -> float:
        p, t = tensors(prediction, truth)
        metrics.compute_dice(p, t)
        metrics.compute_iou(p, t)
        metrics.get_confusion_matrix(p, t)
        metrics.compute_hausdorff_distance(p, t, include_background=True, spacing=SPACING_MM)
        metrics.compute_average_surface_distance(
            p, t, include_background=True, symmetric=True, spacing=SPACING_MM
        )
        metrics.compute_surface_dice(p, t, [1.0], include_background=True, spacing=SPACING_MM)
        return hd95(prediction, truth)

    return {METRICS[0]: hd95, METRICS[1]: everything}


def in_environment(python: Path, side: str, folder: Path) -> dict[str, list[float]]:
    """Time one side's metrics in its own interpreter, on one thread."""
    command = [str(python), __file__, "--time", side, "--folder", str(folder)]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    return json.loads(done.stdout.splitlines()[-1])


def compare_metrics(folder: Path, peers: Path, runs: int) -> list[str]:
    """Rows: metric, median seconds of a case on both sides, how many times faster."""
    sides: dict[str, list[dict[str, list[float]]]] = {"ours": [], "monai": []}
    for _ in range(runs):
        sides["ours"].append(in_environment(Path(sys.executable), "ours", folder))
        sides["monai"].append(in_environment(peers, "monai", folder))
    rows = []
    for name in METRICS:
        a, b = ([statistics.median(run[name]) for run in sides[side]] for side in ("ours", "monai"))
        ratio = statistics.median(y / x for x, y in zip(a, b, strict=True))
        rows.append(f"| {name} | {statistics.median(a):.4f} | {statistics.median(b):.4f} | {ratio:.1f} |")
    values = [np.array(sides[side][0]["hd95 value"]) for side in ("ours", "monai")]
    difference = np.nanmax(np.abs(values[0] - values[1]))
    rows.append(f"\nLargest difference of HD95 between the two: {difference:.3g} mm.")
    return rows


def main() -> None:
    """Run the benchmark."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--peers", type=Path, help="python of an environment with nnU-Net and MONAI")
    parser.add_argument("--cases", type=int, default=20)
    parser.add_argument("-np", dest="processes", type=int, default=2)
    parser.add_argument("--runs", type=int, default=3)
    parser.add_argument("--time", choices=("ours", "monai"), help=argparse.SUPPRESS)
    parser.add_argument("--folder", type=Path, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.time:
        print(json.dumps(time_metrics(arguments.folder, {"ours": ours, "monai": monai}[arguments.time]())))
        return
    if arguments.peers is None:
        parser.error("--peers is needed")
    with tempfile.TemporaryDirectory() as work:
        folder, out = Path(work) / "masks", Path(work) / "out"
        folder.mkdir()
        out.mkdir()
        make_masks(folder, arguments.cases)
        print(f"{arguments.cases} cases, {arguments.processes} processes\n")
        print("| what | s | of nnU-Net's | GB | of nnU-Net's |\n|---|---|---|---|---|")
        print("\n".join(compare_folders(folder, out, arguments)), flush=True)
        print("\n| metric | autoseg s | MONAI s | times faster |\n|---|---|---|---|")
        print("\n".join(compare_metrics(folder, arguments.peers, arguments.runs)), flush=True)
        print("\n| cases | s | GB, all processes | GB, largest process |\n|---|---|---|---|")
        print("\n".join(flat_memory(folder, out, arguments.processes)), flush=True)


if __name__ == "__main__":
    main()
