"""Where the crops of 3D-ResU-Net lie in a scan of ATLAS: voxels followed from the bytes of a file and back into one.

The published grid is 197 x 233 x 189 voxels of 1 mm in MNI space, in the order of the file (x, y, z). The large crop of
144 x 172 x 168 begins in the middle, at (26, 30, 10), and the small one of 128 x 128 x 128 would at (34, 52, 30); in
autoseg's order z, y, x that is (10, 30, 26) and (30, 52, 34).
"""

from __future__ import annotations

import struct
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from autoseg.dataset.imageio import read_mask, write_mask
from autoseg.inference.tiling import predict_logits
from autoseg.labels import LabelSet
from autoseg.plan import Inference, Normalisation, Preprocessing, Stage
from autoseg.preprocessing.case import preprocess_case
from autoseg.preprocessing.raw_case import read_raw_case
from autoseg.preprocessing.restore import logits_to_mask
from autoseg.sampling.loader import BatchSource

FILE_SHAPE = (197, 233, 189)  # x, y, z
ORIGIN_MM = (-98.0, -134.0, -72.0)  # of MNI space, x to the right, y to the front, z up
LARGE, SMALL = [168, 172, 144], [128, 128, 128]
LARGE_START, SMALL_START = (10, 30, 26), (30, 52, 34)
PLAN = Preprocessing(
    crop_to_nonzero=False,
    spacing_mm=(1.0, 1.0, 1.0),
    normalisation=[Normalisation(scheme="none", factor=1 / 255)],
)
# x, y, z of the first and the last voxel of the large crop, and of their neighbours just outside it
INSIDE = [(26, 30, 10), (169, 201, 177)]
OUTSIDE = [(25, 30, 10), (26, 29, 10), (26, 30, 9), (170, 201, 177), (169, 202, 177), (169, 201, 178)]


def write_nifti(path: Path, marked: dict[tuple[int, int, int], int]) -> None:
    """A NIfTI-1 file byte by byte: x runs fastest, the affine is that of MNI space."""
    header = bytearray(352)
    struct.pack_into("<i", header, 0, 348)
    struct.pack_into("<8h", header, 40, 3, *FILE_SHAPE, 1, 1, 1, 1)
    struct.pack_into("<hh", header, 70, 2, 8)  # unsigned bytes
    struct.pack_into("<8f", header, 76, 1, 1, 1, 1, 1, 1, 1, 1)
    struct.pack_into("<f", header, 108, 352)
    struct.pack_into("<b", header, 123, 2)  # millimetres
    struct.pack_into("<hh", header, 252, 0, 4)  # the affine, in MNI space
    for row, (axis, origin) in enumerate(zip(np.eye(3), ORIGIN_MM, strict=True)):
        struct.pack_into("<4f", header, 280 + 16 * row, *axis, origin)
    header[344:348] = b"n+1\0"
    voxels = np.full(np.prod(FILE_SHAPE), 10, np.uint8)
    for (x, y, z), value in marked.items():
        voxels[x + FILE_SHAPE[0] * (y + FILE_SHAPE[1] * z)] = value
    path.write_bytes(bytes(header) + voxels.tobytes())


def marks_in(path: Path) -> set[tuple[int, int, int]]:
    """x, y, z of the voxels that are 1 in an uncompressed file, from its bytes."""
    content = path.read_bytes()
    (offset,) = struct.unpack_from("<f", content, 108)
    bits = struct.unpack_from("<h", content, 72)[0]
    assert struct.unpack_from("<3h", content, 42) == FILE_SHAPE and bits == 8
    at = np.flatnonzero(np.frombuffer(content, np.uint8, offset=int(offset)))
    x, y, z = np.unravel_index(at, FILE_SHAPE, order="F")
    return set(zip(x.tolist(), y.tolist(), z.tolist(), strict=True))


@pytest.fixture(scope="module")
def scan(tmp_path_factory):
    """The marked scan from its file to the working grid, with the geometry of the file."""
    path = tmp_path_factory.mktemp("atlas") / "scan.nii"
    write_nifti(path, dict.fromkeys([*INSIDE, *OUTSIDE], 255))
    raw = read_raw_case("scan", [path], PLAN)
    return SimpleNamespace(case=preprocess_case("scan", raw.image, raw.geometry, PLAN), raw=raw)


class Seen(torch.nn.Module):
    """Says lesion where the image is bright, and keeps what it was shown."""

    def __init__(self) -> None:
        super().__init__()
        self.images: list[torch.Tensor] = []

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        self.images.append(image[0, 0].clone())
        return torch.cat([torch.zeros_like(image), image - 0.5], 1)


def test_the_working_grid_is_z_y_x(scan):
    image = scan.case.image
    assert image.shape == (1, 189, 233, 197)
    bright = {tuple(voxel[::-1]) for voxel in np.argwhere(image[0] > 0.5).tolist()}
    assert bright == {*INSIDE, *OUTSIDE}
    assert image[0, 10, 30, 26] == pytest.approx(1) and image[0, 0, 0, 0] == pytest.approx(10 / 255)


def test_the_published_prediction_sees_one_crop_and_puts_it_back_where_it_was(scan, tmp_path):
    """The first and the last voxel of the crop are found in the file that is written; their neighbours are lost."""
    network, labels = Seen(), LabelSet.from_labels({"background": 0, "lesion": 1})
    inference = Inference(patch_size=LARGE, tiles="centre", mirror_axes=())
    logits = predict_logits(network, torch.from_numpy(scan.case.image), inference, 2, "cpu", False)
    (seen,) = network.images
    assert seen.shape == tuple(LARGE)
    assert [tuple(voxel) for voxel in (seen > 0.5).nonzero().tolist()] == [(0, 0, 0), (167, 171, 143)]
    start = LARGE_START
    box = tuple(slice(a, a + n) for a, n in zip(start, LARGE, strict=True))
    assert np.array_equal(seen.numpy(), scan.case.image[0][box])
    mask = logits_to_mask(logits, scan.case.properties, PLAN, labels)
    write_mask(tmp_path / "mask.nii", scan.raw.turn.back.array(mask), scan.raw.stored)
    assert marks_in(tmp_path / "mask.nii") == set(INSIDE)
    _, geometry = read_mask(tmp_path / "mask.nii")
    assert geometry.spacing_mm == (1, 1, 1) and geometry.shape == (189, 233, 197)


def source_for(
    case, lesion: tuple[int, int, int] | None, patch: list[int], share: float, n: int
) -> BatchSource:
    """Crops of one scan with at most one lesion voxel, z, y, x."""
    label = np.zeros(case.image.shape[1:], np.int16)
    rows = np.zeros((0, 5), np.int32)
    if lesion is not None:
        label[lesion], rows = 1, np.array([[*lesion, 1, 0]], np.int32)
    stored = SimpleNamespace(image=case.image, label=label, foreground=rows, properties=None)
    named = {name: {"name": name} for name in ("loss", "optimiser", "schedule")}
    stage = Stage(
        name="zoom_in",
        patch_size=patch,
        batch_size=1,
        epochs=1,
        iterations_per_epoch=n,
        sampling={"foreground_share": share},
        augmentation={"name": "none"},
        **named,
    )
    store = SimpleNamespace(read=lambda name: stored)
    return BatchSource(
        store, ["scan"], stage, (1,), "cpu", inside_nonzero=[False], label_values=[1], cache_gb=1.0
    )


@pytest.mark.parametrize(
    ("patch", "places", "middle"),
    [(SMALL, (62, 106, 70), SMALL_START), (LARGE, (22, 62, 54), LARGE_START)],
)
def test_crops_begin_anywhere_within_the_scan(scan, patch, places, middle):
    """As many places on each axis as the card counts, the last one included, each as often as the others."""
    with source_for(scan.case, None, patch, 0.0, 3000) as source:
        starts = np.array([source.sample(0, i).place.start for i in range(3000)])
    assert starts.min(axis=0).tolist() == [0, 0, 0]
    assert (starts.max(axis=0) + 1).tolist() == list(places)
    for axis, n in enumerate(places):
        counts = np.bincount(starts[:, axis], minlength=n)
        chi_square = ((counts - 3000 / n) ** 2 / (3000 / n)).sum()
        assert chi_square < n + 5 * np.sqrt(2 * n)
    assert [(n - 1) // 2 for n in places] == list(middle)


@pytest.mark.parametrize(("patch", "middle"), [(SMALL, SMALL_START), (LARGE, LARGE_START)])
def test_a_crop_around_the_middle_begins_where_the_published_one_does(scan, patch, middle):
    """A lesion voxel in the middle of the crop; image and label are cut at the same place."""
    lesion = tuple(a + n // 2 for a, n in zip(middle, patch, strict=True))
    with source_for(scan.case, lesion, patch, 1.0, 1) as source:
        batch = next(source.batches(0))
    assert batch.samples[0].place.start == middle
    assert batch.target[0].nonzero().tolist() == [[n // 2 for n in patch]]
    bright = (batch.images[0, 0] > 0.5).nonzero().tolist()
    assert bright == ([[0, 0, 0], [n - 1 for n in LARGE]] if patch == LARGE else [])


def test_the_corner_of_a_crop_is_the_voxel_that_it_names(scan):
    """A lesion in the first corner of the scan pulls the crop there; the marker keeps its place in the scan."""
    with source_for(scan.case, (0, 0, 0), SMALL, 1.0, 1) as source:
        batch = next(source.batches(0))
    assert batch.samples[0].place.start == (0, 0, 0)
    seen = {tuple(voxel) for voxel in (batch.images[0, 0] > 0.5).nonzero().tolist()}
    assert seen == {(10, 30, 26), (10, 30, 25), (10, 29, 26), (9, 30, 26)}
