"""One test for each thing that can be wrong with raw data: who, what was found, what was expected, what to do."""

from __future__ import annotations

import json
import os
import pickle
import shutil
from collections.abc import Callable
from typing import Any

import nibabel as nib
import numpy as np
import pytest
import SimpleITK as sitk

from autoseg import messages
from autoseg.dataset.examine import extract_fingerprint
from autoseg.dataset.raw_layout import load_raw
from autoseg.errors import AutosegError, Fault, FaultsError
from autoseg.fingerprint import Fingerprint
from autoseg.parallel import each

SHAPE = (6, 10, 12)
MASK = np.zeros(SHAPE, np.uint8)
MASK[1:3, 2:5, 3:7] = 1


@pytest.fixture(autouse=True)
def _no_warnings_from_before() -> None:
    messages.forget_warnings()


def pixels(seed: int, shape: tuple[int, ...] = SHAPE) -> np.ndarray:
    return np.random.default_rng(seed).normal(100, 10, shape).astype(np.float32)


def _faults(raw: Any) -> tuple[Fault, ...]:
    """The faults of a dataset; nothing of it may have been touched."""
    before = raw.state()
    with pytest.raises(FaultsError) as caught:
        extract_fingerprint(load_raw(raw.folder), processes=1)
    assert raw.state() == before
    assert raw.folder.name in str(caught.value) and f"{len(caught.value.faults)} fault" in str(caught.value)
    for fault in caught.value.faults:
        assert all((fault.where, fault.problem, fault.found, fault.expected, fault.fix)), fault
    return caught.value.faults


def _measure(raw: Any) -> Fingerprint:
    return extract_fingerprint(load_raw(raw.folder), processes=1)


def test_a_dataset_without_faults_passes(make_raw: Callable) -> None:
    assert _measure(make_raw()).summary.n_cases == 3
    assert messages.warning_counts() == {}


# ---------------------------------------------------------------------------------------------------- files


def test_a_name_that_is_not_utf_8_is_one_fault_of_its_case(make_raw: Callable) -> None:
    """SimpleITK, given such a path, ends the process."""
    raw = make_raw(n_channels=1)
    os.rename(raw.image("b"), os.fsencode(raw.folder / "imagesTr") + b"/Pati\xebnt_0000.nii.gz")
    os.rename(raw.mask("b"), os.fsencode(raw.folder / "labelsTr") + b"/Pati\xebnt.nii.gz")
    with pytest.raises(FaultsError) as caught:
        load_raw(raw.folder)
    (fault,) = caught.value.faults
    assert fault.where == "Pati\\xebnt" and "not UTF-8" in fault.problem and fault.fix


def test_a_missing_channel(make_raw: Callable) -> None:
    raw = make_raw()
    raw.image("b", 1).unlink()
    (fault,) = _faults(raw)
    assert fault.where == "b" and fault.problem == "1 of 2 channels missing"
    assert fault.found == "b_0000.nii.gz" and fault.expected == "b_0000.nii.gz (FLAIR), b_0001.nii.gz (T1)"


def test_an_extra_channel(make_raw: Callable) -> None:
    raw = make_raw()
    raw.put(raw.image("b", 2), pixels(7))
    (fault,) = _faults(raw)
    assert fault.where == "b" and fault.problem == "a channel that dataset.json does not name"
    assert fault.found == "b_0002.nii.gz" and "2 channels" in fault.expected


def test_images_without_a_mask(make_raw: Callable) -> None:
    raw = make_raw()
    raw.mask("c").unlink()
    (fault,) = _faults(raw)
    assert fault.where == "c" and fault.problem == "images without a mask"
    assert fault.expected == "labelsTr/c.nii.gz"


def test_a_mask_without_images(make_raw: Callable) -> None:
    raw = make_raw()
    raw.image("c", 0).unlink()
    raw.image("c", 1).unlink()
    (fault,) = _faults(raw)
    assert fault.where == "c" and fault.problem == "a mask without images"
    assert fault.found == "labelsTr/c.nii.gz" and "c_0000.nii.gz (FLAIR)" in fault.expected


def test_another_number_of_cases_than_dataset_json_says(make_raw: Callable) -> None:
    raw = make_raw()
    raw.info(numTraining=12)
    (fault,) = _faults(raw)
    assert fault.where == "dataset.json" and (fault.found, fault.expected) == ("3 cases", "numTraining: 12")


def test_unknown_files_are_warned_of(make_raw: Callable) -> None:
    raw = make_raw()
    (raw.folder / "imagesTr" / "readme.txt").write_text("hello")
    (raw.folder / "labelsTr" / "a_old.mha").write_text("hello")
    raw.put(raw.folder / "imagesTr" / "scan.nii.gz", pixels(9))
    assert _measure(raw).summary.n_cases == 3
    assert sorted(messages.warning_counts()) == [
        "imagesTr/readme.txt is not used: expected CASE_0000.nii.gz",
        "imagesTr/scan.nii.gz is not used: expected CASE_0000.nii.gz",
        "labelsTr/a_old.mha is not used: expected CASE.nii.gz",
    ]


def test_links_that_point_nowhere(make_raw: Callable) -> None:
    """As datalad leaves the files that were not fetched."""
    raw = make_raw(n_channels=1)
    for path in (raw.image("a"), raw.mask("b")):
        path.unlink()
        path.symlink_to("../.git/annex/objects/x.nii.gz")
    with pytest.raises(FaultsError) as caught:
        extract_fingerprint(load_raw(raw.folder), processes=1)
    assert [fault.where for fault in caught.value.faults] == ["imagesTr/a_0000.nii.gz", "labelsTr/b.nii.gz"]
    for fault in caught.value.faults:
        assert fault.problem == "the link points nowhere" and "annex/objects" in fault.found
        assert "datalad get" in fault.fix


@pytest.mark.parametrize(
    ("text", "keeper", "command"),
    [
        ("/annex/objects/MD5E-s1234--abcdef.nii.gz", "git-annex", "git annex get"),
        ("version https://git-lfs.github.com/spec/v1", "Git LFS", "git lfs pull"),
    ],
)
def test_pointers_instead_of_files(make_raw: Callable, text: str, keeper: str, command: str) -> None:
    raw = make_raw()
    raw.image("b").write_text(text)
    (fault,) = _faults(raw)
    assert f"is a pointer of {keeper}" in fault.problem and command in fault.fix


def test_an_empty_list_in_dataset_json_skips_no_check(make_raw: Callable) -> None:
    raw = make_raw()
    path = raw.folder / "dataset.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), "dataset": {}}))
    raw.put(raw.image("a", 7), pixels(7))
    (fault,) = _faults(raw)
    assert fault.problem == "a channel that dataset.json does not name" and fault.found == "a_0007.nii.gz"


def test_a_truncated_file(make_raw: Callable) -> None:
    raw = make_raw()
    content = raw.image("b", 1).read_bytes()
    raw.image("b", 1).write_bytes(content[: len(content) // 2])
    (fault,) = _faults(raw)
    assert fault.where == "imagesTr/b_0001.nii.gz" and "truncated" in fault.problem


def test_a_text_file_and_an_empty_file(make_raw: Callable) -> None:
    raw = make_raw()
    raw.image("a", 0).write_text("not an image at all")
    raw.mask("b").write_bytes(b"")
    text, empty = _faults(raw)
    assert text.where == "imagesTr/a_0000.nii.gz" and "not an image at all" in text.found
    assert empty.where == "labelsTr/b.nii.gz" and empty.found == "0 bytes"


def test_a_4d_image(make_raw: Callable) -> None:
    raw = make_raw()
    image = sitk.JoinSeries([sitk.GetImageFromArray(pixels(1))] * 3)
    sitk.WriteImage(image, str(raw.image("a", 0)))
    (fault,) = _faults(raw)
    assert fault.where == "imagesTr/a_0000.nii.gz" and fault.problem == "not a 3D image"
    assert fault.found.startswith("4D, 12 x 10 x 6 x 3")


# ------------------------------------------------------------------------------------------------- geometry

GEOMETRIES = [
    ({"spacing": (0.5, 0.5, 2.5)}, "spacing", "2.5 x 0.5 x 0.5 (z, y, x) mm", "2 x 0.5 x 0.5 (z, y, x) mm"),
    ({"origin": (0.0, 5.0, 0.0)}, "origin", "0 5 0 mm", "0 0 0 mm"),
    ({"direction": np.diag([-1, -1, 1])}, "direction", "RAS (-1.000 0.000", "LPS (1.000 0.000"),
]


@pytest.mark.parametrize("role", ["channel", "mask"])
@pytest.mark.parametrize(("geometry", "what", "found", "expected"), GEOMETRIES)
def test_geometries_that_disagree(
    make_raw: Callable, role: str, geometry: dict[str, object], what: str, found: str, expected: str
) -> None:
    raw = make_raw()
    path, array = (raw.image("b", 1), pixels(5)) if role == "channel" else (raw.mask("b"), MASK)
    raw.put(path, array, **geometry)
    (fault,) = _faults(raw)
    assert fault.where == f"{path.parent.name}/{path.name}"
    assert fault.problem == f"its {what} is not that of b_0000.nii.gz"
    assert fault.found.startswith(found) and fault.expected.startswith(expected)


@pytest.mark.parametrize("role", ["channel", "mask"])
def test_shapes_that_disagree(make_raw: Callable, role: str) -> None:
    raw = make_raw()
    path = raw.image("b", 1) if role == "channel" else raw.mask("b")
    raw.put(path, pixels(5, (6, 10, 11)) if role == "channel" else MASK[:, :, :11])
    (fault,) = _faults(raw)
    assert fault.where == f"{path.parent.name}/{path.name}" and "its shape" in fault.problem
    assert (fault.found, fault.expected) == ("6 x 10 x 11 (z, y, x)", "6 x 10 x 12 (z, y, x)")


# ---------------------------------------------------------------------------------------------- intensities


@pytest.mark.parametrize(
    ("values", "found"),
    [
        ([np.nan], "1 voxel NaN, 0 Inf, of 720"),
        ([np.inf, -np.inf], "0 voxels NaN, 2 Inf, of 720"),
        ([np.nan, np.nan, np.inf], "2 voxels NaN, 1 Inf, of 720"),
    ],
)
def test_nan_and_inf(make_raw: Callable, values: list[float], found: str) -> None:
    raw, image = make_raw(), pixels(5)
    image[0, 0, : len(values)] = values
    raw.put(raw.image("c", 0), image)
    (fault,) = _faults(raw)
    assert (fault.where, fault.problem) == ("imagesTr/c_0000.nii.gz", "holds NaN or Inf")
    assert fault.found == found


@pytest.mark.parametrize("value", [0, 7])
def test_a_constant_image(make_raw: Callable, value: float) -> None:
    raw = make_raw()
    raw.put(raw.image("a", 1), np.full(SHAPE, value, np.float32))
    (fault,) = _faults(raw)
    assert (fault.where, fault.problem) == ("imagesTr/a_0001.nii.gz", "a constant image")
    assert fault.found == f"every voxel is {value}"


@pytest.mark.parametrize("how", ["same bytes", "same pixels in another type", "another channel"])
def test_a_duplicate_image(make_raw: Callable, how: str) -> None:
    raw = make_raw()
    target = raw.image("b", 1) if how == "another channel" else raw.image("b", 0)
    if how == "same pixels in another type":
        image = sitk.Cast(sitk.ReadImage(str(raw.image("a", 0))), sitk.sitkFloat64)
        sitk.WriteImage(image, str(target))
    else:
        shutil.copyfile(raw.image("a", 0), target)
    (fault,) = _faults(raw)
    assert fault.where == "imagesTr/a_0000.nii.gz" and fault.problem == "the same image more than once"
    assert fault.found == f"imagesTr/{target.name}" and "remove one" in fault.fix


# ---------------------------------------------------------------------------------------------------- masks


@pytest.mark.parametrize("value", [-float(np.finfo(np.float32).max), 1e30, -1e300])
def test_backgrounds_of_a_size_that_no_scan_has(make_raw: Callable, value: float) -> None:
    raw = make_raw()
    image = pixels(7).astype(np.float64 if abs(value) > 1e200 else np.float32)
    image[0, 0, :3] = value
    raw.put(raw.image("b"), image)
    (fault,) = _faults(raw)
    assert fault.where == "imagesTr/b_0000.nii.gz" and "of a size that no scan has" in fault.problem
    assert fault.found == f"3 voxels, such as {value:g}" and "by 0" in fault.fix


def test_forms_that_disagree_are_one_warning_from_all_processes(make_raw: Callable) -> None:
    raw = make_raw(n_channels=1)
    for path in (raw.image("a"), raw.mask("a"), raw.image("c"), raw.mask("c")):
        image = nib.load(path)
        moved = image.affine.copy()
        moved[0, 3] += 10
        image.set_sform(moved, 2)
        nib.save(nib.Nifti1Image(np.asanyarray(image.dataobj), moved, image.header), path)
    for processes in (1, 2):
        messages.forget_warnings()
        extract_fingerprint(load_raw(raw.folder), processes=processes)
        (told,) = messages.warning_counts()
        about, names = told.split(": ")
        assert "qform and sform disagree; the sform is used" in about
        assert sorted(names.split(", ")) == [
            "imagesTr/a_0000.nii.gz", "imagesTr/c_0000.nii.gz", "labelsTr/a.nii.gz", "labelsTr/c.nii.gz",
        ]  # fmt: skip


def test_detached_pixels_are_part_of_a_cases_hash(make_raw: Callable) -> None:
    raw = make_raw(ending=".mha")
    before = _measure(raw)
    mask = raw.mask("b").read_bytes()
    start = mask.index(b"LOCAL")
    raw.mask("b").write_bytes(mask[:start] + b"b.raw\n")
    data = raw.mask("b").with_name("b.raw")
    data.write_bytes(mask[start + len(b"LOCAL\n") :])
    detached = extract_fingerprint(load_raw(raw.folder), previous=before)
    assert detached.content_hash != before.content_hash
    data.write_bytes(bytes(data.stat().st_size))
    erased = extract_fingerprint(load_raw(raw.folder), previous=detached)
    assert erased.cases[1].lesions.volume_voxels == 0 and detached.cases[1].lesions.volume_voxels == 24


def test_a_label_that_dataset_json_does_not_name(make_raw: Callable) -> None:
    raw, mask = make_raw(), MASK.copy()
    mask[0, 0, :5] = 7
    raw.put(raw.mask("b"), mask)
    (fault,) = _faults(raw)
    assert fault.where == "labelsTr/b.nii.gz" and "does not name" in fault.problem
    assert (fault.found, fault.expected) == ("7 (5 voxels)", "0 background, 1 lesion")


def test_negative_labels(make_raw: Callable) -> None:
    raw, mask = make_raw(), MASK.astype(np.int16)
    mask[0, 0, 0] = -1
    raw.put(raw.mask("b"), mask)
    (fault,) = _faults(raw)
    assert fault.found == "-1 (1 voxel)"


@pytest.mark.parametrize(("value", "shown"), [(0.5, "0.5"), (np.nan, "nan")])
def test_a_mask_with_fractions(make_raw: Callable, value: float, shown: str) -> None:
    raw, mask = make_raw(), MASK.astype(np.float32)
    mask[0, 0, :3] = value
    raw.put(raw.mask("b"), mask)
    (fault,) = _faults(raw)
    assert fault.where == "labelsTr/b.nii.gz" and "not whole numbers" in fault.problem
    assert fault.found == f"3 voxels with such values: {shown}"


def test_a_4d_mask_gets_a_remedy_of_masks(make_raw: Callable) -> None:
    raw = make_raw()
    sitk.WriteImage(sitk.JoinSeries([sitk.GetImageFromArray(MASK)] * 2), str(raw.mask("b")))
    (fault,) = _faults(raw)
    assert fault.where == "labelsTr/b.nii.gz" and fault.problem == "not a 3D image"
    assert "join the layers into one mask" in fault.fix


def test_masks_of_0_and_255_get_both_ways_out(make_raw: Callable) -> None:
    raw = make_raw()
    raw.put(raw.mask("b"), 255 * MASK)
    (fault,) = _faults(raw)
    assert "255 (24 voxels)" in fault.found
    assert "write 1 instead of 255" in fault.fix and '"ignore": 2' in fault.fix


@pytest.mark.parametrize("off", [1e-6, -5e-4])
def test_float_masks_off_by_rounding_are_taken_as_meant(make_raw: Callable, off: float) -> None:
    raw = make_raw()
    expected = _measure(raw).cases[1].lesions
    raw.put(raw.mask("b"), MASK + np.float32(off) * MASK)
    assert _measure(raw).cases[1].lesions == expected
    (told,) = messages.warning_counts()
    assert "off whole numbers by rounding" in told and "labelsTr/b.nii.gz" in told


def test_float_masks_of_whole_numbers_are_fine(make_raw: Callable) -> None:
    raw = make_raw()
    raw.put(raw.mask("b"), MASK.astype(np.float32))
    assert _measure(raw).cases[1].lesions.volume_voxels == 24


def test_empty_masks_are_counted_and_allowed(make_raw: Callable) -> None:
    raw = make_raw()
    raw.put(raw.mask("b"), np.zeros_like(MASK))
    fingerprint = _measure(raw)
    assert fingerprint.summary.empty_share == pytest.approx(1 / 3)
    assert fingerprint.cases[1].foreground == [] and fingerprint.cases[1].lesions.centroid_share is None


def test_no_lesion_anywhere(make_raw: Callable) -> None:
    raw = make_raw()
    for case in "abc":
        raw.put(raw.mask(case), np.zeros_like(MASK))
    (fault,) = _faults(raw)
    assert (fault.where, fault.problem) == ("all cases", "no lesion anywhere")
    assert fault.found == "3 masks, all empty"


def test_one_case_only_is_warned_of(make_raw: Callable) -> None:
    fingerprint = _measure(make_raw(n_cases=1))
    assert fingerprint.summary.n_cases == 1
    assert list(messages.warning_counts()) == [
        "Dataset001_Test has one case only: it can be planned for, but not divided into folds"
    ]


# ----------------------------------------------------------------------------------------------- all at once


def _damage_everything(raw: Any) -> None:
    raw.image("a", 1).unlink()
    raw.image("a", 0).write_text("not an image")
    raw.put(raw.mask("b"), MASK, spacing=(1.0, 1.0, 1.0), origin=(9.0, 9.0, 9.0))
    raw.put(raw.image("c", 0), np.zeros(SHAPE, np.float32))
    raw.put(raw.mask("c"), MASK * 3)


@pytest.mark.parametrize("processes", [1, 2])
def test_all_faults_of_all_cases_come_in_one_table(make_raw: Callable, processes: int) -> None:
    raw = make_raw()
    _damage_everything(raw)
    with pytest.raises(FaultsError) as caught:
        extract_fingerprint(load_raw(raw.folder), processes)
    assert [(fault.where, fault.problem) for fault in caught.value.faults] == [
        ("a", "1 of 2 channels missing"),
        ("imagesTr/a_0000.nii.gz", "is not a readable .nii.gz image"),
        ("labelsTr/b.nii.gz", "its spacing is not that of b_0000.nii.gz"),
        ("labelsTr/b.nii.gz", "its origin is not that of b_0000.nii.gz"),
        ("imagesTr/c_0000.nii.gz", "a constant image"),
        ("labelsTr/c.nii.gz", "label values that dataset.json does not name"),
    ]
    lines = str(caught.value).splitlines()
    assert lines[0].startswith("Dataset001_Test: 6 faults in the raw data (")
    assert lines[2].split() == ["case", "or", "file", "problem", "found", "expected", "what", "to", "do"]


def test_other_formats_are_checked_alike(make_raw: Callable) -> None:
    raw = make_raw(ending=".nrrd")
    content = raw.image("b", 0).read_bytes()
    raw.image("b", 0).write_bytes(content[: len(content) // 2])
    (fault,) = _faults(raw)
    assert fault.where == "imagesTr/b_0000.nrrd" and "truncated" in fault.problem


def test_the_case_of_a_dead_worker_is_named() -> None:
    with pytest.raises(AutosegError, match=r"(?s)case 9.*: a worker process died.*do: +use fewer processes"):
        list(each(os._exit, [9, 9, 9], 2, name_of=lambda status: f"case {status}"))


def test_faults_travel_between_processes() -> None:
    error = FaultsError("two faults", [Fault("a", "wrong", "1", "2", "mend it"), Fault("b", "missing")])
    again = pickle.loads(pickle.dumps(error))
    assert str(again) == str(error) and again.faults == error.faults
