"""Which cases and slices are drawn, which way round, and that pictures show what they should."""

from types import SimpleNamespace

import numpy as np
import pytest

from autoseg.dataset.imageio import Geometry
from autoseg.evaluation.summary import CaseScores
from autoseg.report import overlay
from autoseg.report.overlay import Picture, View, choose_cases, choose_slices, choose_window, outline


def case(name, dice, voxels=5):
    scores = {"dice": dice, "voxels_truth": voxels, "voxels_prediction": voxels}
    scores |= {"volume_truth_ml": 1.0, "volume_prediction_ml": 1.0}
    return CaseScores(name=name, prediction_sha256="", truth_sha256="", classes={"lesion": scores})


def chosen(*cases):
    return {rank: c.name for rank, c in choose_cases(SimpleNamespace(cases=list(cases)), 3)}


def test_worst_median_and_best():
    cases = [case("a", 0.5), case("b", 0.1), case("c", 0.9), case("d", 0.3), case("e", 0.6)]
    assert chosen(*cases) == {"worst": "b", "median": "a", "best": "c"}
    assert chosen(*cases[:2]) == {"worst": "b", "best": "a"}
    assert chosen(cases[0]) == {"only": "a"}


def test_cases_that_show_nothing_are_passed_over():
    assert chosen(case("sham", 1.0, 0), case("a", 0.2), case("b", 0.4)) == {"worst": "a", "best": "b"}
    assert chosen(case("sham", 1.0, 0)) == {"only": "sham"}


def test_slices():
    truth, prediction = np.zeros((40, 4, 4), bool), np.zeros((40, 4, 4), bool)
    assert all(10 <= s <= 30 for s in choose_slices(truth, prediction))
    truth[5:8, 1, 1] = True
    prediction[20, 2, 2] = True
    assert choose_slices(truth, prediction) == [5, 6, 7, 20]
    truth[2:38, 1, 1] = True
    truth[11, :2] = True
    prediction[29] = True
    few = choose_slices(truth, prediction, 6)
    assert len(few) == 6 and {11, 29} <= set(few) and few == sorted(few)


def test_window_holds_the_masks_and_a_share_of_the_head():
    image, masks = np.zeros((3, 100, 80), np.float32), np.zeros((3, 100, 80), bool)
    image[:, 10:90, 10:70] = np.random.default_rng(0).random((3, 80, 60)) + 1
    masks[1, 12:15, 60:64] = True
    rows, columns = choose_window(image, masks)
    assert rows.start <= 12 and rows.stop >= 15 and columns.start <= 60 and columns.stop >= 64
    assert 80 <= rows.stop - rows.start <= 82
    assert columns.stop <= 75
    noise = np.abs(np.random.default_rng(1).normal(0, 0.05, image.shape)).astype(np.float32)
    for found, expected in zip(choose_window(image + noise, masks), (rows, columns), strict=True):
        assert abs(found.start - expected.start) <= 1 and abs(found.stop - expected.stop) <= 1
    masks[1, 0, 0] = masks[1, 99, 79] = True  # false alarms outside the head are shown too
    assert choose_window(image, masks) == (slice(0, 100), slice(0, 80))
    assert choose_window(np.zeros((3, 9, 8)), np.zeros((3, 9, 8), bool)) == (slice(0, 9), slice(0, 8))


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
    shape = (5, 6, 7)
    view = View.of(Geometry(shape, spacing, (0, 0, 0), direction))
    assert (view.plane, "".join(view.sides)) == (plane, sides)
    index = np.indices(shape)[::-1].reshape(3, -1) * np.array(spacing[::-1])[:, None]  # x, y, z in mm
    patient = (np.array(direction).reshape(3, 3) @ index).reshape(3, *shape)
    column, row = {"L": 0, "P": 1}[sides[1]], {"P": 1, "I": 2}[sides[3]]
    sign = 1 if sides[3] == "P" else -1
    np.testing.assert_allclose(np.diff(view.turn(patient[column]), axis=2), view.spacing_mm[2])
    np.testing.assert_allclose(np.diff(view.turn(patient[row]), axis=1), sign * view.spacing_mm[1])


def test_outline():
    assert len(outline(np.zeros((3, 3), bool))) == 0
    one = np.zeros((3, 4), bool)
    one[1, 2] = True
    segments = {tuple(map(tuple, s)) for s in outline(one)}
    corners = [(1.5, 0.5), (2.5, 0.5), (2.5, 1.5), (1.5, 1.5)]
    assert segments == {
        (corners[0], corners[1]),
        (corners[3], corners[2]),
        (corners[0], corners[3]),
        (corners[1], corners[2]),
    }
    assert len(outline(np.ones((3, 4), bool))) == 14


def drawn(n_classes):
    image = np.random.default_rng(0).random((4, 40, 30)).astype(np.float32)
    masks = {f"class {i}": np.zeros(image.shape, bool) for i in range(n_classes)}
    for i, mask in enumerate(masks.values()):
        mask[1:3, 10 + 6 * i : 14 + 6 * i, 10:16] = True
    scores = case("x", 0.5).classes["lesion"]
    scored = CaseScores(
        name="x$_1", prediction_sha256="", truth_sha256="", classes=dict.fromkeys(masks, scores)
    )
    picture = Picture(scored, image, masks, masks, (5.0, 2.0, 1.0), ("R", "L", "A", "P"), "axial", 0)
    figure = overlay.draw(picture, "worst")
    figure.canvas.draw()
    return figure, np.asarray(figure.canvas.buffer_rgba())[..., :3]


def has_colour(pixels, colour):
    wanted = np.array([int(colour[i : i + 2], 16) for i in (1, 3, 5)])
    return bool((np.abs(pixels.astype(int) - wanted).max(-1) <= 3).any())


def test_one_class_shows_both_contours_in_true_proportions():
    figure, pixels = drawn(1)
    assert has_colour(pixels, overlay.TRUTH) and has_colour(pixels, overlay.PREDICTION)
    axis = figure.axes[0]
    box, (left, right), (bottom, top) = axis.get_window_extent(), axis.get_xlim(), axis.get_ylim()
    per_row, per_column = box.height / abs(top - bottom), box.width / abs(right - left)
    assert per_row / per_column == pytest.approx(2.0, rel=0.02)
    texts = " ".join(text.get_text() for text in figure.texts)
    assert "worst case: x$_1" in texts and "Dice 0.500, truth 1 ml, prediction 1 ml" in texts


def test_several_classes_are_drawn_in_pairs():
    figure, pixels = drawn(3)
    assert all(has_colour(pixels, colour) for colour in overlay.CLASSES[:3])
    labels = [axis.texts[0].get_text() for axis in figure.axes if axis.texts]
    assert labels == ["2 truth", "2 prediction", "3 truth", "3 prediction"]
