"""The fingerprint: hand-worked cases, and nnU-Net's own figures for six data sets."""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import SimpleITK as sitk
from storage import store_as

from autoseg.dataset import examine
from autoseg.dataset.dataset_json import DatasetJson
from autoseg.dataset.examine import extract_fingerprint
from autoseg.dataset.imageio import Geometry
from autoseg.dataset.integrity import Loaded
from autoseg.dataset.raw_layout import load_raw
from autoseg.files import read_model, write_json
from autoseg.fingerprint import Fingerprint, Intensities

SHAPE = (10, 20, 30)
IDENTITY = (1.0, 0.0, 0.0, 0.0, 1.0, 0.0, 0.0, 0.0, 1.0)


def _info(
    labels: dict[str, Any] | None = None, order: list[int] | None = None, channels: int = 1
) -> DatasetJson:
    return DatasetJson(
        channel_names={str(i): f"c{i}" for i in range(channels)},
        labels=labels or {"background": 0, "lesion": 1},
        numTraining=1,
        file_ending=".nii.gz",
        regions_class_order=order,
    )


def _case(
    mask: np.ndarray, image: np.ndarray | None = None, spacing=(2.0, 0.5, 0.5), name: str = "a"
) -> Loaded:
    if image is None:
        image = np.ones((1, *mask.shape), np.float32)
    geometry = Geometry(mask.shape, spacing, (0.0, 0.0, 0.0), IDENTITY)
    return Loaded(
        name,
        image.astype(np.float32),
        mask,
        geometry,
        "hash",
        [f"{name}{i}" for i in range(len(image))],
        geometry.orientation,
    )


# ---------------------------------------------------------------------------------------- hand-worked lesions


def test_lesion_volumes_are_in_ml() -> None:
    """Voxels of 2 x 0.5 x 0.5 mm are 0.0005 ml: a block of 2 x 3 x 4 is 0.012 ml, a single voxel 0.0005 ml."""
    mask = np.zeros(SHAPE, np.uint8)
    mask[1:3, 2:5, 3:7] = 1
    mask[9, 19, 29] = 1
    lesions = examine.measure_case(_case(mask), _info()).lesions
    assert lesions.n_components == 2
    assert lesions.component_voxels == [24, 1]
    assert lesions.volume_voxels == 25
    assert lesions.volume_ml == pytest.approx(0.0125)


def test_voxels_that_touch_at_a_corner_are_one_lesion() -> None:
    mask = np.zeros(SHAPE, np.uint8)
    mask[4, 4, 4] = mask[5, 5, 5] = 1
    mask[7, 5, 5] = 1  # two planes on: another lesion
    assert examine.measure_case(_case(mask), _info()).lesions.component_voxels == [2, 1]


def test_the_centre_of_mass_is_a_share_of_the_image() -> None:
    mask = np.zeros(SHAPE, np.uint8)
    mask[5:, :, :] = 1
    load = examine.measure_case(_case(mask), _info()).lesions
    assert load.centroid_share == pytest.approx((0.75, 0.5, 0.5))
    mask[:] = 0
    mask[0, 10, 29] = 1
    load = examine.measure_case(_case(mask), _info()).lesions
    assert load.centroid_share == pytest.approx((0.05, 10.5 / 20, 29.5 / 30))


def test_an_empty_mask_has_no_lesion_and_no_position() -> None:
    record = examine.measure_case(_case(np.zeros(SHAPE, np.uint8)), _info())
    assert (record.lesions.n_components, record.lesions.volume_ml) == (0, 0.0)
    assert record.lesions.centroid_share is None and record.foreground == []


def test_classes_regions_and_ignore() -> None:
    """Touching classes are one lesion but two components by class; the ignored voxels are neither."""
    mask = np.zeros(SHAPE, np.uint8)
    mask[2, 2, 2:4], mask[2, 2, 4:9], mask[8, 8, 8] = 1, 2, 3
    record = examine.measure_case(_case(mask), _info({"background": 0, "core": 1, "rim": 2, "ignore": 3}))
    assert record.lesions.component_voxels == [7]
    assert {name: load.component_voxels for name, load in record.classes.items()} == {"core": [2], "rim": [5]}
    record = examine.measure_case(
        _case(mask), _info({"background": 0, "whole": [1, 2, 3], "core": 1}, [2, 1])
    )
    assert record.lesions.component_voxels == [7, 1]
    assert {name: load.component_voxels for name, load in record.classes.items()} == {
        "whole": [7, 1],
        "core": [2],
    }


# ------------------------------------------------------------------------------------------ boxes, intensities


def test_the_nonzero_box_joins_the_channels() -> None:
    image = np.zeros((2, *SHAPE), np.float32)
    image[0, 2, 3, 4] = image[1, 5, 1, 20] = -1
    record = examine.measure_case(_case(np.zeros(SHAPE, np.uint8), image), _info(channels=2))
    assert record.nonzero_box == ((2, 6), (1, 4), (4, 21))
    assert record.shape_after_crop == (4, 3, 17)
    assert record.relative_size_after_crop == pytest.approx(4 * 3 * 17 / (10 * 20 * 30))
    assert record.extent_mm == (20.0, 10.0, 15.0)
    assert record.orientation == "LPS"


def test_intensities_of_a_large_image_equal_numpys() -> None:
    """Larger than the sample, on an offset that would cost digits: mean, std, min and max are still exact."""
    rng = np.random.default_rng(0)
    image = np.zeros((1, 60, 120, 130), np.float32)
    image[0, 5:, 10:, 10:] = rng.normal(10_000, 3, image[0, 5:, 10:, 10:].shape)
    mask = np.zeros(image.shape[1:], np.uint8)
    mask[5:, 40:, 40:] = 1
    record = examine.measure_case(_case(mask, image), _info())
    for found, inside, percentiles_to in (
        (record.brain[0], image[0] != 0, 0.1),
        (record.foreground[0], mask > 0, 0.1),
    ):
        values = image[0][inside].astype(np.float64)
        assert values.size > examine.SAMPLE
        assert found.n_voxels == values.size
        assert found.mean == pytest.approx(values.mean(), rel=1e-6)
        assert found.std == pytest.approx(values.std(), rel=1e-5)
        assert (found.min, found.max) == pytest.approx((values.min(), values.max()), rel=1e-6)
        low, median, high = np.percentile(values, (0.5, 50, 99.5))
        assert found.percentile_00_5 == pytest.approx(low, abs=percentiles_to)
        assert found.median == pytest.approx(median, abs=percentiles_to / 3)
        assert found.percentile_99_5 == pytest.approx(high, abs=percentiles_to)


def test_a_small_foreground_is_measured_exactly() -> None:
    image = np.arange(math.prod(SHAPE), dtype=np.float32).reshape(1, *SHAPE)
    mask = np.zeros(SHAPE, np.uint8)
    mask[0, 0, :21] = 1
    (found,) = examine.measure_case(_case(mask, image), _info()).foreground
    assert (found.min, found.median, found.max, found.mean) == (0, 10, 20, 10)
    assert found.percentile_99_5 == pytest.approx(19.9)


def test_deviation_and_mode_with_and_without_the_air() -> None:
    """6000 voxels, 5988 of them 0. Inside: 10 of 40 and 2 of 100, mean 50, distances 10 and 50, on average 100 / 6."""
    image = np.zeros((1, *SHAPE), np.float32)
    image[0, 0, 0, :10], image[0, 1, 1, :2] = 40, 100
    record = examine.measure_case(_case(np.zeros(SHAPE, np.uint8), image), _info())
    brain, everywhere = record.brain[0], record.everywhere[0]
    assert (brain.n_voxels, brain.mean, brain.mode) == (12, 50, 32)
    assert brain.mean_absolute_deviation == pytest.approx(100 / 6, rel=1e-6)
    assert (everywhere.n_voxels, everywhere.mean, everywhere.mode) == (6000, pytest.approx(0.1), 32)
    expected = (5988 * 0.1 + 10 * 39.9 + 2 * 99.9) / 6000
    assert everywhere.mean_absolute_deviation == pytest.approx(expected, rel=1e-6)
    assert everywhere.std == pytest.approx(image.std(dtype=np.float64), rel=1e-6)
    quantitative = examine.measure_case(_case(np.zeros(SHAPE, np.uint8), image / 1e3), _info())
    assert quantitative.everywhere[0].mode is None


# ----------------------------------------------------------------------------------------------- the summary


def _foreground_case(values: np.ndarray, name: str) -> Loaded:
    image = np.full((1, *SHAPE), 1000, np.float32)
    mask = np.zeros(SHAPE, np.uint8)
    mask.reshape(-1)[: values.size] = 1
    image.reshape(-1)[: values.size] = values
    return _case(mask, image, name=name)


def test_every_case_weighs_the_same_in_the_pooled_foreground() -> None:
    """As in nnU-Net, which draws the same number of voxels from each case."""
    small, large = np.arange(100.0), np.linspace(200, 300, 5001)
    cases = [
        _foreground_case(small, "a"),
        _foreground_case(large, "b"),
        _case(np.zeros(SHAPE, np.uint8), name="c"),
    ]
    (pooled,) = examine.summarise_dataset([examine.measure_case(case, _info()) for case in cases]).foreground
    drawn = np.concatenate([np.repeat(small, 5001), np.repeat(large, 100)])
    assert pooled.n_voxels == 5101
    assert (pooled.min, pooled.max) == (0, 300)
    assert pooled.mean == pytest.approx(drawn.mean(), rel=1e-6)
    assert pooled.std == pytest.approx(drawn.std(), rel=1e-6)
    assert pooled.percentile_00_5 == pytest.approx(np.percentile(drawn, 0.5), abs=0.6)
    assert pooled.percentile_99_5 == pytest.approx(np.percentile(drawn, 99.5), abs=0.2)


def test_the_summary_of_hand_worked_cases() -> None:
    one, two, none = (np.zeros(SHAPE, np.uint8) for _ in range(3))
    one[0, 0, :10] = 1  # 10 voxels, 0.005 ml
    two[0, 0, :2] = two[5, 5, :4] = 1  # 2 and 4 voxels, 0.001 and 0.002 ml
    records = [
        examine.measure_case(_case(mask, name=name), _info())
        for mask, name in ((one, "a"), (two, "b"), (none, "c"))
    ]
    summary = examine.summarise_dataset(records)
    assert (summary.n_cases, summary.empty_share) == (3, pytest.approx(1 / 3))
    assert (summary.lesions_per_case.min, summary.lesions_per_case.median, summary.lesions_per_case.max) == (
        0,
        1,
        2,
    )
    assert (summary.lesion_volume_voxels.n, summary.lesion_volume_voxels.median) == (3, 4)
    assert summary.lesion_volume_ml.median == pytest.approx(0.002)
    assert summary.load_per_case_ml.max == pytest.approx(0.005)
    assert summary.load_per_case_ml.mean == pytest.approx((0.005 + 0.003 + 0) / 3)
    assert [axis.median for axis in summary.spacing_mm] == [2.0, 0.5, 0.5]
    assert summary.orientations == {"LPS": 3}


def test_no_lesion_at_all_leaves_the_quantiles_empty() -> None:
    summary = examine.summarise_dataset([examine.measure_case(_case(np.zeros(SHAPE, np.uint8)), _info())])
    assert (
        summary.foreground == []
        and summary.lesion_volume_ml.n == 0
        and summary.lesion_volume_ml.median is None
    )


# -------------------------------------------------------------------------------------------------- from files


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Three small cases with one channel."""
    folder = tmp_path / "Dataset005_Small"
    rng = np.random.default_rng(0)
    for part in ("imagesTr", "labelsTr"):
        (folder / part).mkdir(parents=True)
    for name in "abc":
        _write(folder / "imagesTr" / f"{name}_0000.nii.gz", rng.normal(100, 10, SHAPE).astype(np.float32))
        mask = np.zeros(SHAPE, np.uint8)
        mask[2:4, 5:9, 5:9] = 1
        _write(folder / "labelsTr" / f"{name}.nii.gz", mask)
    content = _info().model_dump(exclude_none=True) | {"numTraining": 3}
    (folder / "dataset.json").write_text(json.dumps(content))
    return folder


def _write(path: Path, array: np.ndarray) -> None:
    sitk.WriteImage(sitk.GetImageFromArray(array), str(path))


def test_the_fingerprint_survives_its_file(folder: Path, tmp_path: Path) -> None:
    fingerprint = extract_fingerprint(load_raw(folder))
    write_json(tmp_path / "fingerprint.json", fingerprint)
    assert read_model(tmp_path / "fingerprint.json", Fingerprint) == fingerprint


def test_the_number_of_processes_changes_nothing(folder: Path) -> None:
    raw = load_raw(folder)
    assert extract_fingerprint(raw, processes=2) == extract_fingerprint(raw, processes=1)


def test_unchanged_cases_are_not_read_again(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    before = extract_fingerprint(load_raw(folder))
    _write(
        folder / "imagesTr" / "b_0000.nii.gz",
        np.random.default_rng(9).normal(50, 5, SHAPE).astype(np.float32),
    )
    read = _record_reading(monkeypatch)
    after = extract_fingerprint(load_raw(folder), 1, before)
    assert read == ["b"]
    assert after.cases[0] == before.cases[0] and after.cases[2] == before.cases[2]
    assert after.cases[1].content_hash != before.cases[1].content_hash
    assert after.content_hash != before.content_hash
    assert after == extract_fingerprint(load_raw(folder))  # as if measured from nothing


def test_records_are_measured_again_when_most_cases_lie_in_another_orientation(folder, monkeypatch):
    """And those of an earlier autoseg, which measured each case as it is stored, where that is another one."""
    before = extract_fingerprint(load_raw(folder))
    assert before.orientation == "LPS"
    for name in ("a", "b"):
        store_as(folder / "imagesTr" / f"{name}_0000.nii.gz", "SRA")
        store_as(folder / "labelsTr" / f"{name}.nii.gz", "SRA")
    read = _record_reading(monkeypatch)
    after = extract_fingerprint(load_raw(folder), 1, before)
    assert read == ["a", "b", "c"] and after.orientation == "SRA"
    assert after.summary.orientations == {"LPS": 1, "SRA": 2}
    read.clear()
    old = after.model_copy(update={"orientation": None})
    assert extract_fingerprint(load_raw(folder), 1, old) == after and read == ["c"]
    assert extract_fingerprint(load_raw(folder), 1, after) == after and read == ["c"]


def _record_reading(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    read: list[str] = []
    check: Callable = examine.check_case

    def watched(case: Any, *others: Any) -> Any:
        read.append(case.name)
        return check(case, *others)

    monkeypatch.setattr(examine, "check_case", watched)
    return read


def test_a_fingerprint_of_before_is_read_and_its_cases_are_measured_again(
    folder: Path, tmp_path: Path
) -> None:
    now = extract_fingerprint(load_raw(folder))
    content = now.model_dump(mode="json")
    for case in content["cases"]:
        del case["everywhere"]
        for record in case["brain"]:
            del record["mean_absolute_deviation"], record["mode"]
    before = tmp_path / "fingerprint.json"
    before.write_text(json.dumps(content))
    old = read_model(before, Fingerprint)
    assert old.content_hash == now.content_hash and old.cases[0].everywhere == []
    assert extract_fingerprint(load_raw(folder), 1, old) == now


@pytest.mark.parametrize(
    "change", [{"labels": {"background": 0, "stroke": 1}}, {"channel_names": {"0": "another name"}}]
)
def test_another_meaning_of_labels_or_channels_reads_everything_again(
    folder: Path, monkeypatch: pytest.MonkeyPatch, change: dict[str, Any]
) -> None:
    before = extract_fingerprint(load_raw(folder))
    content = json.loads((folder / "dataset.json").read_text()) | change
    (folder / "dataset.json").write_text(json.dumps(content))
    read = _record_reading(monkeypatch)
    after = extract_fingerprint(load_raw(folder), 1, before)
    assert read == ["a", "b", "c"] and after.content_hash != before.content_hash


def test_a_new_duplicate_of_a_known_case_is_noticed(folder: Path) -> None:
    from autoseg.errors import FaultsError

    before = extract_fingerprint(load_raw(folder))
    (folder / "imagesTr" / "b_0000.nii.gz").write_bytes((folder / "imagesTr" / "a_0000.nii.gz").read_bytes())
    with pytest.raises(FaultsError, match="the same image more than once"):
        extract_fingerprint(load_raw(folder), 1, before)


# ------------------------------------------------------------------------------------ nnU-Net's own figures

DATASETS = (
    "Dataset001_BRATS",
    "Dataset002_OpenMS",
    "Dataset011_RatT2",
    "Dataset012_DWI",
    "Dataset013_ISLESPerfusion",
    "Dataset014_ATLAST1",
)


@pytest.fixture(scope="session")
def nnunet(shared: Path) -> dict[str, Any]:
    """What nnU-Net 2.8.1 measured."""
    content = json.loads((shared / "conformance" / "nnunet_plans.json").read_text())
    return {name: content[name]["fingerprint"] for name in DATASETS}


@pytest.mark.shared
@pytest.mark.parametrize("name", DATASETS)
def test_spacings_and_cropped_shapes_are_nnunets(
    name: str, measured: Callable, nnunet: dict[str, Any]
) -> None:
    fingerprint, expected = measured(name), nnunet[name]
    assert [list(case.spacing_mm) for case in fingerprint.cases] == expected["spacings"]
    assert [list(case.shape_after_crop) for case in fingerprint.cases] == expected["shapes_after_crop"]
    assert (
        fingerprint.summary.median_relative_size_after_crop == expected["median_relative_size_after_cropping"]
    )


@pytest.mark.shared
@pytest.mark.parametrize("name", DATASETS)
def test_foreground_intensities_are_nnunets(name: str, measured: Callable, nnunet: dict[str, Any]) -> None:
    """nnU-Net draws 1e8 / cases voxels with replacement: its error is far below 1e-3 of the standard deviation.

    Ours is that of interpolating between the stored percentiles: a few hundredths of the standard deviation in
    the tails, where few voxels lie.
    """
    expected = nnunet[name]["foreground_intensity_properties_per_channel"]
    found = measured(name).summary.foreground
    assert len(found) == len(expected)
    for channel, record in enumerate(found):
        _assert_close(record, expected[str(channel)])


def _assert_close(found: Intensities, expected: dict[str, float]) -> None:
    tolerances = {"mean": 1e-3, "std": 1e-3, "min": 1e-5, "max": 1e-5, "median": 0.01}
    tolerances |= {"percentile_00_5": 0.03, "percentile_99_5": 0.07}
    for what, tolerance in tolerances.items():
        assert getattr(found, what) == pytest.approx(expected[what], abs=tolerance * expected["std"]), what


@pytest.mark.shared
def test_brats_is_z_scored_with_a_background_that_is_not_zero(measured: Callable) -> None:
    fingerprint = measured("Dataset001_BRATS")
    assert all(case.relative_size_after_crop == 1.0 for case in fingerprint.cases)
    assert all(case.brain[0].n_voxels == math.prod(case.shape) for case in fingerprint.cases)


@pytest.mark.shared
def test_every_sixth_rat_is_a_sham(measured: Callable) -> None:
    assert measured("Dataset011_RatT2").summary.empty_share == pytest.approx(1 / 6)


def test_the_background_is_the_value_of_all_corners():
    from autoseg.dataset.examine import _corner_value

    image = np.random.default_rng(0).normal(size=(4, 5, 6)).astype(np.float32)
    assert _corner_value(image) is None
    image[np.ix_([0, -1], [0, -1], [0, -1])] = -3.5
    assert _corner_value(image) == -3.5
    assert _corner_value(np.full((1, 5, 6), 2, np.float32)) == 2


# ---------------------------------------------------------------------------------------- the axis of the slices


@pytest.mark.parametrize(
    ("spacing", "shape", "axes"),
    [
        ((6.0, 1.0, 1.0), (20, 128, 128), (0, 1, 2)),
        ((1.0, 6.0, 1.0), (128, 20, 128), (1, 0, 2)),
        ((1.0, 1.0, 6.0), (128, 128, 20), (2, 0, 1)),
        ((1.0, 1.0, 1.0), (90, 90, 90), (0, 1, 2)),
        ((1.0, 1.0, 1.005), (90, 90, 90), (0, 1, 2)),  # less than 1 % apart: rounding
        ((1.0, 1.0, 1.02), (90, 90, 90), (2, 0, 1)),
        ((2.0, 2.0, 1.0), (90, 90, 90), (0, 1, 2)),  # two equally coarse axes
        ((1.0, 6.0, 1.0), (1, 128, 128), (0, 1, 2)),  # a single slice, whatever the spacing
        ((6.0, 1.0, 1.0), (128, 128, 1), (2, 0, 1)),
    ],
)
def test_the_axis_across_the_slices_comes_first(make_fingerprint, spacing, shape, axes) -> None:
    assert make_fingerprint([spacing], [shape] * 3).summary.slices_first == axes


def test_the_axis_across_the_slices_is_not_stored(make_fingerprint) -> None:
    assert "slices_first" not in make_fingerprint([(6, 1, 1)], [(20, 128, 128)]).summary.model_dump()
