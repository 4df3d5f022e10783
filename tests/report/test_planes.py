"""Which way round a file is shown, and what its slices are called as far as the header knows."""

import nibabel
import numpy as np
import pytest
import SimpleITK as sitk

from autoseg.dataset.imageio import Geometry, read_geometry
from autoseg.report.planes import View, has_orientation

RAS = (-1, 0, 0, 0, -1, 0, 0, 0, 1)


@pytest.mark.parametrize(
    "spacing, direction, plane, sides",
    [
        ((1, 1, 1), (1, 0, 0, 0, 1, 0, 0, 0, 1), "axial", "RLAP"),
        ((1, 1, 1), (-1, 0, 0, 0, -1, 0, 0, 0, 1), "axial", "RLAP"),
        ((6, 1, 1), (1, 0, 0, 0, 0, 1, 0, -1, 0), "coronal", "RLSI"),
        ((6, 1, 1), (0, 0, 1, 1, 0, 0, 0, -1, 0), "sagittal", "APSI"),
        ((1, 6, 1), (1, 0, 0, 0, 1, 0, 0, 0, 1), "coronal", "RLSI"),
    ],
)
def test_pictures_are_turned_by_the_header(spacing, direction, plane, sides):
    """In a volume of patient coordinates, they rise along columns to L or P, along rows to P or fall to I."""
    shape = (5, 100, 100) if spacing[0] > 1 else (100, 100, 100)
    view = View.of(Geometry(shape, spacing, (1, 1, 1), direction))
    assert (view.plane, "".join(view.sides)) == (plane, sides)
    index = np.indices(shape)[::-1].reshape(3, -1) * np.array(spacing[::-1])[:, None]  # x, y, z in mm
    patient = (np.array(direction).reshape(3, 3) @ index).reshape(3, *shape)
    column, row = {"L": 0, "P": 1}[sides[1]], {"P": 1, "I": 2}[sides[3]]
    sign = 1 if sides[3] == "P" else -1
    np.testing.assert_allclose(np.diff(view.turn(patient[column]), axis=2), view.spacing_mm[2])
    np.testing.assert_allclose(np.diff(view.turn(patient[row]), axis=1), sign * view.spacing_mm[1])


def words(shape, spacing, direction=RAS, origin=(1.0, 2.0, 3.0)):
    view = View.of(Geometry(shape, spacing, origin, direction))
    return view.words, "".join(view.sides)


def test_what_slices_are_called():
    """A head of 220 mm is a person's; 30 mm are a rat's, lying in a scanner that thinks of a person."""
    assert words((30, 220, 220), (5.0, 1.0, 1.0)) == ("axial slices", "RLAP")
    assert words((18, 64, 64), (1.0, 0.5, 0.5)) == ("slices coronal in a rodent, axial in a person", "RL")
    assert words((64, 18, 64), (0.5, 1.0, 0.5)) == ("coronal slices", "RLSI")
    assert words((64, 64, 64), (0.3, 0.3, 0.3)) == ("slices across the header's axis from foot to head", "RL")


def test_oblique_slices_say_by_how_much():
    c, s = np.cos(np.radians(25)), np.sin(np.radians(25))
    tilted = (1, 0, 0, 0, c, -s, 0, s, c)
    assert words((30, 220, 220), (5.0, 1.0, 1.0), tilted)[0] == "axial slices, oblique by 25°"


@pytest.mark.parametrize("ending", ["nii.gz", "nrrd", "mha"])
def test_a_file_that_says_nothing_about_the_patient_names_no_side(tmp_path, ending):
    """nibabel with both codes 0, and SimpleITK with an array and no more, are files without orientation."""
    path = tmp_path / f"a.{ending}"
    if ending == "nii.gz":
        image = nibabel.Nifti1Image(np.zeros((6, 5, 4), np.float32), np.diag([1.0, 1, 3, 1]))
        image.set_qform(None, 0)
        image.set_sform(None, 0)
        nibabel.save(image, path)
    else:
        image = sitk.GetImageFromArray(np.zeros((4, 5, 6), np.float32))
        image.SetSpacing((1.0, 1.0, 3.0))
        sitk.WriteImage(image, str(path))
    geometry = read_geometry(path)
    assert not has_orientation(geometry)
    assert View.of(geometry).words == "slices across the file's z axis, orientation not known"
    assert View.of(geometry).sides == ("", "", "", "")
    assert "R and L are a guess" in View.of(geometry).three
