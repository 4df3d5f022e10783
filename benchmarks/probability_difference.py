"""How much two predictions of the same cases differ, such as the dense and the faithful one of DeepMedic.

    autoseg_predict -i SCANS -o dense -m MODEL --save_probabilities --set postprocessing=[]
    autoseg_predict -i SCANS -o faithful -m MODEL --save_probabilities --set postprocessing=[] \\
        'inference={"patch_size": [29, 29, 29], "context": [24, 24, 24], "tiles": "flush", "mirror_axes": []}'
    python benchmarks/probability_difference.py dense faithful

For each case: voxels whose likelier class differs, of those that are lesion in either; the largest and the mean
difference of probabilities where either is above 0.01. They are kept with 16 bits, so
that differences below 0.0005 do not count.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np

SEEN = 0.01


def main() -> None:
    """Compare and print."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("one", type=Path, help="folder with CASE.npz")
    parser.add_argument("other", type=Path, help="another with the same cases")
    options = parser.parse_args()
    names = sorted({path.stem for path in options.one.glob("*.npz")})
    missing = [name for name in names if not (options.other / f"{name}.npz").exists()]
    if missing or not names:
        parser.error(
            f"no CASE.npz of {', '.join(missing[:5]) or 'any case'}: predict with --save_probabilities"
        )
    print(f"{'case':24} {'differing':>10} {'of lesion':>10} {'share':>8} {'largest':>8} {'mean':>8}")
    found = [
        difference(*(_read(folder / f"{name}.npz") for folder in (options.one, options.other)))
        for name in names
    ]
    for name, (differing, lesion, largest, mean) in zip(names, found, strict=True):
        share = differing / max(lesion, 1)
        print(f"{name:24} {differing:10} {lesion:10} {share:8.2%} {largest:8.4f} {mean:8.4f}")
    differing, lesion = (sum(row[i] for row in found) for i in (0, 1))
    print(
        f"{'all':24} {differing:10} {lesion:10} {differing / max(lesion, 1):8.2%} {max(r[2] for r in found):8.4f}"
    )


def difference(one: np.ndarray, other: np.ndarray) -> tuple[int, int, float, float]:
    """Voxels of another class, voxels that are lesion in either, the largest and the mean difference.

    Args:
        one, other: probabilities ``[class, z, y, x]``, the background first.
    """
    first, second = one.argmax(axis=0), other.argmax(axis=0)
    apart = np.abs(one.astype(np.float32) - other.astype(np.float32)).max(axis=0)
    seen = np.maximum(1 - one[0].astype(np.float32), 1 - other[0].astype(np.float32)) > SEEN
    mean = float(apart[seen].mean()) if seen.any() else 0.0
    return int((first != second).sum()), int(((first > 0) | (second > 0)).sum()), float(apart.max()), mean


def _read(path: Path) -> np.ndarray:
    with np.load(path) as saved:
        return saved["probabilities"]


if __name__ == "__main__":
    main()
