"""Probabilities in colour: of the class that is asked for, on its place, and clear where there are none."""

import numpy as np
import pytest
from matplotlib import colormaps

from autoseg.errors import AutosegError
from autoseg.evaluation.probabilities import read_of_classes
from autoseg.evaluation.summary import CaseScores
from autoseg.labels import LabelSet
from autoseg.report.picture import Picture
from autoseg.report.planes import View
from autoseg.report.probability_maps import COLOURS, FULL, draw_probabilities

AXIAL = View((0, 1, 2), (False, False, False), (5.0, 1.0, 1.0), ("R", "L", "A", "P"), "axial", "axial slices")
SHAPE = (4, 60, 50)


def picture(truth, prediction):
    image = np.random.default_rng(0).random(SHAPE).astype(np.float32) + 1
    scores = {"dice": 0.5, "volume_truth_ml": 1.0, "volume_prediction_ml": 1.0}
    case = CaseScores(name="x", prediction_sha256="", truth_sha256="", classes=dict.fromkeys(truth, scores))
    return Picture(case, image, truth, prediction, AXIAL, "ADC")


def test_a_row_for_the_truth_and_one_for_each_class():
    masks = {name: np.zeros(SHAPE, bool) for name in ("a$_1", "b")}
    probabilities = {name: np.zeros(SHAPE, np.float16) for name in masks}
    masks["a$_1"][1:3, 20:26, 20:26] = True
    probabilities["a$_1"][1, 22, 24] = 1.0
    probabilities["b"][2, 30, 31] = 0.5
    figure = draw_probabilities(picture(masks, masks), probabilities, "worst case: x")
    figure.canvas.draw()
    panels = figure.axes[: 3 * 2]  # slices 2 and 3
    texts = [text.get_text() for axis in panels for text in axis.texts]
    assert texts[:2] == ["truth, slice 2", "slice 3"]
    assert {"probability of a$_1", "probability of b"} <= set(texts)
    tints = [np.asarray(axis.images[1].get_array()) for axis in panels[2:]]
    assert [int(np.count_nonzero(tint[..., 3])) for tint in tints] == [1, 0, 0, 1]
    full, half = (tint[tint[..., 3] > 0][0] for tint in (tints[0], tints[3]))
    assert full == pytest.approx([*colormaps[COLOURS](1.0)[:3], FULL], abs=1e-3)
    assert half[:3] == pytest.approx(colormaps[COLOURS](0.5)[:3], abs=0.01) and 0.5 < half[3] < FULL


def test_nothing_is_likely():
    masks = {"a": np.zeros(SHAPE, bool)}
    draw_probabilities(picture(masks, masks), {"a": np.zeros(SHAPE, np.float16)}, "x").canvas.draw()


def test_classes_and_regions_of_outputs(tmp_path):
    """A region of plain classes has the sum of their probabilities."""
    values = np.array([0.1, 0.2, 0.7], np.float32)[:, None, None, None] * np.ones((3, 2, 3, 4), np.float32)
    np.savez_compressed(tmp_path / "a.npz", probabilities=values)
    outputs = LabelSet.from_labels({"background": 0, "core": 1, "rim": 2})
    regions = LabelSet.from_labels({"background": 0, "whole": [1, 2], "rim": [2]}, [1, 2])
    plain = read_of_classes(tmp_path / "a.npz", (2, 3, 4), outputs, outputs)
    merged = read_of_classes(tmp_path / "a.npz", (2, 3, 4), outputs, regions)
    assert [float(plain[name].max()) for name in ("core", "rim")] == pytest.approx([0.2, 0.7])
    assert [float(merged[name].min()) for name in ("whole", "rim")] == pytest.approx([0.9, 0.7])
    with pytest.raises(AutosegError, match=r"instead of probabilities \(3, 2, 3, 5\)"):
        read_of_classes(tmp_path / "a.npz", (2, 3, 5), outputs, outputs)


@pytest.mark.parametrize("axes", [(0, 1, 2), (1, 0, 2), (2, 0, 1)])
def test_the_shape_of_the_file_behind_a_picture(axes):
    view = View(axes, (True, False, True), (1.0, 1.0, 1.0), ("", "", "", ""), "axial", "")
    assert view.turned_back(view.turn(np.zeros((2, 3, 4))).shape) == (2, 3, 4)
