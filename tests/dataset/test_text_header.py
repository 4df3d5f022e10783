"""NRRD and MHA: the same checks of the geometry as for NIfTI, units, and pixels that lie in another file."""

from __future__ import annotations

import hashlib
from pathlib import Path

import numpy as np
import pytest
import SimpleITK as sitk

from autoseg import messages
from autoseg.dataset.imageio import hash_image, read_forms, read_geometry, read_image, read_mask, write_mask
from autoseg.errors import AutosegError

PIXELS = np.arange(60, dtype=np.int16).reshape(3, 4, 5)


@pytest.fixture(autouse=True)
def _forget():
    messages.forget_warnings()


def _written(path: Path, *changes: tuple[str, str], compressed: bool = False) -> Path:
    """An image of 1 x 1.5 x 2 mm with changes to the text of its header."""
    image = sitk.GetImageFromArray(PIXELS)
    image.SetSpacing((1, 1.5, 2))
    sitk.WriteImage(image, str(path), useCompression=compressed)
    content = path.read_bytes()
    for old, new in changes:
        assert old.encode() in content
        content = content.replace(old.encode(), new.encode(), 1)
    path.write_bytes(content)
    return path


TYPES = ("uint8", "int8", "int16", "uint16", "int32", "uint32", "int64", "uint64", "float32", "float64")


@pytest.mark.parametrize("ending", [".nrrd", ".mha"])
@pytest.mark.parametrize("compressed", [False, True])
@pytest.mark.parametrize("kind", TYPES)
def test_numbers_and_pixels_are_those_that_itk_reads(tmp_path, ending, compressed, kind):
    random = np.random.default_rng(TYPES.index(kind))
    turn = np.linalg.qr(random.normal(size=(3, 3)))[0]
    image = sitk.GetImageFromArray(random.integers(0, 100, (3, 4, 5)).astype(kind))
    image.SetSpacing(random.uniform(0.1, 5, 3).tolist())
    image.SetOrigin(random.normal(0, 80, 3).tolist())
    image.SetDirection(turn.ravel().tolist())
    path = tmp_path / f"a{ending}"
    sitk.WriteImage(image, str(path), useCompression=compressed)
    read, file = sitk.ReadImage(str(path)), read_image(path)
    assert file.pixels.dtype == np.dtype(kind)
    np.testing.assert_array_equal(file.pixels, sitk.GetArrayFromImage(read))
    assert file.geometry.spacing_mm == read.GetSpacing()[::-1]
    assert file.geometry.origin_mm == read.GetOrigin()
    np.testing.assert_allclose(file.geometry.direction, read.GetDirection(), rtol=0, atol=1e-15)


@pytest.mark.parametrize("space", ["right-anterior-superior", "left-anterior-superior", "scanner-xyz"])
def test_spaces_of_nrrd_are_turned_into_lps_as_itk_does(tmp_path, space):
    path = _written(tmp_path / "a.nrrd", ("left-posterior-superior", space), ("(0,0,0)", "(3,4,5)"))
    read, geometry = sitk.ReadImage(str(path)), read_geometry(path)
    assert geometry.origin_mm == read.GetOrigin() and geometry.direction == read.GetDirection()


@pytest.mark.parametrize("ending", [".nrrd", ".mha"])
def test_big_endian_and_text_pixels_are_those_that_itk_reads(tmp_path, ending):
    nrrd = ending == ".nrrd"
    big = ("endian: little", "endian: big") if nrrd else ("OrderMSB = False", "OrderMSB = True")
    path = _written(tmp_path / f"a{ending}", big)
    np.testing.assert_array_equal(read_image(path).pixels, sitk.GetArrayFromImage(sitk.ReadImage(str(path))))
    text = ("encoding: raw", "encoding: ascii") if nrrd else ("BinaryData = True", "BinaryData = False")
    content = _written(path, text).read_bytes()
    path.write_bytes(content[: -PIXELS.nbytes] + " ".join(map(str, PIXELS.ravel())).encode() + b"\n")
    np.testing.assert_array_equal(read_image(path).pixels, PIXELS)
    np.testing.assert_array_equal(sitk.GetArrayFromImage(sitk.ReadImage(str(path))), PIXELS)


@pytest.mark.parametrize(
    ("ending", "old", "new", "named"),
    [
        (".nrrd", "type: short", "type: block", "type: 'block'"),
        (".nrrd", "encoding: raw", "encoding: bzip2", "encoding: 'bzip2'"),
        (".nrrd", "sizes: 5 4 3", "sizes: 5 4", "sizes: '5 4'"),
        (".nrrd", "sizes: 5 4 3\n", "", "no sizes"),
        (".nrrd", "(0,1.5,0)", "none", "space directions"),
        (".mha", "MET_SHORT", "MET_STRING", "ElementType: 'MET_STRING'"),
        (".mha", "DimSize = 5 4 3", "DimSize = 5 4 x", "DimSize: '5 4 x'"),
        (".mha", "= 1 0 0 0 1 0 0 0 1", "= 1 0 0", "TransformMatrix: '1 0 0'"),
        (".mha", "NDims = 3\n", "", "no NDims"),
    ],
)
def test_fields_without_sense_are_named(tmp_path, ending, old, new, named):
    path = _written(tmp_path / f"a{ending}", (old, new))
    with pytest.raises(AutosegError) as caught:
        read_image(path)
    assert caught.value.fault.problem == "its header cannot be read"
    assert named in caught.value.fault.found and caught.value.fault.expected


def _sheared(folder: Path, ending: str, amount: float) -> Path:
    if ending == ".nrrd":
        return _written(folder / "a.nrrd", ("(0,1.5,0)", f"({1.5 * amount},1.5,0)"))
    return _written(folder / "a.mha", ("= 1 0 0 0 1 0 0 0 1", f"= 1 0 0 {amount} 1 0 0 0 1"))


@pytest.mark.parametrize("ending", [".nrrd", ".mha"])
@pytest.mark.parametrize("amount", [0.01, 0.5])
def test_real_shears_are_refused(tmp_path, ending, amount):
    with pytest.raises(AutosegError, match=r"(?s)a\..*not at right angles.*resample"):
        read_image(_sheared(tmp_path, ending, amount))


@pytest.mark.parametrize("ending", [".nrrd", ".mha"])
def test_axes_off_by_rounding_are_read_at_right_angles_and_written_as_they_were(tmp_path, ending):
    scan = _sheared(tmp_path, ending, 0.001)
    file = read_image(scan)
    direction = np.reshape(file.geometry.direction, (3, 3))
    np.testing.assert_allclose(direction.T @ direction, np.eye(3), atol=1e-12)
    messages.tell_notes()
    assert "off a right angle by rounding" in next(iter(messages.warning_counts()))
    write_mask(tmp_path / f"m{ending}", file.pixels > 20, file.geometry, file.forms)
    mask, original = sitk.ReadImage(str(tmp_path / f"m{ending}")), sitk.ReadImage(str(scan))
    np.testing.assert_allclose(mask.GetDirection(), original.GetDirection(), rtol=1e-14)
    assert mask.GetSpacing() == original.GetSpacing() and mask.GetOrigin() == original.GetOrigin()


@pytest.mark.parametrize("value", ["0", "nan", "inf", "1e-30", "1e30", "937", "-1"])
def test_voxels_of_no_possible_size_are_refused_in_mha(tmp_path, value):
    path = _written(tmp_path / "a.mha", ("ElementSpacing = 1 ", f"ElementSpacing = {value} "))
    with pytest.raises(AutosegError, match=rf"(?s)a\.mha.*ElementSpacing is {value} 1\.5 2.*correct"):
        read_image(path)


@pytest.mark.parametrize("value", ["0", "nan", "inf", "1e-30", "1e30", "937"])
def test_voxels_of_no_possible_size_are_refused_in_nrrd(tmp_path, value):
    path = _written(tmp_path / "a.nrrd", ("(1,0,0)", f"({value},0,0)"))
    with pytest.raises(AutosegError, match=r"(?s)a\.nrrd.*(space directions|SpaceVector).*correct"):
        read_image(path)


def test_negative_directions_of_nrrd_are_mirrored_axes(tmp_path):
    geometry = read_geometry(_written(tmp_path / "a.nrrd", ("(1,0,0)", "(-1,0,0)")))
    assert geometry.orientation == "RPS" and geometry.spacing_mm == (2, 1.5, 1)


def test_directions_of_another_length_are_refused_in_mha(tmp_path):
    path = _written(tmp_path / "a.mha", ("= 1 0 0 0 1 0", "= 2 0 0 0 1 0"))
    with pytest.raises(AutosegError, match="have no length of 1"):
        read_image(path)


@pytest.mark.parametrize(
    ("unit", "mm"), [("mm", 1), ("um", 1e-3), ("microns", 1e-3), ("cm", 10), ("pixels", 1)]
)
def test_the_unit_of_nrrd_counts_and_is_written_back(tmp_path, unit, mm):
    units = " ".join([f'"{unit}"'] * 3)
    factor = 1 / mm
    scan = _written(
        tmp_path / "a.nrrd",
        (
            "space directions: (1,0,0) (0,1.5,0) (0,0,2)",
            f"space units: {units}\nspace directions: ({factor},0,0) (0,{1.5 * factor},0) (0,0,{2 * factor})",
        ),
        ("space origin: (0,0,0)", f"space origin: ({7 * factor},0,0)"),
    )
    file = read_image(scan)
    assert file.geometry.spacing_mm == pytest.approx((2, 1.5, 1)) and file.geometry.origin_mm[
        0
    ] == pytest.approx(7)
    write_mask(tmp_path / "m.nrrd", file.pixels > 20, file.geometry, file.forms)
    assert read_geometry(tmp_path / "m.nrrd") == file.geometry
    text = (tmp_path / "m.nrrd").read_bytes().split(b"\n\n")[0].decode()
    assert (f"space units: {units}" in text) == (unit not in ("mm", "pixels"))
    assert np.array_equal(read_mask(tmp_path / "m.nrrd")[0], PIXELS > 20)
    assert sitk.ReadImage(str(tmp_path / "m.nrrd")).GetSpacing() == pytest.approx(
        (factor, 1.5 * factor, 2 * factor)
    )


# ------------------------------------------------------------------------------------------- detached pixels


def _detached(folder: Path, ending: str, name: str, data: Path | None = None) -> Path:
    """A header with its pixels in another file."""
    path = folder / f"a{ending}"
    content = _written(path).read_bytes()
    (data or folder / name).parent.mkdir(parents=True, exist_ok=True)
    (data or folder / name).write_bytes(PIXELS.tobytes())
    if ending == ".nrrd":
        head = content.split(b"\n\n")[0] + f"\ndata file: {name}\n".encode()
    else:
        head = content[: content.index(b"LOCAL")] + f"{name}\n".encode()
    path.write_bytes(head)
    return path


@pytest.mark.parametrize("ending", [".nrrd", ".mha"])
@pytest.mark.parametrize("name", ["pixels.raw", "a b.raw"])
def test_detached_pixels_beside_the_header_are_read_and_hashed(tmp_path, ending, name):
    path = _detached(tmp_path, ending, name)
    file = read_image(path)
    np.testing.assert_array_equal(file.pixels, PIXELS)
    both = path.read_bytes() + PIXELS.tobytes()
    assert file.sha256 == hash_image(path) == hashlib.sha256(both).hexdigest()
    (tmp_path / name).write_bytes(np.zeros_like(PIXELS).tobytes())
    assert hash_image(path) == read_image(path).sha256 != file.sha256


def test_a_file_that_holds_its_pixels_keeps_its_hash(tmp_path):
    for path in (_written(tmp_path / "a.nrrd"), _written(tmp_path / "a.mha", compressed=True)):
        plain = hashlib.sha256(path.read_bytes()).hexdigest()
        assert hash_image(path) == read_image(path).sha256 == plain


@pytest.mark.parametrize("ending", [".nrrd", ".mha"])
@pytest.mark.parametrize("how", ["absolute", "above", "through a folder", "by a link", "by a linked folder"])
def test_nothing_is_read_from_outside_the_folder_of_the_header(tmp_path, ending, how):
    folder, secret = tmp_path / "data", tmp_path / "secret.raw"
    folder.mkdir()
    name = {
        "absolute": str(secret),
        "above": "../secret.raw",
        "through a folder": "x/../../secret.raw",
        "by a link": "link.raw",
        "by a linked folder": "x/secret.raw",
    }[how]
    if how == "by a link":
        (folder / name).symlink_to(secret)
    elif how == "by a linked folder":
        (folder / "x").symlink_to(tmp_path)
    path = _detached(folder, ending, name, secret)
    for reading in (read_geometry, read_image, read_forms, hash_image):
        with pytest.raises(
            AutosegError, match=r"(?s)outside the folder of the header.*do:.*beside its header"
        ):
            reading(path)


@pytest.mark.parametrize("name", ["LIST", "LIST 2", "slice%03d.raw 1 3 1"])
@pytest.mark.parametrize("ending", [".nrrd", ".mha"])
def test_lists_of_files_are_refused(tmp_path, ending, name):
    path = _detached(tmp_path, ending, name, tmp_path / "x.raw")
    with pytest.raises(AutosegError, match=r"(?s)list of files.*save the image as one file"):
        read_image(path)


def test_detached_pixels_that_are_missing_are_named(tmp_path):
    path = _detached(tmp_path, ".mha", "pixels.raw")
    (tmp_path / "pixels.raw").unlink()
    with pytest.raises(
        AutosegError, match=r"(?s)a\.mha: the file with its pixels is missing.*no pixels\.raw"
    ):
        read_image(path)


# ----------------------------------------------------------------------------------------------- lengths


@pytest.mark.parametrize("compressed", [False, True])
@pytest.mark.parametrize(
    ("ending", "old", "new"),
    [(".nrrd", "sizes: 5 4 3", "sizes: 5 4 2"), (".mha", "DimSize = 5 4 3", "DimSize = 5 4 2")],
)
def test_dims_smaller_than_the_data_are_refused(tmp_path, ending, old, new, compressed):
    path = _written(tmp_path / f"a{ending}", (old, new), compressed=compressed)
    with pytest.raises(AutosegError, match=r"(?s)holds more pixels than its header says.*correct the shape"):
        read_image(path)
