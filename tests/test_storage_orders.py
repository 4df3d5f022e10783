"""The same scan gives the same fingerprint, store and mask, bit for bit, in whichever of the 48 orders it is stored."""

import json
import math
import os

import nibabel as nib
import numpy as np
import pytest
import runs
import small
import torch
from storage import ALL, code_of, store_as, stored_as

from autoseg import messages, plugins
from autoseg.bundle import weights
from autoseg.bundle.card import write_model_card
from autoseg.bundle.layout import NORMALISATION, weight_file_name
from autoseg.bundle.networks import build_network
from autoseg.cli import plan_and_preprocess, predict, train
from autoseg.dataset.examine import extract_fingerprint
from autoseg.dataset.raw_layout import load_raw
from autoseg.files import read_model, write_json
from autoseg.fingerprint import Fingerprint
from autoseg.inference.folder import predict_cases
from autoseg.inference.predictor import Predictor
from autoseg.plan import Plan, hash_plan
from autoseg.plugins.planner import Budget
from autoseg.preparation.choice import make_plan
from autoseg.preprocessing.fill_store import preprocess_dataset
from autoseg.preprocessing.fixed import measure
from autoseg.preprocessing.store import Store

HOME = "RAS"
"""How the other cases are stored."""
SHAPE_XYZ, SPACING_XYZ_MM = (24, 20, 6), (1.0, 1.25, 4.0)

SMALL = {
    "brainsegnet": {"planner.width": 4, "planner.refine_width": 8},
    "edd_muscle": {"planner.muscle": False, "planner.width": 2, "planner.spacing_mm": 1.0},
    "ratlesnetv2": {"planner.width": 2, "planner.members": 1},
    "unet": {"networks.main.arguments.features_per_stage": [4, 4, 4]},
}
"""Options that make a family's networks small; a family without any takes its own plan."""


def angled(degrees):
    """An oblique frame: turned about two axes of the patient."""
    one, two = math.radians(degrees), math.radians(degrees / 2)
    about_x = [[1, 0, 0], [0, math.cos(one), -math.sin(one)], [0, math.sin(one), math.cos(one)]]
    about_z = [[math.cos(two), -math.sin(two), 0], [math.sin(two), math.cos(two), 0], [0, 0, 1]]
    return np.array(about_x) @ np.array(about_z)


def scan(index, degrees):
    """Image and mask of one case, stored as :data:`HOME`; no plane of it mirrors another."""
    random = np.random.default_rng((index, 7))
    affine = np.eye(4)
    affine[:3, :3] = angled(degrees) @ np.diag(SPACING_XYZ_MM)
    affine[:3, 3] = -11.0, 4.5, 30.0
    grid = np.meshgrid(*(np.arange(n) for n in SHAPE_XYZ), indexing="ij")
    head = sum(((g - (n - 1) / 2) / (0.48 * n)) ** 2 for g, n in zip(grid, SHAPE_XYZ, strict=True)) < 1
    lesion = sum(((g - c) * s) ** 2 for g, c, s in zip(grid, (9 + index, 7, 2), SPACING_XYZ_MM, strict=True))
    mask = ((lesion < 20) & head).astype(np.uint8)
    image = np.where(head, random.normal(100, 10, SHAPE_XYZ) + 3 * grid[0] + grid[1] + 60 * mask, 0)
    return nib.Nifti1Image(image.astype(np.float32), affine), nib.Nifti1Image(mask, affine)


def write_case(folder, name, index, degrees, code):
    for image, path in zip(
        scan(index, degrees), (f"imagesTr/{name}_0000.nii.gz", f"labelsTr/{name}.nii.gz"), strict=True
    ):
        (folder / path).parent.mkdir(parents=True, exist_ok=True)
        nib.save(stored_as(image, code), folder / path)


def make_dataset(folder, degrees):
    """Three cases, all stored as :data:`HOME`."""
    for index, name in enumerate("abc"):
        write_case(folder, name, index, degrees, HOME)
    info = {"channel_names": {"0": "DWI"}, "labels": {"background": 0, "lesion": 1}, "numTraining": 3}
    (folder / "dataset.json").write_text(json.dumps({**info, "file_ending": ".nii.gz"}))


def untrained(folder, plan, constants):
    """A model folder whose networks have random weights; constants are those of the normalisation, None for none."""
    trainer = plugins.load(plugins.TRAINERS, plan.trainer)
    for number, stage in enumerate(plan.recipe.stages):
        for member in range(plan.recipe.members):
            torch.manual_seed(100 * number + member)
            module = build_network(plan, stage.network, trainer).module
            path = folder / "fold_0" / "weights" / weight_file_name(stage.name, member)
            said = {"network": stage.network, "stage": stage.name, "member": member, "epoch": 1}
            weights.save(path, module, **said, plan_hash=hash_plan(plan))
    write_json(folder / "plan.json", plan)
    labels, channels = plan.labels, {str(i): name for i, name in enumerate(plan.channel_names)}
    info = {"channel_names": channels, "labels": labels, "numTraining": 3, "file_ending": ".nii.gz"}
    write_json(folder / "dataset.json", info)
    if constants is not None:
        write_json(folder / "fold_0" / NORMALISATION, constants)
    write_json(folder / "fold_0" / "fold.json", {"validation_cases": ["a"], "validation": {}})
    write_model_card(folder)
    learning = [step.name for step in plan.recipe.postprocessing if step.fit != "none"]
    return Predictor(folder, device="cpu", overrides={f"postprocessing.{name}": "off" for name in learning})


def facts(fingerprint):
    """All that is measured: without the hashes of files and without how they are stored."""
    content = fingerprint.model_dump(exclude={"content_hash"})
    content["summary"].pop("orientations")
    for case in content["cases"]:
        case.pop("content_hash"), case.pop("orientation")
    return content


def stored(store, name):
    case = store.read(name)
    return [case.image[...].tobytes(), case.label[...].tobytes(), case.foreground.tobytes()]


def predicted(predictor, raw, out):
    """The mask of case c, as nibabel reads it."""
    predict_cases(predictor, [case for case in raw.cases if case.name == "c"], out)
    return nib.load(out / "c.nii.gz")


@pytest.mark.parametrize("degrees", [0, 90], ids=["straight", "oblique, between two axes"])
@pytest.mark.parametrize("planner", plugins.names(plugins.PLANNERS))
def test_every_storage_order_gives_the_same(tmp_path, monkeypatch, planner, degrees):
    # hundreds of small files, which need not outlive the power
    monkeypatch.setattr(os, "fsync", lambda _: None)
    folder = tmp_path / "Dataset001_Orders"
    make_dataset(folder, degrees)
    raw = load_raw(folder)
    known = extract_fingerprint(raw)
    plan = make_plan(known, planner, Budget(), dict(SMALL.get(planner, {})))
    home = known.orientation
    assert plan.preprocessing.orientation == home and known.summary.orientations == {home: 3}
    store = Store(tmp_path / "store")
    preprocess_dataset(raw, known, plan, store.folder, 1)
    predictor = untrained(tmp_path / "model", plan, measure(store, "abc", plan.preprocessing))
    arrays, mask = stored(store, "c"), predicted(predictor, raw, tmp_path / "home")
    assert 0 < np.asarray(mask.dataobj).mean() < 1
    for code in ALL:
        write_case(folder, "c", 2, degrees, code)
        found = extract_fingerprint(raw)
        assert facts(found) == facts(known), code
        assert (
            make_plan(found, planner, Budget(), dict(SMALL.get(planner, {}))).preprocessing
            == plan.preprocessing
        )
        preprocess_dataset(raw, found, plan, store.folder, 1)
        assert stored(store, "c") == arrays, code
        other = predicted(predictor, raw, tmp_path / "other")
        image = nib.load(folder / "imagesTr" / "c_0000.nii.gz")
        assert np.array_equal(np.asarray(other.dataobj), np.asarray(stored_as(mask, code).dataobj)), code
        np.testing.assert_allclose(other.affine, image.affine, atol=1e-4)


# ------------------------------------------------------------------------------------------------ the commands

TRAINED = ["--set", 'postprocessing=[{"name": "threshold", "fit": "validation"}]', "stages.0.epochs=1"]


def run_all(patch, root):
    """Plan, train and predict as a user would."""
    runs.set_folders(patch, root)
    assert plan_and_preprocess.main(["-d", "1", "-pl", "unet", "-np", "1", "--set", *small.TINY]) == 0
    assert train.main(["1", "0", "-device", "cpu", *TRAINED]) == 0
    images = root / "raw" / small.NAME / "imagesTs"
    arguments = [
        "-i",
        str(images),
        "-o",
        str(root / "masks"),
        "-d",
        "1",
        "-device",
        "cpu",
        "--save_probabilities",
    ]
    assert predict.main(arguments) == 0


def scores(root):
    """The final validation, without hashes and paths."""
    content = json.loads((runs.fold(root) / "validation" / "summary.json").read_text())
    return [
        {key: value for key, value in case.items() if not key.endswith("sha256")} for case in content["cases"]
    ]


@pytest.mark.slow
def test_a_dataset_of_mixed_orientations_is_trained_and_predicted_as_one_of_a_single_one(
    tmp_path, monkeypatch, capfd
):
    alike, mixed = tmp_path / "alike", tmp_path / "mixed"
    for root in (alike, mixed):
        small.dataset(root / "raw", n=5, n_test=1)
    raw = mixed / "raw" / small.NAME
    # 000 and 003: a part each; 005: to predict
    codes = {
        "case_000": "SRA",
        "case_003": "PIL",
        "case_005": "AIR",
    }
    for name, code in codes.items():
        for path in (*raw.glob(f"images*/{name}_*"), *raw.glob(f"labels*/{name}.*")):
            store_as(path, code)
    run_all(monkeypatch, alike)
    messages.forget_warnings()
    capfd.readouterr()
    run_all(monkeypatch, mixed)
    said = "".join(capfd.readouterr())
    assert "different orientations: LPS (3 cases), PIL (case_003), SRA (case_000)" in said
    assert "case_005: " in said and "stored as AIR, turned into LPS and back" in said

    prepared = [root / "preprocessed" / small.NAME for root in (alike, mixed)]
    one, two = (read_model(folder / "fingerprint.json", Fingerprint) for folder in prepared)
    assert facts(one) == facts(two) and two.summary.orientations == {"LPS": 3, "PIL": 1, "SRA": 1}
    one, two = (read_model(folder / "unet" / "plan.json", Plan) for folder in prepared)
    assert one.preprocessing == two.preprocessing and one.recipe == two.recipe
    (reason,) = (r for r in two.reasons if r.what == "preprocessing.orientation")
    assert reason.value == "LPS" and "PIL (case_003), SRA (case_000)" in reason.why
    assert not any(r.what == "preprocessing.orientation" for r in one.reasons)
    for name in (f"case_{i:03}" for i in range(5)):
        assert stored(*((Store(prepared[0] / "unet" / "store"), name))) == stored(
            Store(prepared[1] / "unet" / "store"), name
        )
    assert runs.same(runs.final(alike), runs.final(mixed))
    assert scores(alike) == scores(mixed)
    learned = [json.loads((runs.fold(root) / "fitted.json").read_text())["steps"] for root in (alike, mixed)]
    assert learned[0] == learned[1]

    before, after = (nib.load(root / "masks" / "case_005.nii.gz") for root in (alike, mixed))
    assert code_of(mixed / "masks" / "case_005.nii.gz") == "AIR"
    assert np.array_equal(np.asarray(stored_as(before, "AIR").dataobj), np.asarray(after.dataobj))
    with np.load(mixed / "masks" / "case_005.npz") as content:
        lesion = content["probabilities"][1]
    assert lesion.shape == np.asarray(after.dataobj).transpose().shape
    with np.load(alike / "masks" / "case_005.npz") as content:
        expected = nib.Nifti1Image(content["probabilities"][1].astype(np.float32).transpose(), before.affine)
    assert np.array_equal(
        np.asarray(stored_as(expected, "AIR").dataobj).transpose(), lesion.astype(np.float32)
    )
