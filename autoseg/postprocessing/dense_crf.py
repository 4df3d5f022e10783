"""A conditional random field in which every pair of voxels is connected (Krahenbuhl and Koltun 2011), in 3D.

Near voxels, and above all near voxels of like intensities, are drawn to the same class. With unary ``-log p``, Potts
labels and two Gaussian kernels the mean field is iterated::

    Q <- softmax(log p + sum_k w_k K_k Q),    K = D^-1/2 k D^-1/2,    D the row sums of k

Each voxel is its own neighbour too. The settings are those of DeepMedic's authors for their CRF, a program of its own;
Perez Malla et al. 2019 name it and report no result. Distances are in voxels, intensities are z-scored, cut at 3.1 and
mapped to whole numbers from 0 to 255.

Up to :data:`EXACT` voxels the kernels are computed as they stand. Beyond that the smoothing one is a separable filter,
and the one with intensities a permutohedral lattice, an approximation.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace

import numpy as np
from scipy import ndimage

from autoseg.errors import AutosegError
from autoseg.labels import LabelSet
from autoseg.plugins.parts import FitCase, Segmentation, StepPart
from autoseg.postprocessing.permutohedral import Permutohedral
from autoseg.postprocessing.threshold import counted_voxels, lesion_probability

EXACT = 2500
MOST_VOXELS = 2_000_000
"""For the lattice, which takes some 1.5 GB for a million voxels and three channels."""

CUT = 3.1
TRIED = (1.0, 3.0, 5.0, 10.0, 20.0, 30.0)
"""Weights of the kernel with intensities among which the best is looked for."""

Kernel = Callable[[np.ndarray], np.ndarray]
"""Values ``[n, k]`` to the normalised sums over all n."""

VoxelDistances = tuple[float, float, float]


def dense_crf(
    case: Segmentation,
    *,
    iterations: int = 2,
    smoothness_weight: float = 3.0,
    smoothness_voxels: VoxelDistances = (3.0, 3.0, 3.0),
    appearance_weight: float = 5.0,
    appearance_voxels: VoxelDistances = (10.0, 12.0, 17.0),
    intensity_deviation: tuple[float, ...] = (4.0,),
    channels: tuple[int, ...] = (),
    value: int = 1,
) -> Segmentation:
    """Lesion is where it is the likelier class of the random field; for one class beside the background.

    Args:
        case: with probabilities ``[2, z, y, x]`` and the image; only voxels inside the plan's mask take part.
        iterations: of the mean field.
        smoothness_weight, smoothness_voxels: of the kernel of places alone: weight, standard deviations along z, y, x.
        appearance_weight, appearance_voxels: of the kernel of places and intensities, which can be learned.
        intensity_deviation: of the intensities, 0 to 255: one number for all channels, or one for each.
        channels: indices of the channels whose intensities count; empty for all.
        value: of the lesion in the mask.

    Raises:
        AutosegError: another number of classes, or too many voxels.
    """
    weights = (smoothness_weight, appearance_weight)
    field = _Field(case, smoothness_voxels, appearance_voxels, intensity_deviation, channels)
    return replace(case, mask=np.where(field.lesion(weights, iterations), value, 0).astype(np.uint8))


def fit_dense_crf(
    cases: Iterable[FitCase],
    labels: LabelSet,
    *,
    iterations: int = 2,
    smoothness_weight: float = 3.0,
    smoothness_voxels: VoxelDistances = (3.0, 3.0, 3.0),
    appearance_voxels: VoxelDistances = (10.0, 12.0, 17.0),
    intensity_deviation: tuple[float, ...] = (4.0,),
    channels: tuple[int, ...] = (),
    value: int = 1,
) -> dict[str, float]:
    """The weight of the kernel with intensities, of :data:`TRIED`, with the best mean Dice; the least of equal ones."""
    scores = []
    for entry in cases:
        field = _Field(entry.case, smoothness_voxels, appearance_voxels, intensity_deviation, channels)
        counts = counted_voxels(entry, labels)
        truth = entry.truth[counts] == value
        found = [field.lesion((smoothness_weight, weight), iterations)[counts] for weight in TRIED]
        scores.append([_dice(mask, truth) for mask in found])
    return {"appearance_weight": TRIED[int(np.argmax(np.round(np.mean(scores, axis=0), 12)))]}


def _dice(found: np.ndarray, truth: np.ndarray) -> float:
    total = int(found.sum()) + int(truth.sum())
    return 2 * int((found & truth).sum()) / total if total else 1.0


class _Field:
    """One case with its two kernels, for several weights."""

    def __init__(
        self,
        case: Segmentation,
        smoothness_voxels: VoxelDistances,
        appearance_voxels: VoxelDistances,
        intensity_deviation: Sequence[float],
        channels: Sequence[int],
    ) -> None:
        lesion = lesion_probability(case, "dense_crf")
        self._inside = np.ones(lesion.shape, bool) if case.inside is None else case.inside
        if case.image is None:
            raise ValueError("dense_crf needs the image")
        image = case.image[list(channels)] if channels else case.image
        _refuse_many(int(self._inside.sum()))
        levels = intensity_levels(image, self._inside)
        shares = np.broadcast_to(np.asarray(intensity_deviation, float), len(levels))
        places = np.argwhere(self._inside)
        self._kernels = (
            place_kernel(self._inside, smoothness_voxels),
            kernel(np.hstack([places / np.array(appearance_voxels), levels[:, self._inside].T / shares])),
        )
        p = lesion[self._inside].astype(float)
        self._probabilities = np.stack([1 - p, p], 1)

    def lesion(self, weights: Sequence[float], iterations: int) -> np.ndarray:
        """bool ``[z, y, x]``: where the lesion is the likelier class."""
        found = np.zeros(self._inside.shape, bool)
        q = mean_field(self._probabilities, self._kernels, weights, iterations)
        found[self._inside] = q[:, 1] > q[:, 0]
        return found


def _refuse_many(voxels: int) -> None:
    if voxels > MOST_VOXELS:
        raise AutosegError(
            "the post-processing step 'dense_crf' has too many voxels for the memory",
            found=f"{voxels}",
            expected=f"at most {MOST_VOXELS}; a plan with a mask of the brain has fewer",
            fix="take the step out: postprocessing.dense_crf=off",
        )


def mean_field(
    probabilities: np.ndarray, kernels: Sequence[Kernel], weights: Sequence[float], iterations: int
) -> np.ndarray:
    """Q ``[n, k]`` after so many iterations from probabilities ``[n, k]``; see the module."""
    unary = np.log(np.clip(probabilities, 1e-8, 1))
    q = _softmax(unary)
    for _ in range(iterations):
        drawn = [weight * of(q) for weight, of in zip(weights, kernels, strict=True)]
        q = _softmax(unary + np.sum(drawn, axis=0))
    return q


def kernel(features: np.ndarray) -> Kernel:
    """The normalised Gaussian kernel of features ``[n, d]`` in standard deviations; exact where n is small."""
    if len(features) <= EXACT:
        return exact_kernel(features)
    return _normalised(Permutohedral(features).filter, len(features))


def place_kernel(inside: np.ndarray, deviations: VoxelDistances) -> Kernel:
    """The same of the places of a mask alone, deviations in voxels: a separable filter where n is large."""
    places = np.argwhere(inside)
    if len(places) <= EXACT:
        return exact_kernel(places / np.array(deviations))

    def smoothed(values: np.ndarray) -> np.ndarray:
        volume = np.zeros(inside.shape)
        columns = []
        for column in values.T:
            volume[inside] = column
            columns.append(ndimage.gaussian_filter(volume, deviations, mode="constant")[inside])
        return np.stack(columns, 1)

    return _normalised(smoothed, len(places))


def exact_kernel(features: np.ndarray) -> Kernel:
    """The normalised Gaussian kernel of features ``[n, d]`` in standard deviations, as it stands: n^2 numbers."""
    squares = (features**2).sum(1)
    distances = squares[:, None] + squares[None] - 2 * features @ features.T
    matrix = np.exp(-0.5 * np.maximum(distances, 0))
    return _normalised(matrix.__matmul__, len(features))


def _normalised(weighted_sums: Kernel, n: int) -> Kernel:
    """``D^-1/2 k D^-1/2``, in which a common factor of k has no part."""
    scale = np.maximum(weighted_sums(np.ones((n, 1))), 1e-20) ** -0.5
    return lambda values: scale * weighted_sums(scale * values)


def intensity_levels(image: np.ndarray, inside: np.ndarray) -> np.ndarray:
    """Raw ``[c, z, y, x]`` to whole numbers from 0 to 255: z-scored inside, cut at 3.1 on both sides."""
    levels = np.zeros(image.shape)
    for channel, level in zip(image, levels, strict=True):
        values = channel[inside].astype(float)
        z = (channel - values.mean()) / max(values.std(), 1e-12)
        level[...] = np.floor((np.clip(z, -CUT, CUT) + CUT) * 255 / (2 * CUT))
    return levels


def _softmax(values: np.ndarray) -> np.ndarray:
    lifted = np.exp(values - values.max(1, keepdims=True))
    return lifted / lifted.sum(1, keepdims=True)


STEPS = (
    StepPart(
        "dense_crf",
        dense_crf,
        needs=("probabilities", "image"),
        fit=fit_dense_crf,
        summary="a fully connected random field over places and intensities",
    ),
)
