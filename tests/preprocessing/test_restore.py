"""Back to the file's grid: against the whole volume at once, and what it costs."""

import tracemalloc

import numpy as np
import pytest

from autoseg.dataset.imageio import Geometry
from autoseg.errors import AutosegError
from autoseg.labels import LabelSet
from autoseg.plan import Normalisation, Preprocessing
from autoseg.preprocessing import restore
from autoseg.preprocessing.case import preprocess_case
from autoseg.preprocessing.resample import resample_image, separate_axis

IDENTITY = (1.0, 0, 0, 0, 1, 0, 0, 0, 1)
CLASSES = LabelSet.from_labels({"background": 0, "a": 1, "b": 2})
REGIONS = LabelSet.from_labels({"background": 0, "whole": [1, 2], "core": [2]}, [1, 2])


def a_case(shape, file_spacing_mm, **settings):
    plan = Preprocessing(normalisation=[Normalisation(scheme="none")], **settings)
    image = np.zeros((1, *shape), np.float32)
    image[:, 2:-1, 1:-2, 3:-3] = 1
    geometry = Geometry(tuple(shape), file_spacing_mm, (0.0, 0.0, 0.0), IDENTITY)
    return preprocess_case("a", image, geometry, plan).properties, plan


def scores_for(properties, n_outputs):
    rng = np.random.default_rng(0)
    return rng.normal(0, 3, (n_outputs, *properties.working_shape)).astype(np.float32)


def naive(logits, properties, plan):
    """All classes on the full grid of the crop, in file axes."""
    before_mm, working_mm = properties.spacing_before_mm(plan), properties.working_spacing_mm
    apart = separate_axis(working_mm, before_mm, plan.separate_axis_ratio)
    full = resample_image(
        logits, properties.shape_before_resampling, plan.logits_order, apart, plan.separate_axis_order
    )
    back = np.argsort(plan.transpose)
    return full.transpose(0, *(back + 1))


SETTINGS = [
    {"spacing_mm": (None, None, None)},
    {"spacing_mm": (1.5, 2.0, 0.7)},
    {"spacing_mm": (0.8, 1.0, 1.0), "transpose": (2, 0, 1), "logits_order": 3},
    {"spacing_mm": (6.0, 1.0, 1.0), "transpose": (1, 2, 0), "separate_axis_order": 1},
    {"spacing_mm": (6.0, 1.5, 1.5), "logits_order": 3},
    {"spacing_mm": (1.3, 1.3, 1.3), "crop_to_nonzero": False, "logits_order": 0},
    {"spacing_mm": (None, 1.5, 1.5), "crop_to_object": True},
]


@pytest.mark.parametrize("label_set", [CLASSES, REGIONS], ids=["classes", "regions"])
@pytest.mark.parametrize("settings", SETTINGS)
def test_equals_the_whole_volume_at_once(settings, label_set, monkeypatch):
    monkeypatch.setattr(restore, "SLAB_BYTES", 20_000)  # many slabs
    properties, plan = a_case((14, 21, 19), (1.0, 1.2, 0.9), **settings)
    logits = scores_for(properties, label_set.n_outputs)
    kept = logits.copy()
    full = naive(logits, properties, plan)
    inside = tuple(slice(*pair) for pair in properties.crop_box)

    mask = restore.logits_to_mask(logits, properties, plan, label_set)
    expected = np.zeros((14, 21, 19), np.uint8)
    expected[inside] = label_set.decide(full)
    assert mask.dtype == np.uint8
    # products of another size round differently, which may turn a near tie
    assert (mask != expected).mean() < 1e-3

    probabilities = restore.logits_to_probabilities(logits, properties, plan, label_set)
    exact = full.astype(np.float64)
    share = 1 / (1 + np.exp(-exact)) if label_set.has_regions else np.exp(exact) / np.exp(exact).sum(0)
    expected = np.zeros((len(logits), 14, 21, 19))
    expected[0] = 0 if label_set.has_regions else 1
    expected[(slice(None), *inside)] = share
    np.testing.assert_allclose(probabilities, expected, atol=1e-5)
    assert np.array_equal(logits, kept)


def test_a_grid_that_did_not_change_is_exact():
    properties, plan = a_case((10, 12, 14), (1.0, 1.0, 1.0), spacing_mm=(None, None, None))
    assert properties.crop_box == ((2, 9), (1, 10), (3, 11))
    logits = scores_for(properties, 3)
    mask = restore.logits_to_mask(logits, properties, plan, CLASSES)
    assert np.array_equal(mask[2:9, 1:10, 3:11], logits.argmax(0))
    mask[2:9, 1:10, 3:11] = 0
    assert not mask.any()


def test_extreme_logits_do_not_overflow_and_half_precision_is_kept():
    properties, plan = a_case((8, 8, 12), (1.0, 1.0, 1.0), spacing_mm=(None, None, None))
    for label_set in (CLASSES, REGIONS):
        logits = np.full((label_set.n_outputs, *properties.working_shape), -1e6, np.float32)
        logits[1] = 1e6
        with np.errstate(all="raise", under="ignore"):
            got = restore.logits_to_probabilities(logits, properties, plan, label_set, np.float16)
        assert got.dtype == np.float16
        assert got[1, 4, 4, 6] == 1 and got[0, 4, 4, 6] == 0


def test_logits_of_another_grid_are_refused():
    properties, plan = a_case((8, 8, 12), (1.0, 1.0, 1.0), spacing_mm=(None, None, None))
    with pytest.raises(AutosegError, match=r"a: the logits do not lie(.|\n)*\(1, 2, 3\)(.|\n)*\(5, 5, 6\)"):
        restore.logits_to_mask(np.zeros((3, 1, 2, 3), np.float32), properties, plan, CLASSES)


@pytest.mark.parametrize("spacing_mm", [(2.0, 2.0, 2.0), (8.0, 2.0, 2.0)])
def test_memory_is_a_fraction_of_the_whole(spacing_mm):
    """12 classes from half resolution: the whole volume at once holds them all in full."""
    labels = LabelSet.from_labels({"background": 0, **{str(i): i for i in range(1, 12)}})
    properties, plan = a_case((96, 128, 128), (1.0, 1.0, 1.0), spacing_mm=spacing_mm, crop_to_nonzero=False)
    logits = scores_for(properties, labels.n_outputs)
    restore.logits_to_mask(logits, properties, plan, labels)  # fills the cache of matrices
    tracemalloc.start()
    restore.logits_to_mask(logits, properties, plan, labels)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.reset_peak()
    restore.logits_to_probabilities(logits, properties, plan, labels, np.float16)
    with_probabilities = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    full = 4 * 12 * 96 * 128 * 128
    assert peak < 0.5 * full
    assert with_probabilities < 0.5 * full + 0.5 * full  # half of it is the result itself
