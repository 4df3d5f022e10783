"""Image files: geometry round trips, and what is said about files that are not what they should be."""

from __future__ import annotations

import gzip
import struct
import subprocess
import sys
from math import cos, sin
from pathlib import Path

import numpy as np
import pytest
import SimpleITK as sitk

from autoseg.dataset.imageio import (
    Geometry,
    differences,
    read_channels,
    read_geometry,
    read_image,
    read_mask,
    write_image,
    write_mask,
)
from autoseg.errors import AutosegError, FaultsError

ENDINGS = (".nii.gz", ".nii", ".nrrd", ".mha")


def _rotation(a: float, b: float, c: float) -> np.ndarray:
    about_z = np.array([[cos(a), -sin(a), 0], [sin(a), cos(a), 0], [0, 0, 1]])
    about_x = np.array([[1, 0, 0], [0, cos(b), -sin(b)], [0, sin(b), cos(b)]])
    about_y = np.array([[cos(c), 0, sin(c)], [0, 1, 0], [-sin(c), 0, cos(c)]])
    return about_z @ about_x @ about_y


DIRECTIONS = {
    "identity": np.eye(3),
    "oblique": _rotation(0.3, 0.2, -0.4),
    "left-handed": np.diag([-1, 1, 1]),
    "oblique left-handed": _rotation(0.3, 0.2, -0.4) @ np.diag([1, -1, 1]),
    "axes permuted": np.array([[0, 1, 0], [0, 0, 1], [1, 0, 0]]),
}


def _geometry(direction: np.ndarray = DIRECTIONS["oblique"]) -> Geometry:
    return Geometry(
        (3, 4, 5), (3.3, 0.7, 0.1171875), (-12.34, 98.76, 3.1), tuple(np.ravel(direction).tolist())
    )


@pytest.mark.parametrize("ending", ENDINGS)
@pytest.mark.parametrize("direction", DIRECTIONS)
def test_geometry_and_pixels_survive_a_round_trip(tmp_path: Path, ending: str, direction: str) -> None:
    geometry, path = _geometry(DIRECTIONS[direction]), tmp_path / f"a{ending}"
    image = np.random.default_rng(0).normal(size=(3, 4, 5)).astype(np.float32)
    write_image(path, image, geometry)
    read, found = read_channels([path])
    np.testing.assert_array_equal(read[0], image)
    assert read.dtype == np.float32
    assert found.shape == geometry.shape
    np.testing.assert_allclose(found.spacing_mm, geometry.spacing_mm, rtol=1e-6)
    np.testing.assert_allclose(found.origin_mm, geometry.origin_mm, rtol=1e-6)
    np.testing.assert_allclose(found.direction, geometry.direction, atol=1e-7)
    assert read_geometry(path) == found
    assert differences(geometry, found) == []


@pytest.mark.parametrize("ending", ENDINGS)
def test_what_came_from_a_file_goes_back_with_the_same_geometry(tmp_path: Path, ending: str) -> None:
    write_mask(tmp_path / "a.nii.gz", np.ones((3, 4, 5), np.uint8), _geometry())
    mask, geometry = read_mask(tmp_path / "a.nii.gz")
    write_mask(tmp_path / f"b{ending}", mask, geometry)
    _, again = read_mask(tmp_path / f"b{ending}")
    np.testing.assert_allclose(again.spacing_mm, geometry.spacing_mm, rtol=1e-7)
    np.testing.assert_allclose(again.origin_mm, geometry.origin_mm, rtol=1e-7)
    np.testing.assert_allclose(again.direction, geometry.direction, atol=2e-8)


def test_the_array_is_in_file_order(tmp_path: Path) -> None:
    image = sitk.GetImageFromArray(np.arange(60, dtype=np.int16).reshape(3, 4, 5))
    image.SetDirection((-1, 0, 0, 0, 0, 1, 0, -1, 0))
    sitk.WriteImage(image, str(tmp_path / "a.nrrd"))
    array, geometry = read_channels([tmp_path / "a.nrrd"])
    assert array[0, 0, 0, 1] == 1 and array[0, 1, 0, 0] == 20
    assert geometry.orientation == "RIP"


def test_geometry_survives_json() -> None:
    geometry = _geometry()
    assert Geometry.from_dict(geometry.to_dict()) == geometry
    assert geometry.voxel_ml == pytest.approx(3.3 * 0.7 * 0.1171875 / 1000)


@pytest.mark.parametrize(
    "kind", ["uint8", "int16", "uint16", "int32", "float32", "float64", "int8", "uint32"]
)
@pytest.mark.parametrize("ending", [".nii.gz", ".nii"])
def test_own_nifti_decoding_equals_itks(tmp_path: Path, kind: str, ending: str) -> None:
    array = np.random.default_rng(1).integers(0, 100, (3, 4, 5)).astype(kind)
    sitk.WriteImage(sitk.GetImageFromArray(array), str(tmp_path / f"a{ending}"))
    file = read_image(tmp_path / f"a{ending}")
    assert file.pixels.dtype == np.dtype(kind)
    np.testing.assert_array_equal(file.pixels, array)


@pytest.mark.parametrize(
    ("slope", "intercept"), [(0.5, -3.0), (0.0, 0.0), (1.0, 0.0), (1.0, 2.0), (2.5, 0.0)]
)
def test_rescaling_and_byte_order_equal_itks(tmp_path: Path, slope: float, intercept: float) -> None:
    array = np.arange(60, dtype=np.int16).reshape(3, 4, 5)
    sitk.WriteImage(sitk.GetImageFromArray(array), str(tmp_path / "a.nii"))
    content = bytearray((tmp_path / "a.nii").read_bytes())
    struct.pack_into("<2f", content, 112, slope, intercept)
    (tmp_path / "a.nii").write_bytes(content)
    expected = sitk.GetArrayFromImage(sitk.ReadImage(str(tmp_path / "a.nii"), sitk.sitkFloat32))
    np.testing.assert_array_equal(read_channels([tmp_path / "a.nii"])[0][0], expected)

    swapped = _big_endian(bytes(content))
    (tmp_path / "b.nii").write_bytes(swapped)
    np.testing.assert_array_equal(read_channels([tmp_path / "b.nii"])[0][0], expected)


def test_a_slope_of_zero_means_no_rescaling(tmp_path: Path) -> None:
    """So the NIfTI-1 standard; ITK would add the intercept."""
    sitk.WriteImage(sitk.GetImageFromArray(np.full((3, 4, 5), 9, np.int16)), str(tmp_path / "a.nii"))
    content = bytearray((tmp_path / "a.nii").read_bytes())
    struct.pack_into("<2f", content, 112, 0.0, 7.0)
    (tmp_path / "a.nii").write_bytes(content)
    assert read_image(tmp_path / "a.nii").pixels.max() == 9


def _big_endian(content: bytes) -> bytes:
    """The same NIfTI-1 file with int16 pixels, its header and pixels in the other byte order."""
    layout = [
        ("i", 0, 1),
        ("i", 32, 1),
        ("h", 36, 1),
        ("h", 40, 8),
        ("f", 56, 3),
        ("h", 68, 4),
        ("f", 76, 11),
    ]
    layout += [("h", 120, 1), ("f", 124, 4), ("i", 140, 2), ("h", 252, 2), ("f", 256, 18)]
    swapped = bytearray(content)
    for kind, offset, n in layout:
        struct.pack_into(f">{n}{kind}", swapped, offset, *struct.unpack_from(f"<{n}{kind}", content, offset))
    start = int(struct.unpack_from("<f", content, 108)[0])
    swapped[start:] = np.frombuffer(content[start:], "<i2").astype(">i2").tobytes()
    return bytes(swapped)


def test_a_file_beside_one_of_almost_the_same_name_is_not_mixed_up(tmp_path: Path) -> None:
    """ITK takes the pixels of a.nii for those of a.nii.gz."""
    write_mask(tmp_path / "a.nii.gz", np.full((3, 4, 5), 1, np.uint8), _geometry())
    write_mask(tmp_path / "a.nii", np.full((3, 4, 5), 2, np.uint8), _geometry())
    assert read_mask(tmp_path / "a.nii.gz")[0].max() == 1
    assert read_mask(tmp_path / "a.nii")[0].max() == 2


def test_masks_are_uint8_where_they_fit(tmp_path: Path) -> None:
    for high, kind in ((255, np.uint8), (300, np.int16), (70000, np.int32)):
        sitk.WriteImage(
            sitk.GetImageFromArray(np.full((2, 3, 4), high, np.float32)), str(tmp_path / "m.nrrd")
        )
        mask, _ = read_mask(tmp_path / "m.nrrd")
        assert mask.dtype == kind and mask.flags.writeable and mask.max() == high


def _noise(path: Path, shape: tuple[int, ...] = (20, 20, 20)) -> bytes:
    sitk.WriteImage(sitk.GetImageFromArray(np.random.default_rng(0).normal(size=shape)), str(path), True)
    return path.read_bytes()


@pytest.mark.parametrize("ending", ENDINGS)
@pytest.mark.parametrize("share", [0.5, 0.999])
def test_a_truncated_file_is_refused(tmp_path: Path, ending: str, share: float) -> None:
    path = tmp_path / f"a{ending}"
    content = _noise(path)
    path.write_bytes(content[: int(share * len(content))])
    with pytest.raises(AutosegError) as caught:
        read_image(path)
    assert caught.value.fault.where == str(path)
    assert "truncated" in caught.value.fault.problem
    assert caught.value.fault.found and caught.value.fault.expected
    assert "again" in caught.value.fault.fix


def test_a_gzip_file_cut_in_its_header_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "a.nii.gz"
    path.write_bytes(_noise(path)[:20])
    with pytest.raises(AutosegError, match="truncated"):
        read_image(path)


def test_a_flipped_bit_is_noticed(tmp_path: Path) -> None:
    path = tmp_path / "a.nii.gz"
    content = bytearray(_noise(path))
    content[len(content) // 2] ^= 0x10
    path.write_bytes(content)
    with pytest.raises(AutosegError, match="truncated or damaged"):
        read_image(path)


@pytest.mark.parametrize("ending", ENDINGS)
def test_text_is_not_an_image(tmp_path: Path, ending: str) -> None:
    path = tmp_path / f"notes{ending}"
    path.write_text("patient 7, scanned on Monday")
    with pytest.raises(AutosegError) as caught:
        read_image(path)
    text = str(caught.value)
    assert str(path) in text and "not a readable" in text and "patient 7" in text and "convert it" in text


@pytest.mark.parametrize("ending", ENDINGS)
def test_an_empty_file_is_not_an_image(tmp_path: Path, ending: str) -> None:
    (tmp_path / f"a{ending}").touch()
    with pytest.raises(AutosegError, match=r"(?s)a\.\w+.*is empty.*0 bytes"):
        read_image(tmp_path / f"a{ending}")


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(AutosegError, match=r"nowhere\.nii\.gz: the file is missing"):
        read_geometry(tmp_path / "nowhere.nii.gz")


@pytest.mark.parametrize(
    ("shape", "found", "fix"),
    [((3, 8, 8, 8), "4D, 8 x 8 x 8 x 3", "one 3D file per channel"), ((8, 8), "2D, 8 x 8", "one slice")],
)
def test_4d_and_2d_images_are_refused(tmp_path: Path, shape: tuple[int, ...], found: str, fix: str) -> None:
    if len(shape) == 4:
        image = sitk.JoinSeries([sitk.GetImageFromArray(np.zeros(shape[1:], np.float32))] * shape[0])
    else:
        image = sitk.GetImageFromArray(np.zeros(shape, np.float32))
    sitk.WriteImage(image, str(tmp_path / "a.nii.gz"))
    with pytest.raises(AutosegError) as caught:
        read_image(tmp_path / "a.nii.gz")
    assert caught.value.fault.problem == "not a 3D image"
    assert caught.value.fault.found.startswith(found) and fix in caught.value.fault.fix


def test_colour_images_are_refused(tmp_path: Path) -> None:
    sitk.WriteImage(
        sitk.GetImageFromArray(np.zeros((4, 5, 6, 3), np.uint8), isVector=True), str(tmp_path / "a.mha")
    )
    with pytest.raises(AutosegError, match="3 values per voxel"):
        read_image(tmp_path / "a.mha")


def test_a_sheared_header_is_explained(tmp_path: Path) -> None:
    path = tmp_path / "a.nii"
    sitk.WriteImage(sitk.GetImageFromArray(np.zeros((3, 4, 5), np.float32)), str(path))
    content = bytearray(path.read_bytes())
    struct.pack_into("<2h", content, 252, 0, 1)  # sform only
    struct.pack_into("<4f", content, 280, 1.0, 0.5, 0.0, 0.0)
    path.write_bytes(content)
    with pytest.raises(AutosegError, match="not at right angles"):
        read_image(path)


def test_masks_with_fractions_are_refused(tmp_path: Path) -> None:
    mask = np.zeros((3, 4, 5), np.float32)
    mask[0, 0, :2] = 0.5
    sitk.WriteImage(sitk.GetImageFromArray(mask), str(tmp_path / "m.nii.gz"))
    with pytest.raises(AutosegError, match=r"(?s)m\.nii\.gz.*not whole numbers.*2 voxels.*0\.5.*nearest"):
        read_mask(tmp_path / "m.nii.gz")


def test_channels_on_different_grids_are_refused(tmp_path: Path) -> None:
    image = np.zeros((3, 4, 5), np.float32)
    write_image(tmp_path / "a_0000.nii.gz", image, _geometry())
    write_image(tmp_path / "a_0001.nii.gz", image, _geometry(DIRECTIONS["identity"]))
    with pytest.raises(FaultsError, match=r"a_0001.*direction is not that of a_0000"):
        read_channels([tmp_path / "a_0000.nii.gz", tmp_path / "a_0001.nii.gz"])


@pytest.mark.parametrize(
    ("change", "what"),
    [
        ({"shape": (3, 4, 6)}, "shape"),
        ({"spacing_mm": (3.31, 0.7, 0.1171875)}, "spacing"),
        ({"origin_mm": (-12.3, 98.76, 3.1)}, "origin"),
        ({"direction": tuple(np.ravel(_rotation(0.302, 0.2, -0.4)).tolist())}, "direction"),
    ],
)
def test_differences_name_what_differs(change: dict[str, tuple[float, ...]], what: str) -> None:
    a = _geometry()
    b = Geometry(**{**a.to_dict(), **change})
    assert [found[0] for found in differences(a, b)] == [what]


def test_noise_in_a_header_is_not_a_difference() -> None:
    a = _geometry()
    b = Geometry(
        a.shape,
        tuple(v * (1 + 1e-5) for v in a.spacing_mm),
        tuple(v + 1e-3 for v in a.origin_mm),
        tuple(v + 1e-5 for v in a.direction),
    )
    assert differences(a, b) == []


# ------------------------------------------------------------------------------------------------- writing


def test_nothing_is_left_when_the_folder_cannot_be_written_to(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("not a folder")
    with pytest.raises(AutosegError, match="cannot be written"):
        write_mask(tmp_path / "file" / "a.nii.gz", np.zeros((3, 4, 5), np.uint8), _geometry())
    assert (tmp_path / "file").read_text() == "not a folder"


FULL_DISK = """
import resource, signal, sys
from pathlib import Path
import numpy as np
from autoseg.dataset.imageio import Geometry, write_image
from autoseg.errors import AutosegError
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
resource.setrlimit(resource.RLIMIT_FSIZE, (20000, 20000))
image = np.random.default_rng(0).normal(size=(30, 30, 30)).astype(np.float32)
try:
    write_image(Path(sys.argv[1]), image, Geometry((30, 30, 30), (1, 1, 1), (0, 0, 0), (1, 0, 0, 0, 1, 0, 0, 0, 1)))
except AutosegError as error:
    sys.exit(str(error))
"""


@pytest.mark.skipif(sys.platform == "win32", reason="file size limits are POSIX")
@pytest.mark.parametrize("ending", ENDINGS)
def test_a_file_that_could_not_be_finished_is_reported_and_removed(tmp_path: Path, ending: str) -> None:
    """A file size limit stands in for a full disk."""
    path = tmp_path / f"a{ending}"
    path.write_bytes(b"what was there before")
    run = subprocess.run(
        [sys.executable, "-c", FULL_DISK, str(path)], capture_output=True, text=True, timeout=60
    )
    assert run.returncode == 1
    assert f"a{ending}" in run.stderr and "could not be written completely" in run.stderr
    assert "free" in run.stderr
    assert [entry.name for entry in tmp_path.iterdir()] == [path.name]
    assert path.read_bytes() == b"what was there before"


def test_the_wrong_shape_is_a_programming_error(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="does not fit"):
        write_mask(tmp_path / "a.nii.gz", np.zeros((2, 2, 2), np.uint8), _geometry())
    with pytest.raises(ValueError, match="integer"):
        write_mask(tmp_path / "a.nii.gz", np.zeros((3, 4, 5), np.float32), _geometry())
    assert list(tmp_path.iterdir()) == []


def test_several_gzip_members_are_read_as_one(tmp_path: Path) -> None:
    """As pigz and bgzip write them."""
    path = tmp_path / "a.nii.gz"
    write_image(path, np.arange(60, dtype=np.float32).reshape(3, 4, 5), _geometry())
    plain = gzip.decompress(path.read_bytes())
    path.write_bytes(gzip.compress(plain[:400]) + gzip.compress(plain[400:]))
    np.testing.assert_array_equal(read_channels([path])[0].ravel(), np.arange(60))
