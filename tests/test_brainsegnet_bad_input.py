"""Brain SegNet on data that are not as they should be: thin stacks, maps that are missing or empty, absent sub-regions.

Each is refused by name before it costs time, or works.
"""

import json
from pathlib import Path

import numpy as np
import pytest
import runs
import SimpleITK as sitk

from autoseg.cli import evaluate, make_phantom, plan_and_preprocess, predict, train

DATASET = "Dataset912_PhantomPerfusion"
TINY = [
    "planner.length=quick", "planner.width=2", "planner.refine_width=4", "epochs=1", "iterations_per_epoch=2",
    "batch_size=2", "validation.cases=1",
]  # fmt: skip
LABELS = {"background": 0, "necrosis": 1, "oedema": 2, "non_enhancing": 3, "enhancing": 4}


@pytest.fixture
def root(tmp_path: Path, monkeypatch) -> Path:
    runs.set_folders(monkeypatch, tmp_path)
    options = ["-n", "4", "--test", "1", "--scale", "0.125", "-id", "912", "-np", "1"]
    assert make_phantom.main(["perfusion", *options, "-o", str(tmp_path / "raw")]) == 0
    return tmp_path


def dataset(root: Path) -> Path:
    return root / "raw" / DATASET


def planned(*settings: str) -> int:
    command = ["-d", "912", "-pl", "brainsegnet", "-np", "1", "--set", *TINY, *settings]
    return plan_and_preprocess.main(command)


def trained() -> int:
    return train.main(["912", "0", "-p", "brainsegnet", "-device", "cpu"])


def predicted(root: Path) -> int:
    images, masks = dataset(root) / "imagesTs", root / "masks"
    return predict.main(["-i", str(images), "-o", str(masks), "-d", "912", "-device", "cpu"])


def change(path: Path, function) -> None:
    """Replace the pixels ``[z, y, x]`` of a file; what it leaves of the planes is the first ones."""
    image = sitk.ReadImage(str(path))
    made = sitk.GetImageFromArray(function(sitk.GetArrayFromImage(image)))
    made.SetSpacing(image.GetSpacing())
    made.SetOrigin(image.GetOrigin())
    made.SetDirection(image.GetDirection())
    sitk.WriteImage(made, str(path))


def first_lesion_plane(label: Path) -> int:
    return int(np.flatnonzero(sitk.GetArrayFromImage(sitk.ReadImage(str(label))).any((1, 2)))[0])


@pytest.mark.slow
@pytest.mark.parametrize("way", ["whole", "chunks", "concatenate"])
def test_a_stack_that_is_thinner_than_the_sub_volume_trains_and_is_predicted(root, way):
    folder = dataset(root)
    label = sorted((folder / "labelsTr").iterdir())[0]
    z = first_lesion_plane(label)
    stem = label.name.removesuffix(".nii.gz")
    for path in (label, *(folder / "imagesTr").glob(f"{stem}_*")):
        change(path, lambda pixels: pixels[z : z + 3])
    for path in (folder / "imagesTs").iterdir():
        change(path, lambda pixels: pixels[:5])
    assert planned(f"planner.inference={way}") == 0
    plan = json.loads((root / "preprocessed" / DATASET / "brainsegnet/plan.json").read_text())
    assert plan["recipe"]["stages"][0]["patch_size"][0] == 7
    assert trained() == 0 and predicted(root) == 0
    (mask,) = (root / "masks").glob("*.nii.gz")
    assert sitk.ReadImage(str(mask)).GetSize()[2] == 5


def test_a_map_that_one_case_lacks_is_named(root, capsys):
    path = sorted((dataset(root) / "imagesTr").glob("*_0003.nii.gz"))[1]
    path.unlink()
    assert planned() == 1
    error = capsys.readouterr().err
    assert path.name in error and "missing" in error
    assert not (root / "preprocessed" / DATASET / "brainsegnet/plan.json").exists()


@pytest.mark.parametrize("value", [0, 7])
def test_a_map_without_contrast_is_refused(root, capsys, value):
    path = sorted((dataset(root) / "imagesTr").glob("*_0004.nii.gz"))[2]
    change(path, lambda pixels: np.full_like(pixels, value))
    assert planned() == 1
    error = capsys.readouterr().err
    assert path.name in error and "a constant image" in error and f"every voxel is {value}" in error


@pytest.mark.slow
def test_a_network_that_learned_without_some_maps_predicts_without_them(root, capsys):
    """With planner.map_dropout an image to predict may have a channel of zeros; else, and for other constants, not."""
    (tmax,) = (dataset(root) / "imagesTs").glob("*_0004.nii.gz")
    change(tmax, np.zeros_like)
    assert planned("planner.map_dropout=0.3") == 0
    assert trained() == 0 and predicted(root) == 0
    change(tmax, lambda pixels: pixels + 5)
    assert predicted(root) == 1
    assert "channel Tmax: a constant image" in capsys.readouterr().err
    change(tmax, np.zeros_like)
    plan = ["-p", "without", "--set", *TINY]
    assert plan_and_preprocess.main(["-d", "912", "-pl", "brainsegnet", "-np", "1", *plan]) == 0
    assert train.main(["912", "0", "-p", "without", "-device", "cpu"]) == 0
    images, model = str(dataset(root) / "imagesTs"), str(root / "results" / DATASET / "brainsegnet__without")
    assert predict.main(["-i", images, "-o", str(root / "other"), "-m", model, "-device", "cpu"]) == 1
    assert "channel Tmax: a constant image" in capsys.readouterr().err


@pytest.mark.slow
def test_sub_regions_that_a_case_lacks_train_and_are_scored(root, capsys):
    """Tumour labels painted into the lesions: one case has no enhancing part, none has a necrosis."""
    folder = dataset(root)
    info = json.loads((folder / "dataset.json").read_text())
    info["labels"] = LABELS
    (folder / "dataset.json").write_text(json.dumps(info))
    for number, path in enumerate(
        sorted((*(folder / "labelsTr").iterdir(), *(folder / "labelsTs").iterdir()))
    ):

        def paint(mask, number=number):
            y = np.indices(mask.shape)[1]
            return np.where(mask > 0, np.where(number and y % 2, 4, 2 + y % 2), 0).astype(np.uint8)

        change(path, paint)
    assert planned() == 0 and trained() == 0 and predicted(root) == 0
    command = ["-p", str(root / "masks"), "-g", str(folder / "labelsTs"), "--preset", "brats"]
    assert evaluate.main([*command, "-o", str(root / "scores")]) == 0
    written = capsys.readouterr().out
    assert all(region in written for region in ("whole", "core", "enhancing"))
