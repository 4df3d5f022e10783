"""The slice viewer: read back as a browser would, from the page that nilearn made."""

import base64
import io
import json
import re

import numpy as np
import pytest
from PIL import Image

from autoseg.dataset.imageio import Geometry
from autoseg.errors import AutosegError
from autoseg.report import viewer
from autoseg.report.picture import Picture
from autoseg.report.planes import View

RIGHT_TO_LEFT, FRONT_TO_BACK, DOWN_TO_UP = np.eye(3)
ORIENTATIONS = {
    "as is": (RIGHT_TO_LEFT, FRONT_TO_BACK, DOWN_TO_UP),
    "rat": (-RIGHT_TO_LEFT, -FRONT_TO_BACK, DOWN_TO_UP),
    "coronal file": (RIGHT_TO_LEFT, -DOWN_TO_UP, FRONT_TO_BACK),
    "sagittal file": (FRONT_TO_BACK, DOWN_TO_UP, -RIGHT_TO_LEFT),
}


def picture(truth, prediction, orientation="as is", spacing_mm=(1.0, 1.0, 1.0), image=None) -> Picture:
    """Masks ``[z, y, x]`` of a file (class to mask, or one mask) on a bright block, as they are drawn."""
    truth, prediction = ({"lesion": m} if isinstance(m, np.ndarray) else m for m in (truth, prediction))
    shape = next(iter(truth.values())).shape
    if image is None:
        image = np.zeros(shape, np.float32)
        image[1:-1, 1:-1, 1:-1] = np.random.default_rng(0).uniform(50, 100, [n - 2 for n in shape])
    cosines = np.stack(ORIENTATIONS[orientation], axis=1)
    view = View.of(Geometry(shape, spacing_mm, (0, 0, 0), tuple(cosines.ravel())))
    turned = [{name: view.turn(mask) for name, mask in masks.items()} for masks in (truth, prediction)]
    return Picture(None, view.turn(image), *turned, view, "T2")


def read(html: str) -> tuple[dict, np.ndarray]:
    """Parameters, and the overlay as the viewer cuts it out of its sprite: RGBA ``[x, z downwards, y, 4]``."""
    parameters = json.loads(re.search(r"brainsprite\((\{.*?\})\);", html)[1])
    name = re.escape(parameters["overlay"]["sprite"])
    text = re.search(rf'id="{name}".*?base64,([^"]+)"', html, re.DOTALL)[1]
    sprite = np.asarray(Image.open(io.BytesIO(base64.b64decode(text))).convert("RGBA"))
    nx, ny, nz = (parameters["nbSlice"][axis] for axis in "XYZ")
    columns = sprite.shape[1] // ny
    tiles = [(x // columns * nz, x % columns * ny) for x in range(nx)]
    return parameters, np.stack([sprite[top : top + nz, left : left + ny] for top, left in tiles])


@pytest.mark.parametrize("orientation", ORIENTATIONS)
def test_it_opens_at_the_lesion_and_numbers_it_as_the_scan(orientation):
    truth = np.zeros((12, 14, 16), bool)
    truth[3, 4, 11] = True  # z, y, x of the file
    made = viewer.make_viewer(picture(truth, np.zeros_like(truth), orientation))
    parameters, overlay = read(made.html)

    # brainsprite 0.15 shows as coordinates affine @ (slice + 1), rounded
    slices = [parameters["numSlice"][axis] + 1 for axis in "XYZ"]
    shown = np.round(np.array(parameters["affine"]) @ [*slices, 1])[:3].astype(int).tolist()
    index, size = np.array([11, 4, 3]), np.array([16, 14, 12])  # x, y, z of the file
    expected = [0, 0, 0]
    for direction, i, n in zip(ORIENTATIONS[orientation], index, size, strict=True):
        patient = int(np.abs(direction).argmax())
        # from the right, the front, the bottom
        expected[patient] = int(i + 1 if direction.sum() > 0 else n - i)
    assert shown == expected

    # and draws z from the bottom
    x, y, z = (parameters["numSlice"][axis] for axis in "XYZ")
    colour = overlay[x, overlay.shape[1] - 1 - z, y]
    assert colour.tolist() == [*bytes.fromhex(viewer.LEGEND[viewer.MISSED][1][1:]), 255]
    assert parameters["radiological"] is True and parameters["showLR"] is True


def test_patients_right_is_at_the_left():
    truth = np.zeros((10, 10, 10), bool)
    truth[:, :, 1] = True  # x runs from right to left: the patient's right
    parameters, _ = read(viewer.make_viewer(picture(truth, truth)).html)
    # X is drawn from the left in both views
    assert parameters["numSlice"]["X"] < parameters["nbSlice"]["X"] / 2


def test_thick_slices_keep_their_proportions():
    truth = np.zeros((6, 40, 40), bool)
    truth[3, 20, 20] = True
    made = viewer.make_viewer(picture(truth, truth, spacing_mm=(4.0, 0.5, 0.5)))
    parameters, overlay = read(made.html)
    nx, ny, nz = (parameters["nbSlice"][axis] for axis in "XYZ")
    assert nx == ny and nz / ny == pytest.approx(6 * 4.0 / (40 * 0.5), rel=0.02)
    filled = overlay[..., 3] > 0
    extent = [len(np.flatnonzero(filled.any(others))) for others in ((1, 2), (0, 1), (0, 2))]
    assert np.array(extent) * made.voxel_mm == pytest.approx([0.5, 0.5, 4.0])  # x, y, z
    assert made.height_share == pytest.approx(1.1 * nz / (2 * nx + ny))
    assert not made.coarser and 0.5 / made.voxel_mm == pytest.approx(3)  # pixels are split evenly


def test_what_is_found_false_missed_and_mixed_up():
    truth, prediction = np.zeros((1, 1, 6), np.uint8), np.zeros((1, 1, 6), np.uint8)
    truth[0, 0], prediction[0, 0] = [0, 1, 1, 0, 2, 2], [0, 1, 0, 1, 2, 1]
    classes = [{"a": m == 1, "b": m == 2} for m in (truth, prediction)]
    codes = viewer.compare_masks(picture(*classes, image=np.arange(6.0).reshape(1, 1, 6)))
    V = viewer
    assert codes.ravel().tolist() == [0, V.FOUND, V.MISSED, V.FALSE, V.FOUND, V.MIXED_UP]
    regions = [{"whole": m > 0, "core": m == 2} for m in (truth, prediction)]  # a voxel is in both
    assert (
        viewer.compare_masks(picture(*regions, image=np.zeros((1, 1, 6)))).ravel().tolist()
        == codes.ravel().tolist()
    )


def test_a_coarser_grid_loses_no_voxel(monkeypatch):
    monkeypatch.setattr(viewer, "MOST_VOXELS", 2000)
    truth = np.zeros((30, 30, 30), bool)
    truth[2:28:5, 2:28:5, 2:28:5] = True  # single voxels
    made = viewer.make_viewer(picture(truth, np.zeros_like(truth)))
    parameters, overlay = read(made.html)
    assert made.coarser and made.voxel_mm > 2
    assert np.count_nonzero(overlay[..., 3]) == np.count_nonzero(truth)
    assert parameters["nbSlice"]["X"] * parameters["nbSlice"]["Y"] * parameters["nbSlice"]["Z"] <= 2200


def test_the_page_stays_below_its_size(monkeypatch):
    truth = np.zeros((70, 70, 70), bool)
    truth[30:40, 30:40, 30:40] = True
    full = viewer.make_viewer(picture(truth, truth))
    monkeypatch.setattr(viewer, "LARGEST_BYTES", 450_000)
    monkeypatch.setattr(viewer, "COARSEST_VOXELS", 8)
    small = viewer.make_viewer(picture(truth, truth))
    assert len(small.html) <= 450_000 < len(full.html) and small.voxel_mm > full.voxel_mm


@pytest.mark.parametrize("value", [0.0, 7.0, np.nan])
def test_empty_masks_and_images_without_contrast(value):
    empty = np.zeros((6, 8, 8), bool)
    made = viewer.make_viewer(picture(empty, empty, image=np.full(empty.shape, value, np.float32)))
    assert not read(made.html)[1][..., 3].any()
    assert [text for text, _ in made.legend] == [viewer.LEGEND[i][0] for i in (1, 2, 3)]


def test_the_page_loads_nothing():
    truth = np.ones((6, 8, 8), bool)
    html = viewer.make_viewer(picture(truth, truth)).html
    for attribute in re.findall(r'\b(?:src|href)="([^"]*)"', html):
        assert attribute.startswith("data:image/") and len(attribute) > 40
    assert "<link" not in html and "raw.githubusercontent" not in html


def test_another_viewer_of_nilearn_is_refused(monkeypatch):
    monkeypatch.setattr(viewer, "_page", lambda *_: "<html>something new</html>")
    with pytest.raises(
        AutosegError, match="nilearn's viewer is not the one that this version of autoseg knows"
    ):
        viewer.make_viewer(picture(np.ones((6, 8, 8), bool), np.ones((6, 8, 8), bool)))
