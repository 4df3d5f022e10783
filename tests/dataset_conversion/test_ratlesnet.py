"""The layout of RatLesNetv2 and the divisions of its paper (Valverde et al. 2020, section 2.1 and table I)."""

from __future__ import annotations

import argparse
import csv
import json
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
import SimpleITK as sitk
import small

from autoseg import messages
from autoseg.cli import convert as command
from autoseg.dataset.imageio import read_geometry, read_image
from autoseg.dataset_conversion import ratlesnet
from autoseg.errors import AutosegError
from autoseg.plugins.converter import Conversion

TIMEPOINTS = ("2h", "24h", "D3", "D7", "D14", "D21", "D28", "D35")
# Table I of the paper: scans of each study by stage, then shams.
TABLE_I = {
    "A": (12, 12, 0, 0, 0, 0, 0, 0, 24),
    "B": (0, 46, 0, 0, 0, 0, 0, 0, 3),
    "C": (0, 59, 0, 0, 0, 0, 0, 0, 1),
    "D": (0, 162, 0, 0, 0, 0, 0, 0, 4),
    "E": (0, 0, 0, 0, 0, 0, 0, 20, 1),
    "F": (0, 33, 30, 0, 30, 0, 27, 0, 46),
    "G": (0, 0, 0, 53, 0, 0, 0, 0, 12),
    "H": (0, 45, 0, 0, 0, 0, 0, 0, 0),
    "I": (0, 0, 64, 0, 0, 0, 62, 0, 0),
    "J": (0, 32, 0, 0, 0, 0, 0, 0, 0),
    "K": (0, 17, 0, 0, 0, 0, 0, 0, 0),
    "L": (0, 0, 41, 0, 0, 40, 0, 0, 40),
}


def put(root: Path, path: str, *files: str) -> None:
    folder = root / path
    folder.mkdir(parents=True)
    for name in files:
        (folder / name).touch()


@pytest.fixture(scope="module")
def published(tmp_path_factory) -> Path:
    """All 916 scans of the paper, as empty files; the shams of a study follow its lesion scans."""
    root = tmp_path_factory.mktemp("published")
    for study, (*lesions, shams) in TABLE_I.items():
        stages = [t for t, n in zip(TIMEPOINTS, lesions, strict=True) if n]
        number = 0
        for stage, n in zip(TIMEPOINTS, lesions, strict=True):
            for _ in range(n):
                number += 1
                put(root, f"{study}/{stage}/{number}", "scan.nii.gz", "scan_lesion.nii.gz")
        for i in range(shams):
            put(root, f"{study}/{stages[i % len(stages)]}/{number + 1 + i}", "scan.nii.gz")
    return root


def describe(root: Path, *words: str) -> Conversion:
    parser = argparse.ArgumentParser()
    ratlesnet.add_arguments(parser)
    return ratlesnet.describe(root, parser.parse_args(list(words)))


def parts(conversion: Conversion) -> dict[str, list[str]]:
    """Part of the division to the names of its cases, in the order in which they are described."""
    (fold,) = conversion.folds or (None,)
    found: dict[str, list[str]] = {"train": [], "validation": [], "test": []}
    for case in conversion.cases:
        validates = fold is not None and case.name in fold.validation
        assert fold is None or case.test != (case.name in (*fold.train, *fold.validation))
        found["test" if case.test else "validation" if validates else "train"].append(case.name)
    return found


def sizes(conversion: Conversion) -> tuple[int, int, int]:
    train, validation, test = parts(conversion).values()
    return len(train), len(validation), len(test)


# ---------------------------------------------------------------------------------------------- the divisions


def test_the_homogeneous_division_has_the_published_sizes(published):
    conversion = describe(published, "--shams_without_label", "--division", "homogeneous")
    assert sizes(conversion) == (36, 12, 868)
    groups = Counter((c.groups["timepoint"], c.groups["sham"]) for c in conversion.cases if not c.test)
    assert groups == {("2h", "no"): 12, ("2h", "yes"): 12, ("24h", "no"): 12, ("24h", "yes"): 12}
    assert {c.groups["study"] for c in conversion.cases if not c.test} == {"A"}
    (fold,) = conversion.folds
    assert fold.train == tuple(sorted(parts(conversion)["train"]))
    assert fold.validation == tuple(sorted(parts(conversion)["validation"]))


def test_the_heterogeneous_division_has_the_published_sizes(published):
    conversion = describe(published, "--shams_without_label", "--division", "heterogeneous")
    assert sizes(conversion) == (40, 8, 868)
    training = [c for c in conversion.cases if not c.test]
    assert Counter(c.groups["timepoint"] for c in training) == dict.fromkeys(TIMEPOINTS, 6)
    assert all(c.test for c in conversion.cases if c.lesion_free)
    assert sum(c.lesion_free for c in conversion.cases) == 131


def test_training_sets_grow_by_eight_and_share_their_test_set(published):
    sets = [
        parts(describe(published, "--shams_without_label", "--training_set_size", str(i)))
        for i in range(1, 12)
    ]
    assert [len(s["train"]) for s in sets] == [8 * i for i in range(1, 12)]
    assert all(len(s["test"]) == 828 and s["test"] == sets[0]["test"] for s in sets)
    assert all(set(a["train"]) < set(b["train"]) for a, b in zip(sets, sets[1:], strict=False))
    assert not any(set(s["train"]) & set(s["test"]) for s in sets)


def test_the_fifth_training_set_is_the_heterogeneous_one(published):
    fifth = describe(published, "--shams_without_label", "--training_set_size", "5")
    division = describe(published, "--shams_without_label", "--division", "heterogeneous")
    assert parts(fifth)["train"] == parts(division)["train"]
    assert fifth.folds == () and fifth.dataset == "RatLesNetT5"


def test_without_a_division_every_scan_trains(published):
    conversion = describe(published, "--shams_without_label")
    assert sizes(conversion) == (916, 0, 0) and conversion.folds == ()


def test_scans_are_ordered_as_text(tmp_path):
    """Worked by hand: 10 comes before 2, and of five scans int(4.0) = 4 train."""
    for name in ("1", "2", "10", "20", "3"):
        put(tmp_path, f"S/2h/{name}", "scan.nii.gz", "scan_lesion.nii.gz")
    for name in ("b", "a", "a-1", "a.1"):
        put(tmp_path, f"S/24h/{name}", "scan.nii.gz", "scan_lesion.nii.gz")
    found = parts(describe(tmp_path, "--division", "homogeneous"))
    # with the slash at the end of a folder's path, a-1/ and a.1/ come before a/
    assert found["train"] == ["S_24h_a-1", "S_24h_a.1", "S_24h_a", "S_2h_1", "S_2h_10", "S_2h_2", "S_2h_20"]
    assert found["validation"] == ["S_24h_b", "S_2h_3"]


def test_heterogeneous_by_hand(tmp_path):
    """Early-named studies fill the training set; the sixth validates; shams test, wherever they sort."""
    for i in range(1, 5):
        put(tmp_path, f"01A/24h/{i}", "scan.nii.gz", "scan_lesion.nii.gz")
        put(tmp_path, f"02B/24h/{i}", "scan.nii.gz", "scan_lesion.nii.gz")
    put(tmp_path, "01A/24h/0", "scan.nii.gz")
    found = parts(describe(tmp_path, "--shams_without_label", "--division", "heterogeneous"))
    assert found["train"] == ["01A_24h_1", "01A_24h_2", "01A_24h_3", "01A_24h_4", "02B_24h_1"]
    assert found["validation"] == ["02B_24h_2"]
    assert found["test"] == ["01A_24h_0", "02B_24h_3", "02B_24h_4"]


def test_divisions_that_the_scans_do_not_allow(tmp_path, published):
    put(tmp_path, "S/24h/1", "scan.nii.gz", "scan_lesion.nii.gz")
    put(tmp_path, "S/D3/1", "scan.nii.gz", "scan_lesion.nii.gz")
    for words, message in (
        (["--division", "homogeneous"], "needs one study with the time-points 2h and 24h"),
        (["--division", "homogeneous", "--study", "S"], "the study 'S'; S: 24h D3"),
        (["--division", "heterogeneous"], "2 time-points are too small"),
        (["--division", "heterogeneous", "--study", "S"], "--study goes with the homogeneous"),
        (["--training_set_size", "12"], "there is no training set of this size"),
    ):
        with pytest.raises(AutosegError, match=message):
            describe(tmp_path, *words)
    put(tmp_path, "T/2h/1", "scan.nii.gz", "scan_lesion.nii.gz")
    put(tmp_path, "T/24h/1", "scan.nii.gz", "scan_lesion.nii.gz")
    with pytest.raises(AutosegError, match="too few scans for the homogeneous division"):
        describe(tmp_path, "--division", "homogeneous")


# -------------------------------------------------------------------------------------------------- the shams


@pytest.fixture
def four(tmp_path: Path) -> Path:
    """Two lesion scans, two without mask; the id 3 is there twice."""
    root = tmp_path / "four"
    put(root, "A/2h/1", "scan.nii.gz", "scan_lesion.nii.gz")
    put(root, "A/24h/2", "scan.nii.gz", "scan_lesion.nii.gz")
    put(root, "A/2h/3", "scan.nii.gz")
    put(root, "A/24h/3", "scan.nii.gz")
    return root


def test_scans_without_mask_are_refused_unless_declared(four):
    with pytest.raises(AutosegError) as error:
        describe(four)
    text = str(error.value)
    assert "2 of 4 scans have no mask that could be used" in text
    assert "A/24h/3" in text and "A/2h/3" in text and "--shams_without_label" in text
    assert sum(c.lesion_free for c in describe(four, "--shams_without_label").cases) == 2


@pytest.mark.parametrize(
    "text",
    [
        "A/2h/3\nA/24h/3\n",
        "# shams\n\n2h/3\n24h/3/\n",
        "scan,treatment\n2h/3,saline\n24h/3,saline\n",
        "﻿path;x\nA\\2h\\3;1\nA\\24h\\3;1\n",
    ],
)
def test_shams_by_list(four, tmp_path, text):
    (tmp_path / "shams.csv").write_text(text, encoding="utf-8")
    conversion = describe(four, "--shams", str(tmp_path / "shams.csv"))
    assert [c.name for c in conversion.cases if c.lesion_free] == ["A_24h_3", "A_2h_3"]
    assert {c.name: c.groups["sham"] for c in conversion.cases}["A_2h_3"] == "yes"


def test_entries_that_mean_no_scan_or_several(four, tmp_path):
    (tmp_path / "shams.txt").write_text("3\nA/2h/4\n")
    with pytest.raises(AutosegError) as error:
        describe(four, "--shams", str(tmp_path / "shams.txt"))
    assert "shams.txt, line 1  '3' means 2 scans" in str(error.value)
    assert "shams.txt, line 2  'A/2h/4' is no scan" in str(error.value)
    with pytest.raises(AutosegError, match="the list of shams cannot be read"):
        describe(four, "--shams", str(tmp_path / "none.txt"))


def test_a_list_that_leaves_one_out_is_refused(four, tmp_path):
    (tmp_path / "shams.txt").write_text("A/2h/3\n")
    with pytest.raises(AutosegError, match="1 of 4 scans has no mask"):
        describe(four, "--shams", str(tmp_path / "shams.txt"))


# ---------------------------------------------------------------------------------------------- two annotators


def test_annotators_are_told_apart_by_the_name_of_the_mask(tmp_path):
    put(tmp_path, "A/2h/1", "scan.nii.gz", "scan_lesion.nii.gz", "scan_second.nii.gz")
    put(tmp_path, "B/24h/1", "scan.nii.gz", "scan_lesion.nii.gz")
    one = describe(tmp_path)
    assert [c.mask.path.name for c in one.cases] == ["scan_lesion.nii.gz"] * 2
    both = describe(tmp_path, "--annotator", "scan_second.nii.gz", "scan_lesion.nii.gz")
    assert [c.mask.path.name for c in both.cases] == ["scan_second.nii.gz", "scan_lesion.nii.gz"]


def test_a_scan_with_another_annotators_mask_is_no_sham(tmp_path):
    put(tmp_path, "A/2h/1", "scan.nii.gz", "scan_lesion.nii.gz", "scan_second.nii.gz")
    put(tmp_path, "B/24h/1", "scan.nii.gz", "scan_lesion.nii.gz")
    with pytest.raises(AutosegError, match="another file may be its mask"):
        describe(tmp_path, "--annotator", "scan_second.nii.gz", "--shams_without_label")


def test_files_that_are_not_used_are_said(tmp_path):
    messages.forget_warnings()
    put(tmp_path, "A/2h/1", "scan.nii.gz", "scan_lesion.nii.gz", "scan_second.nii.gz", "notes.txt")
    describe(tmp_path)
    assert list(messages.warning_counts()) == ["scan_second.nii.gz is not used; it lies in 1 scan folder"]


# ------------------------------------------------------------------------------------------- another layout


def test_other_layouts_are_refused(tmp_path):
    with pytest.raises(AutosegError, match="there is no such folder"):
        describe(tmp_path / "none")
    with pytest.raises(AutosegError, match="there is no scan in the layout of RatLesNetv2"):
        describe(tmp_path)
    put(tmp_path, "A/2h/1", "t2.nii.gz", "scan_lesion.nii.gz")
    with pytest.raises(AutosegError, match="no STUDY/TIMEPOINT/SCAN/scan.nii.gz"):
        describe(tmp_path)
    assert len(describe(tmp_path, "--image", "t2.nii.gz").cases) == 1


def test_places_that_are_not_understood_are_refused(tmp_path):
    put(tmp_path, "A/2h/1", "scan.nii.gz", "scan_lesion.nii.gz")
    put(tmp_path, "A/2h/2", "scan_lesion.nii.gz")
    put(tmp_path, "A/24h")
    put(tmp_path, "docs", "readme.txt")
    put(tmp_path, "B/2h", "scan.nii.gz")
    with pytest.raises(AutosegError) as error:
        describe(tmp_path)
    text = str(error.value)
    assert "4 places are not understood" in text
    for where, problem in (
        ("A/2h/2", "a scan without image"),
        ("A/24h", "a time-point without scans"),
        ("docs", "a study without time-points"),
        ("B/2h/scan.nii.gz", "an image at another depth"),
    ):
        assert any(line.startswith(where) and problem in line for line in text.splitlines()), text


# ------------------------------------------------------------------------------------------------- the pixels


def write_scan(folder: Path, image: np.ndarray, mask: np.ndarray | None, channels: int = 1) -> None:
    """Image with a fourth axis, as the authors store it, and mask."""
    folder.mkdir(parents=True)
    parts = []
    for _ in range(channels):
        part = sitk.GetImageFromArray(image)
        part.SetSpacing((0.1171875, 0.1171875, 1.0))
        parts.append(part)
    sitk.WriteImage(sitk.JoinSeries(parts), str(folder / "scan.nii.gz"))
    if mask is not None:
        small.write(folder / "scan_lesion.nii.gz", mask, (1.0, 0.1171875, 0.1171875), origin=(0, 0, 0))


@pytest.mark.parametrize("shape", [(1, 12, 10), (4, 12, 10)])
def test_the_authors_layout_is_written_with_exact_pixels(tmp_path, shape, monkeypatch):
    rng = np.random.default_rng(1)
    images = [rng.normal(100, 10, shape).astype(np.float32) for _ in range(2)]
    mask = np.zeros(shape, np.uint8)
    mask[:, 3:6, 2:5] = 1
    write_scan(tmp_path / "rats/A/2h/7", images[0], mask)
    write_scan(tmp_path / "rats/A/24h/7", images[1], None)
    monkeypatch.setenv("autoseg_raw", str(tmp_path / "raw"))
    assert (
        command.main(["ratlesnet", str(tmp_path / "rats"), "-d", "21", "--shams_without_label", "-np", "1"])
        == 0
    )
    folder = tmp_path / "raw/Dataset021_RatLesNet"
    made = read_image(folder / "imagesTr/A_2h_7_0000.nii.gz")
    assert np.array_equal(made.pixels, images[0]) and made.geometry.spacing_mm == (1.0, 0.1171875, 0.1171875)
    assert np.array_equal(read_image(folder / "labelsTr/A_2h_7.nii.gz").pixels, mask)
    assert not read_image(folder / "labelsTr/A_24h_7.nii.gz").pixels.any()
    rows = list(csv.DictReader((folder / "groups.csv").open()))
    assert rows[0] == {"case": "A_24h_7", "study": "A", "timepoint": "24h", "sham": "yes"}


def test_pixels_that_do_not_fit_are_refused(tmp_path, capsys, monkeypatch):
    shape = (3, 8, 8)
    mask = np.zeros(shape, np.uint8)
    mask[1, 2:5, 2:5] = 3
    write_scan(tmp_path / "rats/A/2h/1", np.ones(shape, np.float32), mask)
    write_scan(tmp_path / "rats/A/2h/2", np.ones(shape, np.float32), np.minimum(mask, 1), channels=2)
    monkeypatch.setenv("autoseg_raw", str(tmp_path / "raw"))
    words = ["ratlesnet", str(tmp_path / "rats"), "-d", "21", "-np", "1"]
    assert command.main(words) == 1
    error = capsys.readouterr().err
    assert "label values that the format does not have" in error and "3 (9 voxels)" in error
    assert "holds 2 volumes where one is expected" in error
    assert list((tmp_path / "raw").iterdir()) == []


def test_real_shapes_and_both_divisions_from_the_shared_rats(tmp_path, shared, monkeypatch):
    """Twelve rats in the authors' layout: eight of an early study, one of them a sham."""
    source = shared / "data/Dataset011_RatT2"
    if not source.is_dir():
        pytest.skip("Dataset011_RatT2 not found")
    rng = np.random.default_rng(0)
    places = [("A", t) for t in ("2h", "24h") for _ in range(4)] + [("B", "24h")] * 4
    for i, (study, timepoint) in enumerate(places):
        folder = tmp_path / "rats" / study / timepoint / str(i)
        folder.mkdir(parents=True)
        image = sitk.ReadImage(str(source / f"imagesTr/rat_{i:03d}_0000.nii.gz"))
        sitk.WriteImage(sitk.JoinSeries(image), str(folder / "scan.nii.gz"))
        mask = sitk.ReadImage(str(source / f"labelsTr/rat_{i:03d}.nii.gz"))
        if sitk.GetArrayViewFromImage(mask).any():
            sitk.WriteImage(mask, str(folder / "scan_lesion.nii.gz"))
    monkeypatch.setenv("autoseg_raw", str(tmp_path / "raw"))
    words = ["ratlesnet", str(tmp_path / "rats"), "-d", "21", "--shams_without_label", "-np", "1"]
    assert command.main([*words, "--division", "homogeneous"]) == 0
    folder = tmp_path / "raw/Dataset021_RatLesNetHomogeneous"
    (fold,) = json.loads((folder / "splits.json").read_text())
    assert len(fold["train"]) + len(fold["val"]) == 8 and len(list((folder / "imagesTs").iterdir())) == 4
    for i in rng.permutation(8)[:2]:
        study, timepoint = places[i]
        made = folder / f"imagesTr/{study}_{timepoint}_{i}_0000.nii.gz"
        original = source / f"imagesTr/rat_{i:03d}_0000.nii.gz"
        assert np.array_equal(read_image(made).pixels, read_image(original).pixels)
        assert read_geometry(made).shape == read_geometry(original).shape
