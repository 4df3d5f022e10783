"""Brain SegNet's recipe on perfusion phantoms, small: three stages by the commands, stopped and continued, predicted.

The published plan in all but sizes and lengths: six maps, constants of the fold, sub-volumes around the lesion;
nothing, half and three quarters of the samples augmented; the focal loss last, with a new Adam.
"""

import json
from pathlib import Path

import numpy as np
import pytest
import runs
import SimpleITK as sitk

from autoseg.bundle import weights
from autoseg.cli import make_phantom, plan_and_preprocess, predict, train
from autoseg.files import read_model, write_json
from autoseg.plan import Plan
from autoseg.preprocessing.fixed import FixedConstants
from autoseg.training import sources

pytestmark = pytest.mark.slow

DATASET = "Dataset912_PhantomPerfusion"
MAPS = ["ADC", "MTT", "rCBF", "rCBV", "Tmax", "TTP"]
TRANSFORMS = [
    {"name": "slice_factor", "arguments": {"low": 0.8, "high": 1.2, "about": "raw_zero"}},
    {"name": "quarter_turns"},
    {"name": "rescale", "arguments": {"low": 0.5, "high": 1.2}},
    {"name": "flip", "arguments": {"axis": 2}},
    {"name": "flip", "arguments": {"axis": 1}},
    {"name": "missing_channels", "arguments": {"p": 0.2}},
]


def stage(name: str, share: float, gamma: float, **more) -> dict:
    return {
        "name": name,
        "patch_size": [7, 12, 12],
        "batch_size": 2,
        "epochs": 1,
        "loss": {"name": "brainsegnet", "arguments": {"gamma": gamma}},
        "optimiser": {"name": "adam", "arguments": {"lr": 1e-4}},
        "schedule": {"name": "constant"},
        "sampling": {"name": "sub_volumes"},
        "augmentation": {"name": "none", "mirror_axes": [], "share": share, "transforms": TRANSFORMS},
        **more,
    }


def small_plan() -> Plan:
    entry = {"scheme": "fixed", "spread": "mean_absolute_deviation"}
    stages = [
        stage("plain", 0.0, 0.0, keep=False),
        stage("half", 0.5, 0.0, start="previous", optimiser_state="previous", keep=False),
        stage("focal", 0.75, 2.0, start="previous"),
    ]
    return Plan.model_validate(
        {
            "planner": "brainsegnet",
            "trainer": "brainsegnet",
            "dataset": DATASET,
            "fingerprint_hash": "0" * 64,
            "channel_names": MAPS,
            "labels": {"background": 0, "lesion": 1},
            "preprocessing": {
                "crop_to_nonzero": False,
                "spacing_mm": [None, None, None],
                "normalisation": [entry] * len(MAPS),
            },
            "networks": {"main": {"name": "brainsegnet", "arguments": {"width": 2, "refine_width": 4}}},
            "recipe": {
                "stages": stages,
                "inference": {"patch_size": ["whole"] * 3, "gaussian": False, "mirror_axes": []},
                "validation": {"cases": 1, "every": 1},
            },
        }
    )


@pytest.fixture
def root(tmp_path: Path, monkeypatch) -> Path:
    runs.set_folders(monkeypatch, tmp_path)
    options = ["-n", "5", "--test", "1", "--scale", "0.125", "-id", "912", "-np", "1"]
    assert make_phantom.main(["perfusion", *options, "-o", str(tmp_path / "raw")]) == 0
    write_json(tmp_path / "preprocessed" / DATASET / "brainsegnet" / "plan.json", small_plan())
    assert plan_and_preprocess.main(["-d", "912", "-p", "brainsegnet", "--keep_plan", "-np", "1"]) == 0
    return tmp_path


def trained(name: str, *options: str) -> int:
    return train.main(["912", "0", "-p", "brainsegnet", "-name", name, "-device", "cpu", *options])


def fold(root: Path, name: str) -> Path:
    return root / "results" / DATASET / name / "fold_0"


def final(root: Path, name: str) -> dict:
    return weights.read(fold(root, name) / "weights" / "member0.focal.safetensors").tensors


def test_the_curriculum_trains_goes_on_after_a_stop_and_predicts(root, monkeypatch):
    opened = []
    real = sources.BatchSource
    monkeypatch.setattr(
        sources, "BatchSource", lambda *a, **k: opened.append((k, real(*a, **k))) or opened[-1][1]
    )
    assert trained("whole") == 0
    with pytest.MonkeyPatch.context() as patch:
        runs.stop_after(patch, 3)  # of six iterations, two in each stage
        assert trained("stopped") == 128 + 15
    assert trained("stopped", "--c") == 0
    assert runs.same(final(root, "whole"), final(root, "stopped"))

    log = [json.loads(line) for line in (fold(root, "whole") / "log.jsonl").read_text().splitlines()]
    assert [entry["stage"] for entry in log] == ["plain", "half", "focal"]
    # the second stage goes on with the Adam of the first; the focal stage has a new one
    assert [path.name for path in (fold(root, "whole") / "optimiser").iterdir()] == [
        "member0.plain.safetensors"
    ]

    constants = read_model(fold(root, "whole") / "normalisation.json", FixedConstants).channels
    expected = [-channel.mean / channel.spread for channel in constants]
    for settings, source in opened:
        assert settings["raw_zero"] == pytest.approx(expected)
        assert source.iterations == 2  # four training cases, one sub-volume of each

    images, masks = root / "raw" / DATASET / "imagesTs", root / "masks"
    options = ["-i", str(images), "-o", str(masks), "-d", "912", "-name", "whole", "-device", "cpu"]
    assert predict.main(options) == 0
    (mask,) = masks.glob("*.nii.gz")
    image = sitk.ReadImage(str(next(images.glob("*_0000.nii.gz"))))
    found = sitk.ReadImage(str(mask))
    assert found.GetSize() == image.GetSize() and found.GetSpacing() == image.GetSpacing()
    assert set(np.unique(sitk.GetArrayFromImage(found))) <= {0, 1}
