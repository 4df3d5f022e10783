"""Single cases in another unit than the fixed factor was made for, each by hand."""

import numpy as np
import pytest
from pydantic import ValidationError

from autoseg import messages
from autoseg.plan import Normalisation
from autoseg.preprocessing.normalise import normalise
from autoseg.preprocessing.unexpected import UnexpectedRange, note, warning

BY_255 = Normalisation(scheme="none", factor=1 / 255, expected_maximum=(1.5, 255.5))


def scan(low: float, high: float) -> np.ndarray:
    """One channel of 10 x 10 x 20 voxels, evenly spread from low to high in no order."""
    values = np.linspace(low, high, 2000)
    return np.random.default_rng(0).permutation(values).reshape(1, 10, 10, 20).astype(np.float32)


@pytest.mark.parametrize(("low", "high"), [(0, 255), (0, 255.4), (0, 1.6), (20, 100), (-0.1, 200)])
def test_a_scan_as_the_plan_expects_it_is_multiplied_and_nothing_else(low, high):
    """Also one with traces of an interpolation below 0."""
    image = scan(low, high)
    before = image.copy()
    assert normalise(image, [BY_255]) == []
    assert np.array_equal(image, before * np.float32(1 / 255))


# what becomes 0 and 1: 0, or the percentile 0.1 where values are negative; the percentile 99.9
@pytest.mark.parametrize(
    ("low", "high", "zero", "one"),
    [
        (0, 1, 0, 0.999),
        (0, 4095, 0, 4090.905),
        (0, 256, 0, 255.744),
        (-1000, 200, -998.8, 198.8),
        (-5, 200, -4.795, 199.795),
        (50, 4050, 0, 4046),
    ],
)
@pytest.mark.parametrize(
    "entry", [BY_255, Normalisation(scheme="rgb_0_1", expected_maximum=(1.5, 255.5))], ids=["none", "rgb_0_1"]
)
def test_a_scan_in_another_unit_is_brought_to_0_to_1(low, high, zero, one, entry):
    image = scan(low, high)
    wanted = ((image.astype(np.float64) - zero) / (one - zero)).clip(0, 1)
    (found,) = normalise(image, [entry])
    np.testing.assert_allclose(image, wanted, atol=2e-6)
    assert image.max() == pytest.approx(1) and image.min() >= 0
    assert found.channel == 0
    assert found.found == pytest.approx((low, high))
    assert found.to_0_and_1 == pytest.approx((zero, one), rel=1e-5)


def test_a_bright_voxel_of_many_does_not_make_the_others_dark():
    image = scan(0, 1000)
    image[0, 0, 0, 0] = 1e6
    normalise(image, [BY_255])
    assert np.median(image) == pytest.approx(0.5, abs=0.01)


def test_a_scan_of_almost_nothing_but_air_has_its_largest_value_at_1():
    image = np.zeros((1, 20, 20, 20), np.float32)
    image[0, 3, 3, 3], image[0, 4, 4, 4] = 1000, 500
    (found,) = normalise(image, [BY_255])
    assert found.to_0_and_1 == (0, 1000)
    assert image[0, 3, 3, 3] == pytest.approx(1) and image[0, 4, 4, 4] == pytest.approx(0.5)
    black = np.zeros((1, 4, 4, 4), np.float32)
    assert len(normalise(black, [BY_255])) == 1 and not black.any()


def test_each_channel_is_measured_inside_its_mask():
    """The second channel is as expected inside the mask; a huge value outside it is set to 0 and does not count."""
    image = np.concatenate([scan(0, 1), scan(0, 255)])
    mask = np.ones(image.shape[1:], bool)
    mask[0] = False
    image[1, 0] = 4000
    inside = BY_255.model_copy(update={"inside_nonzero": True})
    (found,) = normalise(image, [BY_255, inside], mask)
    assert found.channel == 0 and not image[1, 0].any()


def test_without_the_word_nothing_is_looked_at():
    image = scan(0, 4095)
    before = image.copy()
    assert normalise(image, [Normalisation(scheme="none", factor=1 / 255)]) == []
    assert np.array_equal(image, before * np.float32(1 / 255))


def test_the_warning_names_case_range_and_what_was_done():
    one = UnexpectedRange(channel=0, found=(0, 0.98), to_0_and_1=(0, 0.95))
    text = warning({"case_3": [one]}, [BY_255], ["T1"])
    assert text.splitlines()[0].startswith(
        "1 case has other intensities than the plan was made for (none below 0, "
    )
    assert "within 1.5 to 255.5" in text and "check how it was exported" in text
    assert text.splitlines()[1] == "    case_3: T1 from 0 to 0.98; 0 became 0 and 0.95 became 1"
    many = warning({f"case_{i}": [one] for i in range(7)}, [BY_255], ["T1"])
    assert many.startswith("7 cases have") and many.endswith(
        "and 2 more cases; each is in its record in the store"
    )


def test_it_belongs_to_schemes_that_depend_on_the_unit():
    with pytest.raises(ValidationError, match="belongs to the schemes none and rgb_0_1, found zscore"):
        Normalisation(scheme="zscore", expected_maximum=(1.5, 255.5))
    with pytest.raises(ValidationError, match="from 0 or more to a larger number"):
        Normalisation(scheme="none", expected_maximum=(255.5, 1.5))


def test_of_many_cases_the_first_is_told_at_once_and_the_others_together(caplog):
    messages.forget_warnings()
    one = UnexpectedRange(channel=0, found=(0, 0.98), to_0_and_1=(0, 0.95))
    for i in range(9):
        note(f"case_{i}", [one], [BY_255], ["T1"])
        assert len(caplog.records) == 1
    messages.tell_notes()
    first, rest = (record.getMessage() for record in caplog.records)
    assert (
        "within 1.5 to 255.5" in first and "check how they were exported: case_0 (T1 from 0 to 0.98" in first
    )
    assert "case_1 (" in rest and "case_5 (" in rest and rest.endswith("and 3 more") and "case_0" not in rest
    messages.tell_notes()
    assert len(caplog.records) == 2
