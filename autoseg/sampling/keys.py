"""Random numbers that follow from where they are needed, never from who draws them or when.

Every stream is named by a purpose and a key such as ``(seed, epoch, sample)``. No generator is shared, so the
number of workers, the number of devices and the iteration at which a run was resumed change nothing.
"""

from __future__ import annotations

from collections.abc import Sequence
from enum import IntEnum
from functools import lru_cache

import numpy as np


class Purpose(IntEnum):
    """What a stream is for. A new purpose does not move the numbers of the others."""

    ORDER = 1
    CASE = 2
    CROP = 3
    AUGMENTATION = 4
    NOISE = 5
    SHARE = 6
    TRANSFORM = 7
    CLONE = 8


def generator(purpose: Purpose, key: Sequence[int]) -> np.random.Generator:
    """The stream of this purpose and key (numbers from 0), at its beginning.

    The counter-based Philox generator is used: neighbouring keys give independent streams
    (Salmon et al., "Parallel random numbers: as easy as 1, 2, 3", SC 2011).
    """
    return np.random.Generator(np.random.Philox(np.random.SeedSequence((int(purpose), *map(int, key)))))


@lru_cache(maxsize=4)
def order(key: tuple[int, ...], n: int) -> np.ndarray:
    """The numbers from 0 to n - 1 in the random order of this key; read-only."""
    numbers = generator(Purpose.ORDER, key).permutation(n)
    numbers.flags.writeable = False
    return numbers


def noise_field(seed: int, shape: tuple[int, ...]) -> np.ndarray:
    """Standard normal noise, float32, of this shape; the same on every machine."""
    return generator(Purpose.NOISE, (seed,)).standard_normal(shape, np.float32)
