"""NIfTI headers: which form counts, with nibabel as the judge, and masks that carry the scan's own words."""

from __future__ import annotations

import struct
from math import cos, sin
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
import SimpleITK as sitk

from autoseg import messages
from autoseg.dataset.imageio import Geometry, read_channels, read_forms, read_geometry, read_image, write_mask
from autoseg.errors import AutosegError, FaultsError

SHAPE_XYZ = (5, 4, 3)
PIXELS = np.arange(60, dtype=np.float32).reshape(SHAPE_XYZ, order="F")
GEOMETRY_FIELDS = (
    "pixdim", "qform_code", "sform_code", "quatern_b", "quatern_c", "quatern_d", "qoffset_x", "qoffset_y",
    "qoffset_z", "srow_x", "srow_y", "srow_z", "xyzt_units",
)  # fmt: skip
PIXDIM, UNITS = 76, 123


def _affine(kind: str = "oblique") -> np.ndarray:
    a, b = 0.3, -0.2
    turn = np.array([[cos(a), -sin(a), 0], [sin(a), cos(a), 0], [0, 0, 1]])
    turn = turn @ np.array([[1, 0, 0], [0, cos(b), -sin(b)], [0, sin(b), cos(b)]])
    turn = {
        "oblique": turn,
        "left-handed": np.diag([-1.0, 1, 1]),
        "oblique left-handed": turn @ np.diag([1.0, 1, -1]),
        "straight": np.eye(3),
        "permuted": np.eye(3)[[2, 0, 1]],
    }[kind]
    affine = np.eye(4)
    affine[:3, :3], affine[:3, 3] = turn * (0.7, 1.1, 2.3), (-12.5, 30.25, 4.0)
    return affine


def _moved(affine: np.ndarray, *, flip: bool = False) -> np.ndarray:
    moved = affine.copy()
    moved[:3, 3] += (10, -5, 3)
    return np.diag([-1.0, 1, 1, 1]) @ moved if flip else moved


def _save(path: Path, q: np.ndarray, qcode: int, s: np.ndarray, scode: int, kind=nib.Nifti1Image) -> Path:
    image = kind(PIXELS, s)
    image.set_qform(q, qcode)
    image.set_sform(s, scode)
    nib.save(image, path)
    return path


def _patch(path: Path, *changes: tuple[str, int, float]) -> Path:
    content = bytearray(path.read_bytes())
    for kind, offset, value in changes:
        struct.pack_into(f"<{kind}", content, offset, value)
    path.write_bytes(content)
    return path


def _in_ras(geometry: Geometry) -> np.ndarray:
    """The affine of nibabel that a geometry stands for."""
    affine = np.eye(4)
    affine[:3, :3] = np.reshape(geometry.direction, (3, 3)) * geometry.spacing_mm[::-1]
    affine[:3, 3] = geometry.origin_mm
    return np.diag([-1.0, -1, 1, 1]) @ affine


def _told() -> list[str]:
    messages.tell_notes()
    return list(messages.warning_counts())


@pytest.fixture(autouse=True)
def _forget():
    messages.forget_warnings()


CODES = [(2, 0), (0, 1), (1, 1), (2, 1), (1, 2), (4, 4)]


@pytest.mark.parametrize("kind", ["straight", "oblique", "left-handed", "oblique left-handed", "permuted"])
@pytest.mark.parametrize(("qcode", "scode"), CODES)
@pytest.mark.parametrize("other", ["equal", "moved", "flipped"])
def test_the_voxels_lie_where_nibabel_has_them(tmp_path, kind, qcode, scode, other):
    q = _affine(kind)
    s = q if other == "equal" else _moved(q, flip=other == "flipped")
    path = _save(tmp_path / "a.nii.gz", q, qcode, s, scode)
    file = read_image(path)
    np.testing.assert_allclose(_in_ras(file.geometry), nib.load(path).affine, atol=2e-5)
    assert "".join(nib.aff2axcodes(nib.load(path).affine)) == file.geometry.orientation
    disagree = other != "equal" and qcode and scode
    assert any("qform and sform disagree" in text for text in _told()) == bool(disagree)


@pytest.mark.parametrize("qcode,scode", [(1, 0), (0, 1), (1, 1), (2, 1), (1, 2), (0, 0)])
def test_consistent_files_have_the_numbers_that_itk_reads(tmp_path, qcode, scode):
    random = np.random.default_rng(qcode + 10 * scode)
    for i in range(12):
        turn = np.linalg.qr(random.normal(size=(3, 3)))[0] if i % 3 else np.eye(3)[random.permutation(3)]
        affine = np.eye(4)
        affine[:3, :3], affine[:3, 3] = turn * random.uniform(0.1, 5, 3), random.normal(0, 80, 3)
        path = _save(tmp_path / "a.nii", affine, qcode, affine, scode)
        _patch(path, ("b", UNITS, (2, 3, 0, 10)[i % 4]))
        reader = sitk.ImageFileReader()
        reader.SetFileName(str(path))
        reader.ReadImageInformation()
        geometry = read_geometry(path)
        assert geometry.spacing_mm == reader.GetSpacing()[::-1] and geometry.origin_mm == reader.GetOrigin()
        if (qcode, scode) == (1, 2):  # ITK chooses between equal forms by rounding
            np.testing.assert_allclose(geometry.direction, reader.GetDirection(), atol=1e-6)
        else:
            assert geometry.direction == reader.GetDirection()


# --------------------------------------------------------------------------------------------- written back


HEADERS = {
    "sform moved": lambda p: _save(p, _affine(), 1, _moved(_affine()), 2),
    "sform mirrored": lambda p: _save(p, _affine(), 1, _moved(_affine(), flip=True), 4),
    "sform alone": lambda p: _save(p, _affine(), 0, _affine("permuted"), 1),
    "qform alone": lambda p: _save(p, _affine("left-handed"), 2, _affine(), 0),
    "neither": lambda p: _save(p, _affine(), 0, _affine(), 0),
    "micrometres": lambda p: _patch(_save(p, 1e3 * _affine(), 1, 1e3 * _affine(), 1), ("b", UNITS, 3 + 8)),
    "no unit": lambda p: _patch(_save(p, _affine(), 1, _affine(), 1), ("b", UNITS, 0)),
    "pixdim contradicts": lambda p: _patch(_save(p, _affine(), 0, _affine(), 1), ("f", PIXDIM + 12, 3.0)),
    "pixdim negative": lambda p: _patch(_save(p, _affine(), 1, _affine(), 1), ("f", PIXDIM + 4, -0.7)),
    "pixdim 0": lambda p: _patch(_save(p, _affine(), 1, _affine(), 1), ("f", PIXDIM + 12, 0.0)),
    "NIfTI-2": lambda p: _save(p, _affine(), 1, _moved(_affine()), 2, nib.Nifti2Image),
    "slightly sheared": lambda p: _save(p, _affine(), 0, _sheared(0.0005), 1),
    "further sheared": lambda p: _save(p, _affine(), 0, _sheared(0.002), 1),
}


def _sheared(amount: float, kind: str = "oblique") -> np.ndarray:
    affine = _affine(kind)
    affine[:3, 1] += amount * affine[:3, 0] / 0.7 * 1.1
    return affine


@pytest.mark.parametrize("name", HEADERS)
@pytest.mark.parametrize("ending", [".nii", ".nii.gz"])
def test_a_mask_carries_the_scans_own_header(tmp_path, name, ending):
    scan = HEADERS[name](tmp_path / "a.nii")
    mask, geometry = (read_channels([scan])[0][0] > 20), read_geometry(scan)
    write_mask(tmp_path / f"m{ending}", mask, geometry, read_forms(scan))
    written, original = nib.load(tmp_path / f"m{ending}"), nib.load(scan)
    for field in GEOMETRY_FIELDS:
        np.testing.assert_array_equal(written.header[field], original.header[field], err_msg=field)
    assert type(written) is type(original)
    np.testing.assert_array_equal(np.asanyarray(written.dataobj), PIXELS > 20)
    assert written.get_data_dtype() == np.uint8
    assert read_geometry(tmp_path / f"m{ending}") == geometry


def test_big_endian_scans_are_read_and_their_masks_lie_on_them(tmp_path):
    image = nib.Nifti1Image(PIXELS, None, nib.Nifti1Header(endianness=">"))
    image.set_qform(_affine(), 1)
    image.set_sform(_moved(_affine()), 2)
    nib.save(image, tmp_path / "a.nii")
    file = read_image(tmp_path / "a.nii")
    np.testing.assert_array_equal(file.pixels, PIXELS.transpose(2, 1, 0))
    np.testing.assert_allclose(_in_ras(file.geometry), _moved(_affine()), atol=2e-5)
    write_mask(tmp_path / "m.nii", file.pixels > 20, file.geometry, file.forms)
    written, original = nib.load(tmp_path / "m.nii"), nib.load(tmp_path / "a.nii")
    for field in GEOMETRY_FIELDS:
        np.testing.assert_array_equal(written.header[field], original.header[field], err_msg=field)


@pytest.mark.parametrize("ending", [".nrrd", ".mha"])
def test_a_mask_in_another_format_lies_on_the_form_that_counts(tmp_path, ending):
    scan = _save(tmp_path / "a.nii", _affine(), 1, _moved(_affine()), 2)
    file = read_image(scan)
    write_mask(tmp_path / f"m{ending}", file.pixels > 20, file.geometry, file.forms)
    np.testing.assert_allclose(_in_ras(read_geometry(tmp_path / f"m{ending}")), _moved(_affine()), atol=2e-5)


# ------------------------------------------------------------------------------------------ odd but understood


@pytest.mark.parametrize(
    ("name", "warning"),
    [
        ("sform moved", "qform and sform disagree; the sform is used"),
        ("pixdim contradicts", "pixdim contradicts the sform, whose spacing is used"),
        ("pixdim negative", "pixdim is negative; its size is used"),
        ("pixdim 0", "the qform cannot be used, as pixdim is 0, NaN or Inf on an axis; the sform is used"),
        ("slightly sheared", "off a right angle by rounding"),
        ("further sheared", "off a right angle by rounding"),
    ],
)
def test_what_is_odd_is_warned_of_once_with_the_files(tmp_path, name, warning):
    for file in "ab":
        HEADERS[name](tmp_path / f"{file}.nii")
        read_image(tmp_path / f"{file}.nii")
        read_image(tmp_path / f"{file}.nii")
    told = _told()
    assert len(told) == 1 and warning in told[0]
    assert told[0].endswith(f"{tmp_path.name}/a.nii, {tmp_path.name}/b.nii")
    assert read_geometry(tmp_path / "a.nii").spacing_mm == pytest.approx((2.3, 1.1, 0.7), rel=1e-5)


def test_without_a_form_pixdim_alone_counts(tmp_path):
    geometry = read_geometry(HEADERS["neither"](tmp_path / "a.nii"))
    assert geometry.spacing_mm == pytest.approx((2.3, 1.1, 0.7)) and geometry.origin_mm == (0, 0, 0)
    assert geometry.direction == (1, 0, 0, 0, 1, 0, 0, 0, 1)


def test_nan_in_pixdim_leaves_the_sform(tmp_path):
    path = _save(tmp_path / "a.nii", _affine(), 1, _affine(), 1)
    _patch(path, ("f", PIXDIM + 12, float("nan")))
    assert read_geometry(path).spacing_mm == pytest.approx((2.3, 1.1, 0.7))


def test_micrometres_are_turned_into_mm(tmp_path):
    geometry = read_geometry(HEADERS["micrometres"](tmp_path / "a.nii"))
    np.testing.assert_allclose(_in_ras(geometry), _affine(), atol=2e-5)


def test_axes_off_by_rounding_become_the_nearest_right_angles(tmp_path):
    """Half the shear goes to each of the two axes."""
    amount = 0.002
    path = _save(tmp_path / "a.nii", _affine(), 0, _sheared(amount, "straight"), 1)
    direction = np.reshape(read_geometry(path).direction, (3, 3))
    np.testing.assert_allclose(direction.T @ direction, np.eye(3), atol=1e-12)
    np.testing.assert_allclose(direction[:2, :2], [[-1, -amount / 2], [amount / 2, -1]], atol=1e-5)


def test_a_sheared_sform_leaves_the_qform(tmp_path):
    """As an affine registration leaves it; the mask keeps both."""
    path = _save(tmp_path / "a.nii", _affine(), 1, _sheared(0.2), 4)
    np.testing.assert_allclose(_in_ras(read_image(path).geometry), _affine(), atol=2e-5)
    assert "the sform is sheared; the qform is used" in _told()[0]


# --------------------------------------------------------------------------------------------------- refused


@pytest.mark.parametrize("amount", [0.01, 0.5])
def test_real_shears_are_refused(tmp_path, amount):
    path = _save(tmp_path / "a.nii", _affine(), 0, _sheared(amount), 1)
    with pytest.raises(AutosegError, match=r"(?s)a\.nii.*not at right angles.*degrees.*resample"):
        read_image(path)


@pytest.mark.parametrize("value", [0.0, float("nan"), float("inf"), 1e-30, 1e30, 937.0])
@pytest.mark.parametrize("code", [0, 1])
def test_voxels_of_no_possible_size_are_refused(tmp_path, value, code):
    path = _save(tmp_path / "a.nii", _affine(), code, _affine(), 0)
    _patch(path, ("f", PIXDIM + 12, value))
    with pytest.raises(AutosegError) as caught:
        read_image(path)
    assert "a.nii" in caught.value.fault.where and "pixdim" in str(caught.value)
    assert f"{value:g}" in str(caught.value) and "correct" in caught.value.fault.fix


def test_a_wrong_unit_is_named(tmp_path):
    path = _patch(_save(tmp_path / "a.nii", _affine(), 1, _affine(), 1), ("b", UNITS, 1))
    with pytest.raises(AutosegError, match=r"(?s)in metre, as the header says.*2300 x 1100 x 700"):
        read_image(path)
    read_image(_patch(path, ("b", UNITS, 3)))
    assert not _told()  # whether a scan may have such voxels is for those who use it


def test_forms_without_sense_are_refused(tmp_path):
    path = _save(tmp_path / "a.nii", _affine(), 0, _affine(), 1)
    _patch(path, ("f", 280, float("nan")))
    with pytest.raises(AutosegError, match=r"(?s)does not say where its voxels lie.*sform holds NaN or Inf"):
        read_image(path)


# ---------------------------------------------------------------------------------------------------- compared


def test_channels_are_compared_by_the_form_that_counts(tmp_path):
    a = _affine()
    _save(tmp_path / "x_0000.nii", a, 1, a, 1)
    moved = _save(tmp_path / "x_0001.nii", a, 1, _moved(a), 2)
    with pytest.raises(FaultsError, match=r"x_0001.*origin is not that of x_0000"):
        read_channels([tmp_path / "x_0000.nii", moved])
    stale = _save(tmp_path / "x_0002.nii", _moved(a), 1, a, 2)
    assert read_channels([tmp_path / "x_0000.nii", stale])[0].shape == (2, *SHAPE_XYZ[::-1])
    assert any("disagree" in text and "x_0002.nii" in text for text in _told())


def test_units_that_differ_are_named(tmp_path):
    _save(tmp_path / "x_0000.nii", _affine(), 1, _affine(), 1)
    path = _patch(_save(tmp_path / "x_0001.nii", _affine(), 1, _affine(), 1), ("b", UNITS, 3))
    with pytest.raises(FaultsError, match=r"a thousandth of the expected: the units .*xyzt_units"):
        read_channels([tmp_path / "x_0000.nii", path])
