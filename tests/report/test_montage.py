"""What of a case is drawn, and that the picture shows it."""

import numpy as np
import pytest

from autoseg.evaluation.summary import CaseScores
from autoseg.report import montage
from autoseg.report.montage import choose_sights, choose_slices, choose_window, outlines, scale_bar, zoom
from autoseg.report.picture import PREDICTION, TRUTH, Picture
from autoseg.report.planes import View

AXIAL = View((0, 1, 2), (False, False, False), (5.0, 2.0, 1.0), ("R", "L", "A", "P"), "axial", "axial slices")


def test_slices():
    truth, prediction = np.zeros((40, 4, 4), bool), np.zeros((40, 4, 4), bool)
    assert all(10 <= s <= 30 for s in choose_slices(truth, prediction, 12))
    truth[5:8, 1, 1] = True
    prediction[20, 2, 2] = True
    assert choose_slices(truth, prediction, 12) == [5, 6, 7, 20]
    truth[2:38, 1, 1] = True
    truth[11, :2] = True
    prediction[29] = True
    few = choose_slices(truth, prediction, 6)
    assert len(few) == 6 and {11, 29} <= set(few) and few == sorted(few)
    assert choose_slices(truth, prediction, 2, [7, 3]) == [3, 7]


def test_the_window_holds_the_head_and_the_masks():
    image, masks = np.zeros((3, 100, 80), np.float32), np.zeros((3, 100, 80), bool)
    image[:, 10:90, 10:70] = np.random.default_rng(0).random((3, 80, 60)) + 1
    masks[1, 12:15, 60:64] = True
    rows, columns = choose_window(image, masks)
    assert (rows, columns) == (slice(9, 91), slice(9, 71))
    noise = np.abs(np.random.default_rng(1).normal(0, 0.05, image.shape)).astype(np.float32)
    for found, expected in zip(choose_window(image + noise, masks), (rows, columns), strict=True):
        assert abs(found.start - expected.start) <= 1 and abs(found.stop - expected.stop) <= 1
    masks[1, 0, 0] = masks[1, 99, 79] = True  # false alarms outside the head are shown too
    assert choose_window(image, masks) == (slice(0, 100), slice(0, 80))
    assert choose_window(np.zeros((3, 9, 8)), np.zeros((3, 9, 8), bool)) == (slice(0, 9), slice(0, 8))


def test_a_zoom_keeps_proportions_and_stays_in_the_head():
    """Head of 100 x 80: a quarter is 25 x 20; a box of 40 rows needs 64 of 100, so 64 x 52 (51.2)."""
    whole = slice(10, 110), slice(20, 100)
    assert zoom(whole, (slice(60, 64), slice(60, 64))) == (slice(49, 74), slice(52, 72))
    assert zoom(whole, (slice(10, 12), slice(98, 100))) == (slice(10, 35), slice(80, 100))
    assert zoom(whole, (slice(40, 80), slice(50, 60))) == (slice(28, 92), slice(29, 81))
    assert zoom(whole, (slice(20, 100), slice(50, 60))) == whole


def test_lesions_close_together_are_zoomed_and_placed_in_the_head():
    shown = sights({"lesion": [(1, 20, 20), (2, 22, 22)]}, {})
    assert [(sight.index, sight.words) for sight in shown] == [(1, "whole"), (1, "zoomed"), (2, "zoomed")]
    assert shown[0].boxes == (shown[1].window,) and shown[1].window == shown[2].window


def test_lesions_far_apart_are_shown_whole_with_close_ups_of_the_largest_missed_and_false():
    truth = [(1, 10, 10), (1, 10, 11), (2, 85, 85)]
    shown = sights({"lesion": truth}, {"lesion": [(1, 10, 10), (3, 10, 85)]})
    assert [(sight.index, sight.words) for sight in shown] == [
        (1, ""),
        (2, ""),
        (3, ""),
        (1, "largest lesion"),
        (2, "largest missed lesion"),
        (3, "largest false lesion"),
    ]
    assert [sight.boxes for sight in shown[:3]] == [(sight.window,) for sight in shown[3:]]
    alone = sights({"lesion": [(1, 10, 10), (2, 85, 85), (2, 85, 84)]}, {})  # the largest is missed: once
    assert [sight.words for sight in alone] == ["", "", "largest missed lesion"]


def sights(truth, prediction, most=9):
    """What is shown of a head of 100 x 100 whose masks are single voxels."""
    image = np.zeros((5, 104, 104), np.float32)
    image[:, 2:102, 2:102] = np.random.default_rng(0).random((5, 100, 100)) + 1
    masks = [{"lesion": np.zeros(image.shape, bool)} for _ in range(2)]
    for given, made in zip((truth, prediction), masks, strict=True):
        for voxel in given.get("lesion", ()):
            made["lesion"][voxel] = True
    return choose_sights(Picture(None, image, *masks, AXIAL, "T2"), most)


def test_outlines_by_hand():
    assert not list(outlines(np.zeros((3, 3), bool)))
    one = np.zeros((3, 4), bool)
    one[1, 2] = True
    (line,) = outlines(one)
    assert line[0].tolist() == line[-1].tolist()
    assert {tuple(corner) for corner in line} == {(1.5, 0.5), (2.5, 0.5), (2.5, 1.5), (1.5, 1.5)}
    (line,) = outlines(np.ones((3, 4), bool))
    assert len(line) == 15  # 14 edges, closed


def test_outlines_go_round_holes_and_corners():
    """Edges of a ring (12 outside, 4 inside) and of two voxels that touch at a corner (8)."""
    ring = np.ones((3, 3), bool)
    ring[1, 1] = False
    assert sorted(len(line) - 1 for line in outlines(ring)) == [4, 12]
    assert sum(len(line) - 1 for line in outlines(np.eye(2, dtype=bool))) == 8
    random = np.random.default_rng(0).random((20, 30)) > 0.5
    padded = np.pad(random, 1)
    n_edges = sum(np.count_nonzero(np.diff(padded.astype(int), axis=axis)) for axis in (0, 1))
    lines = list(outlines(random))
    assert sum(len(line) - 1 for line in lines) == n_edges
    assert all(
        (np.abs(np.diff(line, axis=0)).sum(1) == 1).all() and (line[0] == line[-1]).all() for line in lines
    )


@pytest.mark.parametrize(
    "width_mm, length_mm, label",
    [(30.0, 5, "5 mm"), (9.0, 2, "2 mm"), (220.0, 50, "5 cm"), (1.0, 0.2, "0.2 mm")],
)
def test_scale_bars_are_round_and_fit(width_mm, length_mm, label):
    """A bar takes at most 30 % of the picture: 9, 2.7, 66 and 0.3 mm here."""
    found = scale_bar(width_mm)
    assert found == (pytest.approx(length_mm), label)


def drawn(n_classes):
    image = np.random.default_rng(0).random((4, 40, 30)).astype(np.float32)
    masks = {f"class {i}": np.zeros(image.shape, bool) for i in range(n_classes)}
    for i, mask in enumerate(masks.values()):
        mask[1:3, 10 + 6 * i : 14 + 6 * i, 10:16] = True
    scores = {"dice": 0.5, "voxels_truth": 5, "voxels_prediction": 5}
    scores |= {"volume_truth_ml": 1.0, "volume_prediction_ml": 1.0}
    scored = CaseScores(
        name="x$_1", prediction_sha256="", truth_sha256="", classes=dict.fromkeys(masks, scores)
    )
    figure = montage.draw(Picture(scored, image, masks, masks, AXIAL, "T2", "autoseg"), "worst")
    figure.canvas.draw()
    return figure, np.asarray(figure.canvas.buffer_rgba())[..., :3]


def has_colour(pixels, colour):
    wanted = np.array([int(colour[i : i + 2], 16) for i in (1, 3, 5)])
    return bool((np.abs(pixels.astype(int) - wanted).max(-1) <= 40).any())  # thin lines are smoothed


def pixels_of(axis, pixels):
    box = axis.get_window_extent()
    return pixels[len(pixels) - int(box.y1) : len(pixels) - int(box.y0), int(box.x0) : int(box.x1)]


def test_one_class_is_shown_bare_and_with_both_outlines_in_true_proportions():
    figure, pixels = drawn(1)
    bare, outlined = figure.axes[:2]
    for colour in (TRUTH, PREDICTION):  # both show where they agree
        assert has_colour(pixels_of(outlined, pixels), colour) and not has_colour(
            pixels_of(bare, pixels), colour
        )
    box, (left, right), (bottom, top) = bare.get_window_extent(), bare.get_xlim(), bare.get_ylim()
    per_row, per_column = box.height / abs(top - bottom), box.width / abs(right - left)
    assert per_row / per_column == pytest.approx(2.0, rel=0.02)
    texts = " ".join(text.get_text() for text in figure.texts)
    assert "worst case: x$_1" in texts and "Dice 0.500, truth 1.000 ml, prediction 1.000 ml" in texts
    assert "T2, axial slices, preset autoseg" in texts


def test_a_scale_bar_is_as_long_as_it_says():
    figure, _ = drawn(1)
    for axis in figure.axes:
        for bar in axis.lines:
            label = next(text.get_text() for text in axis.texts if text.get_text().endswith(("mm", "cm")))
            ends = axis.transAxes.transform(np.stack(bar.get_data(), 1))
            length = np.ptp(axis.transData.inverted().transform(ends)[:, 0])  # columns are 1 mm wide
            assert label == (f"{length / 10:g} cm" if length >= 9.99 else f"{length:.3g} mm")
    assert sum(len(axis.lines) for axis in figure.axes) == 2  # the whole head and the zoom


def test_an_outline_leaves_a_lesion_of_one_voxel_to_be_seen():
    """Of the voxel's pixels, most keep the grey that they have in the bare copy."""
    image, mask = np.zeros((3, 64, 64), np.float32), np.zeros((3, 64, 64), bool)
    image[:, 2:-2, 2:-2] = np.random.default_rng(0).uniform(50, 100, (3, 60, 60))
    mask[1, 30, 30] = True
    image[mask] = 500
    scores = {"dice": 0.0, "voxels_truth": 1, "voxels_prediction": 0}
    scores |= {"volume_truth_ml": 1.0, "volume_prediction_ml": 0.0}
    scored = CaseScores(name="a", prediction_sha256="", truth_sha256="", classes={"lesion": scores})
    figure = montage.draw(
        Picture(scored, image, {"lesion": mask}, {"lesion": np.zeros_like(mask)}, AXIAL, "T2"), "worst"
    )
    figure.canvas.draw()
    pixels = np.asarray(figure.canvas.buffer_rgba())[..., :3]
    bare, outlined = (np.all(pixels_of(axis, pixels) == 255, axis=-1).sum() for axis in figure.axes[2:4])
    assert outlined > 0.5 * bare > 0


def test_several_classes_are_drawn_bare_true_and_predicted():
    figure, pixels = drawn(3)
    assert all(has_colour(pixels, colour) for colour in montage.CLASSES[:3])
    labels = [axis.texts[0].get_text() for axis in figure.axes if axis.texts]
    shown = ("slice 2, whole", "slice 2, zoomed", "slice 3, zoomed")
    assert labels == [text for words in shown for text in (words, "truth", "prediction")]


def test_a_dark_map_without_background_is_brightened():
    """The middle of the brain, at 1/6 of the range, is drawn at 0.35; noise around a head stays as it is."""
    image = np.zeros((2, 40, 40), np.float32)
    image[:, 10:30, 10:30] = np.linspace(0, 1, 800).reshape(2, 20, 20) ** 2.585 + 0.01  # its median is 1/6
    low, high, exponent = montage.greys(image)
    assert ((1 / 6 - low) / (high - low)) ** exponent == pytest.approx(0.35, abs=0.01)
    image += np.random.default_rng(0).random(image.shape).astype(np.float32) / 100
    assert montage.greys(image)[2] == 1 and montage.greys(np.zeros((1, 4, 4)))[2] == 1
