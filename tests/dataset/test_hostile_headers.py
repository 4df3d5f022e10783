"""Damaged headers of every image format, seeded: an answer or one fault, never a traceback, a hang or much memory.

To repeat with more: ``pytest tests/dataset/test_hostile_headers.py`` after a change of SEEDS or N.
"""

from __future__ import annotations

import gzip
import struct
import subprocess
import sys
import warnings
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
import SimpleITK as sitk

from autoseg.dataset.imageio import hash_image, read_forms, read_image
from autoseg.dataset.nifti import take_volume
from autoseg.errors import AutosegError

SEEDS, N = (1, 2), 300
KINDS = ("nifti-1", "nifti-2", "nifti-1 packed", "mha", "mha packed", "nrrd", "nrrd packed")
FLOATS = (0.0, -1.0, np.nan, np.inf, 1e-30, 1e30, 937.0, -3.4e38, -1e9)
SHORTS = (0, -1, 1, 2, 300, 32767, -32768)
WORDS = (
    b"-",
    b"nan",
    b"inf",
    b"1e309",
    b"99999999999",
    b"0",
    b"\0",
    b"\xff",
    b"/",
    b"..",
    b"%d",
    b"LIST",
    b"\n",
)


def _whole(folder: Path, kind: str) -> tuple[bytes, int, str]:
    """A good file's content, the length of its header, and its ending."""
    pixels = np.random.default_rng(0).normal(100, 10, (12, 11, 10)).astype(np.float32)
    if kind.startswith("nifti"):
        image = (nib.Nifti2Image if "2" in kind else nib.Nifti1Image)(pixels, np.diag([1, 1.5, 2, 1.0]))
        return image.to_bytes(), 540 if "2" in kind else 348, ".nii.gz" if "packed" in kind else ".nii"
    path = folder / f"whole.{kind.split()[0]}"
    sitk.WriteImage(sitk.GetImageFromArray(pixels), str(path), "packed" in kind)
    content = path.read_bytes()
    return content, content.index(b"LOCAL" if "mha" in kind else b"\n\n"), path.suffix


def _damaged(random: np.random.Generator, content: bytes, header: int, text: bool) -> bytes:
    changed = bytearray(content)
    for _ in range(random.integers(1, 5)):
        at, how = int(random.integers(header)), random.integers(4)
        if how == 0:
            changed[at] = int(random.integers(256))
        elif how == 1:
            changed[at : at + 4] = struct.pack("<f", random.choice(FLOATS))
        elif how == 2:
            changed[at : at + 2] = struct.pack("<h", random.choice(SHORTS))
        elif how == 3 and text:
            changed[at : at + int(random.integers(3))] = WORDS[random.integers(len(WORDS))]
        else:
            changed[at : at + 8] = random.bytes(8)
    end = int(random.integers(2 * len(changed)))  # every other one is cut
    return bytes(changed[:end])


@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.parametrize("kind", KINDS)
def test_damaged_headers_are_read_or_refused(tmp_path, kind, seed):
    content, header, ending = _whole(tmp_path, kind)
    random, path = np.random.default_rng(seed), tmp_path / f"a{ending}"
    readings = (read_image, hash_image, take_volume if "nii" in ending else read_forms)
    n_refused = 0
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for _ in range(N):
            damaged = _damaged(random, content, header, "nii" not in ending)
            path.write_bytes(gzip.compress(damaged, 1) if ending == ".nii.gz" else damaged)
            for reading in readings:
                try:
                    reading(path)
                except AutosegError as error:
                    n_refused += 1
                    assert str(path) in error.fault.where and error.fault.fix
    assert N / 10 < n_refused <= len(readings) * N


LIMITED = """
import resource, sys
resource.setrlimit(resource.RLIMIT_AS, (3 << 30, 3 << 30))
from pathlib import Path
from autoseg.dataset.imageio import read_image
from autoseg.errors import AutosegError
for path in sorted(Path(sys.argv[1]).iterdir()):
    try:
        read_image(path)
    except AutosegError as error:
        print(path.name, error.fault.problem)
"""


@pytest.mark.skipif(sys.platform == "win32", reason="limits of memory are POSIX")
def test_headers_that_claim_gigabytes_are_one_fault_each(tmp_path):
    """2000 x 2000 x 1000 voxels of 4 bytes: 16 GB, in files of kilobytes."""
    pixels = np.zeros((3, 4, 5), np.float32)
    nifti = bytearray(nib.Nifti1Image(pixels, np.eye(4)).to_bytes())
    struct.pack_into("<4h", nifti, 40, 3, 2000, 2000, 1000)
    (tmp_path / "a.nii").write_bytes(nifti)
    (tmp_path / "b.nii.gz").write_bytes(gzip.compress(nifti))
    for name, old, new in (
        ("c.mha", b"DimSize = 5 4 3", b"DimSize = 2000 2000 1000"),
        ("d.nrrd", b"sizes: 5 4 3", b"sizes: 2000 2000 1000"),
    ):
        sitk.WriteImage(sitk.GetImageFromArray(pixels), str(tmp_path / name), True)
        (tmp_path / name).write_bytes((tmp_path / name).read_bytes().replace(old, new))
    run = subprocess.run(
        [sys.executable, "-c", LIMITED, str(tmp_path)], capture_output=True, text=True, timeout=120
    )
    assert run.returncode == 0, run.stderr
    told = [line.split(" ", 1) for line in run.stdout.splitlines()]
    assert [name for name, _ in told] == ["a.nii", "b.nii.gz", "c.mha", "d.nrrd"]
    assert all("truncated" in problem or "memory" in problem for _, problem in told)
