"""Which raw files have changed since a dataset was prepared: size and time first, then the hash."""

import os

import numpy as np
import pytest
import SimpleITK as sitk
import small

from autoseg.dataset.raw_layout import Case, RawDataset, load_raw
from autoseg.preparation import raw_files
from autoseg.preparation.raw_files import FILE_NAME, changed_cases
from autoseg.preparation.steps import take_fingerprint


@pytest.fixture
def there(tmp_path):
    folder = small.dataset(tmp_path, n=4, n_test=0)
    raw, fingerprint = take_fingerprint(folder, tmp_path / "prepared", 1)
    names = [case.name for case in raw.cases]
    return folder, lambda: changed_cases(load_raw(folder), fingerprint, tmp_path / "prepared", names)


def image(folder, i):
    return folder / "imagesTr" / f"case_{i:03}_0000.nii.gz"


def test_nothing_is_read_where_size_and_time_are_the_same(there, monkeypatch):
    monkeypatch.setattr(raw_files, "hash_files", lambda case: pytest.fail("a file was read"))
    assert there[1]() == []


def test_the_hash_decides_where_time_or_size_differ(there):
    folder, changed = there
    os.utime(image(folder, 0), (1, 1))
    assert changed() == []
    small.write(image(folder, 1), small.case(50)[0][0])
    small.write(folder / "labelsTr" / "case_002.nii.gz", small.case(51)[1])
    assert changed() == ["case_001", "case_002"]


def test_a_file_that_is_gone_is_a_change_and_a_case_that_is_gone_lies_elsewhere(there):
    folder, changed = there
    (folder / "labelsTr" / "case_000.nii.gz").unlink()
    for path in (image(folder, 1), folder / "labelsTr" / "case_001.nii.gz"):
        path.unlink()
    assert changed() == ["case_000"]


def test_what_an_earlier_autoseg_prepared_is_compared_by_hash(there, tmp_path):
    folder, changed = there
    (tmp_path / "prepared" / FILE_NAME).unlink()
    assert changed() == []
    small.write(image(folder, 3), small.case(50)[0][0])
    assert changed() == ["case_003"]


def test_pixels_in_another_file_belong_to_the_image(tmp_path):
    """An erased mask whose header has not changed."""
    header, data = tmp_path / "a.mha", tmp_path / "a.raw"
    sitk.WriteImage(sitk.GetImageFromArray(np.ones((3, 4, 5), np.uint8)), str(header))
    data.write_bytes(bytes([1] * 60))
    content = header.read_bytes()
    header.write_bytes(content[: content.index(b"LOCAL")] + b"a.raw\n")
    case = Case("a", (header,))
    raw = RawDataset(tmp_path, "Dataset001_A", None, (case,))
    before = raw_files.look_at_files(raw)
    assert set(before.cases["a"]) == {"a.mha", "a.raw"}
    data.write_bytes(bytes(61))
    assert raw_files.look_at_files(raw) != before
