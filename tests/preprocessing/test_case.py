"""A case through all steps, against the steps written out."""

import numpy as np
import pytest
from scipy import ndimage

from autoseg.dataset.imageio import Geometry
from autoseg.errors import AutosegError
from autoseg.plan import Normalisation, Preprocessing
from autoseg.preprocessing.case import preprocess_case
from autoseg.preprocessing.normalise import normalise

IDENTITY = (1.0, 0, 0, 0, 1, 0, 0, 0, 1)


def geometry(shape, spacing_mm=(5.0, 1.0, 1.25)):
    return Geometry(shape, spacing_mm, (1.0, 2.0, 3.0), IDENTITY)


@pytest.fixture
def raw():
    rng = np.random.default_rng(0)
    image = np.zeros((2, 10, 24, 20), np.float32)
    image[:, 2:9, 3:21, 4:18] = rng.normal(100, 20, (2, 7, 18, 14))
    image[:, 5, 10, 10] = 0  # a hole
    label = np.zeros((10, 24, 20), np.uint8)
    label[4:7, 8:14, 8:12] = 1
    return image, label


def test_nothing_to_do_is_a_copy(raw):
    image, label = raw
    plan = Preprocessing(
        crop_to_nonzero=False, spacing_mm=(None, 1.0, None), normalisation=[Normalisation(scheme="none")] * 2
    )
    case = preprocess_case("a", image, geometry(label.shape), plan, label)
    assert np.array_equal(case.image, image) and np.array_equal(case.label, label)
    assert case.image.dtype == np.float32 and case.label.dtype == np.int16
    assert not np.shares_memory(case.image, image)
    assert case.properties.working_spacing_mm == (5.0, 1.0, 1.25)
    assert case.components == []


def test_all_steps_in_order(raw):
    image, label = raw
    kept = image.copy(), label.copy()
    plan = Preprocessing(
        transpose=(1, 0, 2),
        spacing_mm=(2.0, 4.0, 1.25),
        normalisation=[Normalisation(), Normalisation(inside_nonzero=True)],
    )
    case = preprocess_case("a", image, geometry(label.shape), plan, label)
    assert np.array_equal(image, kept[0]) and np.array_equal(label, kept[1])
    assert case.properties.crop_box == ((2, 9), (3, 21), (4, 18))
    assert case.properties.shape_before_resampling == (18, 7, 14)
    assert case.properties.working_shape == (9, 9, 14) == case.image.shape[1:]
    cut = image[:, 2:9, 3:21, 4:18].transpose(0, 2, 1, 3).astype(np.float64)
    mask = ndimage.binary_fill_holes((cut != 0).any(0))
    assert mask[7, 3, 6]  # the hole counts as inside
    cut[0] = (cut[0] - cut[0].mean()) / cut[0].std()
    cut[1] = np.where(mask, (cut[1] - cut[1][mask].mean()) / cut[1][mask].std(), 0)
    # 5 mm is more than three times 1 mm: the file's z, working axis 1, is treated separately
    planes = [
        ndimage.zoom(cut[:, :, i], (1, 0.5, 1), order=3, mode="nearest", grid_mode=True).clip(
            cut[:, :, i].min((1, 2), keepdims=True), cut[:, :, i].max((1, 2), keepdims=True)
        )
        for i in range(7)
    ]
    nearest = np.floor((np.arange(9) + 0.5) * 7 / 9).astype(int)
    np.testing.assert_allclose(case.image, np.stack(planes, 2)[:, :, nearest], atol=1e-5)


def test_background_outside_the_nonzero_mask_is_minus_one(raw):
    image, label = raw
    image[:, 2:5, 3:9, 4:9] = 0
    label[2, 3, 4] = 1  # a lesion drawn outside stays a lesion
    plan = Preprocessing(
        spacing_mm=(None, None, None), normalisation=[Normalisation(), Normalisation(inside_nonzero=True)]
    )
    case = preprocess_case("a", image, geometry(label.shape), plan, label)
    assert case.label[0, 0, 0] == 1 and case.label[0, 0, 1] == -1 and case.label[-1, -1, -1] == 0
    assert set(np.unique(case.label)) == {-1, 0, 1}
    assert (case.foreground[:, 3] == 1).all()
    without = preprocess_case("a", image, geometry(label.shape), plan)
    assert without.label is None
    assert np.array_equal(without.image, case.image)  # training and prediction see the same


def test_an_empty_image_keeps_its_size():
    image = np.zeros((1, 4, 5, 6), np.float32)
    plan = Preprocessing(spacing_mm=(None, None, None), normalisation=[Normalisation(inside_nonzero=True)])
    case = preprocess_case("a", image, geometry((4, 5, 6)), plan, np.zeros((4, 5, 6), np.uint8))
    assert case.image.shape == (1, 4, 5, 6) and (case.image == 0).all()
    assert (case.label == -1).all()


def test_the_case_is_named_when_the_plan_does_not_fit():
    plan = Preprocessing(spacing_mm=(None, None, None), normalisation=[Normalisation(scheme="rgb_0_1")])
    image = np.full((1, 2, 2, 2), -5, np.float32)
    with pytest.raises(AutosegError, match=r"rat_7, channel 0: rgb_0_1 does not fit"):
        preprocess_case("rat_7", image, geometry((2, 2, 2)), plan)


def test_air_that_is_noise_is_cropped_and_bias_corrected_inside_the_crop():
    """The same box and values as for the crop alone: what is around the head changes nothing but the position."""
    rng = np.random.default_rng(0)
    image = rng.normal(10, 2, (1, 4, 60, 70)).astype(np.float32)
    image[:, :, 10:40, 20:50] += np.linspace(300, 600, 30, dtype=np.float32)
    label = np.zeros((4, 60, 70), np.uint8)
    label[2, 15:20, 25:30] = 1
    plan = Preprocessing(
        crop_to_object=True,
        spacing_mm=(None, None, None),
        normalisation=[Normalisation(scheme="zscore_object", bias_correction="n4")],
    )
    case = preprocess_case("a", image, geometry(label.shape), plan, label)
    assert case.properties.crop_box == ((0, 4), (7, 43), (17, 53))
    cut = image[:, :, 7:43, 17:53].copy()
    assert np.array_equal(case.label, label[:, 7:43, 17:53])
    normalise(cut, plan.normalisation)
    assert np.array_equal(case.image, cut)


def with_a_head(ones: tuple[slice, ...]) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(0)
    image = np.zeros((1, 4, 40, 40), np.float32)
    image[:, :, 2:38, 2:38] = rng.normal(10, 1, (1, 4, 36, 36))
    image[:, :, 10:25, 10:30] += 500
    label = np.zeros((4, 40, 40), np.uint8)
    label[ones] = 1
    return image, label


def test_the_crop_to_the_head_goes_with_a_normalisation_inside_the_nonzero_mask():
    image, label = with_a_head((slice(1, 2), slice(12, 15), slice(12, 15)))
    plan = Preprocessing(
        crop_to_object=True,
        spacing_mm=(None, None, None),
        normalisation=[Normalisation(inside_nonzero=True)],
    )
    case = preprocess_case("a", image, geometry(label.shape), plan, label)
    assert case.properties.crop_box == ((0, 4), (8, 27), (8, 32))
    assert case.image.shape == (1, 4, 19, 24)


def test_a_crop_to_the_head_that_would_cut_lesions_is_refused():
    image, label = with_a_head((slice(1, 2), slice(25, 30), slice(12, 13)))
    plan = Preprocessing(crop_to_object=True, spacing_mm=(None, None, None), normalisation=[Normalisation()])
    with pytest.raises(
        AutosegError, match=r"(?s)a: the crop to the head would cut lesions off.*3 of 5 lesion voxels"
    ):
        preprocess_case("a", image, geometry(label.shape), plan, label)


def test_a_grid_that_no_memory_holds_is_refused_before_it_is_made(raw, monkeypatch):
    """As where a header is ten times too large; the system would end the process, and with it all other cases."""
    monkeypatch.setattr("autoseg.preprocessing.case.memory_gb", lambda: 100.0)
    image, label = raw
    plan = Preprocessing(spacing_mm=(0.01, 0.005, 0.005), normalisation=[Normalisation(scheme="none")] * 2)
    with pytest.raises(
        AutosegError, match=r"(?s)a: the main memory is not.*3500 x 3600 x 3500 voxels.*ten times"
    ):
        preprocess_case("a", image, geometry(label.shape), plan, label)
