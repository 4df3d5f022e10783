"""Cases of a comparison: which are shown, and what their pictures show."""

import numpy as np
import pytest

from autoseg.report.montage import CLASSES
from autoseg.report.picture import PREDICTION, TRUTH
from autoseg.report.planes import View
from autoseg.report.side_by_side import Beside, choose_compared, draw_beside, shown_channels

AXIAL = View((0, 1, 2), (False, False, False), (5.0, 1.0, 1.0), ("R", "L", "A", "P"), "axial", "axial slices")


class Made:
    """What is asked of a comparison."""

    def __init__(self, scores, better="higher"):
        self.cases = list("abcde")
        self.main = ["m"]
        self.metrics = {"m": type("Row", (), {"better": better})}
        self.scores = {"lesion": {"m": scores}}


def test_the_worst_the_median_and_the_best_over_all_methods():
    """Means 0.5, 0.1, 0.9, 0.4, and 0.3 of one method alone."""
    scores = {"x": [0.4, 0.2, 0.8, 0.4, None], "y": [0.6, 0.0, 1.0, 0.4, 0.3]}
    assert choose_compared(Made(scores), 3) == [("worst", "b"), ("median", "d"), ("best", "c")]
    assert choose_compared(Made(scores), 1) == [("median", "d")]
    assert [case for _, case in choose_compared(Made(scores, "lower"), 5)] == list("cadeb")
    assert choose_compared(Made(scores), 5)[1] == ("number 2 of 5 from the worst,", "e")
    signed = {"x": [-9, 1, 2, 3, 4], "y": [9, 1, 2, 3, 4]}  # nearest to zero is best, whatever the sign
    assert [case for _, case in choose_compared(Made(signed, "zero"), 3)] == ["a", "d", "b"]
    unknown = {"x": [None, 1, 2, 3, 4]}
    assert (
        choose_compared(Made(unknown), 3)[0]
        == choose_compared(Made(unknown, "lower"), 3)[0]
        == ("worst", "a")
    )


def beside(n_classes, truth=True):
    image = np.random.default_rng(0).random((4, 60, 50)).astype(np.float32) + 1
    masks = {}
    for method in ("one", "two", "truth"):
        of_class = {f"class {i}": np.zeros(image.shape, bool) for i in range(n_classes)}
        if method != "two" and (truth or method == "one"):
            for i, mask in enumerate(of_class.values()):
                mask[1:3, 20 + 8 * i : 26 + 8 * i, 20:26] = True
        masks[method] = of_class
    return Beside("x$_1", {"T2": image, "T1": image}, masks, AXIAL, ["Dice of class 0: one 1.000, two 0.000"])


def pixels_of(figure):
    figure.canvas.draw()
    return np.asarray(figure.canvas.buffer_rgba())[..., :3].astype(int)


def has_colour(pixels, colour):
    wanted = np.array([int(colour[i : i + 2], 16) for i in (1, 3, 5)])
    return bool((np.abs(pixels - wanted).max(-1) <= 40).any())


def test_three_channels_are_shown_whichever_the_masks_are_drawn_on():
    assert [shown_channels(c) for c in (0, 1, 5)] == [[0, 1, 2], [1, 0, 2], [5, 0, 1]]


@pytest.mark.parametrize("n_classes", [1, 2])
def test_columns_are_channels_methods_and_truth(n_classes):
    figure = draw_beside(beside(n_classes), "worst case: x$_1")
    columns = np.array_split(pixels_of(figure)[90:-60], 5, axis=1)  # between title and legend
    colours = CLASSES[:n_classes] if n_classes > 1 else [TRUTH]
    for colour in colours:
        assert [has_colour(column, colour) for column in columns] == [False, False, True, False, True]
    assert len(figure.axes) == 2 * 5  # slices 2 and 3
    texts = [text.get_text() for axis in figure.axes for text in axis.texts]
    names = ["T2", "T1", "one", "two", "truth"]
    assert [text for text in texts if text in names] == names
    assert "slice 2" in texts and "slice 3" in texts
    assert bool(figure.legends) == (n_classes > 1)


def test_cases_without_truth_or_any_mask():
    pixels = pixels_of(draw_beside(beside(1, truth=False), "x"))
    assert has_colour(pixels, TRUTH) and not has_colour(pixels, PREDICTION)
    nothing = beside(1, truth=False)
    nothing.masks["one"]["class 0"][:] = False
    assert not has_colour(pixels_of(draw_beside(nothing, "x")), TRUTH)
