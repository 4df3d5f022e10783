"""Sizes of false lesions, one by one: by hand on the published grid and on another scanner's."""

import numpy as np
import pytest
import small

from autoseg.dataset.dataset_json import DatasetJson
from autoseg.errors import AutosegError
from autoseg.evaluation.false_lesions import read_false_lesions, size_that_holds, sizes_in_words
from autoseg.evaluation.score_masks import evaluate_folder

INFO = DatasetJson(
    channel_names={"0": "DWI"},
    labels={"background": 0, "lesion": 1, "ignore": 2},
    numTraining=2,
    file_ending=".nii.gz",
)


def scored(tmp_path, spacing_mm, **options):
    """Case a: false lesions of 1 and 6 pixels in one slice, two diagonal ones of 1 each in another that are one of 2,
    a right one, and a false pixel where the truth is to be ignored. Case b: empty."""
    truth, found = np.zeros((3, 20, 20), np.uint8), np.zeros((3, 20, 20), np.uint8)
    found[0, 2, 2] = found[0, 8:10, 5:8] = found[1, 3, 3] = found[1, 4, 4] = 1
    found[1, 10:14, 10:14] = truth[1, 13, 13] = 1
    truth[2, 5, 5], found[2, 5, 5] = 2, 1
    for name, masks in {"a": (found, truth), "b": (np.zeros_like(found), np.zeros_like(truth))}.items():
        for folder, mask in zip(("p", "t"), masks, strict=True):
            small.write(tmp_path / folder / f"{name}.nii.gz", mask, spacing_mm)
    summary = evaluate_folder(tmp_path / "p", tmp_path / "t", INFO, **options)
    return summary, summary.write(tmp_path / "p")


def test_each_false_lesion_is_listed_with_its_size_in_published_pixels(tmp_path):
    summary, written = scored(tmp_path, (6, 1.6, 1.6), preset="edd_muscle")
    assert "false_lesions.csv" in [path.name for path in written]
    sizes = read_false_lesions(tmp_path / "p" / "false_lesions.csv")
    assert sizes == {"a": {"lesion": pytest.approx([1, 2, 6])}}
    scores = summary.cases[0].classes["lesion"]
    assert (scores["lesions_false"], scores["lesion_size_false"]) == (3, pytest.approx(3))


def test_pixels_of_another_scanner_count_by_their_area(tmp_path):
    """A pixel of 0.8 mm is a quarter of one of 1.6 mm."""
    scored(tmp_path, (6, 0.8, 0.8), preset="edd_muscle")
    sizes = read_false_lesions(tmp_path / "p" / "false_lesions.csv")
    assert sizes["a"]["lesion"] == pytest.approx([0.25, 0.5, 1.5])


@pytest.mark.parametrize("options", [{}, {"preset": "edd_muscle", "without": ["lesion"], "strata": []}])
def test_a_list_of_an_earlier_preset_does_not_stay(tmp_path, options):
    path = tmp_path / "p" / "false_lesions.csv"
    path.parent.mkdir()
    path.write_text("case,class,size\n")
    scored(tmp_path, (6, 1.6, 1.6), **options)
    assert not path.exists()


def test_published_numbers():
    """EDD Net on 361 test scans: 5.89 false components in a scan (Table 4), of which 60 pixels would hold 99 %."""
    sizes = np.array([8] * 2104 + [60] + [300] * 21)
    assert size_that_holds(sizes) == 60
    assert sizes_in_words(sizes, 361).startswith(
        "2126 false components, 5.89 in a case, of 10.91 px on average"
    )


def test_a_file_that_is_no_such_list_is_refused(tmp_path):
    path = tmp_path / "false_lesions.csv"
    path.write_text("case,class,size\na,lesion\n")
    with pytest.raises(AutosegError, match="is not a table of false lesions"):
        read_false_lesions(path)
