"""The layouts of the releases of ATLAS (Liew et al., Scientific Data 2018 and 2022), and what is refused.

The names are those of the downloads: ATLAS_R1.1 and ATLAS_R2.0 of INDI, ATLAS R 1.2 of ICPSR.
"""

from __future__ import annotations

import argparse
import csv
import gzip
import json
import shutil
import subprocess
import sys
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
import small

from autoseg import messages
from autoseg.cli import convert as command
from autoseg.dataset.fold_lists import read_fold_list
from autoseg.dataset.imageio import differences, read_geometry, read_image
from autoseg.dataset.subjects import read_subjects
from autoseg.dataset_conversion import atlas
from autoseg.errors import AutosegError
from autoseg.plugins.converter import Conversion, MergedMask
from autoseg.preparation.steps import folds_asked_for

SHAPE = (6, 8, 7)
GRID = {"spacing": (1.0, 1.0, 1.0), "origin": (98.0, 134.0, -72.0)}
SPACE = "_space-MNI152NLin2009aSym"
LESION = f"{SPACE}_label-L_desc-T1lesion_mask.nii.gz"


@pytest.fixture(autouse=True)
def no_warnings_yet():
    messages.forget_warnings()


def image(seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).uniform(0, 100, SHAPE).astype(np.float32)


def lesion(*at: int, value: float = 1, kind=np.float32) -> np.ndarray:
    """A mask of two voxels along x."""
    mask = np.zeros(SHAPE, kind)
    z, y, x = at or (1, 2, 3)
    mask[z, y, x : x + 2] = value
    return mask


def put(path: Path, array: np.ndarray, **grid: object) -> Path:
    small.write(path, array, **{**GRID, **grid})
    return path


def put_with_fourth_axis(path: Path, array: np.ndarray) -> None:
    """The same volume with a trailing axis of length 1."""
    there = nib.load(put(path, array))
    nib.save(nib.Nifti1Image(np.asarray(there.dataobj)[..., None], there.affine), path)


def scan2(
    root: Path, name: str = "r001s001", session: int = 1, part: str = "Training", masks: int = 1
) -> Path:
    """One scan as in ATLAS_R2.0; its folder."""
    folder = root / part / name[:4].upper() / f"sub-{name}" / f"ses-{session}" / "anat"
    stem = f"sub-{name}_ses-{session}"
    put(folder / f"{stem}{SPACE}_T1w.nii.gz", image(session))
    for _ in range(masks):
        put(folder / f"{stem}{LESION}", lesion())
    return folder


def scan12(root: Path, name: str = "c0001s0004t01", masks: int = 1) -> Path:
    """One scan as in standard_MNI of ATLAS R 1.2; its folder."""
    folder = root / name[:5] / name
    put(folder / f"{name}_t1w_stx.nii.gz", image())
    for i in range(masks):
        number = f"_{i}" if i else ""
        put(folder / f"{name}_LesionSmooth{number}_stx.nii.gz", lesion(1 + i, 2, 3, value=0.9999999997671694))
    return folder


def scan11(root: Path, site: int = 1, name: str = "031768", session: str = "t01") -> Path:
    """One scan as in ATLAS_R1.1; its folder."""
    folder = root / f"Site{site}" / name / session
    put(folder / f"{name}_t1w_deface_stx.nii.gz", image())
    put(folder / f"{name}_LesionSmooth_stx.nii.gz", lesion())
    return folder


def describe(root: Path, *words: str) -> Conversion:
    parser = argparse.ArgumentParser()
    atlas.add_arguments(parser)
    return atlas.describe(root, parser.parse_args(list(words)))


def refused(root: Path, *words: str) -> str:
    with pytest.raises(AutosegError) as error:
        describe(root, *words)
    return str(error.value)


def convert(root: Path, raw: Path, *words: str) -> int:
    return command.main(["atlas", str(root), "-d", "14", "--raw", str(raw), "-np", "1", *words])


def warnings() -> str:
    return "\n".join(messages.warning_counts())


def groups(folder: Path) -> list[list[str]]:
    with (folder / "groups.csv").open() as file:
        return list(csv.reader(file))


# ------------------------------------------------------------------------------------------------ the layouts


def test_release_2(tmp_path):
    """As the archive unpacks: two sessions of one subject, a test case without mask, files beside the folders."""
    root = tmp_path / "ATLAS_R2.0" / "ATLAS_2"
    for session in (1, 2):
        scan2(root, "r001s002", session)
    scan2(root)
    scan2(root, "r005s001", part="Testing", masks=0)
    put(root / "MNI152NLin2009aSym.nii.gz", image())
    (root / "Training/R001/dataset_description.json").write_text("{}")
    (root / "Training/R016/.DS_Store").parent.mkdir()
    (root / "__MACOSX/Training/R001/sub-r001s009/ses-1/anat").mkdir(parents=True)
    for start in (root, root.parent):
        found = describe(start)
        names = ["sub-r001s001_ses-1", "sub-r001s002_ses-1", "sub-r001s002_ses-2", "sub-r005s001_ses-1"]
        assert [case.name for case in found.cases] == names
        assert [case.test for case in found.cases] == [False, False, False, True]
        subjects = [case.groups["subject"] for case in found.cases]
        assert subjects == ["sub-r001s001", "sub-r001s002", "sub-r001s002", "sub-r005s001"]
        assert [case.groups["site"] for case in found.cases] == ["R001", "R001", "R001", "R005"]
        assert found.cases[3].mask is None and found.channel_names == ("T1",)
        assert found.dataset == "ATLASR20" and "9:320" in found.notes["reference"]
    first = describe(root).cases[0]
    folder = root / "Training/R001/sub-r001s001/ses-1/anat"
    assert first.images[0].path == folder / f"sub-r001s001_ses-1{SPACE}_T1w.nii.gz"
    assert isinstance(first.mask, MergedMask)
    assert [volume.path.name for volume in first.mask.volumes] == [f"sub-r001s001_ses-1{LESION}"]
    assert [case.name for case in describe(root / "Training").cases] == names[:3]


def test_release_2_in_native_space(tmp_path):
    folder = tmp_path / "Training/R009/sub-r009s001/ses-1/anat"
    put(folder / "sub-r009s001_ses-1_T1w.nii.gz", image())
    put(folder / "sub-r009s001_ses-1_space-orig_label-L_desc-T1lesion_mask.nii.gz", lesion())
    (case,) = describe(tmp_path).cases
    assert case.name == "sub-r009s001_ses-1" and case.groups["site"] == "R009"


@pytest.mark.parametrize("inner", ["", "standard_MNI", "standard_MNI/standard_part1"])
def test_release_1_2(tmp_path, inner):
    scan12(tmp_path / inner, "c0001s0004t01", masks=3)
    scan12(tmp_path / inner, "c0010s0002t02")
    scan12(tmp_path / inner, "c0010s0002t01")
    put(tmp_path / "standard_mni152.nii.gz", image())
    found = describe(tmp_path)
    assert [case.name for case in found.cases] == ["c0001s0004t01", "c0010s0002t01", "c0010s0002t02"]
    assert [case.groups["subject"] for case in found.cases] == ["c0001s0004", "c0010s0002", "c0010s0002"]
    assert [case.groups["site"] for case in found.cases] == ["c0001", "c0010", "c0010"]
    assert [len(case.mask.volumes) for case in found.cases] == [3, 1, 1]
    assert found.dataset == "ATLASR12" and "5:180011" in found.notes["reference"]


def test_release_1_2_in_native_space(tmp_path):
    folder = tmp_path / "native_2/c0011/c0011s0006t01"
    put(folder / "c0011s0006t01.nii.gz", image())
    put(folder / "c0011s0006t01_LesionSmooth.nii.gz", lesion())
    put(folder / "c0011s0006t01_LesionSmooth_1.nii.gz", lesion(3, 3, 3))
    put(folder / "c0011s0006t01_brain_mask.nii.gz", lesion())
    (case,) = describe(tmp_path).cases
    assert case.images[0].path.name == "c0011s0006t01.nii.gz" and len(case.mask.volumes) == 2
    assert "_brain_mask.nii.gz is not used; 1 scan has it" in warnings()


def test_release_1_1(tmp_path):
    scan11(tmp_path)
    put(scan11(tmp_path, 2, "031844", "t02") / "031844_LesionSmooth_1_stx.nii.gz", lesion())
    found = describe(tmp_path)
    assert [case.name for case in found.cases] == ["031768_t01", "031844_t02"]
    assert [case.groups["site"] for case in found.cases] == ["Site1", "Site2"]
    assert [case.groups["subject"] for case in found.cases] == ["031768", "031844"]
    assert len(found.cases[1].mask.volumes) == 2 and found.dataset == "ATLASR11"


# ----------------------------------------------------------------------------------------------- what is written


def test_all_masks_of_a_scan_are_merged_whatever_their_values(tmp_path):
    """As published: values of 0.9999999997671694 and of 254.9999999406282, in double precision, and overlaps."""
    folder = scan12(tmp_path / "atlas", masks=2)
    stem = "c0001s0004t01_LesionSmooth"
    put(folder / f"{stem}_2_stx.nii.gz", lesion(1, 2, 4, value=254.9999999406282, kind=np.float64))
    put_with_fourth_axis(folder / f"{stem}_3_stx.nii.gz", lesion(4, 4, 4))
    assert convert(tmp_path / "atlas", tmp_path / "raw") == 0
    made = tmp_path / "raw/Dataset014_ATLASR12"
    file = read_image(made / "labelsTr/c0001s0004t01.nii.gz")
    expected = np.zeros(SHAPE, np.uint8)
    expected[1, 2, 3:6] = expected[2, 2, 3:5] = expected[4, 4, 4:6] = 1
    np.testing.assert_array_equal(file.pixels, expected)
    assert file.pixels.dtype == np.uint8
    assert differences(file.geometry, read_geometry(folder / "c0001s0004t01_t1w_stx.nii.gz")) == []
    written = made / "imagesTr/c0001s0004t01_0000.nii.gz"
    assert written.read_bytes() == (folder / "c0001s0004t01_t1w_stx.nii.gz").read_bytes()
    info = json.loads((made / "dataset.json").read_text())
    assert (
        info["numTraining"] == 1
        and info["release"] == "1.2"
        and info["labels"] == {"background": 0, "lesion": 1}
    )


def test_a_trailing_axis_of_length_one_is_removed_from_images_and_single_masks(tmp_path):
    folder = scan2(tmp_path / "atlas")
    for path, array in ((f"{SPACE}_T1w.nii.gz", image()), (LESION, lesion())):
        put_with_fourth_axis(folder / f"sub-r001s001_ses-1{path}", array)
    assert convert(tmp_path / "atlas", tmp_path / "raw") == 0
    made = tmp_path / "raw/Dataset014_ATLASR20"
    np.testing.assert_array_equal(
        read_image(made / "imagesTr/sub-r001s001_ses-1_0000.nii.gz").pixels, image()
    )
    np.testing.assert_array_equal(read_image(made / "labelsTr/sub-r001s001_ses-1.nii.gz").pixels, lesion())


def test_test_cases_have_images_alone_and_may_be_left_out(tmp_path):
    scan2(tmp_path / "atlas")
    scan2(tmp_path / "atlas", "r005s001", part="Testing", masks=0)
    assert convert(tmp_path / "atlas", tmp_path / "raw") == 0
    made = tmp_path / "raw/Dataset014_ATLASR20"
    assert [path.name for path in (made / "imagesTs").iterdir()] == ["sub-r005s001_ses-1_0000.nii.gz"]
    assert list((made / "labelsTs").iterdir()) == []
    assert [row[0] for row in groups(made)] == ["case", "sub-r001s001_ses-1", "sub-r005s001_ses-1"]
    assert convert(tmp_path / "atlas", tmp_path / "raw", "--no_test", "--overwrite") == 0
    assert not (made / "imagesTs").exists()


def test_repeat_scans_stay_together_and_public_lists_fit(tmp_path):
    """By subject, by scan, by file: the converter's names are those of the release."""
    for name, sessions in (("r001s001", (1, 2)), ("r001s002", (1,)), ("r002s001", (1,)), ("r003s001", (1,))):
        for session in sessions:
            scan2(tmp_path / "atlas", name, session)
    assert convert(tmp_path / "atlas", tmp_path / "raw") == 0
    made = tmp_path / "raw/Dataset014_ATLASR20"
    names = sorted(path.name.removesuffix(".nii.gz") for path in (made / "labelsTr").iterdir())
    subjects = read_subjects(made / "groups.csv", names)
    (tmp_path / "by_subject.csv").write_text(
        "subject,fold\nsub-r001s001,0\nsub-r001s002,1\nsub-r002s001,2\nsub-r003s001,3\n"
    )
    folds = read_fold_list(tmp_path / "by_subject.csv", names, subjects)
    assert [fold.validation for fold in folds] == [tuple(names[:2]), *((name,) for name in names[2:])]
    (fold,) = folds_asked_for(made, "2/1/1", False)
    assert sum({*names[:2]} <= {*part} for part in fold.parts.values()) == 1


# ------------------------------------------------------------------------------------------------ what is left out


def test_scans_without_mask_or_image_are_left_out_and_named(tmp_path):
    scan2(tmp_path)
    scan2(tmp_path, "r001s002", masks=0)
    scan2(tmp_path, "r001s003", masks=0)
    next(scan2(tmp_path, "r002s001").glob("*_T1w.nii.gz")).unlink()
    assert [case.name for case in describe(tmp_path).cases] == ["sub-r001s001_ses-1"]
    said = warnings()
    assert "2 scans are left out, they have no mask: sub-r001s002_ses-1, sub-r001s003_ses-1" in said
    assert "1 scan is left out, they have no image: sub-r002s001_ses-1" in said


def test_scans_that_cannot_be_read_are_left_out_and_named(tmp_path):
    """A truncated image, an empty file, a mask that is no image, and a test image; what was written of them is gone."""
    root, raw = tmp_path / "atlas", tmp_path / "raw"
    for number in range(1, 5):
        scan2(root, f"r001s00{number}")
    scan2(root, "r005s001", part="Testing", masks=0)
    (truncated,) = root.rglob("sub-r001s002*_T1w.nii.gz")
    truncated.write_bytes(gzip.compress(gzip.decompress(truncated.read_bytes())[:-40]))
    next(root.rglob("sub-r001s003*_T1w.nii.gz")).write_bytes(b"")
    next(root.rglob("sub-r001s004*_mask.nii.gz")).write_bytes(b"no image at all")
    next(root.rglob("sub-r005s001*_T1w.nii.gz")).write_bytes(b"")
    assert convert(root, raw) == 0
    made = raw / "Dataset014_ATLASR20"
    assert [path.name for path in made.rglob("*.nii.gz")] == [
        "sub-r001s001_ses-1_0000.nii.gz",
        "sub-r001s001_ses-1.nii.gz",
    ]
    assert json.loads((made / "dataset.json").read_text())["numTraining"] == 1
    assert [row[0] for row in groups(made)] == ["case", "sub-r001s001_ses-1"]
    said = [text for text in messages.warning_counts() if "is left out" in text]
    assert len(said) == 4
    assert "sub-r001s002_ses-1 is left out: Training/R001/sub-r001s002/ses-1/anat/" in said[0]
    assert "the file is truncated (" in said[0] and "40 too few" in said[0]
    assert f"sub-r001s004_ses-1{LESION}: " in said[2] and "Testing/R005" in said[3]


def test_nothing_is_written_where_no_scan_can_be_read(tmp_path, capsys):
    next(scan2(tmp_path / "atlas").glob("*_T1w.nii.gz")).write_bytes(b"")
    assert convert(tmp_path / "atlas", tmp_path / "raw") == 1
    assert f"sub-r001s001_ses-1{SPACE}_T1w.nii.gz" in capsys.readouterr().err
    assert list((tmp_path / "raw").iterdir()) == []


# --------------------------------------------------------------------------------------------------- what is refused


def test_other_folders_are_refused(tmp_path):
    assert "there is no such folder" in refused(tmp_path / "none")
    assert "an empty folder" in refused(tmp_path)
    (tmp_path / "standard_part1.zip").touch()
    text = refused(tmp_path)
    assert "there is no scan in the layout of ATLAS" in text and "standard_part1.zip" in text
    assert "Training/R001/sub-r001s001/ses-1/anat, c0001/c0001s0004t01 or Site1/031768/t01" in text
    assert "also those within archives" in text


def test_a_folder_of_test_cases_alone_is_refused(tmp_path):
    scan2(tmp_path, "r005s001", part="Testing", masks=0)
    for root in (tmp_path, tmp_path / "Testing"):
        text = refused(root)
        assert (
            "no scan with image and mask to train on" in text
            and "give the folder of the whole release" in text
        )


def test_native_and_standard_space_at_once_are_refused(tmp_path):
    scan12(tmp_path / "standard_MNI")
    scan12(tmp_path / "native")
    scan12(tmp_path / "native", "c0001s0005t01")
    text = refused(tmp_path)
    assert "1 scan lies in more than one folder" in text and "such as ROOT/standard_MNI" in text
    assert "native/c0001/c0001s0004t01 and standard_MNI/c0001/c0001s0004t01" in text
    assert len(describe(tmp_path / "native").cases) == 2


def test_two_releases_at_once_are_refused(tmp_path):
    scan12(tmp_path / "first")
    scan2(tmp_path / "second")
    text = refused(tmp_path)
    assert "more than one release" in text and "1.2: first/c0001/c0001s0004t01, 2.0: second/Training" in text


def test_files_of_another_scan_and_several_images_are_refused_by_name(tmp_path):
    shutil.copy(
        scan12(tmp_path) / "c0001s0004t01_LesionSmooth_stx.nii.gz",
        scan12(tmp_path, "c0001s0005t01") / "c0001s0004t01_LesionSmooth_1_stx.nii.gz",
    )
    put(scan12(tmp_path, "c0002s0001t01") / "c0002s0001t01_t1w_deface_stx.nii.gz", image())
    put(scan12(tmp_path, "c0002s0002t01") / "c0002s0002t011_LesionSmooth_stx.nii.gz", lesion())
    text = refused(tmp_path)
    assert "3 faults in 4 scans" in text
    (line,) = (line for line in text.splitlines() if line.startswith("c0001/c0001s0005t01/"))
    assert "its name is not that of its folder" in line and "c0001s0005t01_..." in line
    (line,) = (line for line in text.splitlines() if line.startswith("c0002/c0002s0001t01 "))
    assert "more than one image" in line and "c0002s0001t01_t1w_deface_stx.nii.gz" in line
    assert "c0002s0002t011_LesionSmooth_stx.nii.gz" in text


def test_masks_on_another_grid_are_refused_by_name_with_what_differs(tmp_path, capsys):
    root = tmp_path / "atlas"
    put(scan12(root) / "c0001s0004t01_LesionSmooth_1_stx.nii.gz", lesion()[:, :-1])
    put(
        scan12(root, "c0001s0005t01") / "c0001s0005t01_LesionSmooth_1_stx.nii.gz", lesion(), spacing=(1, 1, 2)
    )
    put(
        scan12(root, "c0001s0006t01") / "c0001s0006t01_LesionSmooth_stx.nii.gz",
        lesion(),
        origin=(0, 134, -72),
    )
    scan12(root, "c0001s0007t01")
    assert convert(root, tmp_path / "raw") == 1
    error = capsys.readouterr().err
    for name, problem, found in (
        ("c0001s0004t01_LesionSmooth_1_stx", "its shape is not that of the image", "6 x 7 x 7"),
        ("c0001s0005t01_LesionSmooth_1_stx", "its spacing is not that of the image", "1 x 1 x 2"),
        ("c0001s0006t01_LesionSmooth_stx", "its origin is not that of the image", "0 134 -72 mm"),
    ):
        lines = [line for line in error.splitlines() if f"/{name}.nii.gz" in line]
        assert len(lines) == 1 and problem in lines[0] and found in lines[0], error
    assert "c0001s0007t01" not in error and list((tmp_path / "raw").iterdir()) == []


def test_masks_voxel_by_voxel_where_the_user_says_so(tmp_path, capsys):
    put(scan12(tmp_path / "a") / "c0001s0004t01_LesionSmooth_1_stx.nii.gz", lesion(4, 4, 4), origin=(0, 0, 0))
    assert convert(tmp_path / "a", tmp_path / "raw", "--ignore_mask_headers") == 0
    made = read_image(tmp_path / "raw/Dataset014_ATLASR12/labelsTr/c0001s0004t01.nii.gz")
    np.testing.assert_array_equal(made.pixels > 0, lesion() + lesion(4, 4, 4) > 0)
    put(tmp_path / "a/c0001/c0001s0004t01/c0001s0004t01_LesionSmooth_1_stx.nii.gz", lesion()[1:])
    assert convert(tmp_path / "a", tmp_path / "raw", "--ignore_mask_headers", "--overwrite") == 1
    assert "its shape is not that of the image" in capsys.readouterr().err


def test_masks_with_values_that_are_no_numbers_are_refused(tmp_path, capsys):
    put(scan12(tmp_path / "atlas") / "c0001s0004t01_LesionSmooth_1_stx.nii.gz", lesion(value=np.nan))
    assert convert(tmp_path / "atlas", tmp_path / "raw") == 1
    error = capsys.readouterr().err
    (line,) = (line for line in error.splitlines() if "c0001s0004t01_LesionSmooth_1_stx.nii.gz" in line)
    assert "values that are no numbers" in line and "2 voxels with NaN or infinity" in line


# -------------------------------------------------------------------------------------------------- the groups

TABLE_2 = (
    "Subject ID,Session,# Lesions LH Subcortical,Primary Stroke Hemisphere,Primary Stroke Location,Scanner Strength,"
    "Scanner Brand,ATLAS 1.2 Subject ID,INDI Subject ID,Days Post Stroke,Site\n"
    'sub-r001s001,ses-1,1,Left,"Subcortical, basal ganglia",3T,Siemens Trio,c0001s0004t01,31768,200,R001\n'
    "sub-r001s002,ses-1,0,Right,Cortical,1.5T,GE Signa,,,,R001\n"
    "sub-r001s002,ses-2,0,Right,Cortical,3T,Siemens Trio,,,,R001\n"
    "sub-r009s009,ses-1,0,Right,Cortical,3T,Philips,,,,R009\n"
)


def test_the_table_of_release_2(tmp_path):
    """Found in ROOT; a scan that it does not name is said, and its cells are empty."""
    root = tmp_path / "atlas" / "ATLAS_2"
    scan2(root)
    for session in (1, 2, 3):
        scan2(root, "r001s002", session)
    scan2(root, "r005s001", part="Testing", masks=0)
    (root / "20220425_ATLAS_2.0_MetaData.csv").write_text(TABLE_2)
    (root / "20211112_ATLAS_2.0_SupplementaryInfo.csv").write_text("Site,Voxel size\nR001,1\n")
    for start in (root, root.parent):
        assert convert(start, tmp_path / "raw", "--overwrite") == 0
        assert groups(tmp_path / "raw/Dataset014_ATLASR20") == [
            ["case", "subject", "site", "scanner", "location"],
            ["sub-r001s001_ses-1", "sub-r001s001", "R001", "Siemens Trio", "Subcortical, basal ganglia"],
            ["sub-r001s002_ses-1", "sub-r001s002", "R001", "GE Signa", "Cortical"],
            ["sub-r001s002_ses-2", "sub-r001s002", "R001", "Siemens Trio", "Cortical"],
            ["sub-r001s002_ses-3", "sub-r001s002", "R001", "", ""],
            ["sub-r005s001_ses-1", "sub-r005s001", "R005", "", ""],
        ]
    assert "the metadata know nothing of 1 scan: sub-r001s002_ses-3" in warnings()
    assert "20211112_ATLAS_2.0_SupplementaryInfo.csv is not used: has not the columns" in warnings()


def test_the_tables_of_release_1_2_and_what_release_2_says_of_the_same_scans(tmp_path):
    """Lesions in one, scanners in another; with semicolons and a remark of two lines, as Excel writes them."""
    scan12(tmp_path / "atlas")
    scan12(tmp_path / "atlas", "c0001s0005t01")
    lesions = (
        "Subject ID;Primary Stroke Location;Vascular territory;Notes\r\n"
        'c0001s0004t01;Subcortical;MCA;"old\r\nsmall"\r\nc0001s0005t01;Cerebellum;SCA;\r\n'
    )
    (tmp_path / "lesions.csv").write_bytes(lesions.encode("utf-8-sig"))
    (tmp_path / "two.csv").write_text(TABLE_2)
    tables = ["--metadata", str(tmp_path / "lesions.csv"), str(tmp_path / "two.csv")]
    assert convert(tmp_path / "atlas", tmp_path / "raw", *tables) == 0
    made = tmp_path / "raw/Dataset014_ATLASR12"
    assert groups(made) == [
        ["case", "subject", "site", "scanner", "location", "territory"],
        ["c0001s0004t01", "c0001s0004", "c0001", "Siemens Trio", "Subcortical", "MCA"],
        ["c0001s0005t01", "c0001s0005", "c0001", "", "Cerebellum", "SCA"],
    ]
    options = json.loads((made / "dataset.json").read_text())["converted"]["options"]
    assert options["metadata"] == ["lesions.csv", "two.csv"]


def test_the_table_of_release_1_1(tmp_path):
    """Subjects are counted without zeros in front, and a session may hold a space."""
    scan11(tmp_path)
    scan11(tmp_path, session="t02")
    (tmp_path / "ATLAS_Meta-Data_Release_1.1_standard_mni.csv").write_text(
        "INDI Site ID,INDI Subject ID,Session,Stroke type,Primary Stroke Location,Vascular territory\n"
        "Site1,31768,t 01,Embolic,Subcortical,MCA\nSite1,31768,t02,Embolic,Brainstem,PCA\n"
    )
    found = describe(tmp_path).cases
    assert [(c.groups["location"], c.groups["territory"]) for c in found] == [
        ("Subcortical", "MCA"),
        ("Brainstem", "PCA"),
    ]
    assert warnings() == ""


def test_a_spreadsheet_is_to_be_saved_as_csv(tmp_path):
    scan2(tmp_path)
    sheet = tmp_path / "20220425_ATLAS_2.0_MetaData.xlsx"
    sheet.write_bytes(b"PK\3\4 and so on")
    assert list(describe(tmp_path).cases[0].groups) == ["subject", "site"]
    said = warnings()
    assert "no location, territory and scanner" in said and "Save the release's tables as CSV" in said
    assert "20220425_ATLAS_2.0_MetaData.xlsx cannot be read as it is" in said
    text = refused(tmp_path, "--metadata", str(sheet))
    assert "is not a text table" in text and "save it as CSV" in text and "MetaData.xlsx" in text


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (None, "the table of metadata is missing"),
        ("Subject ID,Age\nsub-r001s001,60\n", "has not the columns of a table of ATLAS"),
        ("case,Scanner Brand\nsub-r001s001,GE\n", "has not the columns of a table of ATLAS"),
        ("Subject ID,Scanner Brand\n", "there is a header but no case"),
        ("Subject ID,Scanner Brand\nc0001s0004t01,GE\n", "names none of the scans"),
        (
            "Subject ID,Scanner Brand\nsub-r001s001,GE\nsub-r001s001,Philips\n",
            "table.csv, line 3  says of sub-r001s001_ses-1 what line 2 does not  Philips",
        ),
    ],
)
def test_named_tables_that_do_not_fit_are_refused(tmp_path, content, message):
    scan2(tmp_path / "atlas")
    if content:
        (tmp_path / "table.csv").write_text(content)
    text = refused(tmp_path / "atlas", "--metadata", str(tmp_path / "table.csv"))
    assert message in text and str(tmp_path / "table.csv") in text


def test_a_table_that_says_the_same_twice_is_taken(tmp_path):
    scan2(tmp_path)
    (tmp_path / "table.csv").write_text("Subject ID,Scanner Brand\n" + "sub-r001s001,GE\n" * 2)
    assert describe(tmp_path).cases[0].groups["scanner"] == "GE"


# ------------------------------------------------------------------------------------------------ the command


def test_the_help_shows_all_layouts_and_is_light():
    code = (
        "import sys\nfrom autoseg.cli.convert import main\n"
        "try:\n    main(['atlas', '--help'])\nexcept SystemExit:\n"
        "    print('loaded:', [n for n in ('numpy', 'pydantic', 'SimpleITK', 'torch') if n in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.stdout.rstrip().endswith("loaded: []"), done.stdout + done.stderr
    for words in (
        LESION,
        "ROOT/c0001/c0001s0004t01/",
        "ROOT/Site1/031768/t01/",
        "--metadata",
        "saved as CSV",
    ):
        assert words in done.stdout


def test_the_format_is_listed(capsys):
    assert command.main(["--list"]) == 0
    assert "atlas           chronic stroke on T1" in capsys.readouterr().out
