"""The permutohedral lattice (Adams, Baek, Davis 2010): sums of many values weighted by a Gaussian of their features.

``sum_j exp(-|f_i - f_j|^2 / 2) v_j`` takes n^2 steps when it is computed as it stands. Here each value is spread over
the d + 1 corners of the simplex of a lattice that its feature lies in, the lattice is blurred along its d + 1
directions, and the corners are read again: about n d^2 steps. The result is off by a factor that is the same for all,
and by some percent more.
"""

from __future__ import annotations

import numpy as np
from scipy import sparse


class Permutohedral:
    """The lattice for some features; filtering many values costs little once it is made.

    Args:
        features: ``[n, d]``, in units of the Gaussian's standard deviation.
    """

    def __init__(self, features: np.ndarray) -> None:
        n, d = features.shape
        corners, weights = simplices(features.astype(np.float64))
        codes, index = np.unique(_coded(corners.reshape(-1, d + 1)), return_inverse=True)
        rows = np.repeat(np.arange(n), d + 1)
        shape = (n, len(codes))
        self._slice = sparse.csr_matrix((weights.ravel(), (rows, index.ravel())), shape=shape)
        self._splat = self._slice.T.tocsr()
        self._neighbours = _neighbours(corners.reshape(-1, d + 1), codes)

    def filter(self, values: np.ndarray) -> np.ndarray:
        """The weighted sums of ``[n, k]``, for each feature."""
        lattice = np.vstack(
            [self._splat @ values, np.zeros((1, values.shape[1]))]
        )  # the last row is what is missing
        for before, after in self._neighbours:
            lattice[:-1] += 0.5 * (lattice[before] + lattice[after])
        return self._slice @ lattice[:-1]


def simplices(features: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The lattice points around each feature and their weights.

    Args:
        features: ``[n, d]``.

    Returns:
        Points ``[n, d + 1, d + 1]`` (corner, coordinate; coordinates sum up to 0) and weights ``[n, d + 1]``, which sum
        up to 1.
    """
    n, d = features.shape
    elevated = _elevated(features)
    nearest = np.rint(elevated / (d + 1)).astype(np.int64) * (
        d + 1
    )  # with remainder 0, perhaps off the plane
    excess = nearest.sum(1) // (d + 1)
    order = np.argsort(nearest - elevated, axis=1, kind="stable")
    rank = np.empty_like(order)
    np.put_along_axis(rank, order, np.broadcast_to(np.arange(d + 1), order.shape), axis=1)
    rank += excess[:, None]
    below, above = rank < 0, rank > d
    nearest += (d + 1) * (below.astype(np.int64) - above)
    rank += (d + 1) * (below.astype(np.int64) - above)
    share = (elevated - nearest) / (d + 1)
    weights = np.zeros((n, d + 2))
    np.put_along_axis(weights, d - rank, share, axis=1)
    moved = np.zeros((n, d + 2))
    np.put_along_axis(moved, d + 1 - rank, share, axis=1)
    weights -= moved
    weights[:, 0] += 1 + weights[:, d + 1]
    corner = np.arange(d + 1)
    steps = np.where(rank[:, None, :] <= d - corner[:, None], corner[:, None], corner[:, None] - (d + 1))
    return nearest[:, None, :] + steps, weights[:, : d + 1]


def _elevated(features: np.ndarray) -> np.ndarray:
    """Onto the plane of d + 1 coordinates with sum 0, scaled so that the blur has standard deviation 1."""
    d = features.shape[1]
    axes = np.arange(1, d + 1)
    scaled = features * (np.sqrt(2 / 3) * (d + 1) / np.sqrt(axes * (axes + 1)))
    after = np.cumsum(scaled[:, ::-1], axis=1)[:, ::-1]  # sum over this axis and those behind it
    elevated = np.empty((len(features), d + 1))
    elevated[:, 0] = after[:, 0]
    elevated[:, 1:] = -axes * scaled
    elevated[:, 1:-1] += after[:, 1:]
    return elevated


def _coded(points: np.ndarray) -> np.ndarray:
    """One number for each lattice point ``[m, d + 1]``, the same for equal ones; neighbours are at fixed distances."""
    return points[:, :-1] @ _places(points)


def _places(points: np.ndarray) -> np.ndarray:
    """By how much a coordinate counts in a number; with room for neighbours on both sides."""
    d = points.shape[1] - 1
    span = np.ptp(points[:, :-1], axis=0).astype(float) + 2 * (d + 2)
    if np.prod(span) >= 2**62:
        raise ValueError("the features are spread too widely for a lattice")
    return np.concatenate([[1], np.cumprod(span[:-1])]).astype(np.int64)


def _neighbours(points: np.ndarray, codes: np.ndarray) -> list[tuple[np.ndarray, np.ndarray]]:
    """For each of the d + 1 directions where the points before and after each one stand in ``codes``; at the end of
    them where they are not in the lattice."""
    d, places = points.shape[1] - 1, _places(points)
    found = []
    for direction in range(d + 1):
        step = np.ones(d + 1, np.int64)
        step[direction] -= d + 1
        moved = int(step[:-1] @ places)
        found.append((_where(codes, codes - moved), _where(codes, codes + moved)))
    return found


def _where(codes: np.ndarray, wanted: np.ndarray) -> np.ndarray:
    """The index of each number in the sorted ``codes``; their length where it is not there."""
    at = np.minimum(np.searchsorted(codes, wanted), len(codes) - 1)
    return np.where(codes[at] == wanted, at, len(codes))
