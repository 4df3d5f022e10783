"""One case of each group: which it is, and what its picture shows."""

import numpy as np
from reports import compared

from autoseg.report.group_montage import draw_groups, representatives, rule
from autoseg.report.picture import PREDICTION, TRUTH
from autoseg.report.planes import View
from autoseg.report.side_by_side import Beside

AXIAL = View((0, 1, 2), (False, False, False), (5.0, 1.0, 1.0), ("R", "L", "A", "P"), "axial", "axial slices")


def test_the_case_of_a_group_is_its_median():
    """Means over both methods: a 0.25, b 0.4, c 0.7; of a and b alone the worse one."""
    comparison = compared()
    (stratum,) = comparison.strata
    lacunar, cortical = representatives(comparison, stratum)
    assert (lacunar.level, lacunar.n, lacunar.case) == ("lacunar", 3, "b")
    assert lacunar.words == "lacunar: b, median of 3 cases" and cortical.words == "cortical: d, the only case"
    pair = stratum.classes["lesion"][0].model_copy(update={"cases": ["a", "b"]})
    (one,) = representatives(comparison, stratum.model_copy(update={"classes": {"lesion": [pair]}}))
    assert one.case == "a" and one.words == "lacunar: a, worse of 2 cases"
    assert "median of Dice" in rule(comparison)


def beside(case, columns=50):
    """The truth lies in slices 1 and 2, most of it in the latter."""
    image = np.random.default_rng(0).random((4, 60, columns)).astype(np.float32) + 1
    truth = np.zeros(image.shape, bool)
    truth[1, 20:24, 20:24] = truth[2, 20:30, 20:30] = True
    masks = {"Base": {"lesion": truth}, "FH": {"lesion": ~truth & False}, "truth": {"lesion": truth}}
    return Beside(case, {"ADC": image, "MTT": image}, masks, AXIAL, [])


def test_rows_are_cases_and_columns_are_image_truth_and_methods():
    comparison = compared()
    chosen = representatives(comparison, comparison.strata[0])
    figure = draw_groups(
        comparison, [(chosen[0], beside("b")), (chosen[1], beside("d", columns=40))], "groups"
    )
    texts = [text.get_text() for axis in figure.axes for text in axis.texts]
    names = ["ADC", "truth", "Base", "FH"]
    assert [text for text in texts if text in names] == names * 2
    assert [text for text in texts if text.startswith("Dice")] == [
        "Dice 0.400",
        "Dice 0.400",
        "Dice 0.900",
        "Dice 0.700",
    ]
    titles = [text.get_text() for text in figure.texts]
    assert "lacunar: b, median of 3 cases, slice 3" in titles
    assert "cortical: d, the only case, slice 3" in titles


def test_the_truth_is_an_outline_on_every_method():
    comparison = compared()
    chosen = representatives(comparison, comparison.strata[0])
    figure = draw_groups(comparison, [(chosen[0], beside("b"))], "groups")
    outlined = [len(axis.collections) for axis in figure.axes]
    assert outlined == [0, 0, 1, 1]
    tints = [axis.images[1].get_array()[..., :3].max((0, 1)) for axis in figure.axes[1:3]]
    for tint, colour in zip(tints, (TRUTH, PREDICTION), strict=True):
        assert np.allclose(tint, [int(colour[i : i + 2], 16) / 255 for i in (1, 3, 5)], atol=0.01)
