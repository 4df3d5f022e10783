"""Every registered post-processing step by value, on masks that can be read."""

import numpy as np
import pytest
import sweep

from autoseg import postprocessing
from autoseg.plan import Named
from autoseg.plugins.parts import Segmentation

FULL, NONE = "111/111/111", "000/000/000"
# For each step: arguments, mask before, mask after. Rows of x are parted by "/", slices by "|".
CASES = {
    "remove_small_components": [
        ({"fewer_than_voxels": 3}, "110111011110", "000111011110"),  # 2 go, exactly 3 stay
        ({"fewer_than_voxels": 1}, "10", "10"),
        ({"fewer_than_voxels": 3}, "1220220", "1220000"),  # classes that touch are one component
        ({"fewer_than_voxels": 2}, "10/00|00/01", "10/00|00/01"),  # 26 neighbours: they touch at a corner
        ({"fewer_than_voxels": 2, "connectivity": 18}, "10/00|00/01", "00/00|00/00"),
        ({"fewer_than_voxels": 2, "connectivity": 18}, "10/01", "10/01"),
        ({"fewer_than_voxels": 2, "connectivity": 6}, "10/01", "00/00"),
        ({"fewer_than_voxels": 5}, "000", "000"),
    ],
    "fill_small_holes": [
        ({"fewer_than_voxels": 3}, "100100010000", "111100010000"),  # 2 are filled, exactly 3 stay
        ({"fewer_than_voxels": 2, "value": 3}, "1012001", "1312001"),
        ({"fewer_than_voxels": 2}, "0110", "1111"),  # the border of the image closes a hole
        ({"fewer_than_voxels": 2}, "01/10", "01/10"),
        ({"fewer_than_voxels": 2, "connectivity": 6}, "01/10", "11/11"),
        ({"fewer_than_voxels": 5}, "111", "111"),
    ],
    "keep_largest_component": [
        ({}, "1101110110", "0001110000"),
        ({}, "2220110", "2220000"),
        ({}, "1101220", "0001220"),  # of all classes together
        ({}, "1000/0100/0011", "1000/0100/0011"),
        ({"connectivity": 6}, "1000/0100/0011", "0000/0000/0011"),
        ({}, "000", "000"),
    ],
    "closing": [
        ({"radius": 1}, f"{FULL}|121/101/111|{FULL}", f"{FULL}|121/111/111|{FULL}"),
        ({"radius": 1, "value": 2}, f"{FULL}|111/101/111|{FULL}", f"{FULL}|111/121/111|{FULL}"),
        # the image ends: what is dilated beyond it is lost
        ({"radius": 1, "border": "scipy"}, f"{FULL}|111/101/111|{FULL}", f"{NONE}|000/010/000|{NONE}"),
        ({"radius": 1}, "101", "101"),  # a ball does not fit between them, but beside them
        ({"iterations": 3.0}, "000", "000"),
    ],
}
WIDE = {
    "iterations": 1,
    "smoothness_voxels": [1e6] * 3,
    "appearance_weight": 0.0,
    "appearance_voxels": [1e6] * 3,
}
# Steps that look at the probability of the lesion: arguments, the probability in tenths, mask after.
LESION = {
    "threshold": [
        ({}, "0456", "0001"),  # strictly above one half
        ({"above": 0.4}, "0456", "0011"),
        ({"above": 0.3, "value": 2}, "0456", "0222"),
    ],
    "dense_crf": [
        ({"iterations": 0}, "0456", "0001"),
        # a kernel so wide that all see the same: log-odds of 0.6 are 0.405, the others' mean adds w (2 0.375 - 1)
        ({**WIDE, "smoothness_weight": 1.0}, "3633", "0100"),
        ({**WIDE, "smoothness_weight": 3.0}, "3633", "0000"),
        # intensities are here the probabilities: each level sees itself alone, and w (2 p - 1) is added
        ({**WIDE, "smoothness_weight": 0.0, "appearance_weight": 9.0}, "3633", "0100"),
    ],
    "threshold_precision_recall": [({"above": 0.4}, "0456", "0011")],
    "threshold_youden": [({"above": 0.5, "value": 2}, "0456", "0002")],
}
WHERE = "CASES of tests/postprocessing/test_steps.py"


def mask_of(text):
    return np.array([[list(row) for row in plane.split("/")] for plane in text.split("|")]).astype(np.uint8)


ON_THE_MASK = [name for name, row in postprocessing.REGISTRY.rows().items() if row.on == "mask"]


@pytest.mark.parametrize("name", sorted(LESION))
def test_every_step_that_sees_probabilities_by_hand(name):
    for arguments, tenths, after in LESION[name]:
        lesion = mask_of(tenths).astype(np.float32) / 10
        both = np.stack([1 - lesion, lesion])
        case = Segmentation(mask_of("0" * len(tenths)), (2.0, 1.0, 1.0), both, image=lesion[None])
        found = postprocessing.apply(case, [Named(name=name, arguments=arguments)])
        assert found.mask.tolist() == mask_of(after).tolist() and found.mask.dtype == np.uint8


@pytest.mark.parametrize("name", sorted({*ON_THE_MASK} - {*LESION}))
def test_every_step_by_hand(name):
    for arguments, before, after in sweep.hand_worked(CASES, name, WHERE):
        case = Segmentation(mask_of(before), (2.0, 1.0, 1.0), probabilities=np.ones(1), image=np.ones(2))
        found = postprocessing.apply(case, [Named(name=name, arguments=arguments)])
        np.testing.assert_array_equal(found.mask, mask_of(after), err_msg=f"{arguments} {before}")
        assert found.mask.dtype == np.uint8
        np.testing.assert_array_equal(case.mask, mask_of(before))  # the input stays as it was
        assert found.spacing_mm == case.spacing_mm
        assert found.probabilities is case.probabilities and found.image is case.image


def test_no_case_is_left_over():
    sweep.refuse_leftovers({**CASES, **LESION}, ON_THE_MASK, WHERE)


def test_steps_follow_the_order_of_the_plan():
    fill = Named(name="fill_small_holes", arguments={"fewer_than_voxels": 2})
    remove = Named(name="remove_small_components", arguments={"fewer_than_voxels": 3})
    case = Segmentation(mask_of("0010100"), (1.0, 1.0, 1.0))
    assert postprocessing.apply(case, [fill, remove]).mask.tolist() == mask_of("0011100").tolist()
    assert not postprocessing.apply(case, [remove, fill]).mask.any()


def test_no_step_grows_a_lesion_beyond_what_counts():
    """Nor does it hand on more than that to the next step: the two voxels that stay are too few for it."""
    case = Segmentation(mask_of("0010100"), (1.0, 1.0, 1.0), inside=mask_of("1110111") > 0)
    fill = Named(name="fill_small_holes", arguments={"fewer_than_voxels": 2})
    found = postprocessing.apply(case, [fill])
    assert found.mask.tolist() == mask_of("0010100").tolist() and found.mask.dtype == np.uint8
    remove = Named(name="remove_small_components", arguments={"fewer_than_voxels": 3})
    assert not postprocessing.apply(case, [fill, remove]).mask.any()
    whole = Segmentation(case.mask, case.spacing_mm)
    assert postprocessing.apply(whole, [fill, remove]).mask.tolist() == mask_of("0011100").tolist()
