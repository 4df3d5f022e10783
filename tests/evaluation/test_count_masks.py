"""Voxels counted inside a mask of each case alone, by hand and against cut arrays."""

import json

import numpy as np
import pytest
import SimpleITK as sitk

from autoseg.cli import evaluate as command
from autoseg.dataset.dataset_json import DatasetJson
from autoseg.errors import AutosegError, FaultsError
from autoseg.evaluation.score_masks import evaluate_arrays, evaluate_folder

SHAPE = (4, 6, 8)
LABELS = {"background": 0, "lesion": 1}
INFO = {"channel_names": {"0": "TTP"}, "labels": LABELS, "file_ending": ".nii.gz", "numTraining": 2}


def write(path, array):
    path.parent.mkdir(exist_ok=True, parents=True)
    sitk.WriteImage(sitk.GetImageFromArray(array.astype(np.uint8)), str(path))


def box(*edges):
    mask = np.zeros(SHAPE, bool)
    mask[tuple(slice(*edge) for edge in edges)] = True
    return mask


# half of the volume
BRAIN = box((0, 4), (0, 6), (0, 4))
TRUTH = box((1, 3), (1, 3), (2, 6))  # 8 voxels inside, 8 outside
FOUND = box((1, 3), (1, 5), (2, 4))  # 16 inside, 8 of them rightly
CASES = {"a": (FOUND, TRUTH), "b": (TRUTH, TRUTH)}


@pytest.fixture
def folders(tmp_path):
    for name, (found, truth) in CASES.items():
        write(tmp_path / "masks" / f"{name}.nii.gz", found)
        write(tmp_path / "labelsTs" / f"{name}.nii.gz", truth)
        write(tmp_path / "brains" / f"{name}.nii.gz", BRAIN)
        write(tmp_path / "imagesTs" / f"{name}_0003.nii.gz", 7 * BRAIN)
    (tmp_path / "dataset.json").write_text(json.dumps(INFO))
    return tmp_path


def scored(folders, **more):
    info = DatasetJson(**INFO)
    return evaluate_folder(folders / "masks", folders / "labelsTs", info, preset="deepmedic", **more)


@pytest.mark.parametrize("options", [{"mask": "brains"}, {"mask": "imagesTs", "mask_channel": 3}])
def test_counts_are_inside_and_the_rest_is_not(folders, options):
    summary = scored(folders, **{**options, "mask": folders / options["mask"]})
    a = summary.cases[0].classes["lesion"]
    assert [a[name] for name in ("tp", "fp", "fn")] == [8, 8, 0]
    assert [a[name] for name in ("dice", "tpr", "ppv")] == pytest.approx([16 / 24, 1, 0.5])
    assert a["tnr"] == pytest.approx((96 - 16) / (96 - 8)) and a["accuracy"] == pytest.approx(88 / 96)
    assert (a["voxels_truth"], a["volume_truth_ml"]) == (16, 0.016)
    whole = evaluate_arrays(FOUND, TRUTH, spacing_mm=(1, 1, 1), preset="deepmedic")
    assert a["hausdorff_mm"] == whole["hausdorff_mm"] == 2
    cut = evaluate_arrays(FOUND[:, :, :4], TRUTH[:, :, :4], spacing_mm=(1, 1, 1), preset="deepmedic")
    assert {name: a[name] for name in ("mcc", "tnr", "dice")} == pytest.approx(
        {name: cut[name] for name in ("mcc", "tnr", "dice")}
    )
    assert summary.preset.notes[-1].startswith("TP, FP, FN, TN and what follows from them are counted inside")


def test_without_a_mask_the_preset_says_so(folders):
    summary = scored(folders)
    assert "of the whole volume" in summary.preset.notes[-1]
    assert summary.cases[0].classes["lesion"]["fn"] == 8
    others = evaluate_folder(folders / "masks", folders / "labelsTs", DatasetJson(**INFO))
    assert not others.preset.notes


def test_a_low_true_negative_rate_needs_the_brain_alone():
    """The study's 0.64 of a brain that is 15.3 % of the volume reads 0.945 over all of it."""
    assert pytest.approx(0.945, abs=5e-4) == 1 - 0.153 * (1 - 0.64)


def test_mask_files_that_do_not_fit_are_refused_all_at_once(folders):
    (folders / "brains" / "a.nii.gz").unlink()
    with pytest.raises(FaultsError, match="(?s)no mask inside which voxels count.*a.nii.gz"):
        scored(folders, mask=folders / "brains")
    write(folders / "brains" / "a.nii.gz", np.zeros(SHAPE))
    write(folders / "brains" / "b.nii.gz", BRAIN[:3])
    with pytest.raises(
        FaultsError, match="(?s)nothing lies inside.*of the mask inside which voxels count is not"
    ):
        scored(folders, mask=folders / "brains")
    with pytest.raises(AutosegError, match="(?s)folder of masks inside which.*missing"):
        scored(folders, mask=folders / "nowhere")
    with pytest.raises(AutosegError, match="(?s)--mask_channel 3 without --mask"):
        scored(folders, mask_channel=3)


def test_ignored_voxels_are_in_no_count(folders):
    labels = {"background": 0, "lesion": 1, "ignore": 2}
    truth = TRUTH.astype(np.uint8)
    truth[0, :, :] = 2  # 6 * 4 of them in the brain
    write(folders / "labelsTs" / "a.nii.gz", truth)
    info = DatasetJson(**{**INFO, "labels": labels})
    found = evaluate_folder(
        folders / "masks", folders / "labelsTs", info, preset="full", mask=folders / "brains"
    )
    a = found.cases[0].classes["lesion"]
    assert a["tn"] == 96 - 24 - 16 and a["tp"] == 8


def test_the_command_and_the_mean_of_means(folders, capsys):
    write(folders / "masks" / "c.nii.gz", FOUND)
    write(folders / "labelsTs" / "c.nii.gz", TRUTH)
    write(folders / "brains" / "c.nii.gz", BRAIN)
    (folders / "groups.csv").write_text("case,fold\na,0\nb,1\nc,0\n")
    options = ["--preset", "deepmedic", "--mask", str(folders / "brains"), "-np", "1"]
    paths = ["-p", str(folders / "masks"), "-g", str(folders / "labelsTs"), "-o", str(folders / "out")]
    assert command.main([*paths, *options, "--groups", str(folders / "groups.csv")]) == 0
    text = capsys.readouterr().out
    summary = json.loads((folders / "out" / "summary.json").read_text())
    (folds,) = summary["strata"]
    # two cases of 2 / 3 in one fold, one of 1 in the other: 5 / 6, where the mean of all is 7 / 9
    assert folds["mean_of_means"]["lesion"]["dice"] == pytest.approx(5 / 6)
    assert summary["classes"]["lesion"]["all"]["dice"]["mean"] == pytest.approx(7 / 9)
    assert "mean of means" in text and "0.833" in text and "counted inside the masks in" in text
    assert summary["settings"]["mask"] == str(folders / "brains")
