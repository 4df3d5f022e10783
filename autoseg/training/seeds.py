"""One root seed: every random number follows from the seed and from where in the run it is needed."""

from __future__ import annotations

import numpy as np


def derive(*key: int) -> int:
    """A 63-bit seed from a key of non-negative numbers; different keys give independent seeds."""
    return int(np.random.SeedSequence(key).generate_state(1, np.uint64)[0] >> 1)


def fold_number(fold: int | str) -> int:
    """The part of the key that a fold has; ``all`` gets a number of its own."""
    return 1_000_000 if fold == "all" else int(fold)
