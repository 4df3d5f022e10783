"""The layout of BRATS 2015 as the repository SMIR gave it out, with its names, and what is refused."""

from __future__ import annotations

import argparse
import csv
import json
from pathlib import Path

import numpy as np
import pytest
import SimpleITK as sitk

from autoseg.cli import convert as command
from autoseg.dataset.imageio import read_image
from autoseg.dataset_conversion import brats2015
from autoseg.errors import AutosegError
from autoseg.plugins.converter import Conversion

SHAPE = (5, 8, 7)
SEQUENCES = ["Flair", "T1", "T1c", "T2"]


def put(folder: Path, name: str, array: np.ndarray) -> Path:
    path = folder / name / f"{name}.mha"
    path.parent.mkdir(parents=True, exist_ok=True)
    sitk.WriteImage(sitk.GetImageFromArray(array), str(path))
    return path


def values(seed: int) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 900, SHAPE).astype(np.int16)


def labels() -> np.ndarray:
    mask = np.zeros(SHAPE, np.int16)
    mask[1:4, 2:6, 2:6] = 2
    mask[2, 3:5, 3:5] = [[1, 3], [4, 4]]
    return mask


def case(root: Path, grade: str, name: str, mask: str | None = "VSD.Brain_3more.XX.O.OT") -> Path:
    folder = root / grade / name
    for number, sequence in enumerate(SEQUENCES):
        put(folder, f"VSD.Brain.XX.O.MR_{sequence}.{54512 + number}", values(number))
    if mask:
        put(folder, f"{mask}.54517", labels())
    return folder


def archive(root: Path) -> Path:
    train = root / "BRATS2015_Training"
    case(train, "HGG", "brats_2013_pat0001_1")
    case(train, "HGG", "brats_2013_pat0008_1", "VSD.Brain_3more.XX.XX.OT")
    case(train, "LGG", "brats_tcia_pat105_0001")
    case(train, "LGG", "brats_tcia_pat105_0120")
    case(root / "Testing", "HGG_LGG", "brats_tcia_pat300_0001", None)
    return root


def describe(root: Path) -> Conversion:
    return brats2015.describe(root, argparse.Namespace())


def convert(root: Path, raw: Path, *words: str) -> int:
    return command.main(["brats2015", str(root), "-d", "15", "--raw", str(raw), "-np", "1", *words])


@pytest.mark.parametrize("inside", ["", "BRATS2015_Training"])
def test_the_archive_is_read(tmp_path, inside):
    found = describe(archive(tmp_path) / inside)
    training = [c.name for c in found.cases if not c.test]
    assert training == [
        "brats_2013_pat0001_1",
        "brats_2013_pat0008_1",
        "brats_tcia_pat105_0001",
        "brats_tcia_pat105_0120",
    ]
    assert found.channel_names == ("FLAIR", "T1", "T1c", "T2")
    assert found.labels == {"background": 0, "necrosis": 1, "oedema": 2, "non_enhancing": 3, "enhancing": 4}
    assert [v.path.name.split("_")[1].split(".")[0] for v in found.cases[0].images] == SEQUENCES


def test_the_written_dataset(tmp_path):
    archive(tmp_path / "brats")
    assert convert(tmp_path / "brats", tmp_path / "raw") == 0
    made = tmp_path / "raw/Dataset015_BRATS2015"
    assert json.loads((made / "dataset.json").read_text())["numTraining"] == 4
    t1c = read_image(made / "imagesTr/brats_2013_pat0008_1_0002.nii.gz")
    np.testing.assert_array_equal(t1c.pixels, values(2))
    np.testing.assert_array_equal(read_image(made / "labelsTr/brats_2013_pat0008_1.nii.gz").pixels, labels())
    assert [path.name for path in (made / "imagesTs").glob("*_0000.nii.gz")] == [
        "brats_tcia_pat300_0001_0000.nii.gz"
    ]
    with (made / "groups.csv").open() as file:
        assert list(csv.reader(file)) == [
            ["case", "subject", "grade", "source"],
            ["brats_2013_pat0001_1", "brats_2013_pat0001", "HGG", "2013"],
            ["brats_2013_pat0008_1", "brats_2013_pat0008", "HGG", "2013"],
            ["brats_tcia_pat105_0001", "brats_tcia_pat105", "LGG", "tcia"],
            ["brats_tcia_pat105_0120", "brats_tcia_pat105", "LGG", "tcia"],
            ["brats_tcia_pat300_0001", "brats_tcia_pat300", "", "tcia"],
        ]


def test_a_missing_contrast_or_mask_names_its_case(tmp_path):
    archive(tmp_path)
    train = tmp_path / "BRATS2015_Training"
    for path in (*(train / "HGG").glob("*0001_1/*T1c*/*"), *(train / "LGG").glob("*_0120/*OT*/*")):
        path.unlink()
    with pytest.raises(AutosegError) as error:
        describe(tmp_path)
    text = str(error.value)
    assert "2 faults in 5 cases" in text and "incomplete: no T1c" in text and "incomplete: no mask" in text


def test_labels_that_brats_does_not_have_are_refused(tmp_path, capsys):
    folder = case(tmp_path / "brats", "HGG", "brats_2013_pat0001_1")
    put(folder, "VSD.Brain_3more.XX.O.OT.54517", labels() + 3)
    assert convert(tmp_path / "brats", tmp_path / "raw") == 1
    assert "label values that the format does not have" in capsys.readouterr().err
