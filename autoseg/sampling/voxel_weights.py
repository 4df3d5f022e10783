"""How likely the voxels of a case are to be in the middle of a patch, each among those of its kind.

A map is an array ``[z, y, x]`` of weights on the working grid; foreground and background have their own shares of it.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np

from autoseg.errors import AutosegError
from autoseg.files import atomic_path
from autoseg.labels import OUTSIDE


def error_weights(probability: np.ndarray, truth: np.ndarray) -> np.ndarray:
    """Weights by the squared errors of a prediction (error maps of Perez Malla et al. 2019, section E2).

    The study normalises the errors of a case to mean 0 and deviation 1. Such a map is negative in places, and with two
    classes the maps of both are the same. Here the least value inside the mask is taken off, and every kind of voxels
    has its own share of the map.

    Args:
        probability: of the foreground, ``[z, y, x]``.
        truth: above 0 in the foreground, -1 outside the mask.

    Returns:
        float32, 0 outside the mask; 0 throughout where no voxel is worse than another.
    """
    inside = truth != OUTSIDE
    weights = np.zeros(truth.shape, np.float32)
    errors = np.square((truth[inside] > 0) - probability[inside].astype(np.float64))
    deviation = errors.std() if errors.size else 0.0
    if deviation > 0:
        weights[inside] = (errors - errors.min()) / deviation
    return weights


def refuse_bad_weights(weights: np.ndarray, case: str, where: Path) -> None:
    """Weights that no voxel could be drawn by.

    Raises:
        AutosegError: one is negative or no number, or all are 0.
    """
    finite = np.isfinite(weights)
    least = float(weights[finite].min()) if finite.any() else 0.0
    if finite.all() and least >= 0 and weights.any():
        return
    wrong = (
        "no number in some voxels"
        if not finite.all()
        else f"{least:g} in some voxel"
        if least < 0
        else "0 throughout"
    )
    raise AutosegError(
        f"the weight map of case {case} cannot be drawn by",
        where=str(where),
        found=wrong,
        expected="weights of 0 and more, some of them above 0",
        fix="correct the map, or leave the maps out: --set sampling.weights=null",
    )


def summed(weights: np.ndarray | None, voxels: np.ndarray) -> np.ndarray | None:
    """Running sums of the weights of some voxels, to draw one of them by; None where all are alike.

    Args:
        weights: ``[z, y, x]``, or None.
        voxels: indices into the flattened array.
    """
    if weights is None or not len(voxels):
        return None
    sums = np.cumsum(np.asarray(weights).ravel()[voxels], dtype=np.float64)
    return sums if sums[-1] > 0 else None


def draw(rng: np.random.Generator, n: int, sums: np.ndarray | None) -> int:
    """One of n, by the running sums of their weights; all alike without any."""
    if sums is None:
        return int(rng.integers(n))
    return min(int(np.searchsorted(sums, rng.random() * sums[-1], side="right")), n - 1)


# ---------------------------------------------------------------------------------------------------- the files


def write_weights(folder: Path, case: str, weights: np.ndarray) -> None:
    """Keep the map of a case."""
    folder.mkdir(parents=True, exist_ok=True)
    with atomic_path(folder / f"{case}.npz") as temporary:
        np.savez_compressed(temporary, weights=weights.astype(np.float32))


def read_weights(folder: Path, case: str) -> np.ndarray:
    """The map of a case, float32 ``[z, y, x]``.

    Raises:
        AutosegError: there is none, or it is damaged.
    """
    path = folder / f"{case}.npz"
    try:
        with np.load(path, allow_pickle=False) as saved:
            return saved["weights"]
    except Exception as error:
        raise AutosegError(
            f"the weight map of case {case} is missing or damaged",
            where=str(path),
            found=f"{type(error).__name__}: {error}",
            fix="remove its folder; the training makes it again",
        ) from None
