"""The section on sizes of false lesions: what it says, which scores it takes, and its table and figure."""

import csv

import numpy as np
import small
from reports import write_raw

from autoseg.dataset.dataset_json import read_dataset_json
from autoseg.evaluation.score_masks import evaluate_folder

NAMES = ["a", "b", "c", "d"]


def folder_of_masks(root, sizes_px):
    """A dataset on the published grid and predictions whose false lesions are lines of so many pixels."""
    raw = write_raw(root, NAMES)
    folder, empty = root / "masks", np.zeros((2, 40, 210), np.uint8)
    for name, sizes in zip(NAMES, sizes_px, strict=True):
        found = empty.copy()
        for row, size in enumerate(sizes):
            found[0, 2 * row, :size] = 1
        small.write(folder / f"{name}.nii.gz", found, (6, 1.6, 1.6))
        small.write(raw / "labelsTr" / f"{name}.nii.gz", empty, (6, 1.6, 1.6))
    return raw, folder


def score(raw, folder, out=None, **options):
    """Scores of the masks, beside them or in ``out``."""
    summary = evaluate_folder(folder, raw / "labelsTr", read_dataset_json(raw / "dataset.json"), **options)
    (out or folder).mkdir(exist_ok=True)
    summary.write(out or folder)


def test_the_section_offers_the_size_that_holds_99_percent(tmp_path, report):
    """Of 5 false lesions in 4 cases 60 px hold 4, and only the largest holds 99 %."""
    raw, folder = folder_of_masks(tmp_path, [(4, 9), (12, 60), (200,), ()])
    score(raw, folder, preset="edd_muscle")
    page = report(folder, cases=0)
    assert "false_lesions" in page.sections
    said = "lesion: 5 false components, 1.25 in a case, of 57.00 px on average (median 12, largest 200); "
    assert said + "60 px hold 80% of them, 200 px would hold 99%." in page.text
    assert "is one for largest_px, up to which MUSCLE Net judges" in page.text
    files = folder / "report_files"
    assert (files / "false_lesions.png").stat().st_size > 10_000
    with open(files / "false_lesions.csv", encoding="utf-8") as handle:
        rows = [(row["case"], row["size"], row["unit"]) for row in csv.DictReader(handle)]
    assert [float(size) for _, size, _ in rows] == [4, 9, 12, 60, 200] and {unit for *_, unit in rows} == {
        "px"
    }


def test_a_fold_shows_those_by_the_preset_of_its_trainer(tmp_path, report):
    raw, masks = folder_of_masks(tmp_path, [(3,), (), (), ()])
    fold = tmp_path / "fold_0" / "validation"
    fold.parent.mkdir()
    masks.rename(fold)
    score(raw, fold)
    score(raw, fold, fold / "edd_muscle", preset="edd_muscle")
    page = report(fold.parent, cases=0)
    assert "1 false component, 0.25 in a case, of 3.00 px on average" in page.text


def test_without_a_list_there_is_no_section_and_without_a_false_lesion_it_is_said(tmp_path, sketch):
    raw, folder = folder_of_masks(tmp_path, [()] * 4)
    score(raw, folder)
    assert "false lesion" not in sketch(folder).text
    score(raw, folder, preset="edd_muscle")
    page = sketch(folder)
    assert "Sizes of false lesions: there is no false lesion" in page.text
    assert "false_lesions" not in page.sections
