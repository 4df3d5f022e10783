"""Bytes of NIfTI files: where the pixels begin and end, and how much is unpacked."""

from __future__ import annotations

import gzip
import re
import struct
import subprocess
import sys
import zlib
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest

from autoseg.dataset.imageio import read_image
from autoseg.dataset.nifti import take_volume
from autoseg.errors import AutosegError

PIXELS = np.random.default_rng(0).normal(100, 10, (24, 20, 10)).astype(np.float32)
DIM, OFFSET = 40, 108


def _content(kind=nib.Nifti1Image, pixels: np.ndarray = PIXELS) -> bytearray:
    return bytearray(kind(pixels, np.eye(4)).to_bytes())


def _put(path: Path, content: bytes) -> Path:
    path.write_bytes(gzip.compress(content) if path.suffix == ".gz" else content)
    return path


@pytest.mark.parametrize("ending", [".nii", ".nii.gz"])
@pytest.mark.parametrize("offset", [0.0, -352.0, 1.0, 348.0, 351.0, 352.5, float("nan"), float("inf"), 1e30])
def test_an_offset_without_sense_is_refused(tmp_path, ending, offset):
    content = _content()
    struct.pack_into("<f", content, OFFSET, offset)
    path = _put(tmp_path / f"a{ending}", content)
    shown = re.escape(f"{offset:g}")
    for reading in (read_image, lambda p: take_volume(_four_axes(p), 0)):
        with pytest.raises(
            AutosegError,
            match=rf"(?s)a\.nii.*vox_offset {shown}.*352 or more.*correct",
        ) as caught:
            reading(path)
        assert "a.nii" in caught.value.fault.where


def _four_axes(path: Path) -> Path:
    packed = path.suffix == ".gz"
    content = bytearray(gzip.decompress(path.read_bytes()) if packed else path.read_bytes())
    struct.pack_into("<8h", content, DIM, 4, 24, 20, 5, 2, 1, 1, 1)
    return _put(path, content)


def test_an_offset_beyond_the_file_is_refused(tmp_path):
    content = _content()
    struct.pack_into("<f", content, OFFSET, 400.0)
    with pytest.raises(AutosegError, match=r"(?s)truncated.*48 too few"):
        read_image(_put(tmp_path / "a.nii.gz", content))


def test_extensions_before_the_pixels_are_passed_over(tmp_path):
    image = nib.Nifti1Image(PIXELS, np.eye(4))
    image.header.extensions.append(nib.nifti1.Nifti1Extension("comment", b"patient 7"))
    nib.save(image, tmp_path / "a.nii.gz")
    np.testing.assert_array_equal(read_image(tmp_path / "a.nii.gz").pixels, PIXELS.T)


@pytest.mark.parametrize("ending", [".nii", ".nii.gz"])
@pytest.mark.parametrize("dim", [(24, 20, 9), (23, 20, 10), (24, 19, 10), (1, 1, 1)])
def test_dims_smaller_than_the_data_are_refused(tmp_path, ending, dim):
    content = _content()
    struct.pack_into("<4h", content, DIM, 3, *dim)
    with pytest.raises(
        AutosegError, match=r"(?s)a\.nii.*holds more pixels than its header says.*correct the shape"
    ):
        read_image(_put(tmp_path / f"a{ending}", content))


@pytest.mark.parametrize("dim", [(24, 20, 11), (24, 20, 32767), (32767, 32767, 32767)])
def test_dims_larger_than_the_data_are_refused(tmp_path, dim):
    content = _content()
    struct.pack_into("<4h", content, DIM, 3, *dim)
    with pytest.raises(AutosegError, match="truncated|main memory"):
        read_image(_put(tmp_path / "a.nii.gz", content))


@pytest.mark.parametrize("dim", [(0, 20, 10), (-24, 20, 10), (24, 20, -1)])
def test_dims_without_voxels_are_refused(tmp_path, dim):
    content = _content()
    struct.pack_into("<4h", content, DIM, 3, *dim)
    with pytest.raises(AutosegError, match=r"(?s)not a 3D image.*correct the shape"):
        read_image(_put(tmp_path / "a.nii.gz", content))


def test_padding_is_no_fault(tmp_path):
    path = _put(tmp_path / "a.nii.gz", _content() + bytes(300))
    np.testing.assert_array_equal(read_image(path).pixels, PIXELS.T)


def test_nifti_2_is_read(tmp_path):
    nib.save(nib.Nifti2Image(PIXELS, np.eye(4)), tmp_path / "a.nii.gz")
    np.testing.assert_array_equal(read_image(tmp_path / "a.nii.gz").pixels, PIXELS.T)


def test_one_volume_is_taken_out_of_nifti_2(tmp_path):
    both = np.stack([PIXELS, PIXELS + 1], -1)
    nib.save(nib.Nifti2Image(both, np.eye(4)), tmp_path / "a.nii.gz")
    (tmp_path / "b.nii.gz").write_bytes(take_volume(tmp_path / "a.nii.gz", 1))
    np.testing.assert_array_equal(read_image(tmp_path / "b.nii.gz").pixels, PIXELS.T + 1)
    np.testing.assert_array_equal(nib.load(tmp_path / "b.nii.gz").get_fdata(), PIXELS + 1)


def test_the_header_of_a_pair_is_refused(tmp_path):
    content = _content()
    content[344:348] = b"ni1\0"
    with pytest.raises(AutosegError, match=r"(?s)pair of files.*save it as one"):
        read_image(_put(tmp_path / "a.nii", content))


BOMB = """
import resource, sys
from pathlib import Path
from autoseg.dataset.imageio import read_image
from autoseg.dataset.nifti import take_volume
from autoseg.errors import AutosegError
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
for reading in (read_image, lambda path: take_volume(path, 0)):
    try:
        reading(Path(sys.argv[1]))
    except AutosegError as error:
        print(error.fault.problem)
print((resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) // 1024)
"""


@pytest.mark.skipif(sys.platform == "win32", reason="measures memory as POSIX does")
@pytest.mark.parametrize("n_axes", [3, 4])
def test_a_small_file_that_unpacks_to_a_large_one_costs_no_memory(tmp_path, n_axes):
    """300 MB of zeros after the header's voxels."""
    content = _content()
    struct.pack_into("<5h", content, DIM, n_axes, 24, 20, 5, 2) if n_axes == 4 else None
    packer = zlib.compressobj(1, wbits=31)
    with open(tmp_path / "a.nii.gz", "wb") as file:
        file.write(packer.compress(bytes(content)))
        zeros = bytes(1 << 20)
        for _ in range(300):
            file.write(packer.compress(zeros))
        file.write(packer.flush())
    run = subprocess.run(
        [sys.executable, "-c", BOMB, str(tmp_path / "a.nii.gz")], capture_output=True, text=True, timeout=120
    )
    assert run.returncode == 0, run.stderr
    *problems, megabytes = run.stdout.splitlines()
    assert problems[0] in ("the file holds more pixels than its header says", "not a 3D image")
    assert int(megabytes) < 100
