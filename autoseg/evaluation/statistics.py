"""Numbers about a list of scores: means with bootstrap intervals."""

from __future__ import annotations

from functools import lru_cache

import numpy as np

RESAMPLES = 2000
CONFIDENCE = 0.95
SEED = 12345


@lru_cache(maxsize=4)
def _weights(n: int, resamples: int, seed: int) -> np.ndarray:
    """``[resamples, n]``: the share that each of ``n`` cases has in each resample; rows sum to 1.

    The mean of every resample is then one matrix product, for any number of scores of the same cases.
    """
    return np.random.default_rng(seed).multinomial(n, np.full(n, 1 / n), size=resamples) / n


def bootstrap_interval(
    values: np.ndarray, *, confidence: float = CONFIDENCE, resamples: int = RESAMPLES, seed: int = SEED
) -> tuple[float, float]:
    """Percentile bootstrap interval of the mean.

    Args:
        values: one for each case, none of them NaN.
        confidence: 0.95 gives the 2.5th and the 97.5th percentile of the resampled means.

    Returns:
        Lower and upper end; ``nan`` for fewer than two values, which say nothing about their spread.
    """
    if len(values) < 2:
        return np.nan, np.nan
    values = np.asarray(values, float)
    means = _weights(len(values), resamples, seed) @ values
    ends = np.percentile(means, [50 * (1 - confidence), 50 * (1 + confidence)])
    low, high = np.clip(ends, values.min(), values.max())  # rounding must not leave the range of the scores
    return float(low), float(high)
