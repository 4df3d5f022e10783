"""How long `--help` takes: every command of autoseg, and nnU-Net's training command, in turn, in one run.

python benchmarks/startup.py --nnunet PYTHON_OF_ITS_ENVIRONMENT [--runs 5]
"""

from __future__ import annotations

import argparse
import statistics
import subprocess
import sys
import time
from pathlib import Path


def seconds(command: Path, option: str) -> float:
    """Wall time of one call."""
    started = time.perf_counter()
    subprocess.run([str(command), option], check=True, capture_output=True)
    return time.perf_counter() - started


def main() -> None:
    """Run the benchmark."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--nnunet", type=Path, required=True, help="python of an environment with nnU-Net")
    parser.add_argument("--runs", type=int, default=5)
    arguments = parser.parse_args()
    ours = sorted(Path(sys.executable).parent.glob("autoseg_*"))
    theirs = arguments.nnunet.parent / "nnUNetv2_train"
    times: dict[str, list[float]] = {}
    for run in range(arguments.runs + 1):  # the first fills the file cache and is not counted
        for command, option in [*((c, "--help") for c in ours), (theirs, "-h")]:
            taken = seconds(command, option)
            if run:
                times.setdefault(command.name, []).append(taken)
    reference = statistics.median(times[theirs.name])
    print("| command | median s | max s | share of nnU-Net's |")
    print("|---|---|---|---|")
    for name, values in times.items():
        median = statistics.median(values)
        print(f"| {name} | {median:.2f} | {max(values):.2f} | {median / reference:.2f} |")


if __name__ == "__main__":
    main()
