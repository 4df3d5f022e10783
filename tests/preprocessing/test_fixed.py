"""Normalisation by constants of the training cases: against the formula, and against what must not matter."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from autoseg.dataset.imageio import Geometry
from autoseg.errors import AutosegError
from autoseg.files import read_model, write_json
from autoseg.plan import Normalisation, Preprocessing
from autoseg.preprocessing import fixed
from autoseg.preprocessing.case import Preprocessed, preprocess_case
from autoseg.preprocessing.fixed import FixedConstants
from autoseg.preprocessing.store import CaseKey, Store

IDENTITY = (1.0, 0, 0, 0, 1, 0, 0, 0, 1)
MAD = {"scheme": "fixed", "spread": "mean_absolute_deviation"}


def a_plan(*entries: dict, **settings) -> Preprocessing:
    settings = {"crop_to_nonzero": False, "spacing_mm": (None, None, None), **settings}
    return Preprocessing(normalisation=[Normalisation(**entry) for entry in entries], **settings)


def preprocessed(name: str, image: np.ndarray, plan: Preprocessing, label: np.ndarray | None) -> Preprocessed:
    geometry = Geometry(image.shape[1:], (1.0, 1.0, 1.0), (0.0, 0.0, 0.0), IDENTITY)
    return preprocess_case(name, image, geometry, plan, label)


def a_store(folder: Path, images: dict[str, np.ndarray], plan: Preprocessing) -> Store:
    store = Store(folder / "store")
    for name, image in images.items():
        made = preprocessed(name, image, plan, np.zeros(image.shape[1:], np.uint8))
        store.write(name, made, CaseKey(content_hash=name, preprocessing=plan.model_dump(mode="json")))
    return store


def row(*values: float) -> np.ndarray:
    return np.array(values, np.float32).reshape(1, 1, 1, -1)


def test_both_spreads_are_about_the_pooled_mean_worked_by_hand(tmp_path: Path) -> None:
    """0, 2 in one case and 4, 10 in the other: mean 4; deviations 4, 2, 0, 6, so 3, or the root of 56 / 4."""
    images = {"a": np.concatenate([row(0, 2)] * 3), "b": np.concatenate([row(4, 10)] * 3)}
    plan = a_plan(MAD, {"scheme": "none"}, {"scheme": "fixed", "factor": 2})
    store = a_store(tmp_path, images, plan)
    constants = fixed.measure(store, ["a", "b"], plan)
    first, none, last = constants.channels
    assert (first.mean, first.spread, first.n_voxels) == (4, 3, 4) and none is None
    assert (last.mean, last.spread) == (4, pytest.approx(14**0.5, rel=1e-15))
    assert constants.cases == 2
    image = store.read("b").image[...]
    assert np.array_equal(image, images["b"])  # the store knows no fold
    fixed.apply(image, constants)
    np.testing.assert_allclose(image[0].ravel(), [0, 2])
    np.testing.assert_allclose(image[1].ravel(), [4, 10])
    np.testing.assert_allclose(image[2].ravel(), [0, 2 * 6 / 14**0.5], rtol=1e-6)
    part = store.read("b").image[:, :, :, 1:]
    fixed.apply(part, constants)
    assert np.array_equal(part, image[..., 1:])
    one = store.read("b").image[2:3]
    fixed.apply(one, constants.of_channels([2]))
    assert np.array_equal(one, image[2:])


@pytest.mark.parametrize("spread", ["mean_absolute_deviation", "standard_deviation"])
def test_equals_the_formula_over_all_voxels_in_many_blocks(tmp_path: Path, spread: str, monkeypatch) -> None:
    monkeypatch.setattr(fixed, "BLOCK", 100)
    rng = np.random.default_rng(0)
    images = {name: rng.gamma(2, 300, (1, 5, 9, 7 + i)).astype(np.float32) for i, name in enumerate("abc")}
    plan = a_plan({"scheme": "fixed", "spread": spread})
    (found,) = fixed.measure(a_store(tmp_path, images, plan), "abc", plan).channels
    values = np.concatenate([image.ravel() for image in images.values()]).astype(np.float64)
    deviation = values - values.mean()
    expected = np.abs(deviation).mean() if spread == "mean_absolute_deviation" else values.std()
    assert found.mean == pytest.approx(values.mean(), rel=1e-13)
    assert found.spread == pytest.approx(expected, rel=1e-13) and found.n_voxels == values.size


def test_the_order_of_the_cases_does_not_matter_and_other_cases_do(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    images = {name: rng.normal(100, 30, (1, 4, 6, 5)).astype(np.float32) for name in "abc"}
    plan = a_plan(MAD)
    store = a_store(tmp_path, images, plan)
    found = fixed.measure(store, ["a", "b"], plan)
    assert found == fixed.measure(store, ["b", "a"], plan)
    assert found != fixed.measure(store, ["a", "c"], plan)
    assert (
        found.cases_hash == fixed.hash_contents(store, ["b", "a"]) != fixed.hash_contents(store, ["a", "c"])
    )


def test_constants_survive_their_file(tmp_path: Path) -> None:
    plan = a_plan(MAD, {"scheme": "zscore"})
    images = {"a": np.random.default_rng(0).normal(7, 3, (2, 3, 4, 5)).astype(np.float32)}
    constants = fixed.measure(a_store(tmp_path, images, plan), ["a"], plan)
    write_json(tmp_path / "normalisation.json", constants)
    assert read_model(tmp_path / "normalisation.json", FixedConstants) == constants


def test_inside_the_nonzero_mask_prediction_and_training_see_the_same(tmp_path: Path) -> None:
    """Outside is NaN until then and 0 after it, also where a lesion was drawn there; a hole is inside."""
    image = np.zeros((1, 3, 8, 8), np.float32)
    image[:, :, 1:6, 1:6] = np.random.default_rng(0).normal(50, 9, (3, 5, 5))
    image[:, 1, 3, 3] = 0  # a hole
    inside = np.zeros((3, 8, 8), bool)
    inside[:, 1:6, 1:6] = True
    label = np.zeros((3, 8, 8), np.uint8)
    label[1, 7, 7] = 1  # drawn outside
    plan = a_plan({"scheme": "fixed", "inside_nonzero": True})
    made = preprocessed("a", image, plan, label)
    assert np.array_equal(np.isnan(made.image[0]), ~inside)
    assert np.array_equal(made.image[0][inside], image[0][inside])
    assert made.label[1, 7, 7] == 1 and (made.label[~inside] == -1).sum() == (~inside).sum() - 1
    store = Store(tmp_path / "store")
    store.write("a", made, CaseKey(content_hash="a", preprocessing=plan.model_dump(mode="json")))
    constants = fixed.measure(store, ["a"], plan)
    values = image[0][inside].astype(np.float64)
    assert constants.channels[0].n_voxels == inside.sum()
    stored, predicted = store.read("a").image[...], preprocessed("a", image, plan, None).image
    for found in (stored, predicted):
        fixed.apply(found, constants)
    assert np.array_equal(stored, predicted)
    np.testing.assert_allclose(stored[0][inside], (values - values.mean()) / values.std(), atol=1e-6)
    assert (stored[0][~inside] == 0).all()


def test_on_another_grid_the_mask_is_the_nearest_and_values_at_its_rim_are_not_blended_with_zeros(
    tmp_path: Path,
) -> None:
    image = np.zeros((1, 4, 8, 8), np.float32)
    image[:, :, 2:6, 2:6] = 100
    plan = a_plan({"scheme": "fixed", "inside_nonzero": True}, spacing_mm=(None, 0.5, 0.5), image_order=0)
    made = preprocessed("a", image, plan, np.zeros((4, 8, 8), np.uint8)).image
    assert made.shape == (1, 4, 16, 16)
    assert (made[:, :, 4:12, 4:12] == 100).all() and np.isnan(made).sum() == 4 * (256 - 64)


def test_a_plan_without_fixed_channels_needs_no_constants(tmp_path: Path) -> None:
    plan = a_plan({"scheme": "zscore"})
    assert fixed.measure(Store(tmp_path / "store"), ["a"], plan) is None
    image = row(1, 2)
    fixed.apply(image, None)
    assert np.array_equal(image, row(1, 2))


def test_a_constant_channel_becomes_zero(tmp_path: Path) -> None:
    plan = a_plan(MAD)
    store = a_store(tmp_path, {"a": row(5, 5)}, plan)
    image = row(5, 5)
    fixed.apply(image, fixed.measure(store, ["a"], plan))
    assert np.array_equal(image, row(0, 0))


def test_what_the_zero_of_the_files_becomes(tmp_path: Path) -> None:
    """Mean 4, deviation 3 and a factor of 2; a constant channel; one that each case normalises by itself."""
    images = {
        "a": np.concatenate([row(0, 2), row(5, 5), row(0, 2)]),
        "b": np.concatenate([row(4, 10), row(5, 5), row(4, 10)]),
    }
    plan = a_plan({**MAD, "factor": 2}, MAD, {"scheme": "zscore"})
    constants = fixed.measure(a_store(tmp_path, images, plan), ["a", "b"], plan)
    found = fixed.raw_zeros(plan, constants)
    assert found == (pytest.approx(-8 / 3), 0, 0)
    zeros = np.zeros((3, 1, 1, 2), np.float32)
    fixed.apply(zeros, constants)
    assert zeros[0] == pytest.approx(found[0])
    assert fixed.raw_zeros(a_plan({"scheme": "none"}, {"scheme": "zscore"}), None) == (0, 0)


def test_what_does_not_fit_is_explained(tmp_path: Path) -> None:
    plan = a_plan({"scheme": "fixed", "inside_nonzero": True})
    store = a_store(tmp_path, {"a": row(0, 0), "b": row(1, 2)}, plan)
    with pytest.raises(
        AutosegError, match=r"(?s)normalisation.0: there is no voxel.*empty in all of 1 training case"
    ):
        fixed.measure(store, ["a"], plan)
    constants = fixed.measure(store, ["a", "b"], plan)
    with pytest.raises(AutosegError, match=r"(?s)do not fit the image.*2 channels.*1 channel"):
        fixed.apply(np.zeros((2, 1, 1, 1), np.float32), constants)
    with pytest.raises(AutosegError, match="case c is not preprocessed"):
        fixed.measure(store, ["a", "c"], plan)
