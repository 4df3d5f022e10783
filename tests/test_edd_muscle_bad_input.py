"""Data that give the family `edd_muscle` little or nothing to learn from, as a user meets them: the commands' words."""

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import runs
import SimpleITK as sitk
import small

from autoseg.cli import plan_and_preprocess, predict, train
from autoseg.plan import Plan

pytestmark = pytest.mark.slow

NAME = "Dataset950_DWI"
TINY = [
    "planner.patch_size=32",
    "planner.receptive_field=18",
    "planner.width=4",
    "planner.spacing_mm=3",
    "planner.batch_size=8",
    "stages.edd.epochs=1",
    "stages.edd.iterations_per_epoch=40",
    "stages.muscle.epochs=1",
    "validation.cases=1",
    "seed=1",
]
Squares = list[tuple[int, int, int, int]]
LARGE, SMALL = (1, 8, 8, 12), (3, 24, 24, 4)
"""z, y, x of a corner and the edge in pixels: one of more, one of less than 60 pixels."""


@pytest.fixture
def make(tmp_path, monkeypatch) -> Callable[..., Path]:
    """Five cases with bright squares in a grey image that has hardly any noise, which EDD Net learns at once."""

    def write(squares: Callable[[int], Squares], shape=(4, 32, 32), spacing=(9.0, 3.0, 3.0)) -> Path:
        folder = tmp_path / "raw" / NAME
        for i in range(5):
            image = np.random.default_rng(i).normal(100, 1, shape).astype(np.float32)
            mask = np.zeros(shape, np.uint8)
            for z, y, x, edge in squares(i):
                mask[z, y : y + edge, x : x + edge] = 1
            small.write(folder / "imagesTr" / f"case_{i}_0000.nii.gz", image + 60 * mask, spacing)
            small.write(folder / "labelsTr" / f"case_{i}.nii.gz", mask, spacing)
        info = {"channel_names": {"0": "DWI"}, "labels": {"background": 0, "lesion": 1}, "numTraining": 5}
        (folder / "dataset.json").write_text(json.dumps({**info, "file_ending": ".nii.gz"}))
        runs.set_folders(monkeypatch, tmp_path)
        return tmp_path

    return write


def planned(root: Path, *settings: str) -> Plan:
    options = ["-d", "950", "-pl", "edd_muscle", "-np", "1", "--set", *TINY, *settings]
    assert plan_and_preprocess.main(options) == 0
    return Plan.model_validate_json((root / "preprocessed" / NAME / "edd_muscle" / "plan.json").read_text())


def trained() -> int:
    return train.main(["950", "0", "-device", "cpu"])


def predicted(root: Path, name: str, *settings: str) -> list[np.ndarray]:
    options = ["-i", str(root / "raw" / NAME / "imagesTr"), "-o", str(root / name), "-d", "950"]
    options += ["--set", *settings] if settings else []
    assert predict.main([*options, "-device", "cpu"]) == 0
    files = sorted((root / name).glob("*.nii.gz"))
    return [sitk.GetArrayFromImage(sitk.ReadImage(str(path))) for path in files]


def leave_lesions_to_validation(root: Path, train_cases: list[str]) -> None:
    rest = [f"case_{i}" for i in range(5) if f"case_{i}" not in train_cases]
    splits = [{"train": train_cases, "val": rest}]
    (root / "preprocessed" / NAME / "splits.json").write_text(json.dumps(splits))


def test_no_lesion_of_at_most_60_pixels(make, capfd):
    """Of the paper's 1.6 mm; 17 of these scans' 3 mm are the same area."""
    root = make(lambda i: [LARGE])
    found = planned(root)
    warning = "no lesion has at most 17 pixels: MUSCLE Net has few or no small ones to learn from"
    assert warning in capfd.readouterr().err
    note = next(reason for reason in found.reasons if reason.what == "note: small lesions")
    assert note.value == "none of 5 has at most 17 pixels" and "planner.muscle=false" in note.why
    assert trained() == 0
    text = capfd.readouterr().err
    assert "stage muscle: 0 real and " in text and "stage muscle of member 1 is not trained" in text
    assert "predictions stay as EDD Net makes them" in text


def test_a_first_stage_without_false_positives(make, capfd):
    root = make(lambda i: [LARGE, SMALL])
    planned(root)
    assert trained() == 0
    text = " ".join(capfd.readouterr().err.split())
    assert (
        "EDD Net has 4 real and 0 false candidates in 4 training cases; without false ones there is" in text
    )
    assert "planner.cross_fitting=true looks in cases that it has not learnt from" in text
    both, alone = predicted(root, "both"), predicted(root, "alone", "postprocessing.muscle=off")
    assert all(np.array_equal(one, other) and one.any() for one, other in zip(both, alone, strict=True))


def test_slices_smaller_than_a_patch(make):
    root = make(lambda i: [(1, 4, 3, 5)], shape=(3, 15, 11))
    note = next(reason for reason in planned(root).reasons if reason.what == "note: patch")
    assert note.value == "larger than the slices of 15 x 11 pixels" and "smaller one than 32" in note.why
    assert trained() == 0
    assert [mask.shape for mask in predicted(root, "masks")] == [(3, 15, 11)] * 5


def test_no_lesion_in_the_training_part_of_a_fold(make, capfd):
    root = make(lambda i: [LARGE] if i == 0 else [])
    planned(root)
    leave_lesions_to_validation(root, ["case_1", "case_2", "case_3"])
    assert trained() == 1
    text = capfd.readouterr().err
    assert "stage edd: no training case has a lesion" in text and "3 in all" in text
    assert "splits.json" in text
    assert not list((root / "results").rglob("*.safetensors"))


def test_no_lesion_in_one_half_of_the_training_part(make, capfd):
    """Cross-fitting trains without cases 1 and 3, then without case 2."""
    root = make(lambda i: [LARGE] if i in (1, 3) else [])
    parts = [f"stages.edd_part{k}.{name}" for k in (0, 1) for name in ("epochs=1", "iterations_per_epoch=2")]
    planned(root, "planner.cross_fitting=true", *parts)
    leave_lesions_to_validation(root, ["case_1", "case_2", "case_3"])
    assert trained() == 1
    text = capfd.readouterr().err
    assert "stage edd_part0: no training case has a lesion" in text and "1 in all" in text
    assert not list((root / "results").rglob("*.safetensors"))  # known before EDD Net is trained


@pytest.mark.parametrize("spacing", [(1.0, 3.0, 2.5), (9.0, 3.0, 3.0)])
def test_single_slices(make, spacing):
    """One slice may claim to be thinner than its pixels are wide; it is a slice all the same."""
    root = make(lambda i: [(0, 8, 8, 12), (0, 24, 24, 4)], shape=(1, 32, 32), spacing=spacing)
    assert planned(root).preprocessing.transpose == (0, 1, 2)
    assert trained() == 0
    masks = predicted(root, "masks")
    assert [mask.shape for mask in masks] == [(1, 32, 32)] * 5
    assert all(mask[0, 12:16, 12:16].all() for mask in masks)
