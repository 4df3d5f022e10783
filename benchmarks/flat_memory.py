"""Peak memory of fingerprint, plan and preprocessing with 12 and with 120 cases: it must not grow.

python benchmarks/flat_memory.py [--kind dwi] [--scale 0.5]
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from pathlib import Path

from measure import measure


def main() -> None:
    """Run the benchmark."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--kind", default="dwi")
    parser.add_argument("--scale", default="0.5")
    arguments = parser.parse_args()
    tools = Path(sys.executable).parent
    print("| cases | s | GB, all processes | GB, largest process |")
    print("|---|---|---|---|")
    with tempfile.TemporaryDirectory() as work:
        for n in (12, 120):
            folders = {"autoseg_raw": f"{work}/raw{n}", "autoseg_preprocessed": f"{work}/preprocessed{n}"}
            make = [
                str(tools / "autoseg_make_phantom"),
                arguments.kind,
                "-n",
                str(n),
                "--scale",
                arguments.scale,
            ]
            measure([*make, "-o", folders["autoseg_raw"], "-id", "900"], folders)
            plan = [str(tools / "autoseg_plan_and_preprocess"), "-d", "900", "-pl", "unet", "-np", "2"]
            found = measure(plan, folders)
            print(f"| {n} | {found.seconds:.1f} | {found.tree_gb:.3f} | {found.process_gb:.3f} |", flush=True)


if __name__ == "__main__":
    main()
