"""Sizes in millimetres that cannot be right, or are unlike those of the other scans."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest

from autoseg import messages
from autoseg.dataset.examine import extract_fingerprint
from autoseg.dataset.physical_sense import SeenSizes, unit_of, unlikely, voxel_fault
from autoseg.dataset.raw_layout import load_raw
from autoseg.errors import FaultsError
from autoseg.fingerprint import Fingerprint

RAT = ((18, 256, 256), (1.0, 0.117, 0.117))
HEAD = ((155, 240, 240), (1.0, 1.0, 1.0))


@pytest.fixture
def texts(make_fingerprint: Callable) -> Callable[..., list[str]]:
    """What is said of cases ``(shape, spacing)``, which are called case_00, case_01 and so on."""

    def say(*cases: tuple) -> list[str]:
        shapes, spacings = zip(*cases, strict=True)
        made = make_fingerprint(list(spacings), list(shapes)).cases
        return unlikely([c.model_copy(update={"name": f"case_{i:02}"}) for i, c in enumerate(made)])

    return say


def times(case: tuple, factor: float) -> tuple:
    return case[0], tuple(factor * mm for mm in case[1])


@pytest.mark.parametrize("factor", [10.0, 0.1])
def test_headers_ten_times_off_are_named_with_numbers_and_cause(texts: Callable, factor: float) -> None:
    (text,) = texts(RAT, RAT, RAT, times(RAT, factor), times(RAT, factor))
    assert text.startswith("case_03, case_04: the field of view is 10 times")
    assert "the other 3" in text and "18 x 29.95 x 29.95 mm" in text and "multiplied by ten" in text


def test_another_unit_is_the_cause_of_a_thousand(texts: Callable) -> None:
    scans = [times(RAT, 0.01)] * 4 + [times(RAT, 10)]
    assert any(t.startswith("case_04: ") and "1000 times" in t and "micrometres" in t for t in texts(*scans))


def test_of_three_kinds_the_two_smaller_groups_are_named(texts: Callable) -> None:
    human = RAT[0], (6.0, 1.0, 1.0)
    said = texts(RAT, RAT, RAT, times(RAT, 10), human, times(RAT, 0.1))
    assert [text.split(":")[0] for text in said] == ["case_05", "case_03, case_04"]
    assert all("3 others" in text for text in said)


def test_slabs_and_single_slices_are_no_other_field_of_view(texts: Callable) -> None:
    slab, slice_ = ((20, 240, 240), (1.0, 1.0, 1.0)), ((1, 240, 240), (5.0, 1.0, 1.0))
    assert not texts(HEAD, HEAD, slab, slab, slice_, slice_)


def test_heads_of_24_metres_and_of_a_fifth_of_a_millimetre_are_named(texts: Callable) -> None:
    (large,) = texts(*[((24, 240, 240), (100.0, 100.0, 100.0))] * 3)
    assert large.startswith("case_00, case_01, case_02: ") and "2400 x 24000 x 24000 mm" in large
    (small,) = texts(*[((24, 24, 24), (0.01, 0.01, 0.01))] * 3)
    assert "0.24 x 0.24 x 0.24 mm" in small and "no head" in small


def test_one_matrix_unlike_all_others_is_named(texts: Callable) -> None:
    other = ((18, 128, 128), (1.0, 0.234, 0.234))
    (text,) = texts(RAT, RAT, other, RAT, RAT)
    assert text.startswith("case_02: its matrix of 18 x 128 x 128 voxels")
    assert "all 4 other cases, 18 x 256 x 256 voxels" in text
    turned = ((256, 18, 256), (0.117, 1.0, 0.117))
    assert not texts(RAT, RAT, turned, RAT, RAT)
    one_slice_more = ((19, 256, 256), (1.0, 0.117, 0.117))
    assert not texts(RAT, RAT, one_slice_more, RAT, RAT)
    assert not texts(RAT, RAT, other, other, RAT)


@pytest.mark.parametrize(
    ("mm", "bad"), [(0.005, False), (20.0, False), (0.0049, True), (21.0, True), (1e30, True)]
)
def test_voxels_that_cannot_be(mm: float, bad: bool) -> None:
    fault = voxel_fault("a", (1.0, mm, 1.0), (10, 10, 10))
    assert (fault is not None) == bad
    if fault:
        assert fault.where == "a" and f"{mm:.4g}" in fault.found and "0.005 to 20 mm" in fault.expected


@pytest.mark.parametrize(("ending", "kind"), [(".nii", nib.Nifti1Image), (".nii.gz", nib.Nifti2Image)])
@pytest.mark.parametrize(("unit", "words"), [("meter", "metres"), ("micron", "micrometres"), ("unknown", "")])
def test_the_unit_of_a_file_is_read(tmp_path: Path, ending: str, kind: type, unit: str, words: str) -> None:
    image = kind(np.zeros((2, 3, 4), np.float32), np.eye(4))
    image.header.set_xyzt_units(xyz=unit)
    nib.save(image, tmp_path / f"a{ending}")
    assert unit_of(tmp_path / f"a{ending}").startswith(words)
    assert bool(unit_of(tmp_path / f"a{ending}")) == bool(words)


def test_a_damaged_file_has_no_unit(tmp_path: Path) -> None:
    """It is refused for its damage; the look at its unit adds no error of its own."""
    path = tmp_path / "a.nii.gz"
    nib.save(nib.Nifti1Image(np.zeros((20, 20, 20), np.float32), np.eye(4)), path)
    content = path.read_bytes()
    path.write_bytes(content[:14] + b"\xff" * 20 + content[34:])
    assert unit_of(path) == ""


def test_a_plan_refuses_micrometres_and_names_the_unit(make_raw: Callable) -> None:
    made = make_raw(n_cases=3, n_channels=1)
    for path in [made.image("b"), made.mask("b")]:
        image = nib.load(path)
        image.header.set_xyzt_units(xyz="micron")
        nib.save(nib.Nifti1Image(np.asanyarray(image.dataobj), None, image.header), path)
    messages.forget_warnings()
    with pytest.raises(FaultsError) as caught:
        extract_fingerprint(load_raw(made.folder))
    assert not messages.warning_counts()  # it is said once
    (fault,) = caught.value.faults
    assert (
        fault.where == "b"
        and "0.002 x 0.0005 x 0.0005 mm" in fault.found
        and "unit is micrometres" in fault.found
    )


def test_a_plan_warns_of_a_scan_ten_times_as_large(make_raw: Callable) -> None:
    made = make_raw(n_cases=4, n_channels=1)
    for path in [made.image("c"), made.mask("c")]:
        image = nib.load(path)
        scaled = image.affine @ np.diag([10, 10, 10, 1])
        nib.save(nib.Nifti1Image(np.asanyarray(image.dataobj), scaled), path)
    messages.forget_warnings()
    extract_fingerprint(load_raw(made.folder))
    assert any(re.match("c: the field of view is 10 times as large", t) for t in messages.warning_counts())


def test_a_model_knows_the_sizes_it_was_made_for(make_fingerprint: Callable) -> None:
    made: Fingerprint = make_fingerprint([RAT[1]], [RAT[0]] * 2)
    seen = SeenSizes.of_cases(made.cases)
    assert seen.unlike((18.0, 30.0, 30.0), RAT[1]) == ""
    assert seen.unlike((18.0, 60.0, 60.0), (0.5, 0.06, 0.06)) == ""
    text = seen.unlike((180.0, 300.0, 300.0), (10.0, 1.17, 1.17))
    assert "field of view of 180 x 300 x 300 mm" in text and "voxel size of 10 x 1.17 x 1.17 mm" in text
    assert "made for 0.117 mm" in text
    assert SeenSizes.of_cases([]) == SeenSizes()
    assert SeenSizes().unlike((1.0, 1.0, 1.0), (1.0, 1.0, 1.0)) == ""


@pytest.mark.parametrize(
    "name", ["Dataset001_BRATS", "Dataset011_RatT2", "Dataset012_DWI", "Dataset014_ATLAST1"]
)
def test_nothing_is_said_of_the_shared_datasets(measured: Callable, name: str) -> None:
    """Real protocols: one grid, or scanners of two matrices with 19 to 23 slices."""
    cases = measured(name).cases
    assert unlikely(cases) == []
    assert all(voxel_fault(case.name, case.spacing_mm, case.shape) is None for case in cases)
