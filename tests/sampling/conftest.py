"""A small store in memory and stages to draw from it."""

from types import SimpleNamespace

import numpy as np
import pytest
from scipy import ndimage

from autoseg import plan

PATCH = [16, 16, 16]


class MemoryStore:
    """Cases by name; ``read`` counts its calls and raises for the names in ``broken``."""

    def __init__(self, cases):
        self.cases = cases
        self.reads = []
        self.broken = set()

    def names(self):
        return sorted(self.cases)

    def read(self, name):
        self.reads.append(name)
        if name in self.broken:
            raise OSError("the chunk is damaged")
        return self.cases[name]


def make_case(seed, size=(24, 26, 28), lesions=((1, (5, 6, 7), 2), (2, (20, 20, 22), 1)), outside=3):
    """Two smooth channels, box lesions (value, middle, reach), label -1 in the first planes along x."""
    rng = np.random.default_rng(seed)
    image = np.stack([ndimage.gaussian_filter(rng.standard_normal(size), 1.5) * 10 for _ in range(2)])
    label = np.zeros(size, np.int16)
    rows = []
    for component, (value, middle, reach) in enumerate(lesions):
        box = tuple(slice(max(m - reach, 0), m + reach + 1) for m in middle)
        label[box] = value
        rows += [(*voxel, value, component) for voxel in np.argwhere(label == value) if _in(voxel, box)]
    label[..., :outside] = -1
    image[1][label < 0] = 0
    foreground = np.array(rows, np.int32).reshape(-1, 5)
    return SimpleNamespace(
        image=image.astype(np.float32), label=label, foreground=foreground, properties=None
    )


def _in(voxel, box):
    return all(part.start <= v < part.stop for v, part in zip(voxel, box, strict=True))


@pytest.fixture
def make_store():
    return MemoryStore


@pytest.fixture
def store():
    cases = {f"case{i}": make_case(i, (24 + i, 26, 28)) for i in range(4)}
    cases["empty"] = make_case(9, lesions=())
    return MemoryStore(cases)


@pytest.fixture
def make_stage():
    def make(**changes):
        content = {
            "name": "full",
            "patch_size": PATCH,
            "batch_size": 2,
            "epochs": 1,
            "iterations_per_epoch": 4,
            "loss": {"name": "dice_ce"},
            "optimiser": {"name": "sgd"},
            "schedule": {"name": "poly"},
        }
        return plan.Stage.model_validate({**content, **changes})

    return make
