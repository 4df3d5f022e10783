"""The best threshold: by hand, against trying every threshold, and the command on a dataset of bright balls."""

import json

import numpy as np
import pytest
import runs
import SimpleITK as sitk
import small

from autoseg.cli import threshold_intensities
from autoseg.comparison.best_threshold import best_threshold
from autoseg.errors import AutosegError
from autoseg.evaluation.metrics.catalogue import dice


def test_by_hand():
    """Lesion 5, 6, 9 among 1, 2, 3, 7: above 4 all three and one false are found, Dice 6/7; above 8 one, 1/2."""
    values = np.array([1, 2, 3, 7, 5, 6, 9], np.float32)
    truth = np.array([0, 0, 0, 0, 1, 1, 1], bool)
    found = best_threshold([(values, truth)], "T2")
    assert (found.side, found.channel, found.dice) == ("above", "T2", pytest.approx(6 / 7))
    assert 3 <= found.threshold < 5
    dark = best_threshold([(-values, truth)], "ADC")
    assert (dark.side, dark.dice) == ("below", pytest.approx(6 / 7)) and -5 < dark.threshold <= -3


def test_no_other_threshold_is_better():
    random = np.random.default_rng(5)
    cases = []
    for _ in range(4):
        truth = random.random(400) < 0.2
        cases.append(((random.normal(0, 1, 400) + 1.5 * truth).astype(np.float32), truth))
    found = best_threshold([*cases, (random.normal(0, 9, 50).astype(np.float32), np.zeros(50, bool))], "T2")

    def mean(t, side):
        return np.mean([dice(v > t if side == "above" else v < t, truth) for v, truth in cases])

    every = np.concatenate([v for v, _ in cases])
    assert found.dice == pytest.approx(mean(found.threshold, found.side))
    assert found.dice == pytest.approx(max(mean(t, side) for t in every for side in ("above", "below")))


def test_without_a_lesion_there_is_nothing_to_learn():
    with pytest.raises(AutosegError, match="no lesion in 1 training case"):
        best_threshold([(np.ones(3, np.float32), np.zeros(3, bool))], "T2")


def test_the_command_segments_what_the_fold_is_scored_on(tmp_path, monkeypatch, capsys):
    """Balls of brightness 160 in a box of 100 with noise of 10: 3 standard deviations from both."""
    root = runs.prepare(monkeypatch, tmp_path)
    out = tmp_path / "masks"
    assert threshold_intensities.main(["1", "0", "-o", str(out)]) == 0
    (mask,) = out.glob("*.nii.gz")
    truth = root / "raw" / small.NAME / "labelsTr" / mask.name
    found, wanted = (sitk.GetArrayFromImage(sitk.ReadImage(str(path))) > 0 for path in (mask, truth))
    assert dice(found, wanted) > 0.9
    record = json.loads((out / "threshold.json").read_text())
    assert record["channel"] == "MR0" and record["side"] == "above" and record["dice"] > 0.9
    assert "1 case segmented" in capsys.readouterr().out
    assert record["masks"] == [mask.name] and record["settings"]["fold"] == "0"
    assert threshold_intensities.main(["1", "9", "-o", str(tmp_path / "x")]) == 1
    assert "there is no fold 9" in capsys.readouterr().err
    assert threshold_intensities.main(["1", "all", "-o", str(tmp_path / "x")]) == 1
    assert "fold all scores no case" in capsys.readouterr().err
    images = str(root / "raw" / small.NAME / "imagesTs")
    assert threshold_intensities.main(["1", "all", "-i", images, "-o", str(tmp_path / "all")]) == 0
    assert "1 case segmented" in capsys.readouterr().out


def names_in(folder):
    return sorted(path.name for path in folder.iterdir())


def test_the_folder_is_replaced_when_asked_and_masks_are_never_mixed(tmp_path, monkeypatch, capsys):
    root = runs.prepare(monkeypatch, tmp_path)
    out, images = tmp_path / "masks", str(root / "raw" / small.NAME / "imagesTs")
    arguments = ["1", "0", "-o", str(out)]
    assert threshold_intensities.main(arguments) == 0
    first = names_in(out)
    assert threshold_intensities.main(arguments) == 0  # the same may be made again
    for other, words in (
        (["-i", images], "threshold.json is there, of other folders"),
        (["-channel", "MR0"], "made with other settings"),
    ):
        capsys.readouterr()
        assert threshold_intensities.main([*arguments, *other]) == 1
        assert words in capsys.readouterr().err and names_in(out) == first
    assert threshold_intensities.main([*arguments, "-i", images, "--overwrite"]) == 0
    second = names_in(out)
    assert len(second) == 2 and not set(second) & (set(first) - {"threshold.json"})

    foreign = tmp_path / "reader"
    foreign.mkdir()
    (name,) = set(first) - {"threshold.json"}
    (foreign / name).write_bytes((root / "raw" / small.NAME / "labelsTr" / name).read_bytes())
    capsys.readouterr()
    assert threshold_intensities.main(["1", "0", "-o", str(foreign)]) == 1
    assert "masks that autoseg_threshold did not make" in capsys.readouterr().err
    (foreign / "another.nii.gz").write_bytes(b"of a reader")
    assert threshold_intensities.main(["1", "0", "-o", str(foreign), "--overwrite"]) == 1
    assert "1 file: another.nii.gz" in capsys.readouterr().err and len(names_in(foreign)) == 2
    (foreign / "another.nii.gz").unlink()
    assert threshold_intensities.main(["1", "0", "-o", str(foreign), "--overwrite"]) == 0
