"""Label voxels that one tile in the centre never looks at."""

import numpy as np
import pytest

from autoseg.inference.tiling import make_tiling
from autoseg.plan import Inference, apply_overrides
from autoseg.preprocessing.centre_tile import BeyondCentre, beyond_centre, centre_box, told


@pytest.mark.parametrize(
    ("shape", "patch"),
    [
        ((189, 233, 197), [168, 172, 144]),
        ((9, 20, 21), [4, 8, 8]),
        ((5, 20, 21), [8, 8, "whole"]),
        ((3, 20, 21), [8, 9]),
    ],
)
def test_the_box_is_the_tile_of_the_prediction(shape, patch):
    inference = Inference(patch_size=patch, tiles="centre")
    seen = np.zeros(shape, bool)
    tiling = make_tiling(shape, inference, (1,) * len(patch))
    for tile in tiling:
        moved = [slice(max(0, s.start - b), s.stop - b) for s, b in zip(tile, tiling.before, strict=True)]
        seen[tuple(moved)] = True
    ours = np.zeros(shape, bool)
    ours[centre_box(shape, inference)] = True
    assert np.array_equal(ours, seen)


def test_the_published_crop_starts_where_the_paper_has_it():
    box = centre_box((189, 233, 197), Inference(patch_size=[168, 172, 144], tiles="centre"))
    assert [part.start for part in box] == [10, 30, 26]


def test_what_is_lost_is_counted(model_folder):
    """Of a tile of 4 in 8 voxels 2 to 5 are seen: a case half inside, one outside, one inside, one without lesion."""
    labels = {name: np.zeros((8, 8, 8), np.int16) for name in "abcd"}
    labels["a"][3, 3, 4:8] = 1  # x 4 and 5 are seen
    labels["b"][0, 3, 3] = 1
    labels["c"][3:5, 3, 3] = 1
    labels["c"][7] = -1  # outside of a mask is no lesion
    plan = apply_overrides(
        model_folder.make_plan(), {"inference": {"patch_size": [4, 4, 4], "tiles": "centre"}}
    )
    found = beyond_centre(plan, "abcd", labels.__getitem__)
    assert found == [BeyondCentre("a", 2, 4), BeyondCentre("b", 1, 1), BeyondCentre("c", 0, 2)]
    text = told(found)
    assert text.startswith(
        "3 label voxels of 7 (42.86%), in 2 of 3 cases with lesions, the whole lesion in 1, lie"
    )
    assert "b (1 of 1), a (2 of 4); inference.tiles=cover" in text
    assert told(found[2:]) == "" and beyond_centre(model_folder.make_plan(), "abcd", labels.__getitem__) == []
