"""A known field is taken out, whatever the shape; what cannot be corrected is refused or left as it is."""

from __future__ import annotations

import numpy as np
import pytest

from autoseg.errors import AutosegError
from autoseg.plan import Normalisation
from autoseg.preprocessing.bias_field import remove_bias_field
from autoseg.preprocessing.normalise import normalise


def shaded(shape: tuple[int, int, int]) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """An image of two tissues under a smooth field, the same without the field, and where the first tissue is."""
    z, y, x = np.meshgrid(*(np.linspace(-1, 1, n) if n > 1 else np.zeros(1) for n in shape), indexing="ij")
    inside = z**2 / 4 + y**2 + x**2 < 0.7
    other = (x - 0.3) ** 2 + y**2 < 0.05
    noise = np.random.default_rng(0).normal(0, 1, shape)
    clean = np.where(inside, np.where(other, 150, 100), 3) + noise
    field = np.exp(0.4 * x + 0.2 * y - 0.2 * x * y)
    return (clean * field).astype(np.float32), clean, inside & ~other


def variation(image: np.ndarray, where: np.ndarray) -> float:
    """Standard deviation over mean."""
    return float(image[where].std() / image[where].mean())


@pytest.mark.parametrize("shape", [(5, 36, 32), (1, 36, 32), (36, 1, 32)])
def test_a_known_field_is_taken_out(shape):
    image, clean, tissue = shaded(shape)
    before = variation(image, tissue)
    remove_bias_field(image)
    assert image.dtype == np.float32 and image.shape == shape
    assert before > 8 * variation(clean, tissue)
    assert variation(image, tissue) < before / 3


def test_the_object_keeps_its_brightness():
    """The logarithm of the field has no mean in the object, so a correction is neither brighter nor darker."""
    image, _, tissue = shaded((5, 36, 32))
    before = np.log(image[tissue]).mean()
    remove_bias_field(image)
    assert np.log(image[tissue]).mean() == pytest.approx(before, abs=0.02)


def test_twice_gives_the_same_digits():
    first, second = shaded((4, 32, 32))[0], shaded((4, 32, 32))[0]
    remove_bias_field(first)
    remove_bias_field(second)
    assert np.array_equal(first, second)


def test_nothing_to_estimate_leaves_the_image_as_it_is():
    for image in (np.full((3, 8, 8), 7, np.float32), np.arange(5, dtype=np.float32).reshape(1, 1, 5)):
        given = image.copy()
        remove_bias_field(image)
        assert np.array_equal(image, given)


def test_shifted_intensities_are_refused():
    image = shaded((4, 32, 32))[0] - 120
    with pytest.raises(
        AutosegError,
        match=r"(?s)channel 1: the bias field.*down to -.*positive.*normalisation\.1\.bias_correction",
    ):
        remove_bias_field(image, 1)


def test_only_the_channels_of_the_plan_are_corrected():
    image = np.stack([shaded((4, 32, 32))[0]] * 2)
    tissue, given = shaded((4, 32, 32))[2], image.copy()
    normalise(image, [Normalisation(scheme="none", bias_correction="n4"), Normalisation(scheme="none")])
    assert np.array_equal(image[1], given[1])
    assert variation(image[0], tissue) < variation(given[0], tissue) / 3
