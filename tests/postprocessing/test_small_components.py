"""The size that removes most islands and holes, and sizes that are volumes."""

import numpy as np
import pytest

from autoseg.labels import LabelSet
from autoseg.plugins.parts import FitCase, Segmentation
from autoseg.postprocessing.small_components import (
    fit_holes,
    fit_islands,
    remove_small_components,
    size_that_removes,
)

LABELS = LabelSet.from_labels({"background": 0, "lesion": 1})


def case(row, spacing_mm=(1.0, 1.0, 1.0)):
    mask = np.array([int(v) for v in row], np.uint8).reshape(1, 1, -1)
    return Segmentation(mask, spacing_mm)


def entry(row, spacing_mm=(1.0, 1.0, 1.0)):
    return FitCase("a", case(row, spacing_mm), np.zeros((1, 1, len(row)), np.uint8))


def test_20_removes_87_and_26_removes_90_percent_as_the_published_code_remarks():
    sizes = [1] * 50 + [19] * 37 + [25] * 3 + [26] * 4 + [400] * 6
    assert sum(size < 20 for size in sizes) == 87
    assert size_that_removes(sizes, 20) == 26
    assert sum(size < 26 for size in sizes) == 90


def test_islands_are_all_components_but_the_largest_of_each_case():
    """Islands of 1, 2, 1 and 3 voxels: 90 % of four are all four."""
    cases = [entry("11110100110"), entry("0101110111111")]
    assert fit_islands(cases, LABELS, fewer_than_voxels=20) == {"fewer_than_voxels": 4}
    assert fit_holes([entry("101101000001111001")], LABELS, fewer_than_voxels=20) == {"fewer_than_voxels": 3}


def test_where_there_is_none_the_planned_size_stays():
    assert fit_islands([entry("000111"), entry("000")], LABELS, fewer_than_voxels=20) == {
        "fewer_than_voxels": 20
    }


def test_the_same_volume_counts_on_every_grid():
    """Twenty published voxels are 0.275 mm3: 10 voxels of twice the volume, which stay, and 9, which go."""
    published = 1.0 * 0.1171875**2
    twice = (2.0, 0.1171875, 0.1171875)
    row = "1" * 10 + "0" + "1" * 9 + "0"
    found = remove_small_components(case(row, twice), fewer_than_voxels=20, voxel_mm3=published)
    assert found.mask.ravel().tolist() == [1] * 10 + [0] * 11
    learned = fit_islands([entry(row, twice)], LABELS, fewer_than_voxels=20, voxel_mm3=published)
    assert learned["fewer_than_voxels"] == pytest.approx(18, rel=1e-5) and learned["fewer_than_voxels"] > 18
