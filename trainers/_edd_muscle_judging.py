"""The second look at small components: candidates, their patches, and what MUSCLE Net's judgement makes of them.

Chen, Bentley and Rueckert 2017 (doi 10.1016/j.nicl.2017.06.016). EDD Net gives each pixel a lesion probability p. Of
the components of p > 0.5 in each slice the small ones are candidates; MUSCLE Net, which sees the image and p around a
candidate, gives the probability q that it is real. Bayes' rule fuses both. The paper prints neither the formula nor
the threshold or the windows; what is chosen here says so.

Arrays are ``[z, y, x]``, images ``[c, z, y, x]``; n counts candidates.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from autoseg.components import connected_components
from autoseg.errors import AutosegError, nearest_names

HALF = 0.5
"""A pixel is lesion where its probability is above this."""
LARGEST_PX = 60
"""Candidates are at most this large; 99 % of the false components of the paper's validation cases were."""


@dataclass(frozen=True)
class Candidates:
    """The small components of a thresholded probability map.

    Attributes:
        labels: the candidate of each pixel ``[z, y, x]`` from 1 on, 0 outside.
        sizes_px: pixels of each candidate ``[n]``.
        centres: z, y, x of each centroid, rounded (halves up), ``[n, 3]``; it need not lie in the candidate.
        pixels: z, y, x of all pixels of candidates, three arrays ``[m]`` in the order of the volume: an index.
    """

    labels: np.ndarray
    sizes_px: np.ndarray
    centres: np.ndarray
    pixels: tuple[np.ndarray, ...]

    def __len__(self) -> int:
        return len(self.sizes_px)


def find_candidates(
    probability: np.ndarray, threshold: float = 0.5, largest_px: int = LARGEST_PX, connectivity: int = 8
) -> Candidates:
    """The components of each slice of ``probability > threshold``.

    Args:
        probability: of lesion ``[z, y, x]``.
        threshold, connectivity: not in the paper, whose sizes are in pixels; 4 is the other connectivity.
        largest_px: the size of the largest candidate.
    """
    mask = probability > threshold
    components, sizes = connected_components(mask, connectivity)
    small = sizes <= largest_px
    n = int(np.count_nonzero(small))
    number = np.zeros(len(sizes) + 1, components.dtype)
    number[1:][small] = np.arange(1, n + 1)
    # few pixels are above the threshold: whole volumes are gone through as seldom as possible
    found = np.unravel_index(np.flatnonzero(mask), mask.shape)
    own = number[components[found]]
    is_small = own > 0
    pixels, own = tuple(axis[is_small] for axis in found), own[is_small]
    labels = np.zeros(mask.shape, components.dtype)
    labels[pixels] = own
    sums = [np.bincount(own - 1, axis, n) for axis in pixels]
    centres = np.floor(np.stack(sums, 1) / sizes[small, None] + 0.5).astype(np.int64)
    return Candidates(labels, sizes[small], centres, pixels)


def real(candidates: Candidates, truth: np.ndarray) -> np.ndarray:
    """Which candidates share a pixel with the truth, boolean ``[n]``: what MUSCLE Net learns.

    Args:
        truth: boolean ``[z, y, x]``.
    """
    found = np.zeros(len(candidates) + 1, bool)
    found[candidates.labels[np.asarray(truth, bool)]] = True
    return found[1:]


# ------------------------------------------------------------------------------------------------------- patches


def cut_patches(
    image: np.ndarray,
    probability: np.ndarray,
    centres: np.ndarray,
    *,
    image_windows_px: Sequence[int] = (16, 32, 64),
    probability_windows_px: Sequence[int] = (16,),
    size_px: int = 16,
) -> np.ndarray:
    """What MUSCLE Net sees of each candidate: windows of several sides around a pixel, brought to one size.

    The pixel is the first after the middle of each window. A window is averaged down in blocks. Beyond the image lies
    its least value, or probability 0. The paper has several scales but does not name them; 64 is EDD Net's
    receptive field.

    Args:
        image: ``[c, z, y, x]``.
        probability: ``[z, y, x]``.
        centres: z, y, x ``[n, 3]``.
        image_windows_px, probability_windows_px: sides of the windows, even multiples of ``size_px`` or itself.
        size_px: side of the patches, even.

    Returns:
        float32 ``[n, channels, size_px, size_px]``: each image channel in the first window, in the second, ...,
        then the probability; 4 channels by default for one image channel, 6 with probability windows like the image's.

    Raises:
        AutosegError: a window that is no multiple of the patch, or an odd one.
    """
    wrong = [side for side in (*image_windows_px, *probability_windows_px) if side % size_px or side % 2]
    if wrong or size_px < 1:
        raise AutosegError(
            "the windows around candidates do not fit",
            found=f"sides of {', '.join(map(str, wrong))} px for patches of {size_px} px",
            expected="even multiples of the patch",
            fix="correct the windows in the plan",
        )
    of_image = [
        _windows(channel, centres, image_windows_px, size_px, float(channel.min())) for channel in image
    ]
    channels = [windows for side in zip(*of_image, strict=True) for windows in side]
    channels += _windows(probability, centres, probability_windows_px, size_px, 0.0)
    return np.stack(channels, 1).astype(np.float32, copy=False)


def _windows(
    volume: np.ndarray, centres: np.ndarray, sides: Sequence[int], size: int, outside: float
) -> list[np.ndarray]:
    """Windows of ``volume`` around centres, averaged down to ``size``: ``[n, size, size]`` for each side."""
    z, y, x = centres.T
    slices, place = np.unique(z, return_inverse=True)
    margin = max(sides, default=0) // 2
    padded = np.pad(volume[slices], ((0, 0), (margin, margin), (margin, margin)), constant_values=outside)
    found = []
    for side in sides:
        views = np.lib.stride_tricks.sliding_window_view(padded, (side, side), axis=(1, 2))
        first, block = margin - side // 2, side // size
        windows = views[place, y + first, x + first]
        found.append(windows.reshape(len(centres), size, block, size, block).mean((2, 4)))
    return found


# -------------------------------------------------------------------------------------------------------- fusion


def correct_prior(q: np.ndarray, positives: int, negatives: int) -> np.ndarray:
    """Judgements of a network that learned from equally many real and false candidates, for their true shares.

    The odds ``q / (1 - q)`` are multiplied by ``positives / negatives``.

    Args:
        q: probabilities that candidates are real.
        positives, negatives: how many real and false candidates the training part has.

    Raises:
        AutosegError: there is none of one kind.
    """
    if positives < 1 or negatives < 1:
        raise AutosegError(
            "the judgements cannot be corrected for the share of real candidates",
            found=f"{positives} real and {negatives} false candidates in the training part",
            expected="at least one of each",
            fix="go on without the second network",
        )
    return q * positives / (q * positives + (1 - q) * negatives)


def by_component(p: np.ndarray, q: np.ndarray, peak: np.ndarray, prior: float) -> np.ndarray:
    """``q``: given that the candidate is real, all of its pixels are lesion, as EDD Net has found them.

    MUSCLE Net judges whether, EDD Net says where: a candidate of q > 0.5 keeps its pixels and another vanishes. Pixels
    with p <= 0.5, which a lower threshold for candidates lets in, never become more likely.
    """
    return np.where(p > HALF, q, np.minimum(p, q))


def by_peak(p: np.ndarray, q: np.ndarray, peak: np.ndarray, prior: float) -> np.ndarray:
    """``q p / peak``: Bayes' rule where the candidate is real whenever one of its pixels is lesion.

    Given that it is real, MUSCLE Net adds nothing about which pixels are lesion. The probability, by EDD Net alone,
    that it is real lies between ``peak`` and 1; this takes the least. The largest fused value is q, so a candidate
    vanishes exactly when q <= 0.5; of one that stays only pixels with p > peak / (2 q) do.
    """
    return q * (p / peak)


def by_product(p: np.ndarray, q: np.ndarray, peak: np.ndarray, prior: float) -> np.ndarray:
    """``p q``: the same with 1 in the place of ``peak``; it makes real lesions smaller."""
    return p * q


def by_odds(p: np.ndarray, q: np.ndarray, peak: np.ndarray, prior: float) -> np.ndarray:
    """Both as independent evidence: ``a / (a + b)``, ``a = p q / prior``, ``b = (1 - p) (1 - q) / (1 - prior)``.

    They are not independent, since MUSCLE Net sees p. Where one is surely 0 and the other surely 1 it is 0.5.
    """
    a, b = p * q / prior, (1 - p) * (1 - q) / (1 - prior)
    return np.divide(a, a + b, out=np.full(np.shape(a), 0.5), where=a + b > 0)


RULES: dict[str, Callable[[np.ndarray, np.ndarray, np.ndarray, float], np.ndarray]] = {
    "component": by_component,
    "peak": by_peak,
    "product": by_product,
    "odds": by_odds,
}
"""Fusions of p (pixel), q (candidate), the largest p of the candidate and the share of lesion; none is printed."""


def fuse(
    probability: np.ndarray, candidates: Candidates, q: np.ndarray, rule: str = "peak", prior: float = 0.5
) -> np.ndarray:
    """The fused probability of each pixel of a candidate, in the order of ``candidates.pixels``, float64 ``[m]``.

    Args:
        probability: p ``[z, y, x]``, from which the candidates are.
        q: probability that each is real ``[n]``, see :func:`correct_prior`.
        rule: one of :data:`RULES`.
        prior: share of lesion pixels, for "odds" alone.

    Raises:
        AutosegError: another rule, a prior that is not between 0 and 1, or another number of judgements.
    """
    if rule not in RULES:
        raise AutosegError(
            f"there is no fusion '{rule}' of the two networks",
            expected=" or ".join(RULES),
            fix=nearest_names(rule, RULES),
        )
    if len(q) != len(candidates) or not 0 < prior < 1:
        raise AutosegError(
            "the judgements of candidates cannot be fused",
            found=f"{len(q)} judgements of {len(candidates)} candidates, prior {prior}",
            expected="one judgement for each, and a prior above 0 and below 1",
        )
    which = candidates.labels[candidates.pixels] - 1
    p = probability[candidates.pixels].astype(np.float64)
    peaks = np.zeros(len(candidates))
    np.maximum.at(peaks, which, p)
    return RULES[rule](p, np.asarray(q, np.float64)[which], peaks[which], prior)
