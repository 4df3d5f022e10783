"""The layout of ISLES 2017 as the repository SMIR gave it out, the perfusion series over time, and what is refused.

The names are those of the archives: ``training_1/VSD.Brain.XX.O.MR_ADC.128020``, later cases with SMIR, OT for masks.
"""

from __future__ import annotations

import argparse
import csv
import json
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
import SimpleITK as sitk

from autoseg.cli import convert as command
from autoseg.dataset.imageio import read_image
from autoseg.dataset.nifti import over_volumes
from autoseg.dataset_conversion import isles2017
from autoseg.dataset_conversion._isles2017_division import study_division
from autoseg.dataset_conversion._isles2017_subtypes import SUBTYPES
from autoseg.errors import AutosegError
from autoseg.plugins.converter import Conversion

MAPS = ["ADC", "MTT", "rCBF", "rCBV", "Tmax", "TTP"]
SHAPE = (5, 8, 7)
AFFINE = np.diag([1.2, 1.2, 6.5, 1.0])


def put(folder: Path, name: str, array: np.ndarray, **header) -> Path:
    """One volume as the archives have it: a folder of its name, uncompressed; array ``[z, y, x]`` or ``[t, z, y, x]``
    (of a series there is an axis of length 1 between)."""
    path = folder / name / f"{name}.nii"
    path.parent.mkdir(parents=True, exist_ok=True)
    pixels = array.T if array.ndim == 3 else np.moveaxis(array, 0, -1).transpose(2, 1, 0, 3)[:, :, :, None]
    image = nib.Nifti1Image(pixels, AFFINE)
    image.header.set_slope_inter(*header.get("scaling", (1, 0)))
    nib.save(image, path)
    return path


def values(seed: int, *shape: int) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 900, shape or SHAPE).astype(np.int16)


def case(
    root: Path, name: str = "training_1", start: str = "VSD", mask: bool = True, series: bool = True
) -> Path:
    folder, stem = root / name, f"{start}.Brain.XX.O"
    for number, kind in enumerate(MAPS):
        put(folder, f"{stem}.MR_{kind}.{127010 + number}", values(number))
    if series:
        put(folder, f"{stem}.MR_4DPWI.127015", values(99, 4, *SHAPE))
    if mask:
        lesion = np.zeros(SHAPE, np.int16)
        lesion[1:3, 2:5, 2:4] = 1
        put(folder, f"{stem}.OT.128050", lesion)
    return folder


def archives(root: Path) -> Path:
    """Both archives side by side, with what macOS leaves in them."""
    case(root / "ISLES2017_Training", "training_1")
    case(root / "ISLES2017_Training", "training_10", "SMIR")
    case(root / "ISLES2017_Training", "training_2")
    case(root / "ISLES2017_Testing", "test_3", mask=False)
    (root / "ISLES2017_Training" / "__MACOSX" / "training_1").mkdir(parents=True)
    return root


def describe(root: Path, *words: str) -> Conversion:
    parser = argparse.ArgumentParser()
    isles2017.add_arguments(parser)
    return isles2017.describe(root, parser.parse_args(list(words)))


def refused(root: Path, *words: str) -> str:
    with pytest.raises(AutosegError) as error:
        describe(root, *words)
    return str(error.value)


def convert(root: Path, raw: Path, *words: str) -> int:
    return command.main(["isles2017", str(root), "-d", "17", "--raw", str(raw), "-np", "1", *words])


# ------------------------------------------------------------------------------------------------ the layout


def test_both_archives_are_read(tmp_path):
    found = describe(archives(tmp_path))
    assert [c.name for c in found.cases] == ["test_3", "training_1", "training_2", "training_10"]
    assert found.channel_names == tuple(MAPS) and found.labels == {"background": 0, "lesion": 1}
    assert [c.test for c in found.cases] == [True, False, False, False]
    assert found.cases[0].mask is None and found.cases[1].mask is not None
    first = [volume.path.name for volume in found.cases[1].images]
    assert first == [f"VSD.Brain.XX.O.MR_{kind}.{127010 + i}.nii" for i, kind in enumerate(MAPS)]
    assert found.cases[3].images[0].path.name.startswith("SMIR.Brain.XX.O.MR_ADC.")


@pytest.mark.parametrize("inside", ["ISLES2017_Training", ""])
def test_the_root_may_be_an_archive_or_the_folder_around_it(tmp_path, inside):
    archives(tmp_path)
    found = describe(tmp_path / inside)
    assert {"training_1", "training_2", "training_10"} <= {c.name for c in found.cases}


def test_the_written_dataset(tmp_path):
    archives(tmp_path / "isles")
    assert convert(tmp_path / "isles", tmp_path / "raw") == 0
    made = tmp_path / "raw/Dataset017_ISLES2017"
    info = json.loads((made / "dataset.json").read_text())
    assert list(info["channel_names"].values()) == MAPS and info["numTraining"] == 3
    assert len(list((made / "imagesTs").iterdir())) == 6 and not list((made / "labelsTs").iterdir())
    tmax = read_image(made / "imagesTr/training_1_0004.nii.gz")
    np.testing.assert_array_equal(tmax.pixels, values(4))
    assert tmax.geometry.spacing_mm == pytest.approx((6.5, 1.2, 1.2))
    assert read_image(made / "labelsTr/training_1.nii.gz").pixels.sum() == 2 * 3 * 2


def test_some_maps_in_another_order(tmp_path):
    archives(tmp_path)
    found = describe(tmp_path, "--channels", "Tmax", "ADC")
    assert found.channel_names == ("Tmax", "ADC")
    assert [volume.path.name.split("_")[1][:4] for volume in found.cases[1].images] == ["Tmax", "ADC."]
    assert "names a channel twice" in refused(tmp_path, "--channels", "ADC", "ADC")


# ------------------------------------------------------------------------------------------------ the 4D series


def test_the_series_becomes_three_channels(tmp_path):
    archives(tmp_path / "isles")
    assert convert(tmp_path / "isles", tmp_path / "raw", "--pwi") == 0
    made = tmp_path / "raw/Dataset017_ISLES2017"
    names = json.loads((made / "dataset.json").read_text())["channel_names"]
    assert list(names.values()) == [*MAPS, "PWI_mean", "PWI_max", "PWI_min"]
    series = values(99, 4, *SHAPE).astype(float)
    for number, expected in zip((6, 7, 8), (series.mean(0), series.max(0), series.min(0)), strict=True):
        found = read_image(made / f"imagesTr/training_10_{number:04}.nii.gz")
        np.testing.assert_allclose(found.pixels, expected, rtol=1e-6)
        assert found.geometry == read_image(made / "imagesTr/training_10_0000.nii.gz").geometry


@pytest.mark.parametrize("scaling", [(1, 0), (0.5, 3.0), (-2.0, 1.0)])
@pytest.mark.parametrize("ending", [".nii", ".nii.gz"])
def test_values_over_time_by_hand(tmp_path, scaling, ending):
    """Of three volumes whose stored values are 1, 5 and 3 at one voxel, rescaled by the header."""
    stored = np.zeros((2, 3, 4, 1, 3), np.int16)
    stored[1, 2, 3, 0] = [1, 5, 3]
    slope, intercept = scaling
    image = nib.Nifti1Image(stored, AFFINE)
    image.header.set_slope_inter(slope, intercept)
    image.header.set_data_dtype(np.int16)
    nib.save(image, tmp_path / f"a{ending}")
    read = np.asanyarray(nib.load(tmp_path / f"a{ending}").dataobj)
    for how, function in (("mean", np.mean), ("max", np.max), ("min", np.min)):
        found = over_volumes(tmp_path / f"a{ending}", how)
        np.testing.assert_allclose(found, function(read, axis=(3, 4)).T, rtol=1e-6)
        assert found.dtype == np.float32 and found.shape == (4, 3, 2)


def test_one_volume_is_its_own_mean(tmp_path):
    path = put(tmp_path, "VSD.Brain.XX.O.MR_ADC.1", values(1))
    np.testing.assert_array_equal(over_volumes(path, "mean"), values(1))


def test_a_damaged_series_is_named(tmp_path, capsys):
    folder = case(tmp_path / "isles")
    (path,) = folder.glob("*4DPWI*/*.nii")
    path.write_bytes(path.read_bytes()[:-40])
    assert convert(tmp_path / "isles", tmp_path / "raw", "--pwi") == 1
    error = capsys.readouterr().err
    assert path.name in error and "40 too few" in error and not list((tmp_path / "raw").iterdir())
    (other,) = folder.glob("*4DPWI*/*.nii")
    sitk.WriteImage(sitk.GetImageFromArray(values(1)), str(tmp_path / "x.mha"))
    other.write_bytes((tmp_path / "x.mha").read_bytes())
    assert convert(tmp_path / "isles", tmp_path / "raw", "--pwi") == 1


# ------------------------------------------------------------------------------------------------ the groups


def test_the_published_subtypes(shared):
    expected = json.loads((shared / "conformance/vectors.json").read_text())["deepmedic_study"]["subtypes"]
    assert {name: subtype for subtype, names in expected.items() for name in names} == SUBTYPES


def groups(root: Path, raw: Path, *words: str) -> list[list[str]]:
    assert convert(root, raw, *words) == 0
    with (raw / "Dataset017_ISLES2017/groups.csv").open() as file:
        return list(csv.reader(file))


def test_subtypes_and_a_table_become_groups(tmp_path):
    archives(tmp_path / "isles")
    table = tmp_path / "ISLES2017_Training.csv"
    table.write_text("ID,mRS,TICI\ntraining_1,3,2b\ntraining_10, 0 ,\nanother,1,1\n")
    assert groups(tmp_path / "isles", tmp_path / "raw", "--table", str(table)) == [
        ["case", "subtype", "mRS", "TICI"],
        ["test_3", "", "", ""],
        ["training_1", "small_cortical", "3", "2b"],
        ["training_10", "lacunar_subcortical", "0", ""],
        ["training_2", "small_cortical", "", ""],
    ]


def test_without_a_table_there_are_the_subtypes(tmp_path):
    archives(tmp_path / "isles")
    assert groups(tmp_path / "isles", tmp_path / "raw")[0] == ["case", "subtype"]


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"ID,mRS\n1,3\n", "names none of the cases in its first column"),
        (b"", "cannot be read"),
        (b"\xff\xfe\xfa", "cannot be read"),
    ],
)
def test_a_table_that_does_not_fit_is_refused(tmp_path, content, words):
    archives(tmp_path / "isles")
    (tmp_path / "table.csv").write_bytes(content)
    assert words in refused(tmp_path / "isles", "--table", str(tmp_path / "table.csv"))


# -------------------------------------------------------------------------------------------- what is refused


def test_a_missing_map_names_its_case(tmp_path):
    archives(tmp_path)
    for path in (tmp_path / "ISLES2017_Training/training_2").glob("*MR_Tmax*/*"):
        path.unlink()
    for path in (tmp_path / "ISLES2017_Training/training_10").glob("*.OT.*/*"):
        path.unlink()
    text = refused(tmp_path)
    assert "2 faults in 4 cases" in text
    lines = {line.split()[0]: line for line in text.splitlines() if line.startswith("ISLES2017")}
    assert "incomplete: no Tmax" in lines["ISLES2017_Training/training_2"]
    assert "...MR_Tmax.NUMBER.nii" in lines["ISLES2017_Training/training_2"]
    assert "incomplete: no mask" in lines["ISLES2017_Training/training_10"]


def test_the_series_is_needed_only_when_it_is_asked_for(tmp_path):
    case(tmp_path, series=False)
    assert len(describe(tmp_path).cases) == 1
    assert "incomplete: no 4DPWI" in refused(tmp_path, "--pwi")


def test_what_is_there_twice(tmp_path):
    folder = case(tmp_path)
    put(folder, "SMIR.Brain.XX.O.MR_ADC.7", values(3))
    text = refused(tmp_path)
    assert "ADC is there more than once" in text and "SMIR.Brain.XX.O.MR_ADC.7.nii" in text
    case(tmp_path / "again")
    assert "this case is there twice" in refused(tmp_path)


def test_a_folder_without_cases(tmp_path):
    (tmp_path / "else").mkdir()
    text = refused(tmp_path)
    assert "there is no case in the expected layout" in text and "else" in text
    assert "there is no such folder" in refused(tmp_path / "nowhere")


@pytest.mark.shared
def test_the_division_of_the_deepmedic_study(shared):
    folds = json.loads((shared / "conformance/vectors.json").read_text())["deepmedic_study"]["folds"]
    found = study_division([*SUBTYPES])
    for run, (train, validation, test) in enumerate(found):
        expected = {part: sorted(names) for part, names in folds[str(run)].items()}
        assert {"train": [*train], "val": [*validation], "test": [*test]} == expected


def test_every_case_of_the_division_tests_once():
    found = study_division([*SUBTYPES])
    assert [len(part) for part in found[0]] == [27, 9, 7] and [len(test) for *_, test in found] == [
        7,
        9,
        9,
        9,
        9,
    ]
    assert sorted(name for *_, test in found for name in test) == sorted(SUBTYPES)
    assert all(not set(train) & {*validation, *test} for train, validation, test in found)


def test_the_division_is_of_the_studys_cases_alone(tmp_path):
    assert not describe(archives(tmp_path)).folds
    text = refused(tmp_path, "--division", "deepmedic")
    assert "not those that the study divided" in text and "3 training cases, without training_11" in text
    with pytest.raises(AutosegError, match="with training_3"):
        study_division([*SUBTYPES, "training_3"])
