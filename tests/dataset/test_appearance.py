"""What a case looks like: fields, sizes and contrasts that are known because they were made."""

import math

import numpy as np
import pytest

from autoseg.dataset.appearance import appearance, object_above_air, shading
from autoseg.dataset.imageio import Geometry

IDENTITY = (1.0, 0.0, 0.0, 0.0, 1.0, 0.0, 0.0, 0.0, 1.0)
SHAPE = (20, 60, 40)


def ball() -> np.ndarray:
    """A head of 16 x 40 x 24 voxels in the middle."""
    z, y, x = np.meshgrid(*(np.linspace(-n / 2 + 0.5, n / 2 - 0.5, n) for n in SHAPE), indexing="ij")
    return (z / 8) ** 2 + (y / 20) ** 2 + (x / 12) ** 2 < 1


def noise(scale: float, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).normal(0, scale, SHAPE)


def geometry(spacing=(2.0, 1.0, 0.5)) -> Geometry:
    return Geometry(SHAPE, spacing, (0.0, 0.0, 0.0), IDENTITY)


def seen(*channels: np.ndarray, lesion: np.ndarray | None = None):
    lesion = np.zeros(SHAPE, bool) if lesion is None else lesion
    return appearance(np.stack(channels).astype(np.float32), lesion, geometry())


def test_the_head_is_found_in_the_air():
    found = seen(np.where(ball(), 500.0, 10) + noise(2))
    assert found.object_extent_mm == (32, 40, 12)
    assert found.object_share == pytest.approx(ball().mean(), abs=1e-3)


def test_a_head_that_was_cut_out_is_what_differs_from_the_corners():
    """Also where the brain was normalised, and air is no longer 0."""
    for air in (0.0, -3.0):
        assert np.array_equal(object_above_air(np.where(ball(), noise(1), air)), ball())


@pytest.mark.parametrize("fold", [1.0, 1.5, 2.5])
def test_a_known_field_is_measured(fold):
    """exp(a y) with 90 % of the voxels within known limits of y, on tissue of two kinds with some fluid."""
    y = np.broadcast_to(np.arange(SHAPE[1])[:, None], SHAPE)
    inside = y[ball()]
    low, high = np.percentile(inside, (5, 95))
    tissue = np.where(np.random.default_rng(1).random(SHAPE) < 0.5, 95.0, 105.0)
    fluid = np.random.default_rng(2).random(SHAPE) < 0.1
    image = np.where(fluid, 15.0, tissue) * np.exp(math.log(fold) * (y - low) / (high - low))
    assert shading(image, ball()) == pytest.approx(fold, rel=0.04)


def test_a_field_needs_intensities_above_0_and_voxels():
    assert shading(noise(1), ball()) is None
    few = np.zeros(SHAPE, bool)
    few[0, 0, :50] = True
    assert shading(np.ones(SHAPE), few) is None


def test_lesions_are_bright_or_dark_beside_the_rest_of_the_head():
    lesion = np.zeros(SHAPE, bool)
    lesion[8:12, 25:35, 15:25] = True
    tissue = np.where(ball(), 100 + noise(10), 0)
    found = seen(np.where(lesion, 130, tissue), np.where(lesion, 70, tissue), tissue, lesion=lesion)
    contrasts = [channel.lesion_contrast for channel in found.channels]
    assert contrasts == [pytest.approx(3, abs=0.2), pytest.approx(-3, abs=0.2), pytest.approx(0, abs=0.2)]
    assert [channel.lesion_contrast for channel in seen(tissue).channels] == [None]


def test_channels_that_show_the_same_correlate_in_rank():
    """A square keeps the order; the pairs are 0 and 1, 0 and 2, 1 and 2."""
    tissue = np.where(ball(), 100 + noise(10), 0)
    other = np.where(ball(), 100 + noise(10, seed=5), 0)
    found = seen(tissue, tissue**2, other)
    assert found.correlations == [pytest.approx(1), pytest.approx(0, abs=0.03), pytest.approx(0, abs=0.03)]


def test_an_image_of_one_value_or_one_slice_is_no_error():
    assert seen(np.full(SHAPE, 7.0)).object_extent_mm is None
    flat = np.random.default_rng(0).uniform(50, 60, (1, 1, 30, 30)).astype(np.float32)
    one = Geometry((1, 30, 30), (5.0, 1.0, 1.0), (0.0, 0.0, 0.0), IDENTITY)
    found = appearance(flat, np.zeros((1, 30, 30), bool), one)
    assert found.channels[0].shading == pytest.approx(1.0, abs=0.1)
