"""Small masks for the tests of metrics."""

import numpy as np

RAT_SHAPE, RAT_SPACING_MM = (18, 64, 64), (1.0, 0.1171875, 0.1171875)


def box(*ranges, shape=RAT_SHAPE):
    """A block, by its half-open ranges along z, y, x."""
    mask = np.zeros(shape, bool)
    mask[tuple(slice(*r) for r in ranges)] = True
    return mask


def ball(radius, centre, shape, spacing_mm=(1.0, 1.0, 1.0)):
    """Voxels whose centre is at most the radius away, in the unit of the spacing."""
    apart = (np.indices(shape).reshape(3, -1).T - centre) * spacing_mm
    return ((apart**2).sum(1) <= radius**2).reshape(shape)


def random_pair(seed=0, shape=(6, 9, 8)):
    """Two rough masks that overlap and touch the edges of the array."""
    random = np.random.default_rng(seed)
    return random.random(shape) > 0.7, random.random(shape) > 0.6


def random_case(seed):
    """Two masks of any shape and density that are alike, none of them empty, and a spacing."""
    random = np.random.default_rng(seed)
    shape, spacing_mm = random.integers(3, 12, 3), random.uniform(0.3, 5, 3)
    rough = random.random(tuple(shape))
    prediction, truth = rough > random.uniform(0.2, 0.9), rough + random.normal(0, 0.2, shape) > 0.5
    prediction[0, 0, 0] = truth[-1, -1, -1] = True
    return prediction, truth, spacing_mm
