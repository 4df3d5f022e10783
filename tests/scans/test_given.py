"""What people give, as cases: ordinary files, named channels, tables; and predicted as they are, by the command."""

import json
import os

import nibabel as nib
import numpy as np
import pytest
import SimpleITK as sitk

from autoseg import messages
from autoseg.cli import predict as command
from autoseg.dataset.dataset_json import DatasetJson
from autoseg.errors import AutosegError
from autoseg.scans.given import GivenScans, cases_of

SHAPE = (5, 14, 12)
DIRECTION = (0.0, -1.0, 0.0, 1.0, 0.0, 0.0, 0.0, 0.0, -1.0)


@pytest.fixture(autouse=True)
def _no_warnings_before():
    messages.forget_warnings()


def info(*channels):
    return DatasetJson(
        channel_names={str(i): name for i, name in enumerate(channels)},
        labels={"background": 0, "lesion": 1},
        numTraining=1,
        file_ending=".nii.gz",
    )


def array(seed, shape=SHAPE):
    return np.random.default_rng(seed).uniform(0.05, 1, shape).astype(np.float32)


def write(path, values, spacing=(0.7, 0.8, 3.1), origin=(5.5, -7.25, 11.0)):
    image = sitk.GetImageFromArray(values)
    image.SetSpacing(spacing)
    image.SetOrigin(origin)
    image.SetDirection(DIRECTION)
    path.parent.mkdir(parents=True, exist_ok=True)
    sitk.WriteImage(image, str(path))
    return path


def touch(folder, *names):
    folder.mkdir(parents=True, exist_ok=True)
    for name in names:
        (folder / name).touch()


def warned():
    return "\n".join(messages.warning_counts())


# ---------------------------------------------------------------------------------------------- ordinary files


def test_a_folder_of_files_of_any_name_is_a_case_for_each(tmp_path):
    touch(tmp_path, "T1 Müller.nii.gz", "scan_0000_crop.nii", "v1.2.final.nii.gz", "b.NII.GZ", "._b.NII.GZ")
    assert [c.name for c in cases_of(GivenScans(tmp_path), info("T1"))] == [
        "T1 Müller",
        "b",
        "scan_0000_crop",
        "v1.2.final",
    ]


def test_masks_and_other_files_beside_scans_are_named_and_left_out(tmp_path):
    touch(tmp_path, "a.nii.gz", "a_mask.nii.gz", "a-seg.nii.gz", "notes.txt")
    (case,) = cases_of(GivenScans(tmp_path), info("T1"))
    assert case.name == "a"
    assert "a_mask.nii.gz: called like a mask" in warned() and "notes.txt: its ending is none of" in warned()


def test_one_name_with_two_endings_is_not_chosen_from(tmp_path):
    touch(tmp_path, "a.nii.gz", "a.nii", "b.nii")
    bad, good = cases_of(GivenScans(tmp_path), info("T1"))
    assert bad.fault and bad.fault.found == "a.nii, a.nii.gz" and good.fault is None


def test_several_channels_need_names_or_options(tmp_path):
    touch(tmp_path, "a.nii.gz")
    with pytest.raises(AutosegError, match="--channels, or a table with -i"):
        cases_of(GivenScans(tmp_path), info("T1", "T2"))


def test_numbered_files_come_first(tmp_path):
    touch(tmp_path, "a_0000.nii.gz", "b.nii.gz")
    (case,) = cases_of(GivenScans(tmp_path), info("T1"))
    assert case.name == "a" and "b.nii.gz: expected b_0000.nii.gz" in warned()


# ------------------------------------------------------------------------------------------------ named channels


def test_channels_are_named_by_options_in_any_order(tmp_path):
    touch(tmp_path, "x flair.nii.gz", "x t1.nii.gz")
    given = {"FLAIR": str(tmp_path / "x flair.nii.gz"), "T1": str(tmp_path / "x t1.nii.gz")}
    (case,) = cases_of(GivenScans(None, given), info("T1", "FLAIR"))
    assert case.name == "x t1" and [p.name for p in case.images] == ["x t1.nii.gz", "x flair.nii.gz"]


@pytest.mark.parametrize(
    ("channels", "words"),
    [
        ({"T1": "t1.nii"}, "1 channel of the model without a file.*FLAIR=FILE"),
        ({"T1": "t1.nii", "FLAIR": "gone.nii"}, "(?s)FLAIR: there is no such file.*gone.nii"),
        ({"T1": "t1.nii", "FLAIR": "."}, "FLAIR: is a folder.*say with --series"),
        ({"T1": "t1.nii", "FLIAR": "t1.nii"}, "(?s)no channel FLIAR.*did you mean FLAIR"),
    ],
)
def test_wrong_channels_are_refused(tmp_path, monkeypatch, channels, words):
    touch(tmp_path, "t1.nii")
    monkeypatch.chdir(tmp_path)
    with pytest.raises(AutosegError, match=f"(?s){words}"):
        cases_of(GivenScans(None, channels), info("T1", "FLAIR"))


def test_options_of_other_layouts_are_refused(tmp_path):
    touch(tmp_path, "t1.nii")
    with pytest.raises(AutosegError, match="--series does not go with files that are no DICOM"):
        cases_of(GivenScans(tmp_path, series={"T1": "4"}), info("T1"))
    with pytest.raises(AutosegError, match="(?s)--channels does not go with -i.*leave -i out"):
        cases_of(GivenScans(tmp_path, channels={"T1": "4"}), info("T1"))


# --------------------------------------------------------------------------------------------------------- tables


def test_a_table_names_the_files_of_each_case(tmp_path):
    """As Excel writes it: a byte order mark, semicolons, blanks around cells; paths are relative to it."""
    touch(tmp_path / "in", "a 1.nii.gz", "a 2.nii.gz", "b1.nii.gz")
    touch(tmp_path, "b2.nii.gz")
    table = tmp_path / "in" / "cases.csv"
    lines = [
        "Case;t1; FLAIR ;age",
        f"pat 1;a 1.nii.gz;  {tmp_path}/in/a 2.nii.gz ;70",
        "p2;b1.nii.gz;../b2.nii.gz;",
    ]
    table.write_bytes(b"\xef\xbb\xbf" + "\r\n".join(lines).encode())
    first, second = cases_of(GivenScans(table), info("T1", "FLAIR"))
    assert (first.name, second.name) == ("p2", "pat 1")
    assert [p.resolve() for p in first.images] == [tmp_path / "in" / "b1.nii.gz", tmp_path / "b2.nii.gz"]
    assert first.fault is None and second.fault is None


def test_lines_of_a_table_that_do_not_fit_cost_themselves(tmp_path):
    touch(tmp_path, "a.nii", "b.nii")
    (tmp_path / "t.csv").write_text(
        "case,image\nok,a.nii\nempty,\ngone,x.nii\ntwice,a.nii\ntwice,b.nii\nfolder,.\n"
    )
    faults = {case.name: case.fault for case in cases_of(GivenScans(tmp_path / "t.csv"), info("T1"))}
    assert faults.pop("ok") is None and len(faults) == 5
    assert "names no file for image" in str(faults["empty"])
    assert "t.csv, line 4: there is no such file" in str(faults["gone"])
    assert "t.csv, line 7: is a folder" in str(faults["folder"])
    assert "the same case twice" in str(faults["twice (t.csv, line 5)"])


def test_scans_that_lie_deeper_are_named(tmp_path):
    touch(tmp_path / "pat 1" / "s", "scan.nii.gz")
    with pytest.raises(AutosegError, match="deeper within lies pat 1/s/scan.nii.gz"):
        cases_of(GivenScans(tmp_path), info("T1"))


def test_a_table_without_a_channel_is_refused(tmp_path):
    (tmp_path / "t.csv").write_text("case,T1,FLAR\na,b,c\n")
    with pytest.raises(AutosegError, match="(?s)has no column FLAIR.*found: +case, T1, FLAR"):
        cases_of(GivenScans(tmp_path / "t.csv"), info("T1", "FLAIR"))


# ----------------------------------------------------------------------------------------- predicted, by the command


@pytest.fixture
def model(tmp_path, model_folder):
    """Of one channel: the mask is where the image is above 0.5."""
    return (
        model_folder.make_model(tmp_path / "results")
        or tmp_path / "results" / "Dataset900_Tiny" / "unet__tiny"
    )


def model_of(tmp_path, model_folder, *channels):
    model_folder.make_model(tmp_path / "results", plan=model_folder.make_plan(channels))
    return tmp_path / "results" / "Dataset900_Tiny" / "unet__tiny"


def predict(model, *words):
    return command.main([*map(str, words), "-m", str(model), "-device", "cpu"])


def test_ordinary_files_are_predicted_from_a_read_only_folder_of_links(tmp_path, model):
    kept = write(tmp_path / "kept" / "x.nii.gz", array(0))
    (tmp_path / "scans").mkdir()
    (tmp_path / "scans" / "Müller 1.5T_0000 x.nii.gz").symlink_to(kept)
    (tmp_path / "scans" / "._Müller 1.5T_0000 x.nii.gz").write_bytes(b"\0\5\x16\7")
    os.chmod(tmp_path / "scans", 0o500)
    assert predict(model, "-i", tmp_path / "scans", "-o", tmp_path / "out") == 0
    mask = sitk.ReadImage(str(tmp_path / "out" / "Müller 1.5T_0000 x.nii.gz"))
    assert np.array_equal(sitk.GetArrayFromImage(mask), array(0) > 0.5)
    record = json.loads((tmp_path / "out" / "prediction.json").read_text())
    (entry,) = record["cases"].values()
    assert entry["sources"] == {"T2": "Müller 1.5T_0000 x.nii.gz"}


def test_a_channel_on_another_grid_is_refused_or_put_onto_the_first(tmp_path, model_folder, capsys):
    """The second channel has half the voxels of the first at every second place of it; the first decides the mask."""
    model = model_of(tmp_path, model_folder, "T1", "FLAIR")
    write(tmp_path / "t1.nii.gz", array(0))
    write(tmp_path / "flair.nii.gz", array(1)[:, ::2, ::2].copy(), spacing=(1.4, 1.6, 3.1))
    words = [
        "--channels",
        f"FLAIR={tmp_path}/flair.nii.gz",
        f"T1={tmp_path}/t1.nii.gz",
        "-o",
        tmp_path / "m.nii.gz",
    ]
    assert predict(model, *words) == 1
    said = capsys.readouterr().err
    assert "autoseg_predict does so with --resample_channels" in said and "spacing" in said
    assert predict(model, *words, "--resample_channels") == 0
    mask, image = nib.load(tmp_path / "m.nii.gz"), nib.load(tmp_path / "t1.nii.gz")
    assert np.array_equal(np.asanyarray(mask.dataobj).T, array(0) > 0.5)
    assert np.array_equal(mask.affine, image.affine)
    record = json.loads((tmp_path / "m.prediction.json").read_text())
    assert record["cases"]["t1"]["sources"] == {"T1": "t1.nii.gz", "FLAIR": "flair.nii.gz"}


def test_a_channel_put_onto_the_first_has_the_values_of_its_places(tmp_path):
    from autoseg.dataset.imageio import read_channels
    from autoseg.scans.staging import staged

    ramp = np.broadcast_to(np.arange(12, dtype=np.float32), SHAPE).copy()
    write(tmp_path / "a.nii.gz", array(0))
    write(tmp_path / "b.nii.gz", ramp[:, ::2, ::2].copy(), spacing=(1.4, 1.6, 3.1))
    given = {"A": str(tmp_path / "a.nii.gz"), "B": str(tmp_path / "b.nii.gz")}
    (case,) = cases_of(GivenScans(None, given, resample=True), info("A", "B"))
    with staged(case) as ready:
        image, _ = read_channels(ready.images)
        made = ready.images[1]
    assert np.allclose(image[1, :, :13, :11], ramp[:, :13, :11], atol=1e-4) and np.array_equal(
        image[0], array(0)
    )
    assert not made.exists()


def test_channels_that_lie_apart_are_refused(tmp_path, model_folder, capsys):
    model = model_of(tmp_path, model_folder, "T1", "FLAIR")
    write(tmp_path / "t1.nii.gz", array(0))
    write(tmp_path / "flair.nii.gz", array(1), origin=(500.0, 0.0, 0.0))
    words = [
        "--channels",
        f"FLAIR={tmp_path}/flair.nii.gz",
        f"T1={tmp_path}/t1.nii.gz",
        "-o",
        tmp_path / "m.nii.gz",
    ]
    assert predict(model, *words, "--resample_channels") == 1
    assert "a channel lies elsewhere than the first" in capsys.readouterr().err


def test_nothing_given_is_said(tmp_path, model, capsys):
    assert predict(model, "-o", tmp_path / "out") == 1
    assert "no scan is given" in capsys.readouterr().err
    assert predict(model, "-o", tmp_path / "out", "--channels", "T1") == 1
    assert "--channels T1: there is no value" in capsys.readouterr().err


def test_a_dicom_folder_is_predicted_and_continued(tmp_path, model, capsys):
    pytest.importorskip("pydicom", reason="pydicom is not installed")
    import dicom_files

    pixels = dicom_files.volume()
    for patient in ("A", "B"):
        dicom_files.write_series(
            tmp_path / "in" / patient,
            pixels,
            description="AX T2",
            patient=patient,
            RescaleSlope=0.001,
            RescaleIntercept=0,
        )
    (tmp_path / "in" / "B" / next(iter(sorted(os.listdir(tmp_path / "in" / "B"))))).unlink()
    (tmp_path / "in" / "B" / sorted(os.listdir(tmp_path / "in" / "B"))[2]).unlink()
    assert predict(model, "-i", tmp_path / "in", "-o", tmp_path / "out") == 1
    said = capsys.readouterr().err
    assert "T2 is series 1 'AX T2', 6 slices" in said and "1 slice is missing" in said
    mask = sitk.ReadImage(str(tmp_path / "out" / "A.nii.gz"))
    reader = sitk.ImageSeriesReader()
    reader.SetFileNames(reader.GetGDCMSeriesFileNames(str(tmp_path / "in" / "A")))
    scan = reader.Execute()
    assert np.array_equal(sitk.GetArrayFromImage(mask), sitk.GetArrayFromImage(scan) > 0.5)
    assert np.allclose(mask.GetOrigin(), scan.GetOrigin(), atol=1e-4)
    assert np.allclose(mask.GetSpacing(), scan.GetSpacing(), atol=1e-6)
    assert np.allclose(mask.GetDirection(), scan.GetDirection(), atol=1e-6)
    assert predict(model, "-i", tmp_path / "in", "-o", tmp_path / "out", "--continue_prediction") == 1
    assert "1 of 1 case done already" in capsys.readouterr().err
