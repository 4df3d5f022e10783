"""What the options of the family `resunet` do, and bad data, as a user meets them: the commands on small phantoms."""

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import runs
import SimpleITK as sitk

from autoseg.cli import plan_and_preprocess, predict, train
from autoseg.evaluation.summary import read_summary
from autoseg.phantoms import make_dataset
from autoseg.plan import Plan
from autoseg.preprocessing.store import Store

pytestmark = pytest.mark.slow

TINY = ["planner.width=8", "epochs=1", "validation.cases=1", "validation.every=1", "seed=1"]
NUMBER = "914"


@pytest.fixture(scope="module")
def phantoms(tmp_path_factory) -> Path:
    """Five scans of 47 x 58 x 49 voxels of 4 mm."""
    return make_dataset("t1", 5, tmp_path_factory.mktemp("phantoms"), seed=3, scale=0.25)


@pytest.fixture
def make(phantoms, tmp_path, monkeypatch) -> Callable[..., Path]:
    """A copy of the phantoms, in which some files are changed: ``change(case number, image, mask)``."""

    def write(change: Callable[[int, np.ndarray, np.ndarray], tuple[np.ndarray, np.ndarray]]) -> Path:
        folder = tmp_path / "raw" / phantoms.name
        for part in ("imagesTr", "labelsTr"):
            (folder / part).mkdir(parents=True)
        (folder / "dataset.json").write_bytes((phantoms / "dataset.json").read_bytes())
        for i, mask_path in enumerate(sorted((phantoms / "labelsTr").iterdir())):
            image_path = phantoms / "imagesTr" / mask_path.name.replace(".nii.gz", "_0000.nii.gz")
            scans = [sitk.ReadImage(str(path)) for path in (image_path, mask_path)]
            changed = change(i, *(sitk.GetArrayFromImage(scan) for scan in scans))
            for path, scan, array in zip((image_path, mask_path), scans, changed, strict=True):
                made = sitk.GetImageFromArray(array)
                made.SetSpacing(scan.GetSpacing())
                sitk.WriteImage(made, str(folder / path.parent.name / path.name))
        runs.set_folders(monkeypatch, tmp_path)
        return tmp_path

    return write


def as_they_are(i: int, image: np.ndarray, mask: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    return image, mask


def planned(root: Path, *settings: str) -> Plan:
    options = ["-d", NUMBER, "-pl", "resunet", "-np", "1", "--set", *TINY, *settings]
    assert plan_and_preprocess.main(options) == 0
    (path,) = (root / "preprocessed").glob("*/resunet/plan.json")
    return Plan.model_validate_json(path.read_text())


def trained() -> int:
    return train.main([NUMBER, "0", "-device", "cpu"])


def fold(root: Path) -> Path:
    (path,) = (root / "results").glob("*/resunet__resunet/fold_0")
    return path


def log(root: Path) -> list[dict]:
    return [json.loads(line) for line in (fold(root) / "log.jsonl").read_text().splitlines()]


# ----------------------------------------------------------------------------------------------------- the options


@pytest.mark.parametrize(
    ("settings", "patches"),
    [
        (["planner.variant=zoom_in", "planner.zoom_in=16"], {"zoom_in": [16, 16, 16]}),
        (["planner.variant=zoom_in", "planner.zoom_in=32"], {"zoom_in": [32, 32, 32]}),
        (["planner.variant=large_only"], {"zoom_out": [36, 44, 40]}),
        (
            ["planner.zoom_in=16", "planner.rotation=20", "planner.rejection=0.7", "planner.validation=lesion_crop"],
            {"zoom_in": [16, 16, 16], "zoom_out": [36, 44, 40]},
        ),
        (["planner.variant=zoom_in", "planner.foreground_share=1"], {"zoom_in": [32, 32, 32]}),
    ],
    ids=["16", "32", "large", "next_steps", "foreground"],
)  # fmt: skip
def test_every_option_trains_and_scores_whole_scans(make, capfd, settings, patches):
    root = make(as_they_are)
    found = planned(root, *settings)
    assert {stage.name: stage.patch_size for stage in found.recipe.stages} == patches
    assert trained() == 0
    text = capfd.readouterr().err
    epochs = log(root)
    assert [entry["stage"] for entry in epochs] == list(patches)
    assert all(np.isfinite(entry["loss"]) for entry in epochs)
    watched = "lesion_crop" if "planner.validation=lesion_crop" in settings else None
    assert all(entry.get("validation_view") == watched for entry in epochs)
    assert ("Dice of crops of 1 case" if watched else "Dice of 1 case") in text
    scored = read_summary(fold(root) / "validation").cases
    for case in scored:
        path = next((root / "raw").glob(f"*/labelsTr/{case.name}.nii.gz"))
        truth = sitk.GetArrayFromImage(sitk.ReadImage(str(path)))
        assert case.classes["lesion"]["voxels_truth"] == truth.sum() > 0


# ------------------------------------------------------------------------------------------------------- bad data


def test_a_scan_smaller_than_the_crop_is_padded(make):
    """20 of its planes: crops of 32 voxels reach beyond it on both sides, and its mask has its own size."""

    def short(i, image, mask):
        return (image[14:34], mask[14:34]) if i < 2 else (image, mask)

    root = make(short)
    planned(root, "planner.variant=zoom_in", "planner.zoom_in=32", "planner.inference=centre")
    assert trained() == 0
    images, masks = root / "new", root / "masks"
    images.mkdir()
    (path,) = (root / "raw").glob("*/imagesTr/*_000_0000.nii.gz")
    (images / "short_0000.nii.gz").write_bytes(path.read_bytes())
    for tiles in ("centre", "cover"):
        arguments = ["-i", str(images), "-o", str(masks / tiles), "-d", NUMBER, "-device", "cpu"]
        assert predict.main([*arguments, "--set", f"inference.tiles={tiles}"]) == 0
        mask = sitk.GetArrayFromImage(sitk.ReadImage(str(masks / tiles / "short.nii.gz")))
        assert mask.shape == (20, 58, 49)


def test_a_training_part_without_lesions_is_trained_and_that_is_said(make, capfd):
    """Only the scan that is held back has one. The loss stays finite."""
    root = make(lambda i, image, mask: (image, mask if i == 4 else 0 * mask))
    planned(root, "planner.variant=zoom_in", "planner.zoom_in=16")
    names = sorted(path.name.removesuffix(".nii.gz") for path in (root / "raw").glob("*/labelsTr/*"))
    (dataset,) = (root / "preprocessed").iterdir()
    (dataset / "splits.json").write_text(json.dumps([{"train": names[:4], "val": names[4:]}]))
    assert trained() == 0
    text = " ".join(capfd.readouterr().err.split())
    assert "none of 4 training cases has a lesion" in text and "check the masks and splits.json" in text
    assert "stage zoom_in: none of 4 patches of epoch 1 shows a lesion" in text
    assert all(np.isfinite(entry["loss"]) for entry in log(root))


def test_lesions_that_no_crop_shows_are_missed_and_that_is_said(make, capfd):
    """One lesion voxel in the corner of each scan, and crops of 8 voxels of 47 x 58 x 49."""

    def corner(i, image, mask):
        alone = 0 * mask
        alone[0, 0, 0] = 1
        return image, alone

    root = make(corner)
    planned(root, "planner.variant=zoom_in", "planner.zoom_in=8", "stages.0.epochs=2")
    assert trained() == 0
    text = " ".join(capfd.readouterr().err.split())
    assert text.count("patches of epoch 1 shows a lesion") == 1 and "epoch 2 shows" not in text
    assert "--set stages.zoom_in.sampling.foreground_share=0.33" in text
    assert "training cases has a lesion" not in text
    again = ["--overwrite", "--set", "stages.0.sampling.foreground_share=1"]
    assert train.main([NUMBER, "0", "-device", "cpu", *again]) == 0
    assert "shows a lesion" not in capfd.readouterr().err


@pytest.mark.parametrize(
    ("convert", "words"),
    [
        (lambda image: (image / image.max()).astype(np.float32), "T1 from 0 to 1; 0 became 0 and "),
        (lambda image: (image * (4095 / image.max())).astype(np.int16), "T1 from 0 to 4095; 0 became 0 and "),
        (lambda image: (image - 100.0).astype(np.float32), "T1 from -100 to "),
    ],
    ids=["0-1", "0-4095", "negative"],
)  # fmt: skip
def test_one_scan_in_another_unit_is_named_scaled_and_recorded(make, capfd, convert, words):
    root = make(lambda i, image, mask: (convert(image) if i == 1 else image, mask))
    found = planned(root, "planner.variant=zoom_in", "planner.zoom_in=16")
    (entry,) = found.preprocessing.normalisation
    assert (entry.scheme, entry.factor) == ("none", 1 / 255)
    name = next((root / "raw").glob("*/labelsTr/*_001.nii.gz")).name.removesuffix(".nii.gz")
    why = next(reason.why for reason in found.reasons if reason.what == "preprocessing.normalisation")
    assert f"but for {name}" in why
    text = capfd.readouterr().err
    assert "1 case has other intensities than the plan was made for" in text and f"{name}: {words}" in text
    (folder,) = {path.parent for path in (root / "preprocessed").rglob(f"{name}.image.b2nd")}
    store = Store(folder)
    for other in store.names():
        image = store.read(other).image[...]
        assert image.min() >= 0 and 0.2 < image.max() <= 1.001
        assert len(store.record(other).unexpected) == (other == name)
    assert trained() == 0
    images, masks = root / "new", root / "masks"
    images.mkdir()
    (path,) = (root / "raw").glob(f"*/imagesTr/{name}_0000.nii.gz")
    (images / "new_0000.nii.gz").write_bytes(path.read_bytes())
    capfd.readouterr()
    assert predict.main(["-i", str(images), "-o", str(masks), "-d", NUMBER, "-device", "cpu"]) == 0
    assert f"new ({words}" in capfd.readouterr().err
    record = json.loads((masks / "prediction.json").read_text())["cases"]["new"]
    assert record["unexpected"][0] == json.loads(store.record(name).unexpected[0].model_dump_json())
