"""Every bad input, as a user meets it: the message, the exit code, and that nothing else was damaged.

One row per input. The commands run in this process; what they print is read back.
"""

import json
import re
import shutil
from pathlib import Path

import numpy as np
import pytest
import runs
import small

from autoseg.cli import evaluate, plan_and_preprocess, predict, train
from autoseg.cli import import_bundle as importer


@pytest.fixture(scope="module")
def good(tmp_path_factory) -> Path:
    """A raw dataset without faults."""
    root = tmp_path_factory.mktemp("good")
    small.dataset(root / "raw", n=4, channels=2, n_test=1)
    return root


@pytest.fixture
def root(good, tmp_path, monkeypatch) -> Path:
    """A copy of it that a test may spoil, with the three folders set."""
    return runs.copied(monkeypatch, good, tmp_path / "work")


def data(root: Path) -> Path:
    return root / "raw" / small.NAME


def change_info(root: Path, **changes) -> None:
    path = data(root) / "dataset.json"
    info = {**json.loads(path.read_text()), **changes}
    path.write_text(json.dumps({key: value for key, value in info.items() if value is not None}))


def image_path(root: Path, case: int = 1, channel: int = 1) -> Path:
    return data(root) / "imagesTr" / f"case_{case:03}_{channel:04}.nii.gz"


def mask_path(root: Path, case: int = 1) -> Path:
    return data(root) / "labelsTr" / f"case_{case:03}.nii.gz"


def rewrite(root: Path, path: Path, change=lambda a: a, **geometry) -> None:
    images, mask = small.case(1, channels=2)
    array = mask if "labels" in path.parent.name else images[1]
    small.write(path, change(array), **geometry)


def with_value(value, dtype=None):
    def change(array):
        array = array.astype(dtype or array.dtype).copy()
        array[3, 4, 5] = value
        return array

    return change


def spoil_all_masks(root: Path) -> None:
    for path in (data(root) / "labelsTr").iterdir():
        small.write(path, np.zeros((10, 24, 24), np.uint8))


def leave_one_case(root: Path) -> None:
    for i in (1, 2, 3):
        mask_path(root, i).unlink()
        for c in (0, 1):
            image_path(root, i, c).unlink()
    change_info(root, numTraining=1)


def duplicate(root: Path) -> None:
    for c in (0, 1):
        shutil.copy(image_path(root, 1, c), image_path(root, 2, c))


def truncate(path: Path) -> None:
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


TILTED = (0.0, -1.0, 0.0, 1.0, 0.0, 0.0, 0.0, 0.0, 1.0)

RAW_ROWS = {
    "no dataset.json": (lambda r: (data(r) / "dataset.json").unlink(), ["dataset.json"]),
    "dataset.json is not JSON": (lambda r: (data(r) / "dataset.json").write_text("{"), ["not valid JSON"]),
    "wrong type": (lambda r: change_info(r, numTraining="many"), ["numTraining", "'many'"]),
    "no background": (lambda r: change_info(r, labels={"lesion": 1}), ["background"]),
    "gap in labels": (
        lambda r: change_info(r, labels={"background": 0, "a": 1, "b": 3}),
        ["consecutive from 0: 2 missing"],
    ),
    "missing channel": (lambda r: image_path(r).unlink(), ["case_001", "channel"]),
    "truncated file": (lambda r: truncate(image_path(r)), ["case_001_0001.nii.gz"]),
    "text named .nii.gz": (lambda r: image_path(r).write_text("hello"), ["case_001_0001.nii.gz"]),
    "4D image": (
        lambda r: rewrite(
            r, image_path(r), lambda a: np.stack([a, a]), spacing=(1, 2, 1, 1), origin=(0, 0, 0, 0)
        ),
        ["case_001", "3", "4"],
    ),
    "shape of channels": (
        lambda r: rewrite(r, image_path(r), lambda a: a[:-1]),
        ["case_001", "9 x 24 x 24", "10 x 24 x 24"],
    ),
    "shape of mask": (
        lambda r: rewrite(r, mask_path(r), lambda a: a[:-1]),
        ["case_001", "9 x 24 x 24", "10 x 24 x 24"],
    ),
    "spacing": (lambda r: rewrite(r, image_path(r), spacing=(2.0, 1.0, 1.2)), ["case_001", "spacing", "1.2"]),
    "direction": (lambda r: rewrite(r, mask_path(r), direction=TILTED), ["case_001", "direction"]),
    "NaN": (lambda r: rewrite(r, image_path(r), with_value(np.nan)), ["case_001_0001", "NaN"]),
    "infinite": (lambda r: rewrite(r, image_path(r), with_value(np.inf)), ["case_001_0001", "nf"]),
    "label 7": (lambda r: rewrite(r, mask_path(r), with_value(7)), ["case_001", "7"]),
    "label 0.5": (lambda r: rewrite(r, mask_path(r), with_value(0.5, np.float32)), ["case_001", "0.5"]),
    "constant image": (
        lambda r: rewrite(r, image_path(r), lambda a: a * 0 + 3),
        ["case_001_0001", "constant"],
    ),
    "no lesion anywhere": (spoil_all_masks, ["no lesion", "4"]),
    "duplicate case": (duplicate, ["case_001", "case_002"]),
    "numTraining": (lambda r: change_info(r, numTraining=9), ["numTraining", "9", "4"]),
}


@pytest.mark.parametrize("row", RAW_ROWS)
def test_bad_raw_data_is_refused_before_anything_is_written(row, root, capfd):
    spoil, words = RAW_ROWS[row]
    spoil(root)
    assert plan_and_preprocess.main(["-d", "1", "-pl", "unet", "-np", "1"]) == 1
    text = capfd.readouterr().err
    assert "error:" in text
    assert not [word for word in words if word not in text], text
    kept = ("prepare.log", ".lock")
    written = [p for p in (root / "preprocessed").rglob("*") if p.is_file() and p.name not in kept]
    assert written == []


def test_all_faults_of_all_cases_come_at_once(root, capfd):
    image_path(root, 0).unlink()
    rewrite(root, mask_path(root, 2), with_value(7))
    truncate(image_path(root, 3))
    assert plan_and_preprocess.main(["-d", "1", "-pl", "unet", "-np", "1"]) == 1
    text = capfd.readouterr().err
    assert all(f"case_00{i}" in text for i in (0, 2, 3))


def test_one_case_only_can_be_planned_but_has_no_folds(root, capfd):
    leave_one_case(root)
    assert plan_and_preprocess.main(["-d", "1", "-pl", "unet", "-np", "1", "--set", *small.TINY]) == 0
    said = capfd.readouterr()
    assert "warning" in said.err and re.search(r"next: autoseg_train \S+ all -p unet", said.out)
    assert train.main(["1", "0", "-device", "cpu"]) == 1
    assert "use the fold 'all'" in capfd.readouterr().err


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["-pl", "unnet"], ["no planner 'unnet'", "did you mean unet"]),
        (["-pl", "unet", "--set", "stages.0.epoch=3"], ["no 'epoch'", "did you mean epochs"]),
        (["-pl", "unet", "--set", "planner.prest=L"], ["no such option", "did you mean preset"]),
        (["-pl", "unet", "--set", "stages.0.epochs"], ["there is no value"]),
        (["-pl", "unet", "--set", "stages.0.epochs=0"], ["at least 1"]),
    ],
)
def test_bad_planning_options(arguments, words, root, capfd):
    assert plan_and_preprocess.main(["-d", "1", "-np", "1", *arguments]) == 1
    text = capfd.readouterr().err
    assert not [word for word in words if word not in text], text


def test_an_unknown_dataset_lists_those_that_exist(root, capfd):
    assert plan_and_preprocess.main(["-d", "77"]) == 1
    assert small.NAME in capfd.readouterr().err


def test_an_unset_folder_says_how_to_set_it(root, capfd, monkeypatch):
    monkeypatch.delenv("autoseg_raw")
    assert plan_and_preprocess.main(["-d", "1"]) == 1
    assert "export autoseg_raw=" in capfd.readouterr().err


def test_an_output_folder_that_cannot_be_written_is_refused_first(root, capfd):
    (root / "preprocessed").write_text("in the way")
    assert plan_and_preprocess.main(["-d", "1", "-np", "1"]) == 1
    assert "cannot be written" in capfd.readouterr().err
    assert (root / "preprocessed").read_text() == "in the way"


@pytest.fixture(scope="module")
def trained(tmp_path_factory) -> Path:
    """A dataset with a finished fold 0."""
    root = tmp_path_factory.mktemp("trained")
    small.dataset(root / "raw", n=4, channels=2, n_test=1)
    with pytest.MonkeyPatch.context() as patch:
        runs.set_folders(patch, root)
        assert plan_and_preprocess.main(["-d", "1", "-pl", "unet", "-np", "1", "--set", *small.TINY]) == 0
        assert train.main(["1", "0", "-device", "cpu"]) == 0
    return root


@pytest.fixture
def model(trained, tmp_path, monkeypatch) -> Path:
    """A copy of it that a test may spoil."""
    return runs.copied(monkeypatch, trained, tmp_path / "work")


def hashes(folder: Path) -> dict[str, bytes]:
    return {
        str(p.relative_to(folder)): p.read_bytes()
        for p in folder.rglob("*")
        if p.is_file() and p.suffix != ".log"
    }


def test_a_finished_fold_is_not_overwritten(model, capfd):
    before = hashes(runs.fold(model))
    assert train.main(["1", "0", "-device", "cpu"]) == 1
    text = capfd.readouterr().err
    assert "fold 0 has a result already" in text and "--overwrite" in text
    assert hashes(runs.fold(model)) == before


def test_an_unknown_trainer(model, capfd):
    assert train.main(["1", "1", "-tr", "unnet"]) == 1
    assert "did you mean unet" in capfd.readouterr().err


def test_an_unknown_fold(model, capfd):
    assert train.main(["1", "9", "-device", "cpu"]) == 1
    assert "there is no fold 9" in capfd.readouterr().err
    assert train.main(["1", "first", "-device", "cpu"]) == 1
    assert "fold 'first' is not known" in capfd.readouterr().err


def test_a_corrupt_checkpoint_is_explained_and_kept(model, capfd):
    (runs.fold(model) / "fold.json").unlink()
    truncate(runs.fold(model) / "checkpoint" / "latest.safetensors")
    before = hashes(runs.fold(model))
    assert train.main(["1", "0", "--c", "-device", "cpu"]) == 1
    assert "the checkpoint is damaged" in capfd.readouterr().err
    assert hashes(runs.fold(model)) == before


def test_a_second_training_of_the_same_fold_is_refused(model, capfd):
    from autoseg.files import exclusive

    with exclusive(runs.fold(model) / ".lock", doing="testing"):
        assert train.main(["1", "0", "--overwrite", "-device", "cpu"]) == 1
    assert "another process is training fold 0" in capfd.readouterr().err
    assert (runs.fold(model) / "fold.json").exists()


def test_a_changed_raw_file_makes_the_store_stale(model, capfd):
    rewrite(model, mask_path(model), with_value(1))
    assert (
        plan_and_preprocess.main(["-d", "1", "-pl", "unet", "-np", "1", "--no_pp", "--set", *small.TINY]) == 0
    )
    assert train.main(["1", "0", "--overwrite", "-device", "cpu"]) == 1
    text = capfd.readouterr().err
    assert "1 of 4 preprocessed cases missing or stale" in text and "case_001" in text


def test_predicting_with_the_wrong_number_of_channels(model, capfd, tmp_path):
    images = data(model) / "imagesTs"
    (images / "case_004_0001.nii.gz").unlink()
    out = tmp_path / "masks"
    assert predict.main(["-i", str(images), "-o", str(out), "-d", "1", "-device", "cpu"]) == 1
    text = capfd.readouterr().err
    assert "case_004" in text and "channel" in text
    assert not list(out.glob("*.nii.gz"))


def test_predicting_with_a_bundle_of_another_version(model, capfd, tmp_path):
    folder = runs.fold(model).parent
    plan = json.loads((folder / "plan.json").read_text())
    (folder / "plan.json").write_text(json.dumps({**plan, "version": 99}))
    images = data(model) / "imagesTs"
    assert (
        predict.main(["-i", str(images), "-o", str(tmp_path / "m"), "-m", str(folder), "-device", "cpu"]) == 1
    )
    assert "version" in capfd.readouterr().err and not list(tmp_path.glob("m/*.nii.gz"))


def test_a_zip_that_climbs_out_is_refused(model, capfd, tmp_path):
    import zipfile

    with zipfile.ZipFile(tmp_path / "evil.zip", "w") as archive:
        archive.writestr("../evil.txt", "x")
    assert importer.main([str(tmp_path / "evil.zip")]) == 1
    assert "../evil.txt" in capfd.readouterr().err
    assert not (tmp_path / "evil.txt").exists() and not (model / "evil.txt").exists()


# ---------------------------------------------------------------------------------------------------------- scoring


@pytest.fixture
def masks(root, tmp_path) -> Path:
    """Predictions of the training cases: the true masks."""
    return Path(shutil.copytree(data(root) / "labelsTr", tmp_path / "masks"))


def remove_masks(masks: Path) -> None:
    for path in masks.iterdir():
        path.unlink()


def leave_probabilities(masks: Path) -> None:
    remove_masks(masks)
    np.savez(masks / "case_001.npz", probabilities=np.zeros((2, 10, 24, 24), np.float16))


def predicted(masks: Path, change=lambda a: a, **geometry) -> None:
    small.write(masks / "case_001.nii.gz", change(small.case(1)[1]), **geometry)


def table(masks: Path, text: str) -> list[str]:
    """The arguments for a groups file with this content."""
    path = masks.with_name("groups.csv")
    path.write_text(text)
    return ["--groups", str(path)]


SCORING_ROWS = {
    "prediction missing": (
        lambda m: (m / "case_001.nii.gz").unlink(),
        ["case_001", "prediction is missing", "--chill"],
    ),
    "other names": (
        lambda m: [p.rename(p.with_name("x" + p.name)) for p in m.iterdir()] and None,
        ["no prediction has the name of a case", "xcase_000"],
    ),
    "twice": (lambda m: small.write(m / "case_001.nii", small.case(1)[1]), ["case_001", "there twice"]),
    "shape": (
        lambda m: predicted(m, lambda a: a[:-1]),
        ["case_001", "prediction's shape", "9 x 24 x 24", "10 x 24 x 24", "resample"],
    ),
    "spacing": (lambda m: predicted(m, spacing=(2.0, 1.0, 1.2)), ["case_001", "prediction's spacing", "1.2"]),
    "direction": (lambda m: predicted(m, direction=TILTED), ["case_001", "prediction's direction"]),
    "unknown label": (
        lambda m: predicted(m, with_value(7)),
        ["case_001", "not in dataset.json", "7 in 1 voxel"],
    ),
    "probabilities as mask": (
        lambda m: predicted(m, lambda a: a.astype(np.float32) * 0.75),
        ["case_001", "not whole numbers", "0.75", "not probabilities"],
    ),
    "NaN in a mask": (lambda m: predicted(m, with_value(np.nan, np.float32)), ["case_001", "nan"]),
    "damaged": (lambda m: truncate(m / "case_001.nii.gz"), ["case_001.nii.gz", "truncated"]),
    "only probabilities": (leave_probabilities, ["holds no mask", "case_001.npz", "(.npz) are not scored"]),
    "empty folder": (remove_masks, ["holds no mask", "an empty folder"]),
    "no folder": (shutil.rmtree, ["the folder of predicted masks is missing"]),
    "groups of other cases": (lambda m: table(m, "case,stage\nrat_1,late\n"), ["groups.csv", "rat_1"]),
    "groups without columns": (lambda m: table(m, "case\ncase_001\n"), ["groups.csv", "no column to split"]),
    "regions of no label": (
        lambda m: ["--preset", "brats"],
        ["regions do not fit the labels", "2, 3, 4", "1 lesion", "--regions whole=1"],
    ),
    "everything left out": (
        lambda m: ["--without", "overlap", "volume", "lesion", "distance"],
        ["nothing is left of the preset autoseg"],
    ),
    "unknown preset": (
        lambda m: ["--preset", "isles2022"],
        ["no preset 'isles2022'", "did you mean isles22"],
    ),
    "stratum of no metric": (lambda m: ["--strata", "size=q4"], ["strata size=q4", "no such quantity"]),
}


@pytest.mark.parametrize("row", SCORING_ROWS)
def test_bad_input_for_scores_is_refused_and_nothing_is_written(row, root, masks, capfd):
    spoil, words = SCORING_ROWS[row]
    arguments = spoil(masks) or []
    before = sorted(masks.rglob("*"))
    arguments = ["-p", str(masks), "-g", str(data(root) / "labelsTr"), "-np", "1", *arguments]
    for out in ([], ["-o", str(masks.with_name("scores"))]):
        assert evaluate.main([*arguments, *out]) == 1
        text = capfd.readouterr().err
        assert "error:" in text
        assert not [word for word in words if word not in text], text
        assert sorted(masks.rglob("*")) == before
    assert not masks.with_name("scores").exists()


def test_what_is_said_and_passed_over_while_scoring(root, masks, capfd):
    small.write(masks / "case_099.nii.gz", small.case(1)[1])
    np.savez(masks / "case_001.npz", probabilities=np.zeros((3, 10, 24, 24), np.float16))
    arguments = table(masks, "case,stage\n" + "".join(f"case_00{i},s{i % 2}\n" for i in range(3)))
    assert evaluate.main(["-p", str(masks), "-g", str(data(root) / "labelsTr"), "-np", "1", *arguments]) == 0
    text = capfd.readouterr().err
    for words in (
        "1 prediction without truth not scored: case_099",
        "probabilities of 1 case not used: case_001.npz: float16 (3, 10, 24, 24)",
        "not in groups.csv: case_003 (1 of 4 scored cases",
        "3 warnings, see above",
    ):
        assert text.count(words) == 1
    content = json.loads((masks / "summary.json").read_text())
    assert content["ignored"] == ["case_099"] and len(content["warnings"]) == 3
    assert [case["name"] for case in content["cases"]] == [f"case_00{i}" for i in range(4)]
    assert not (masks / "thresholds.csv").exists()
