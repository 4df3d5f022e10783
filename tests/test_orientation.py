"""Orientations and turns, held against nibabel and SimpleITK."""

import itertools
import math

import nibabel as nib
import numpy as np
import pytest
import SimpleITK as sitk
from storage import ALL, stored_as

from autoseg.dataset.imageio import Geometry
from autoseg.orientation import (
    Turn,
    described,
    is_orientation,
    most_frequent_orientation,
    orientation_of,
    turn_into,
)

SHAPE_XYZ = (4, 5, 3)


def rotation(axis, degrees):
    """About a patient axis."""
    c, s = math.cos(math.radians(degrees)), math.sin(math.radians(degrees))
    turned = np.eye(3)
    i, j = (axis + 1) % 3, (axis + 2) % 3
    turned[[i, i, j, j], [i, j, i, j]] = c, -s, s, c
    return turned


def geometry_of(affine, shape_xyz):
    """Of an affine of nibabel (RAS), without a file."""
    lps = np.diag([-1.0, -1.0, 1.0]) @ affine[:3]
    spacing = np.linalg.norm(lps[:, :3], axis=0)
    direction = lps[:, :3] / spacing
    return Geometry(
        tuple(reversed(shape_xyz)),
        tuple(spacing[::-1].tolist()),
        tuple(lps[:, 3].tolist()),
        tuple(direction.ravel().tolist()),
    )


def scan(turned):
    affine = np.eye(4)
    affine[:3, :3] = turned @ np.diag([1.0, 2.0, 3.5])
    affine[:3, 3] = -20.0, 7.5, 40.0
    pixels = np.arange(math.prod(SHAPE_XYZ), dtype=np.float32).reshape(SHAPE_XYZ)
    return nib.Nifti1Image(pixels, affine)


def test_there_are_48_and_nothing_else_is_one():
    assert len(set(ALL)) == 48 and all(map(is_orientation, ALL))
    assert not any(map(is_orientation, ("", "RA", "RAR", "RLS", "ras", "RASL", "RAX", "R S")))


@pytest.mark.parametrize("code", ALL)
@pytest.mark.parametrize("turned", [np.eye(3), rotation(0, 20) @ rotation(1, -15) @ rotation(2, 31)])
def test_letters_are_nibabels(code, turned):
    image = stored_as(scan(turned), code)
    found = geometry_of(image.affine, image.shape).orientation
    assert found == "".join(nib.aff2axcodes(image.affine)) == code


@pytest.mark.parametrize("code", ALL)
@pytest.mark.parametrize("degrees", [0, 25])
def test_arrays_are_turned_as_nibabel_turns_them_and_lie_where_they_lay(code, degrees):
    image = scan(rotation(0, degrees))
    other = stored_as(image, code)
    start, end = (geometry_of(one.affine, one.shape) for one in (image, other))
    turn = Turn.between(start.orientation, code)
    pixels, expected = (np.array(np.asarray(one.dataobj).transpose(), order="C") for one in (image, other))
    assert np.array_equal(turn.array(pixels), expected)
    assert np.array_equal(turn.array(pixels[None])[0], expected)
    assert np.array_equal(turn.back.array(expected), pixels)
    assert np.shares_memory(turn.view(pixels), pixels) and turn.array(pixels).flags.c_contiguous
    found = turn.geometry(start)
    assert found.shape == end.shape and found.spacing_mm == end.spacing_mm
    np.testing.assert_allclose(found.origin_mm, end.origin_mm, atol=1e-12)
    np.testing.assert_allclose(found.direction, end.direction, atol=1e-12)
    assert found.orientation == code and turn.back == Turn.between(code, start.orientation)


def test_every_voxel_stays_where_it_was_in_the_scanner():
    geometry = Geometry((3, 5, 4), (3.5, 2.0, 1.0), (5.0, -3.0, 2.0), tuple(rotation(2, 30).ravel().tolist()))
    turn = turn_into("SAL", geometry)
    turned = turn.geometry(geometry)

    def place(of, index_zyx):
        image = sitk.Image(list(of.shape[::-1]), sitk.sitkUInt8)
        image.SetSpacing(of.spacing_mm[::-1])
        image.SetOrigin(of.origin_mm)
        image.SetDirection(of.direction)
        return image.TransformIndexToPhysicalPoint([int(i) for i in index_zyx[::-1]])

    numbers = turn.array(np.arange(60).reshape(3, 5, 4))
    for index in np.ndindex(*turned.shape):
        before = np.unravel_index(numbers[index], (3, 5, 4))
        np.testing.assert_allclose(place(turned, index), place(geometry, before), atol=1e-9)


TIES = {
    "45 degrees about one axis": rotation(0, 45),
    "45 degrees about another axis": rotation(2, -45),
    "between three axes": rotation(0, 45) @ rotation(1, 45),
    "about the diagonal": np.array([[2, -1, 2], [2, 2, -1], [-1, 2, 2]]) / 3,
    "60 degrees about the diagonal, the other way": np.array([[2, 2, -1], [-1, 2, 2], [2, -1, 2]]) / 3,
}


@pytest.mark.parametrize("turned", TIES.values(), ids=TIES)
@pytest.mark.parametrize("rounding", [0.0, 2e-6])
def test_between_two_axes_the_choice_does_not_depend_on_how_the_scan_is_stored(turned, rounding):
    random = np.random.default_rng(0)
    found = set()
    for order in itertools.permutations(range(3)):
        for senses in itertools.product((1, -1), repeat=3):
            direction = turned[:, order] * senses + random.uniform(-rounding, rounding, (3, 3))
            geometry = Geometry(
                (3, 3, 3), (1.0, 1.0, 1.0), (0.0, 0.0, 0.0), tuple(direction.ravel().tolist())
            )
            turn = turn_into("RAS", geometry)
            found.add(tuple(np.round(turn.geometry(geometry).direction, 4) + 0.0))
    assert len(found) == 1


def test_a_file_is_left_alone_without_an_orientation_or_in_its_own():
    geometry = Geometry((2, 3, 4), (1.0, 1.0, 1.0), (0.0, 0.0, 0.0), (1, 0, 0, 0, 1, 0, 0, 0, 1))
    array = np.zeros((2, 3, 4))
    for orientation in (None, "LPS"):
        turn = turn_into(orientation, geometry)
        assert turn.array(array) is array and turn.geometry(geometry) is geometry and not turn.changes


def test_the_most_frequent_one_and_the_words():
    cases = {"case_0": "RAS", "case_1": "RAS", "case_2": "RAS", "case_3": "SRA", "case_4": "SRA"}
    assert most_frequent_orientation(cases.values()) == "RAS"
    assert described(cases) == "RAS (3 cases), SRA (case_3, case_4)"
    # the first of those that are alike
    assert most_frequent_orientation(["PIL", "LPS", "LPS", "PIL"]) == "PIL"
    assert most_frequent_orientation([]) is None
    many = {f"c{i}": "LAS" for i in range(7)} | {f"d{i}": "RAS" for i in range(8)}
    assert described(many) == "RAS (8 cases), LAS (c0, c1, c2, c3, c4 and 2 more)"
    assert described({"a": "LPS"}) == "LPS (1 case)"
    assert orientation_of((1, 0, 0, 0, 1, 0, 0, 0, 1)) == "LPS"
