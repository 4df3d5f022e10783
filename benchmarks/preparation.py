"""Fingerprint, plan and preprocessing against nnU-Net, on the same data, in turn, in one run.

    python benchmarks/preparation.py --data RAW_FOLDER --nnunet PYTHON_OF_ITS_ENVIRONMENT [-d 11 12] [--runs 3]

nnU-Net (2.8.1 was used) lives in an environment of its own, given by its python. Both get two processes and the
3D full-resolution configuration. Prints the median of the runs, each side, and the ratio of paired runs.
"""

from __future__ import annotations

import argparse
import shutil
import statistics
import sys
import tempfile
from pathlib import Path

from measure import Measured, measure


def autoseg(dataset: str, data: Path, work: Path, processes: int) -> Measured:
    """One run of autoseg from raw files to the store."""
    target = work / "autoseg"
    shutil.rmtree(target, ignore_errors=True)
    tool = Path(sys.executable).parent / "autoseg_plan_and_preprocess"
    command = [str(tool), "-d", dataset, "-pl", "unet", "-np", str(processes)]
    return measure(command, {"autoseg_raw": str(data), "autoseg_preprocessed": str(target)})


def nnunet(dataset: str, data: Path, work: Path, processes: int, python: Path) -> Measured:
    """One run of nnU-Net from raw files to its preprocessed folder."""
    target = work / "nnunet"
    shutil.rmtree(target, ignore_errors=True)
    number = dataset.removeprefix("Dataset")[:3]
    n = str(processes)
    tool = str(python.parent / "nnUNetv2_plan_and_preprocess")
    command = [tool, "-d", number, "-c", "3d_fullres", "-npfp", n, "-np", n, "--no_pbar"]
    folders = {f"nnUNet_{kind}": str(target) for kind in ("preprocessed", "results")}
    return measure(command, {"nnUNet_raw": str(data), **folders})


def compare(dataset: str, arguments: argparse.Namespace, work: Path) -> str:
    """Both sides in turn; one row of the table."""
    ours, theirs = [], []
    for _ in range(arguments.runs):
        ours.append(autoseg(dataset, arguments.data, work, arguments.processes))
        theirs.append(nnunet(dataset, arguments.data, work, arguments.processes, arguments.nnunet))
    pairs = list(zip(ours, theirs, strict=True))
    cells = [dataset]
    for get in (lambda m: m.seconds, lambda m: m.tree_gb, lambda m: m.process_gb):
        ratio = statistics.median(get(a) / get(b) for a, b in pairs)
        a, b = (statistics.median(get(m) for m in side) for side in (ours, theirs))
        cells += [f"{a:.2f}", f"{b:.2f}", f"{ratio:.2f}"]
    return "| " + " | ".join(cells) + " |"


def main() -> None:
    """Run the benchmark."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--data", type=Path, required=True, help="folder of raw datasets")
    parser.add_argument("--nnunet", type=Path, required=True, help="python of an environment with nnU-Net")
    parser.add_argument("-d", dest="datasets", nargs="*", help="full names; default: all in the folder")
    parser.add_argument("-np", dest="processes", type=int, default=2)
    parser.add_argument("--runs", type=int, default=3)
    arguments = parser.parse_args()
    datasets = arguments.datasets or sorted(p.name for p in arguments.data.glob("Dataset*") if p.is_dir())
    print(
        "| dataset | autoseg s | nnU-Net s | ratio | autoseg GB | nnU-Net GB | ratio | "
        "autoseg GB, one process | nnU-Net GB, one process | ratio |"
    )
    print("|---|---|---|---|---|---|---|---|---|---|")
    with tempfile.TemporaryDirectory() as work:
        for dataset in datasets:
            print(compare(dataset, arguments, Path(work)), flush=True)


if __name__ == "__main__":
    main()
