"""The phase after the last stage: a step of the post-processing learns a number, and everything knows it."""

import json

import numpy as np
import pytest
import runs
import small
from runs import fold

from autoseg.bundle.card import write_model_card
from autoseg.bundle.opening import open_model
from autoseg.cli import export_bundle, import_bundle, predict, train
from autoseg.errors import FaultsError
from autoseg.inference.predictor import Predictor
from autoseg.labels import LabelSet
from autoseg.plugins.parts import FitCase, Segmentation
from autoseg.postprocessing.threshold import GRID, fit_threshold

LABELS = LabelSet.from_labels({"background": 0, "lesion": 1})
STEP = 'postprocessing=[{"name": "threshold", "fit": "validation"}]'
COMMAND = ["1", "0", "-device", "cpu", "--set", STEP, "stages.0.epochs=1"]


def case(probabilities, truth):
    lesion = np.array(probabilities, np.float32).reshape(1, 1, -1)
    found = Segmentation((lesion > 0.5).astype(np.uint8), (1.0, 1.0, 1.0), np.stack([1 - lesion, lesion]))
    return FitCase("a", found, np.array(truth, np.uint8).reshape(1, 1, -1))


def test_the_threshold_with_the_best_mean_dice_is_taken():
    """Above 0.3 both cases are right; of 0.30 and 0.35 the one nearer to one half."""
    cases = [case([0.9, 0.38, 0.2], [1, 1, 0]), case([0.3, 0.36], [0, 1])]
    assert fit_threshold(cases, LABELS) == {"above": 0.35}
    # all but the extremes are right
    assert fit_threshold([case([0.9, 0.1], [1, 0])], LABELS) == {"above": 0.5}
    assert fit_threshold([case([0.9, 0.2], [0, 0])], LABELS) == {"above": 0.9}  # empty and empty is 1
    assert 0.5 in GRID and len(GRID) == 19


def test_the_ignore_label_does_not_count():
    labels = LabelSet.from_labels({"background": 0, "lesion": 1, "ignore": 2})
    assert fit_threshold([case([0.9, 0.6, 0.58], [1, 0, 2])], labels) == {"above": 0.6}


@pytest.fixture(scope="module")
def fitted(prepared, tmp_path_factory):
    with pytest.MonkeyPatch.context() as patch:
        root = runs.copied(patch, prepared, tmp_path_factory.mktemp("fitted") / "work")
        assert train.main(COMMAND) == 0
    return root


@pytest.fixture
def root(fitted, tmp_path, monkeypatch):
    return runs.copied(monkeypatch, fitted, tmp_path / "work")


def learned(root):
    return json.loads((fold(root) / "fitted.json").read_text())


@pytest.mark.slow
def test_what_is_learned_lies_beside_the_weights_and_is_used(root):
    found = learned(root)["steps"]["threshold"]
    splits = json.loads((root / "preprocessed" / small.NAME / "splits.json").read_text())
    assert found["cases"] == sorted(splits[0]["val"]) and found["fit"] == "validation"
    assert found["learned"]["above"] in GRID
    assert not (fold(root) / "fitting").exists()
    predictor = Predictor(fold(root).parent, device="cpu")
    assert predictor.steps[0].arguments == found["learned"]


@pytest.mark.slow
def test_a_step_that_is_not_applied_learns_and_waits_to_be_asked_for(prepared, tmp_path, monkeypatch):
    """The second step learns from what the plain prediction makes, not from what the first one would."""
    root = runs.copied(monkeypatch, prepared, tmp_path / "work")
    steps = [{"name": name, "fit": "validation", "apply": False} for name in ("threshold_youden", "closing")]
    options = [
        "1",
        "0",
        "-device",
        "cpu",
        "--set",
        f"postprocessing={json.dumps(steps)}",
        "stages.0.epochs=1",
    ]
    assert train.main(options) == 0
    found, model = learned(root)["steps"], fold(root).parent
    assert {name: list(step["learned"]) for name, step in found.items()} == {
        "threshold_youden": ["above"],
        "closing": ["iterations"],
    }
    assert Predictor(model, device="cpu").steps == []
    (step,) = Predictor(model, device="cpu", overrides={"postprocessing.threshold_youden.apply": True}).steps
    assert step.name == "threshold_youden" and step.arguments == found["threshold_youden"]["learned"]


@pytest.mark.slow
def test_it_is_part_of_the_identity_and_of_the_bundle(root, tmp_path):
    model = fold(root).parent
    before = open_model(model).hash
    target = tmp_path / "model.zip"
    assert export_bundle.main(["-d", "1", "-o", str(target)]) == 0
    assert import_bundle.main([str(target), "--results", str(tmp_path / "other")]) == 0
    assert open_model(tmp_path / "other" / small.NAME / "unet__unet").hash == before
    content = learned(root)
    content["steps"]["threshold"]["learned"]["above"] = 0.123
    (fold(root) / "fitted.json").write_text(json.dumps(content))
    with pytest.raises(FaultsError, match="(?s)fitted.json.*was changed or damaged"):
        open_model(model)
    write_model_card(model)
    assert open_model(model).hash != before


@pytest.mark.slow
def test_without_it_the_model_is_not_finished_and_c_finishes_it(root, capfd):
    before = learned(root)
    for name in ("fitted.json", "fold.json"):
        (fold(root) / name).unlink()
    images, out = root / "raw" / small.NAME / "imagesTs", root / "out"
    options = ["-i", str(images), "-o", str(out), "-d", "1", "-device", "cpu"]
    assert predict.main(options) == 1
    text = capfd.readouterr().err
    assert "fitted.json" in text and "autoseg_train ... --c" in text
    assert predict.main([*options, "--set", "postprocessing.threshold=off"]) == 0
    assert train.main([*COMMAND, "--c"]) == 0
    assert learned(root) == before


@pytest.mark.slow
@pytest.mark.parametrize(
    ("step", "words"),
    [
        ({"name": "keep_largest_component", "fit": "validation"}, "has nothing to learn"),
        ({"name": "threshold", "fit": "held_back"}, "no stage holds any back"),
        ({"name": "threshold", "arguments": {"below": 1}}, "do not fit the post-processing step 'threshold'"),
    ],
)
def test_a_step_that_cannot_learn_is_refused_before_the_training(
    prepared, tmp_path, monkeypatch, capfd, step, words
):
    root = runs.copied(monkeypatch, prepared, tmp_path / "work")
    assert train.main(["1", "0", "-device", "cpu", "--set", f"postprocessing=[{json.dumps(step)}]"]) == 1
    assert words in capfd.readouterr().err
    assert not fold(root).exists() or not (fold(root) / "weights").exists()


@pytest.mark.slow
def test_a_fold_without_cases_to_learn_from_is_refused_before_the_training(
    prepared, tmp_path, monkeypatch, capfd
):
    root = runs.copied(monkeypatch, prepared, tmp_path / "work")
    assert train.main(["1", "all", *COMMAND[2:]]) == 1
    assert "the post-processing step 'threshold' has no case to learn from" in capfd.readouterr().err
    assert not list((root / "results").rglob("weights"))


@pytest.mark.slow
def test_the_report_says_what_was_learned(root):
    from autoseg.report.collect import collect
    from autoseg.report.sections import training

    found = learned(root)["steps"]["threshold"]
    section = training(collect(fold(root).parent))
    (points,) = [block for block in section.blocks if hasattr(block, "items")]
    line = f"fold 0: threshold learned above {found['learned']['above']:g} from 1 validation case."
    assert line in points.items
