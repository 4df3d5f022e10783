"""Numbers about lists of scores: intervals of a mean, paired tests, agreement of volumes, Dice against volume.

All functions take one value for each case; ``nan`` is an undefined score and is left out. scipy is imported where it
is used: importing ``scipy.stats`` costs half a second.
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import lru_cache
from statistics import NormalDist
from typing import Literal

import numpy as np
from numpy.typing import ArrayLike

IntervalMethod = Literal["percentile", "bca", "normal", "t"]

RESAMPLES = 2000
PERMUTATIONS = 10_000
CONFIDENCE = 0.95
SEED = 12345

FEW_CASES = 10
"""Below this number of cases, bootstrap intervals are clearly too narrow."""

FEWEST_ON_LINE = 5
"""Cases that an R2 needs: of numbers that have nothing to do with each other it is 1 / (n - 1) on average."""

FEWEST_IN_GROUP = 5
"""Cases that a group needs in :func:`kruskal_wallis`, whose p-value is of many cases; scipy's rule too."""

NAN_INTERVAL = (np.nan, np.nan)
SD_95 = 1.96
"""Standard deviations either side of the mean that hold 95 % of a normal distribution, as papers round it."""

_BLOCK = 1 << 20  # numbers held at once while resampling
_TINY = 1e-12  # differences below this, relative to the scores, are rounding


# ------------------------------------------------------------------------------------------------------- intervals


def mean_interval(
    values: ArrayLike,
    *,
    method: IntervalMethod = "percentile",
    confidence: float = CONFIDENCE,
    resamples: int = RESAMPLES,
    seed: int = SEED,
) -> tuple[float, float]:
    """Confidence interval of the mean over cases.

    Args:
        values: one for each case; ``nan`` is left out.
        method: ``percentile`` takes percentiles of the means of resamples, drawn by
            ``default_rng(seed).integers(0, n, (resamples, n))`` (as Tomita et al. 2020, 3D-ResU-Net); ``bca``
            corrects these for bias and skewness (Efron 1987, acceleration by jackknife); ``normal`` is
            mean ± 1.96 SD / sqrt(n) and may leave the range of the scores; ``t`` takes Student's t with n - 1 degrees
            of freedom in place of 1.96 (as Pérez Malla et al. 2019, DeepMedic on ISLES 2017, mean to).
        confidence: 0.95 gives the 2.5th and the 97.5th percentile.
        resamples: of the bootstrap.
        seed: of the bootstrap; the same cases are drawn for every score of equally many cases.

    Returns:
        Lower and upper end; ``nan`` for fewer than two values, which say nothing about their spread.
    """
    known = _defined(values)
    if len(known) < 2:
        return NAN_INTERVAL
    if method in ("normal", "t"):
        quantile = _normal_quantile(confidence) if method == "normal" else _t_quantile(len(known), confidence)
        half = quantile * known.std(ddof=1) / np.sqrt(len(known))
        return float(known.mean() - half), float(known.mean() + half)
    means = _resampled_means(known, resamples, seed)
    tails = (1 - confidence) / 2, (1 + confidence) / 2
    if method == "bca":
        tails = _bca_tails(known, means, tails)
    ends = np.percentile(means, [100 * tail for tail in tails])
    low, high = np.clip(ends, known.min(), known.max())  # rounding must not leave the range of the scores
    return float(low), float(high)


def describe_interval(
    method: IntervalMethod = "percentile",
    *,
    confidence: float = CONFIDENCE,
    resamples: int = RESAMPLES,
    seed: int = SEED,
) -> str:
    """How an interval was made, for files and reports."""
    share = f"{100 * confidence:g} %"
    if method == "normal":
        return (
            f"{share} normal approximation, mean ± {_normal_quantile(confidence):.3g} SD / sqrt(n) over cases"
        )
    if method == "t":
        return f"{share} Student's t, mean ± t SD / sqrt(n) over cases with n - 1 degrees of freedom"
    kind = "BCa" if method == "bca" else "percentile"
    return f"{share} {kind} bootstrap over cases, {resamples} resamples, seed {seed}"


def _defined(values: ArrayLike) -> np.ndarray:
    known = np.asarray(values, float).ravel()
    return known[~np.isnan(known)]


def _normal_quantile(confidence: float) -> float:
    return SD_95 if confidence == 0.95 else NormalDist().inv_cdf((1 + confidence) / 2)


@lru_cache(maxsize=4)
def _counts(n: int, resamples: int, seed: int) -> np.ndarray:
    """``[resamples, n]`` uint8: how often each of ``n`` cases is drawn in each resample.

    Kept for the many scores of the same cases: the means of all resamples are then one matrix product. A case is
    drawn once on average; 255 times is out of reach for any n that matters.
    """
    generator = np.random.default_rng(seed)
    counts = np.empty((resamples, n), np.uint8)
    rows = max(1, _BLOCK // n)
    for start in range(0, resamples, rows):  # blocks of rows continue the same stream of random numbers
        block = counts[start : start + rows]
        drawn = generator.integers(0, n, block.shape) + n * np.arange(len(block))[:, None]
        block[:] = np.bincount(drawn.ravel(), minlength=block.size).reshape(block.shape)
    return counts


def _resampled_means(values: np.ndarray, resamples: int, seed: int) -> np.ndarray:
    """``[resamples]``, or ``[resamples, k]`` of values ``[n, k]``: the mean of each resample."""
    counts, rows = _counts(len(values), resamples, seed), max(1, _BLOCK // len(values))
    sums = [counts[i : i + rows].astype(float) @ values for i in range(0, resamples, rows)]
    return np.concatenate(sums) / len(values)


def _bca_tails(values: np.ndarray, means: np.ndarray, tails: tuple[float, float]) -> tuple[float, float]:
    """Where the percentiles of the resampled means are to be taken instead of at ``tails``."""
    normal, residuals = NormalDist(), values - values.mean()
    spread = float((residuals**2).sum())
    if spread <= (_TINY * max(1.0, float(np.abs(values).max()))) ** 2:
        return tails
    ties = _TINY * max(1.0, float(np.abs(values).max()))  # resamples with the very mean of the sample
    below = np.mean(means < values.mean() - ties) / 2 + np.mean(means <= values.mean() + ties) / 2
    bias = normal.inv_cdf(float(np.clip(below, 0.5 / len(means), 1 - 0.5 / len(means))))
    acceleration = float((residuals**3).sum()) / (6 * spread**1.5)

    def corrected(tail: float) -> float:
        z = bias + normal.inv_cdf(tail)
        return normal.cdf(bias + z / (1 - acceleration * z))

    return corrected(tails[0]), corrected(tails[1])


def ratio_interval(
    numerators: ArrayLike, denominators: ArrayLike, *, resamples: int = RESAMPLES, seed: int = SEED
) -> tuple[float, float]:
    """95 % percentile bootstrap interval of a ratio of sums over cases, such as Dice of all their voxels.

    Args:
        numerators, denominators: one for each case; cases whose denominator is 0 take part.
        resamples: of the bootstrap, the same as for means.
        seed: of the bootstrap.

    Returns:
        ``nan`` for fewer than two cases and where all denominators are 0.
    """
    parts, wholes = (np.asarray(values, float).ravel() for values in (numerators, denominators))
    if len(parts) < 2 or not wholes.any():
        return NAN_INTERVAL
    parts, wholes = (_resampled_means(values, resamples, seed) for values in (parts, wholes))
    return _middle(parts[wholes > 0] / wholes[wholes > 0])


def interval_of_means(
    columns: ArrayLike,
    value: Callable[[np.ndarray], np.ndarray],
    *,
    resamples: int = RESAMPLES,
    seed: int = SEED,
) -> tuple[float, float]:
    """95 % percentile bootstrap interval of a number that follows from means over cases, such as a correlation.

    Args:
        columns: ``[n, k]``, k quantities of each case.
        value: of means ``[resamples, k]``: ``[resamples]``, ``nan`` where it is not defined.
        resamples, seed: of the bootstrap, the same as for means.

    Returns:
        ``nan`` for fewer than two cases and where no resample has a value.
    """
    columns = np.asarray(columns, float)
    if len(columns) < 2:
        return NAN_INTERVAL
    values = _defined(value(_resampled_means(columns, resamples, seed)))
    return _middle(values) if len(values) else NAN_INTERVAL


def _middle(values: np.ndarray) -> tuple[float, float]:
    """The middle 95 % of the values of resamples."""
    tail = 50 * (1 - CONFIDENCE)
    low, high = np.percentile(values, [tail, 100 - tail])
    return float(low), float(high)


def median_interval(values: ArrayLike) -> tuple[float, float]:
    """95 % interval of the median, from the k-th smallest to the k-th largest value, without a bootstrap.

    k is the largest number for which at most 2.5 % of coin-toss sequences have fewer than k heads, because every
    case is above the true median with a chance of a half.

    Args:
        values: one for each case; ``nan`` is left out.

    Returns:
        ``nan`` for fewer than six values, which cannot give 95 %.
    """
    known = np.sort(_defined(values))
    n, fewer, k = len(known), 0, 0
    while (fewer := fewer + math.comb(n, k)) <= (1 - CONFIDENCE) / 2 * 2**n:
        k += 1
    return (float(known[k - 1]), float(known[n - k])) if k else NAN_INTERVAL


def led_by_few(values: ArrayLike) -> tuple[float, float] | None:
    """The quartiles of the values if their mean lies outside of them, so that few cases lead it; otherwise None.

    Args:
        values: one for each case; ``nan`` is left out. Quartiles are interpolated.
    """
    known = _defined(values)
    if not len(known):
        return None
    low, high = (float(end) for end in np.percentile(known, [25, 75]))
    return None if low <= known.mean() <= high else (low, high)


# ----------------------------------------------------------------------------------------------------- paired tests


def permutation_test(
    differences: ArrayLike, *, resamples: int = PERMUTATIONS, seed: int = SEED, exact: bool = True
) -> float:
    """Two-sided paired permutation test: could the signs of the differences be chance?

    The statistic is the mean. All sign vectors are enumerated when there are at most ``resamples`` of them; otherwise
    p = (1 + #{abs(T*) >= abs(T)}) / (resamples + 1) over random ones (used by Valverde et al. 2020, RatLesNetv2, who
    leave the details open).

    Args:
        differences: of two methods, one for each case; ``nan`` is left out.
        resamples: random sign vectors.
        seed: of the random sign vectors.
        exact: False never enumerates.

    Returns:
        The p-value; 1 when all differences are zero, ``nan`` for fewer than two.
    """
    known = _defined(differences)
    if len(known) < 2:
        return np.nan
    known = known[known != 0]  # their sign changes no sum
    if len(known) == 0:
        return 1.0
    limit = abs(known.sum()) - _TINY * len(known) * max(1.0, float(np.abs(known).max()))
    n = len(known)
    if exact and 2**n <= resamples:
        codes = np.arange(2**n)
        signs = 1 - 2 * ((codes[:, None] >> np.arange(n)) & 1)
        return float(np.mean(np.abs(signs @ known) >= limit))
    return (1 + _extreme_sums(known, limit, resamples, seed)) / (resamples + 1)


def _extreme_sums(differences: np.ndarray, limit: float, resamples: int, seed: int) -> int:
    """In how many of ``resamples`` random sign vectors the absolute sum of the differences reaches ``limit``."""
    generator, n = np.random.default_rng(seed), len(differences)
    rows, extreme = max(1, _BLOCK // n), 0
    for start in range(0, resamples, rows):
        packed = generator.integers(0, 256, (min(rows, resamples - start), -(-n // 8)), dtype=np.uint8)
        positive = np.unpackbits(packed, axis=1, count=n).astype(float) @ differences
        extreme += int(np.count_nonzero(np.abs(2 * positive - differences.sum()) >= limit))
    return extreme


def wilcoxon(differences: ArrayLike) -> float:
    """Two-sided p-value of Wilcoxon's signed-rank test; zero differences are dropped, as Wilcoxon did.

    Returns:
        1 when all differences are zero, ``nan`` for fewer than two.
    """
    known = _defined(differences)
    if len(known) < 2:
        return np.nan
    if not known.any():
        return 1.0
    from scipy.stats import wilcoxon as signed_rank

    with warnings.catch_warnings():
        # on few values without an exact distribution; n stands beside the p-value
        warnings.simplefilter("ignore")
        return float(signed_rank(known).pvalue)


def paired_t(differences: ArrayLike) -> float:
    """Two-sided p-value of the paired t-test.

    Returns:
        1 when all differences are zero; ``nan`` for fewer than two, and where all are equal but not zero, because
        the spread that the test divides by is zero.
    """
    known = _defined(differences)
    if len(known) < 2:
        return np.nan
    if not known.any():
        return 1.0
    if np.ptp(known) <= _TINY * np.abs(known).max():
        return np.nan
    from scipy.stats import ttest_1samp

    return float(ttest_1samp(known, 0.0).pvalue)


def holm(p_values: ArrayLike) -> np.ndarray:
    """Holm's step-down correction for several tests.

    Args:
        p_values: any number of them; ``nan`` is a test that was not made: it stays ``nan`` and does not count.

    Returns:
        Corrected p-values, same order, at most 1.
    """
    p_values = np.asarray(p_values, float).ravel()
    corrected = np.full(p_values.shape, np.nan)
    made = np.flatnonzero(~np.isnan(p_values))
    order = made[np.argsort(p_values[made], kind="stable")]
    steps = p_values[order] * np.arange(len(order), 0, -1)
    corrected[order] = np.minimum(np.maximum.accumulate(steps), 1)
    return corrected


@dataclass(frozen=True)
class KruskalWallis:
    """Whether one score differs between groups of cases.

    Attributes:
        h: the statistic, corrected for ties.
        degrees_of_freedom: groups less one.
        p: chance of such an ``h`` if all groups were alike, by the chi-squared distribution.
    """

    h: float
    degrees_of_freedom: int
    p: float


def kruskal_wallis(groups: Sequence[ArrayLike]) -> KruskalWallis:
    """Kruskal and Wallis 1952: do the ranks of two or more groups of different cases differ?

    Args:
        groups: the scores of each; ``nan`` is left out, and so are groups without a score.

    Returns:
        ``nan`` for fewer than two groups and where all scores are equal.
    """
    known = [values for group in groups if len(values := _defined(group))]
    degrees = max(0, len(known) - 1)
    if not degrees or np.ptp(np.concatenate(known)) == 0:
        return KruskalWallis(np.nan, degrees, np.nan)
    from scipy.stats import kruskal

    found = kruskal(*known)
    return KruskalWallis(float(found.statistic), degrees, float(found.pvalue))


@dataclass(frozen=True)
class PairedComparison:
    """One score of two methods on the same cases.

    Attributes:
        n: cases where both are defined.
        mean_a, mean_b: over these.
        difference: mean of a - b.
        low, high: interval of it.
        p_permutation, p_wilcoxon, p_t: two-sided, not corrected for several comparisons.
        wins_a, wins_b, ties: in how many cases which method is better; see ``better`` of :func:`compare_paired`.
    """

    n: int
    mean_a: float
    mean_b: float
    difference: float
    low: float
    high: float
    p_permutation: float
    p_wilcoxon: float
    p_t: float
    wins_a: int
    wins_b: int
    ties: int


def compare_paired(
    a: ArrayLike,
    b: ArrayLike,
    *,
    better: Literal["higher", "lower", "zero"] | None = "higher",
    interval: IntervalMethod = "bca",
    confidence: float = CONFIDENCE,
    resamples: int = RESAMPLES,
    permutations: int = PERMUTATIONS,
    seed: int = SEED,
) -> PairedComparison:
    """Compare one score of two methods, case by case.

    Args:
        a, b: scores of the same cases in the same order; pairs with a ``nan`` are left out.
        better: what wins a case: the ``higher`` or ``lower`` value, or the one nearer to ``zero``; None counts as
            ``higher``. Only the wins depend on it: the difference and the tests are always of a - b.
        interval: kind of interval of the mean difference, see :func:`mean_interval`.
        confidence, resamples: of the interval.
        permutations: of :func:`permutation_test`.
        seed: of both.

    Returns:
        The comparison; means and p-values are ``nan`` where too few pairs are defined.
    """
    all_a, all_b = np.asarray(a, float).ravel(), np.asarray(b, float).ravel()
    both = ~(np.isnan(all_a) | np.isnan(all_b))
    of_a, of_b = all_a[both], all_b[both]
    differences = _without_rounding(of_a - of_b, of_a, of_b)
    low, high = mean_interval(
        differences, method=interval, confidence=confidence, resamples=resamples, seed=seed
    )
    wins_a, wins_b = _wins(of_a, of_b, better)
    return PairedComparison(
        n=len(of_a),
        mean_a=_mean(of_a),
        mean_b=_mean(of_b),
        difference=_mean(differences),
        low=low,
        high=high,
        p_permutation=permutation_test(differences, resamples=permutations, seed=seed),
        p_wilcoxon=wilcoxon(differences),
        p_t=paired_t(differences),
        wins_a=wins_a,
        wins_b=wins_b,
        ties=len(of_a) - wins_a - wins_b,
    )


def _mean(values: np.ndarray) -> float:
    return float(values.mean()) if len(values) else np.nan


def _without_rounding(differences: np.ndarray, a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """Differences that are rounding errors are zero, so that two equal cases are a tie and have no rank."""
    return np.where(np.abs(differences) <= _TINY * np.maximum(np.abs(a), np.abs(b)), 0.0, differences)


def _wins(a: np.ndarray, b: np.ndarray, better: str | None) -> tuple[int, int]:
    if better == "zero":
        a, b = -np.abs(a), -np.abs(b)
    elif better == "lower":
        a, b = -a, -b
    differences = _without_rounding(a - b, a, b)
    return int(np.count_nonzero(differences > 0)), int(np.count_nonzero(differences < 0))


# ------------------------------------------------------------------------------------------- agreement and regression


@dataclass(frozen=True)
class BlandAltman:
    """Agreement of two measurements of the same cases; in the unit of the measurements.

    Attributes:
        mean: of the differences.
        sd: of the differences, with n - 1.
        low_limit, high_limit: limits of agreement, mean ± 1.96 SD.
        n: pairs.
        mean_interval, low_limit_interval, high_limit_interval: 95 % intervals by Student's t distribution.
    """

    mean: float
    sd: float
    low_limit: float
    high_limit: float
    n: int
    mean_interval: tuple[float, float] = NAN_INTERVAL
    low_limit_interval: tuple[float, float] = NAN_INTERVAL
    high_limit_interval: tuple[float, float] = NAN_INTERVAL


def t_interval(mean: float, sd: float, n: int) -> tuple[float, float]:
    """95 % interval of a mean by Student's t distribution, from the SD (with n - 1) of two or more cases."""
    half = _t_quantile(n) * sd / np.sqrt(n)
    return float(mean - half), float(mean + half)


def _t_quantile(n: int, confidence: float = CONFIDENCE) -> float:
    from scipy.special import stdtrit

    return float(stdtrit(n - 1, (1 + confidence) / 2))


def bland_altman(prediction: ArrayLike, truth: ArrayLike) -> BlandAltman:
    """Limits of agreement of prediction - truth (Bland and Altman 1986, intervals of the limits 1999).

    Args:
        prediction, truth: one value for each case, such as volumes in ml; pairs with a ``nan`` are left out.

    Returns:
        ``nan`` for what too few pairs do not give: all without a pair, all but the mean for one pair.
    """
    differences = _defined(np.asarray(prediction, float) - np.asarray(truth, float))
    n, mean = len(differences), _mean(differences)
    if n < 2:
        return BlandAltman(mean, np.nan, np.nan, np.nan, n)
    sd = float(differences.std(ddof=1))
    half_limit = _t_quantile(n) * sd * np.sqrt(1 / n + SD_95**2 / (2 * (n - 1)))
    low, high = mean - SD_95 * sd, mean + SD_95 * sd
    return BlandAltman(
        mean,
        sd,
        low,
        high,
        n,
        mean_interval=t_interval(mean, sd, n),
        low_limit_interval=(low - half_limit, low + half_limit),
        high_limit_interval=(high - half_limit, high + half_limit),
    )


@dataclass(frozen=True)
class LogVolumeFit:
    """The line Dice = intercept + slope * log10(volume); the unit of the volume only moves the intercept.

    Attributes:
        p: two-sided, that a line without slope gives such an R2, by Student's t distribution.
    """

    slope: float
    intercept: float
    r_squared: float
    n: int
    p: float = np.nan


def fit_log_volume(dice: ArrayLike, volume: ArrayLike) -> LogVolumeFit:
    """Least squares of Dice on the decimal logarithm of the lesion volume (as Tomita et al. 2020, 3D-ResU-Net).

    Args:
        dice: one for each case.
        volume: of the truth, in any unit; volumes of 0 have no logarithm and are left out, as is ``nan``.

    Returns:
        The fit; ``nan`` for fewer than two different volumes, R2 and p also for fewer than :data:`FEWEST_ON_LINE`
        cases and where all Dice values are equal.
    """
    dice, volume = np.asarray(dice, float).ravel(), np.asarray(volume, float).ravel()
    used = ~np.isnan(dice) & (volume > 0)
    y, x = dice[used], np.log10(volume[used])
    if len(x) < 2 or np.ptp(x) == 0:
        return LogVolumeFit(np.nan, np.nan, np.nan, len(x))
    dx, dy = x - x.mean(), y - y.mean()
    slope = float(dx @ dy / (dx @ dx))
    known = len(x) >= FEWEST_ON_LINE and np.ptp(y) > 0
    r_squared = float(dx @ dy) ** 2 / float((dx @ dx) * (dy @ dy)) if known else np.nan
    p = _p_of_r_squared(r_squared, len(x)) if known else np.nan
    return LogVolumeFit(slope, float(y.mean() - slope * x.mean()), r_squared, len(x), p)


def _p_of_r_squared(r_squared: float, n: int) -> float:
    from scipy.special import stdtr

    if r_squared >= 1:
        return 0.0
    return float(2 * stdtr(n - 2, -math.sqrt(r_squared * (n - 2) / (1 - r_squared))))


def r_squared_interval(
    dice: ArrayLike, volume: ArrayLike, *, resamples: int = RESAMPLES, seed: int = SEED
) -> tuple[float, float]:
    """95 % percentile bootstrap interval of the R2 of :func:`fit_log_volume`.

    ``nan`` for fewer than :data:`FEW_CASES` cases: resamples of few cases hold many times the same two, whose R2 is 1.
    """
    dice, volume = np.asarray(dice, float).ravel(), np.asarray(volume, float).ravel()
    used = ~np.isnan(dice) & (volume > 0)
    y, x = dice[used], np.log10(volume[used])
    if len(x) < FEW_CASES:
        return NAN_INTERVAL
    x, y = x - x.mean(), y - y.mean()  # so that rounding is small against their spread

    def r_squared(means: np.ndarray) -> np.ndarray:
        of_x, of_y, of_xx, of_yy, of_xy = means.T
        spread = (of_xx - of_x**2) * (of_yy - of_y**2)
        is_spread = spread > _TINY * max(1e-300, float(np.mean(x**2) * np.mean(y**2)))
        return np.where(is_spread, (of_xy - of_x * of_y) ** 2 / np.where(is_spread, spread, 1), np.nan)

    columns = np.stack([x, y, x**2, y**2, x * y], axis=1)
    return interval_of_means(columns, r_squared, resamples=resamples, seed=seed)


LANDIS_KOCH = (
    (0.2, "slight"),
    (0.4, "fair"),
    (0.6, "moderate"),
    (0.8, "substantial"),
    (np.inf, "almost perfect"),
)
"""Upper end, included, and the word for it."""


def landis_koch(value: float | None) -> str:
    """The word of Landis and Koch (1977) for an agreement such as a Dice or a Matthews coefficient.

    Returns:
        ``poor`` below 0, then ``slight`` to ``almost perfect``; ``undefined`` for ``nan`` and None.
    """
    if value is None or np.isnan(value):
        return "undefined"
    return "poor" if value < 0 else next(word for end, word in LANDIS_KOCH if value <= end)
