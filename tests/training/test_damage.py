"""Damaged data end a training with a remedy that works."""

import os
import re
import shlex
import shutil

import pytest
import small
from runs import fold

from autoseg.bundle.layout import weight_file_name
from autoseg.cli import export_bundle, plan_and_preprocess, predict, report, train

pytestmark = pytest.mark.slow
COMMAND = ["1", "0", "-device", "cpu"]


def flip(path) -> None:
    """One bit in the middle of a file."""
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 16
    path.write_bytes(content)


@pytest.mark.parametrize("part", ["image.b2nd", "label.b2nd", "foreground.b2nd", "json"])
def test_the_remedy_for_a_damaged_case_of_the_store_mends_it(root, part, capfd):
    store = root / "preprocessed" / small.NAME / "unet" / "store"
    before = (store / f"case_001.{part}").read_bytes()
    flip(store / f"case_001.{part}")
    assert train.main(["1", "all", *COMMAND[2:]]) == 1
    (command,) = set(re.findall("run (autoseg_plan_and_preprocess .*--keep_plan)", capfd.readouterr().err))
    assert plan_and_preprocess.main(shlex.split(command)[1:]) == 0
    assert "4 were up to date" in capfd.readouterr().out
    assert (store / f"case_001.{part}").read_bytes() == before
    assert train.main(["1", "all", *COMMAND[2:], "--overwrite"]) == 0


def raw_file(root, name="case_001"):
    return root / "raw" / small.NAME / "imagesTr" / f"{name}_0000.nii.gz"


def test_a_raw_file_that_changed_since_the_preprocessing_is_noticed(root, capfd):
    os.utime(raw_file(root), (1, 1))  # a copy has another time and the same bytes
    assert train.main([*COMMAND, "--set", "stages.0.epochs=1"]) == 0
    small.write(raw_file(root), small.case(77)[0][0])
    assert train.main([*COMMAND, "--overwrite"]) == 1
    text = capfd.readouterr().err
    assert "raw data have changed since they were prepared" in text and "case_001" in text
    (command,) = set(re.findall("run (autoseg_plan_and_preprocess .*--keep_plan)", text))
    assert plan_and_preprocess.main(shlex.split(command)[1:]) == 0
    assert train.main([*COMMAND, "--overwrite", "--set", "stages.0.epochs=1"]) == 0


def test_without_raw_data_a_training_that_needs_none_goes_on(root):
    shutil.rmtree(root / "raw")
    assert train.main(["1", "all", "-device", "cpu", "--set", "stages.0.epochs=1"]) == 0


def test_other_classes_in_the_raw_dataset_are_noticed(root, capfd):
    path = root / "raw" / small.NAME / "dataset.json"
    path.write_text(path.read_text().replace('"lesion"', '"oedema"'))
    assert train.main(COMMAND) == 1
    assert "dataset.json" in capfd.readouterr().err
    assert not fold(root).exists()


def test_changed_weights_are_not_used_exported_or_reported(trained, capfd):
    flip(fold(trained) / "weights" / weight_file_name("train"))
    images, target = trained / "raw" / small.NAME / "imagesTs", trained / "model.zip"
    assert predict.main(["-i", str(images), "-o", str(trained / "out"), "-d", "1", "-device", "cpu"]) == 1
    assert export_bundle.main(["-d", "1", "-o", str(target)]) == 1
    assert report.main([str(fold(trained))]) == 1
    text = capfd.readouterr().err
    assert text.count("was changed or damaged after the training") == 3
    assert not (trained / "out").exists() and not target.exists()
    assert train.main([*COMMAND, "--overwrite"]) == 0
    assert export_bundle.main(["-d", "1", "-o", str(target)]) == 0
