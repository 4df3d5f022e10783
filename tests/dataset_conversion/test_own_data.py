"""The converters of people's own data: table, nnunet_v1, decathlon, bids, dicom; what becomes of every case."""

import csv
import json

import nibabel as nib
import numpy as np
import pytest
import small

from autoseg import messages
from autoseg.cli import convert as command
from autoseg.dataset.imageio import read_geometry, read_image
from autoseg.dataset.raw_layout import load_raw

SHAPE = (5, 8, 7)


@pytest.fixture(autouse=True)
def _no_warnings_before():
    messages.forget_warnings()


def image(seed, shape=SHAPE):
    return np.random.default_rng(seed).integers(1, 900, shape).astype(np.int16)


def lesion(value=1, shape=SHAPE):
    mask = np.zeros(shape, np.uint8)
    mask[1:3, 2:5, 2:4] = value
    return mask


def put(path, array, **grid):
    small.write(path, array, **grid)
    return path


def convert(work, name, root, *words):
    """The folder of the dataset, or None where the command has failed."""
    failed = command.main(
        [name, str(root), "-d", "Dataset077_Mine", "--raw", str(work / "raw"), "-np", "1", *words]
    )
    return None if failed else work / "raw" / "Dataset077_Mine"


def became(folder):
    """Case to what became of it and why."""
    with open(folder / "conversion.csv", newline="") as file:
        return {row["case"]: (row["became"], row["why"]) for row in csv.DictReader(file)}


def groups(folder):
    with open(folder / "groups.csv", newline="") as file:
        return {row["case"]: row for row in csv.DictReader(file)}


# ---------------------------------------------------------------------------------------------------------- table


@pytest.fixture
def table(tmp_path):
    """Three good lines, among them a test case and a mask of 255, and three that are none; as Excel saves it."""
    folder = tmp_path / "my scans"
    for i in range(5):
        put(folder / "t1" / f"pat {i}.nii.gz", image(i))
        put(folder / f"flair {i}.nii", image(i + 10))
    put(folder / "m0.nii.gz", lesion(255))
    put(folder / "m1.nii.gz", lesion())
    put(folder / "m2.nii.gz", lesion(shape=(5, 8, 8)))
    lines = [
        "Case;T1;FLAIR;Mask;Patient;age;set",
        f"a; t1/pat 0.nii.gz ;{folder}/flair 0.nii;m0.nii.gz;P1;70;",
        "b;t1/pat 1.nii.gz;flair 1.nii;m1.nii.gz;P1;;train",
        ";;;;;;",
        "c;t1/pat 2.nii.gz;flair 2.nii;;P2;55;test",
        "d;t1/pat 3.nii.gz;flair 3.nii;;P3;;",
        "e;t1/pat 4.nii.gz;;m1.nii.gz;P4;;",
        "f;t1/gone.nii.gz;flair 4.nii;m1.nii.gz;P5;;",
    ]
    path = folder / "my cases.csv"
    path.write_bytes(b"\xef\xbb\xbf" + "\r\n".join(lines).encode())
    return path


def test_a_table_becomes_a_dataset_and_says_what_became_of_each_line(tmp_path, table, capsys):
    assert command.main(["table", str(table), "-d", "7", "--raw", str(tmp_path / "raw"), "-np", "1"]) == 0
    assert (tmp_path / "raw" / "Dataset007_MyCases").is_dir()
    capsys.readouterr()
    messages.forget_warnings()
    folder = convert(tmp_path, "table", table)
    raw = load_raw(folder)
    assert [case.name for case in raw.cases] == ["a", "b"]
    assert list(raw.info.channel_names.values()) == ["T1", "FLAIR"]
    assert np.array_equal(read_image(raw.cases[0].images[1]).pixels, image(10))
    assert np.array_equal(read_image(raw.cases[0].mask).pixels, lesion())
    assert became(folder) == {
        "a": ("training case", ""),
        "b": ("training case", ""),
        "c": ("test case", ""),
        "d (line 6)": ("left out", "no mask"),
        "e (line 7)": ("left out", "no file for FLAIR"),
        "f (line 8)": ("left out", f"there is no file {table.parent}/t1/gone.nii.gz"),
    }
    assert groups(folder)["a"] == {"case": "a", "subject": "P1", "age": "70", "set": ""}
    said = capsys.readouterr()
    assert "3 left out; conversion.csv" in said.out and "channels: T1, FLAIR, in this order" in said.err


def test_options_of_a_table(tmp_path, table):
    folder = convert(
        tmp_path, "table", table, "--channels", "FLAIR", "--no_mask_is_no_lesion", "--labels", "core=1"
    )
    assert folder is None  # 255 is no class
    folder = convert(tmp_path, "table", table, "--channels", "FLAIR", "--no_mask_is_no_lesion")
    raw = load_raw(folder)
    assert list(raw.info.channel_names.values()) == ["FLAIR"]
    assert [case.name for case in raw.cases] == ["a", "b", "d", "f"]
    assert not read_image(raw.cases[2].mask).pixels.any()


def test_a_mask_on_another_grid_is_refused_or_left_out(tmp_path, table, capsys):
    with open(table, "ab") as file:
        file.write(b"\r\ng;t1/pat 2.nii.gz;flair 2.nii;m2.nii.gz;P6;;")
    assert convert(tmp_path, "table", table) is None
    assert "m2.nii.gz" in (said := capsys.readouterr().err) and "its shape is not that of the image" in said
    folder = convert(tmp_path, "table", table, "--leave_out_faulty")
    status, why = became(folder)["g"]
    assert status == "left out" and why.startswith("m2.nii.gz: its shape is not that of the image")
    assert not (folder / "imagesTr" / "g_0000.nii.gz").exists()


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("case,T1\na,x.nii\n", "has no column with the masks"),
        ("case,age,mask\na,7,m.nii\n", "has no column with images"),
        ("case,image,mask\na,x.nii,m.nii\n", "there is no training case"),
        ("", "the file is empty"),
    ],
)
def test_a_table_that_cannot_be_is_refused(tmp_path, capsys, text, words):
    (tmp_path / "t.csv").write_text(text)
    assert convert(tmp_path, "table", tmp_path / "t.csv") is None
    assert words in capsys.readouterr().err


def test_an_image_that_is_its_own_mask_is_left_out(tmp_path, capsys):
    put(tmp_path / "a.nii.gz", image(1))
    (tmp_path / "t.csv").write_text("case,T1,mask\na,a.nii.gz,a.nii.gz\n")
    assert convert(tmp_path, "table", tmp_path / "t.csv") is None
    assert "a (line 2): the mask is the image itself" in capsys.readouterr().err


def test_the_subject_may_be_a_part_of_the_name(tmp_path, capsys):
    for name in ("p1_a", "p1_b", "p2_a"):
        put(tmp_path / f"{name}.nii.gz", image(len(name)))
        put(tmp_path / f"m_{name}.nii.gz", lesion())
    lines = [f"{name}.nii.gz,m_{name}.nii.gz" for name in ("p1_a", "p1_b", "p2_a")]
    (tmp_path / "t.csv").write_text("\n".join(["T1,mask", *lines]))
    assert convert(tmp_path, "table", tmp_path / "t.csv", "--subject", "(p1)") is None
    assert "p2_a" in capsys.readouterr().err
    folder = convert(tmp_path, "table", tmp_path / "t.csv", "--subject", "(p.)_")
    assert {case: row["subject"] for case, row in groups(folder).items()} == {
        "p1_a": "p1",
        "p1_b": "p1",
        "p2_a": "p2",
    }


# ------------------------------------------------------------------------------------------- decathlon and nnU-Net v1


def task_json(root, cases, test=(), channels=("FLAIR", "T1w"), labels=("background", "edema", "tumour")):
    content = {
        "name": "X",
        "modality": {str(i): name for i, name in enumerate(channels)},
        "labels": {str(i): name for i, name in enumerate(labels)},
        "training": [{"image": f"./imagesTr/{c}.nii.gz", "label": f"./labelsTr/{c}.nii.gz"} for c in cases],
        "test": [f"./imagesTs/{c}.nii.gz" for c in test],
        "licence": "CC-BY-SA 4.0",
    }
    root.mkdir(parents=True, exist_ok=True)
    (root / "dataset.json").write_text(json.dumps(content))


def test_a_task_of_the_decathlon_is_parted_into_its_channels(tmp_path):
    root = tmp_path / "Task01_BrainTumour"
    task_json(root, ["B_1", "B_2"], ["B_9"])
    affine = np.diag([1.5, 1, 2, 1])
    volumes = np.stack([image(1), image(2)])
    for name, part in (("B_1", "Tr"), ("B_9", "Ts")):
        (root / f"images{part}").mkdir()
        nib.save(nib.Nifti1Image(volumes.T, affine), root / f"images{part}" / f"{name}.nii.gz")
        (root / f"images{part}" / f"._{name}.nii.gz").write_bytes(b"\0\5\x16\7")
    (root / "labelsTr").mkdir()
    nib.save(nib.Nifti1Image(lesion(2).T, affine), root / "labelsTr" / "B_1.nii.gz")
    folder = convert(tmp_path, "decathlon", root)
    raw = load_raw(folder)
    assert raw.info.labels == {"background": 0, "edema": 1, "tumour": 2}
    assert [
        np.array_equal(read_image(p).pixels, v) for p, v in zip(raw.cases[0].images, volumes, strict=True)
    ] == [True] * 2
    assert read_geometry(raw.cases[0].images[1]).spacing_mm == (2.0, 1.0, 1.5)
    assert np.array_equal(read_image(raw.cases[0].mask).pixels, lesion(2))
    assert became(folder) == {
        "B_1": ("training case", ""),
        "B_2": ("left out", "there is no B_2.nii.gz in imagesTr"),
        "B_9": ("test case", ""),
    }
    assert json.loads((folder / "dataset.json").read_text())["licence"] == "CC-BY-SA 4.0"
    assert command.main(["decathlon", str(root), "-d", "7", "--raw", str(tmp_path / "raw"), "-np", "1"]) == 0
    assert (tmp_path / "raw" / "Dataset007_BrainTumour").is_dir()


def test_a_task_of_nnunet_v1_keeps_its_files(tmp_path):
    root = tmp_path / "Task500_Mine"
    task_json(root, ["a", "b", "c"])
    for name in "ab":
        for channel in range(2):
            put(root / "imagesTr" / f"{name}_{channel:04d}.nii.gz", image(channel))
        put(root / "labelsTr" / f"{name}.nii.gz", lesion(2))
    put(root / "imagesTr" / "c_0000.nii.gz", image(3))
    put(root / "labelsTr" / "c.nii.gz", lesion())
    folder = convert(tmp_path, "nnunet_v1", root)
    source = root / "imagesTr" / "a_0001.nii.gz"
    assert (folder / "imagesTr" / "a_0001.nii.gz").read_bytes() == source.read_bytes()
    assert became(folder)["c"] == ("left out", "there is no c_0001.nii.gz in imagesTr")


def test_a_dataset_of_nnunet_v2_needs_no_conversion(tmp_path, capsys):
    (tmp_path / "dataset.json").write_text('{"channel_names": {"0": "T1"}}')
    for name in ("nnunet_v1", "decathlon"):
        assert convert(tmp_path, name, tmp_path) is None
        assert "a dataset of nnU-Net v2 needs no conversion" in capsys.readouterr().err


# ----------------------------------------------------------------------------------------------------------- BIDS


@pytest.mark.parametrize(
    "name",
    [
        "label-L_mask",
        "label-lesion_mask",
        "label-lesion_roi",
        "desc-T1lesion_mask",
        "space-orig_label-L_desc-x_mask",
    ]
    + ["msk", "lesion-msk"],
)
@pytest.mark.parametrize("place", ["derivatives/manual", "derivatives", "."])
def test_masks_of_lesions_are_known_by_all_spellings(tmp_path, name, place):
    root = tmp_path / "bids"
    put(root / "sub-1" / "anat" / "sub-1_T1w.nii.gz", image(1))
    put(root / place / "sub-1" / "anat" / f"sub-1_{name}.nii.gz", lesion())
    put(root / place / "sub-1" / "anat" / "sub-1_desc-brain_mask.nii.gz", np.ones(SHAPE, np.uint8))
    folder = convert(tmp_path, "bids", root, "--channels", "T1")
    (case,) = load_raw(folder).cases
    assert case.name == "sub-1" and np.array_equal(read_image(case.mask).pixels, lesion())


def test_sessions_become_cases_of_their_subject_and_nothing_is_guessed(tmp_path):
    root = tmp_path / "bids"
    for stem in ("sub-1/ses-a", "sub-1/ses-b", "sub-2", "sub-3", "sub-4"):
        name = stem.replace("/", "_")
        put(root / stem / "anat" / f"{name}_T1w.nii.gz", image(1))
        if stem != "sub-4":
            put(root / stem / "anat" / f"{name}_FLAIR.nii.gz", image(2, (5, 16, 14)), spacing=(2.0, 0.5, 0.5))
        if stem != "sub-3":
            put(root / "derivatives" / "m" / stem / "anat" / f"{name}_label-L_mask.nii.gz", lesion())
    put(root / "derivatives" / "m" / "sub-2" / "anat" / "sub-2_label-L_desc-second_mask.nii.gz", lesion())
    words = ["--channels", "T1", "FLAIR", "--resample_channels"]
    folder = convert(tmp_path, "bids", root, *words)
    assert became(folder) == {
        "sub-1_ses-a": ("training case", ""),
        "sub-1_ses-b": ("training case", ""),
        "sub-2": (
            "left out",
            "2 masks for one scan: label-L_desc-second_mask, label-L_mask; say which: --mask label-L_desc-second_mask",
        ),
        "sub-3": ("left out", "no mask of lesions"),
        "sub-4": ("left out", "no FLAIR"),
    }
    assert groups(folder)["sub-1_ses-b"]["subject"] == "sub-1"
    assert read_geometry(folder / "imagesTr" / "sub-1_ses-a_0001.nii.gz").shape == SHAPE
    folder = convert(tmp_path, "bids", root, *words, "--mask", "desc-second_mask", "--overwrite")
    assert became(folder)["sub-2"] == ("training case", "")
    folder = convert(tmp_path, "bids", root, *words, "--mask", "label-L_mask", "--overwrite")
    assert became(folder)["sub-2"] == ("training case", ""), "the name of a file means this file"


def test_a_folder_that_is_no_bids_dataset_is_refused(tmp_path, capsys):
    put(tmp_path / "b" / "scan.nii.gz", image(1))
    assert convert(tmp_path, "bids", tmp_path / "b", "--channels", "T1") is None
    assert "there is no image in this BIDS dataset" in capsys.readouterr().err


def test_a_channel_that_is_not_there_is_refused_with_what_there_is(tmp_path, capsys):
    put(tmp_path / "b" / "sub-1" / "anat" / "sub-1_acq-x_T1w.nii.gz", image(1))
    assert convert(tmp_path, "bids", tmp_path / "b", "--channels", "FLAIR") is None
    assert "no scan is FLAIR" in (said := capsys.readouterr().err) and "acq-x_T1w" in said


# ---------------------------------------------------------------------------------------------------------- DICOM


def test_dicom_series_with_nifti_masks(tmp_path):
    pytest.importorskip("pydicom", reason="pydicom is not installed")
    import dicom_files

    pixels = dicom_files.volume()
    for patient in ("P 1", "P2"):
        dicom_files.write_series(tmp_path / "in" / patient, pixels, patient=patient)
    dicom_files.write_series(tmp_path / "in" / "P3", pixels, patient="P3", change=lambda i, dataset: i != 2)
    first = convert(tmp_path, "dicom", tmp_path / "in", "--channels", "T1", "--masks", str(tmp_path / "none"))
    assert first is None
    from autoseg.dataset.image_writing import write_mask
    from autoseg.scans.dicom_cases import find_studies

    (stack,) = find_studies(tmp_path / "in")[0].stacks
    write_mask(tmp_path / "masks" / "P 1.nii.gz", (pixels > 700).astype(np.uint8), stack.geometry())
    folder = convert(
        tmp_path, "dicom", tmp_path / "in", "--channels", "T1", "--masks", str(tmp_path / "masks")
    )
    (case,) = load_raw(folder).cases
    assert np.array_equal(read_image(case.images[0]).pixels, pixels)
    assert np.array_equal(read_image(case.mask).pixels, pixels > 700)
    told = became(folder)
    assert "no mask: there is no P2.nii.gz" in told["P2"][1] and "1 slice is missing" in told["P3"][1]
    assert groups(folder)["P 1"]["subject"] == "P 1"


def test_dicom_series_with_dicom_seg(tmp_path, model_folder, capsys):
    """The masks are those that autoseg_predict --dicom_seg wrote, beside the series."""
    pytest.importorskip("pydicom", reason="pydicom is not installed")
    pytest.importorskip("highdicom", reason="highdicom is not installed")
    import dicom_files
    import pydicom

    from autoseg.cli import predict

    model_folder.make_model(tmp_path / "results", thresholds=(500,))
    model = str(tmp_path / "results" / "Dataset900_Tiny" / "unet__tiny")
    pixels = dicom_files.volume()
    dicom_files.write_series(tmp_path / "in" / "a", pixels, description="AX T2", order=[3, 0, 1, 5, 2, 4])
    dicom_files.write_series(tmp_path / "in" / "b", pixels, description="AX T2", patient="P02")
    words = [
        "-i",
        str(tmp_path / "in"),
        "-o",
        str(tmp_path / "out"),
        "-m",
        model,
        "-device",
        "cpu",
        "--dicom_seg",
    ]
    assert predict.main(words) == 0
    (tmp_path / "out" / "P01.seg.dcm").rename(tmp_path / "in" / "seg")
    folder = convert(tmp_path, "dicom", tmp_path / "in", "--channels", "T2", "--labels", "lesion=1")
    (case,) = load_raw(folder).cases
    assert np.array_equal(read_image(case.mask).pixels, pixels > 500)
    assert np.array_equal(read_image(case.images[0]).pixels, pixels)
    assert became(folder)["P02"] == ("left out", "no DICOM-SEG lies on series 1 'AX T2'")
    (tmp_path / "in" / "seg2").write_bytes((tmp_path / "in" / "seg").read_bytes())
    folder = convert(tmp_path, "dicom", tmp_path / "in", "--channels", "T2", "--overwrite")
    assert became(folder)["P01"] == ("training case", ""), "a copy counts once"
    another = pydicom.dcmread(tmp_path / "in" / "seg")
    another.SOPInstanceUID = another.file_meta.MediaStorageSOPInstanceUID = "1.2.3.4"
    another.save_as(tmp_path / "in" / "seg2")
    assert convert(tmp_path, "dicom", tmp_path / "in", "--channels", "T2", "--overwrite") is None
    assert "P01: 2 masks for one scan: seg, seg2" in capsys.readouterr().err
