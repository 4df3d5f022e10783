"""Each scheme against its formula in float64."""

from typing import get_args

import numpy as np
import pytest

from autoseg.errors import AutosegError
from autoseg.plan import Normalisation
from autoseg.preprocessing.normalise import SCHEMES, mean_and_std, normalise

CT = {"mean": 50.0, "std": 20.0, "percentile_00_5": 10.0, "percentile_99_5": 90.0}


@pytest.fixture
def image():
    return np.random.default_rng(0).normal(1000, 30, (2, 6, 7, 8)).astype(np.float32)


def test_zscore_over_the_whole_crop(image):
    expected = [(c - c.mean(dtype=np.float64)) / c.std(dtype=np.float64) for c in image]
    normalise(image, [Normalisation()] * 2)
    assert image.dtype == np.float32
    np.testing.assert_allclose(image, expected, atol=2e-6)


def test_zscore_inside_the_nonzero_mask_sets_the_outside_to_zero(image):
    mask = np.random.default_rng(1).random(image.shape[1:]) < 0.4
    values = image[1][mask].astype(np.float64)
    other = image[0].copy()
    normalise(image, [Normalisation(scheme="none"), Normalisation(inside_nonzero=True)], mask)
    assert np.array_equal(image[0], other)
    np.testing.assert_allclose(image[1][mask], (values - values.mean()) / values.std(), atol=2e-6)
    assert (image[1][~mask] == 0).all()


@pytest.mark.parametrize("scheme", ["zscore", "zscore_object"])
def test_a_constant_channel_becomes_zero(scheme):
    image = np.full((1, 4, 4, 4), 7, np.float32)
    normalise(image, [Normalisation(scheme=scheme)])
    assert (image == 0).all()


def test_ct_rescale_and_rgb():
    image = np.linspace(-20, 120, 3 * 60, dtype=np.float32).reshape(3, 3, 4, 5) + 20
    ct, unit, rgb = image.astype(np.float64).copy()
    schemes = [
        Normalisation(scheme="ct", statistics=CT),
        Normalisation(scheme="rescale_0_1"),
        Normalisation(scheme="rgb_0_1"),
    ]
    normalise(image, schemes)
    np.testing.assert_allclose(image[0], (ct.clip(10, 90) - 50) / 20, atol=1e-6)
    np.testing.assert_allclose(image[1], (unit - unit.min()) / (unit.max() - unit.min()), atol=1e-6)
    np.testing.assert_allclose(image[2], rgb / 255, atol=1e-6)


def test_mean_and_std_do_not_lose_digits_far_from_zero():
    values = (1e6 + np.arange(600_000) % 2).astype(np.float32)
    assert mean_and_std(values) == pytest.approx((1e6 + 0.5, 0.5), rel=1e-12)
    assert mean_and_std(values[:0]) == (0, 0)


def test_what_does_not_fit_is_explained():
    image = np.full((1, 2, 2, 2), 300, np.float32)
    with pytest.raises(
        AutosegError, match=r"channel 0: rgb_0_1 does not fit(.|\n)*300 to 300(.|\n)*0 to 255"
    ):
        normalise(image, [Normalisation(scheme="rgb_0_1")])
    with pytest.raises(
        AutosegError, match=r"normalisation.0: the plan's scheme ct lacks(.|\n)*percentile_99_5"
    ):
        normalise(image, [Normalisation(scheme="ct")])
    with pytest.raises(AutosegError, match=r"not normalise every channel(.|\n)*1 channel"):
        normalise(image, [])


def test_zscore_of_the_object_does_not_depend_on_the_air_around_it():
    rng = np.random.default_rng(0)
    head = rng.normal(1000, 30, (6, 20, 20)).astype(np.float32)
    images = []
    for margin in (2, 20):
        wide = rng.normal(10, 2, (1, 6, 20 + 2 * margin, 20 + 2 * margin)).astype(np.float32)
        inner = (slice(None), slice(margin, -margin), slice(margin, -margin))
        wide[0][inner] = head
        normalise(wide, [Normalisation(scheme="zscore_object")])
        images.append(wide[0][inner])
    np.testing.assert_allclose(images[0], images[1], atol=1e-4)
    np.testing.assert_allclose(images[0], (head - head.mean()) / head.std(dtype=np.float64), atol=1e-4)


def test_the_table_holds_the_plans_words():
    assert set(SCHEMES) == set(get_args(Normalisation.model_fields["scheme"].annotation))
    assert all(scheme.name == name for name, scheme in SCHEMES.items())


def test_division_by_the_mode_comes_before_the_scheme_and_the_factor_after():
    """Bins of 16: 32 to 47 is the fullest above bin 0, so all is divided by 32; then 0 to 1, then times 10."""
    values = np.array([0, 0, 0, 8, 32, 40, 47, 64], np.float32).reshape(1, 1, 2, 4)
    image = np.concatenate((values, values, values))
    entries = [
        Normalisation(scheme="none", divide_by_mode=16),
        Normalisation(scheme="rescale_0_1", divide_by_mode=16, factor=10),
        Normalisation(scheme="fixed", divide_by_mode=16, factor=10),  # scaled later, its factor too
    ]
    normalise(image, entries)
    by_hand = [0, 0, 0, 0.25, 1, 1.25, 47 / 32, 2]
    np.testing.assert_allclose(image[0].ravel(), by_hand)
    np.testing.assert_allclose(image[1].ravel(), [5 * value for value in by_hand], rtol=1e-6)
    np.testing.assert_allclose(image[2].ravel(), by_hand)


def test_the_factor_of_scans_from_0_to_255():
    image = np.array([0, 51, 255, 510], np.float32).reshape(1, 1, 2, 2)
    normalise(image, [Normalisation(scheme="none", factor=1 / 255)])
    np.testing.assert_allclose(image.ravel(), [0, 0.2, 1, 2], rtol=1e-6)


def test_each_channel_has_its_own_mask():
    image = np.array([[1.0, 3, 5, 100], [1, 3, 5, 100]], np.float32).reshape(2, 1, 2, 2)
    nonzero = np.array([1, 1, 1, 0], bool).reshape(1, 2, 2)
    mask = np.array([0, 1, 0, 1], bool).reshape(1, 2, 2)
    normalise(image, [Normalisation(inside_nonzero=True), Normalisation(inside_mask=True)], nonzero, mask)
    np.testing.assert_allclose(image[0].ravel(), [-(1.5**0.5), 0, 1.5**0.5, 0], rtol=1e-6)
    np.testing.assert_allclose(image[1].ravel(), [0, -1, 0, 1])


def test_the_mode_inside_a_mask_is_that_of_its_voxels():
    """64 is outside, however often: a channel that is scaled later is divided as a whole, the others are 0 there."""
    values = np.array([64, 64, 64, 32, 33, 96], np.float32).reshape(1, 1, 2, 3)
    image, mask = np.concatenate((values, values)), values[0] != 64
    entries = [
        Normalisation(scheme=scheme, inside_mask=True, divide_by_mode=16) for scheme in ("none", "fixed")
    ]
    normalise(image, entries, mask=mask)
    np.testing.assert_allclose(image[0].ravel(), [0, 0, 0, 1, 33 / 32, 3])
    np.testing.assert_allclose(image[1].ravel(), [2, 2, 2, 1, 33 / 32, 3])


def test_an_image_without_a_mode_is_refused():
    with pytest.raises(
        AutosegError, match=r"channel 0: there is no most frequent intensity(.|\n)*up to 3(.|\n)*at least 16"
    ):
        normalise(np.full((1, 2, 2, 2), 3, np.float32), [Normalisation(divide_by_mode=16)])
