"""From raw arrays to masks with a model whose answer is known: ``image > threshold`` inside the brain."""

import json
import subprocess
import sys
from dataclasses import replace

import numpy as np
import pytest
import torch

import autoseg
from autoseg import messages
from autoseg.bundle import weights
from autoseg.bundle.card import write_model_card
from autoseg.bundle.layout import CARD, expected_members, weight_file_name
from autoseg.bundle.opening import open_model
from autoseg.bundle.transfer import export_bundle
from autoseg.errors import AutosegError, FaultsError
from autoseg.files import hash_file, hash_json
from autoseg.inference.predictor import Predictor
from autoseg.labels import LabelSet
from autoseg.plan import Named
from autoseg.plugins.parts import Segmentation

SPACING = (2.0, 1.0, 1.0)


def brain(shape=(6, 20, 17), seed=0):
    """Positive noise inside a box, zero around it."""
    image = np.zeros((1, *shape), np.float32)
    box = (0, slice(1, -1), slice(2, -2), slice(3, -3))
    image[box] = np.random.default_rng(seed).uniform(0.05, 1, image[box].shape)
    return image


def predict(folder, image, spacing=SPACING, **options):
    return autoseg.predict(folder, image, spacing, device="cpu", **options)


def test_mask_is_what_the_network_says(tmp_path, model_folder):
    folder, image = model_folder.make_model(tmp_path), brain()
    mask = predict(folder, image)
    assert mask.dtype == np.uint8 and np.array_equal(mask, image[0] > 0.5)
    assert np.array_equal(predict(folder, image[0]), mask)  # [z, y, x] for one channel
    assert np.array_equal(predict(folder, image, mirror=True, step=0.3), mask)


def test_probabilities(tmp_path, model_folder):
    folder, image = model_folder.make_model(tmp_path), brain()
    mask, probabilities = predict(folder, image, return_probabilities=True)
    assert probabilities.shape == (2, *image.shape[1:])
    inside = image[0] > 0
    expected = 1 / (1 + np.exp(-4 * (image[0][inside] - 0.5)))
    np.testing.assert_allclose(probabilities[1][inside], expected, atol=1e-5)
    np.testing.assert_allclose(probabilities.sum(0), 1, atol=1e-5)
    assert np.array_equal(probabilities[1] > 0.5, mask > 0)


@pytest.mark.parametrize(
    ("fusion", "threshold"), [("mean_logits", 0.5), ("mean_probabilities", None), ("majority", 0.4)]
)
def test_folds_are_fused_as_the_plan_says(tmp_path, model_folder, fusion, threshold):
    plan = model_folder.make_plan(fusion=Named(name=fusion))
    folder, image = model_folder.make_model(tmp_path, (0.3, 0.4, 0.8), plan), brain()
    x = image[0]
    if threshold is None:
        share = sum(1 / (1 + np.exp(-4 * (x - t))) for t in (0.3, 0.4, 0.8)) / 3
        expected = (share > 0.5) & (x > 0)
    else:
        expected = x > threshold
    assert np.array_equal(predict(folder, image) > 0, expected)
    assert np.array_equal(predict(folder, image, folds=[2]) > 0, x > 0.8)


def test_resampling_to_the_plans_spacing_and_back(tmp_path, model_folder):
    plan = model_folder.make_plan(spacing_mm=(1.0, 1.0, 1.0))
    folder = model_folder.make_model(tmp_path, plan=plan)
    image = np.full((1, 6, 20, 17), 0.1, np.float32)
    image[:, 2:4, 5:15, 4:12] = 0.9
    mask = predict(folder, image)
    assert mask.shape == (6, 20, 17) and mask[2:4, 6:14, 5:11].all() and not mask[:, :4].any()
    predictor = Predictor(folder, device="cpu")
    from autoseg.dataset.imageio import Geometry

    geometry = Geometry((6, 20, 17), SPACING, (0.0, 0.0, 0.0), (1, 0, 0, 0, 1, 0, 0, 0, 1))
    assert predictor.preprocess("a", image, geometry).image.shape == (1, 12, 20, 17)


def test_postprocessing_of_plan_and_of_trainer(tmp_path, model_folder, monkeypatch):
    plan = model_folder.make_plan(
        postprocessing=[Named(name="keep_largest_component"), Named(name="own", arguments={"value": 7})]
    )
    folder = model_folder.make_model(tmp_path, plan=plan)
    image = np.full((1, 6, 20, 17), 0.1, np.float32)
    image[:, 1:3, 2:6, 2:6] = 0.9
    image[:, 1:3, 10:12, 10:12] = 0.9
    seen = {}

    def own(case: Segmentation, *, value: int) -> Segmentation:
        seen.update(image=case.image, probabilities=case.probabilities, spacing=case.spacing_mm)
        return replace(case, mask=case.mask * value)

    from autoseg.plugins.parts import StepPart
    from autoseg.plugins.trainer import Trainer

    step = StepPart("own", own, needs=("image", "probabilities"))
    trainer = Trainer(name="unet", summary="", steps=(step,))
    monkeypatch.setattr("autoseg.plugins.load", lambda group, name: trainer)
    mask = predict(folder, image)
    expected = np.zeros(image.shape[1:], np.uint8)
    expected[1:3, 2:6, 2:6] = 7
    assert np.array_equal(mask, expected)
    assert np.array_equal(seen["image"], image) and seen["probabilities"].shape[0] == 2
    assert seen["spacing"] == SPACING


def test_mirroring_is_off_on_a_cpu_and_can_be_asked_for(tmp_path, model_folder):
    folder = model_folder.make_model(tmp_path)
    assert Predictor(folder, device="cpu").options.mirror is False
    assert Predictor(folder, device="cpu", mirror=True).options.mirror is True
    assert Predictor(folder, device="cpu").n_mirrored == 8
    assert Predictor(folder, device="cpu").identity["model"] == open_model(folder).hash
    unmirrored = model_folder.make_plan()
    unmirrored.recipe.inference.mirror_axes = ()
    folder = model_folder.make_model(tmp_path / "without", plan=unmirrored)
    assert Predictor(folder, device="cpu", mirror=True).options.mirror is False


def test_a_zip_predicts_like_its_folder(tmp_path, model_folder):
    from autoseg.bundle.transfer import export_bundle

    folder, image = model_folder.make_model(tmp_path), brain()
    export_bundle(folder, tmp_path / "m.zip")
    assert np.array_equal(predict(tmp_path / "m.zip", image), image[0] > 0.5)
    assert np.array_equal(predict(Predictor(folder, device="cpu"), image), image[0] > 0.5)


@pytest.mark.parametrize("shape", [(3, 6, 20, 17), (1, 1, 6, 20, 17), (20, 17)])
def test_wrong_channels_are_refused(tmp_path, model_folder, shape):
    plan = model_folder.make_plan(channels=("FLAIR", "T1"))
    folder = model_folder.make_model(tmp_path, plan=plan)
    with pytest.raises(AutosegError, match=r"(?s)model's channels.*c = 2: FLAIR, T1"):
        predict(folder, np.ones(shape, np.float32))


@pytest.mark.parametrize("spacing", [(1, 1), (1, 1, 0), (1, 1, -1), (1, float("nan"), 1)])
def test_wrong_spacing_is_refused(tmp_path, model_folder, spacing):
    with pytest.raises(AutosegError, match="(?s)spacing_mm: the spacing does not fit.*z, y, x"):
        predict(model_folder.make_model(tmp_path), brain(), spacing)


def test_numbers_that_are_none_are_refused(tmp_path, model_folder):
    image = brain()
    image[0, 2, 3, 4] = np.nan
    with pytest.raises(AutosegError, match="(?s)channel T2: holds NaN or Inf.*1 voxel NaN"):
        predict(model_folder.make_model(tmp_path), image)


@pytest.mark.parametrize("step", [0, 1e-12, 1.5])
def test_wrong_step_is_refused(tmp_path, model_folder, step):
    with pytest.raises(AutosegError, match="the step size does not fit"):
        predict(model_folder.make_model(tmp_path), brain(), step=step)


# ------------------------------------------------------------------------------------------------ model folder


def test_which_weights_take_part(model_folder):
    plan = model_folder.make_plan()
    first = plan.recipe.stages[0]
    stages = [
        first.model_copy(update={"name": "warm", "keep": False}),
        first.model_copy(update={"name": "zoom", "snapshots": [1, 3], "epochs": 3}),
        first.model_copy(update={"name": "judge", "network": "judge"}),
    ]
    changes = {"stages": stages, "members": 2, "postprocessing": [Named(name="judging")]}
    plan = plan.model_copy(update={"recipe": plan.recipe.model_copy(update=changes)})
    members = expected_members(plan, "final")
    assert [member.main for member in members] == [
        "member0.zoom.epoch1.safetensors",
        "member0.zoom.safetensors",
        "member1.zoom.epoch1.safetensors",
        "member1.zoom.safetensors",
    ]
    judges = ["member0.judge.safetensors", "member1.judge.safetensors"]
    assert [member.companions["judge"] for member in members] == [judges[0], judges[0], judges[1], judges[1]]
    best = expected_members(plan, "best")[1]
    assert best.main == "member0.zoom.best.safetensors" and best.companions["judge"] == judges[0]
    without = plan.model_copy(update={"recipe": plan.recipe.model_copy(update={"postprocessing": []})})
    assert not any(member.companions for member in expected_members(without, "final"))


def curriculum_model(model_folder, tmp_path):
    """Two runs of a stage that is not kept and one that writes weights after each of three epochs; each file has a
    threshold of its own."""
    plan = model_folder.make_plan()
    first = plan.recipe.stages[0]
    stages = [
        first.model_copy(update={"name": "warm", "epochs": 3, "keep": False}),
        first.model_copy(update={"epochs": 3, "save_every": 1}),
    ]
    plan = plan.model_copy(update={"recipe": plan.recipe.model_copy(update={"stages": stages, "members": 2})})
    folder = model_folder.make_model(tmp_path, plan=plan)
    thresholds = {}
    for member in (0, 1):
        for stage, epoch in (("warm", None), ("train", 1), ("train", 2), ("train", None)):
            name = weight_file_name(stage, member, snapshot_epoch=epoch)
            thresholds[name] = 0.2 + 0.08 * len(thresholds)
            network = model_folder.threshold_network(1, thresholds[name])
            facts = {"stage": stage, "member": member, "epoch": epoch or 3}
            model_folder.write_weights(folder / "fold_0/weights" / name, network, plan, **facts)
    (folder / CARD).unlink()
    return folder, thresholds


@pytest.mark.parametrize(
    ("overrides", "names"),
    [
        ({}, ["member0.train", "member1.train"]),
        ({"members": 1}, ["member0.train"]),
        ({"members": [1]}, ["member1.train"]),
        ({"inference.members": [0]}, ["member0.train"]),
        ({"members": [1], "stages.train.keep": [2]}, ["member1.train.epoch2"]),
        ({"members": [0], "stages.1.keep": [1, 3]}, ["member0.train.epoch1", "member0.train"]),
        ({"members": [1], "stages.warm.keep": True, "stages.train.keep": False}, ["member1.warm"]),
        ({"members": [1], "stages.warm.keep": True}, ["member1.warm", "member1.train"]),
    ],
)
def test_a_prediction_chooses_among_the_weights_that_were_written(tmp_path, model_folder, overrides, names):
    """The mask of the chosen ones: logits are linear in the image, so that their mean has the mean threshold."""
    folder, thresholds = curriculum_model(model_folder, tmp_path)
    predictor, image = Predictor(folder, device="cpu", overrides=overrides), brain()
    files = [f"{name}.safetensors" for name in names]
    assert [path.name for path in predictor.model.weights] == files
    mean = sum(thresholds[file] for file in files) / len(files)
    assert np.array_equal(predict(predictor, image), image[0] > mean)
    assert predictor.identity == Predictor(open_model(folder, overrides=overrides), device="cpu").identity
    assert open_model(folder, overrides=overrides).hash != open_model(folder, checkpoint="final").hash or (
        names == ["member0.train", "member1.train"]
    )


@pytest.mark.parametrize(
    ("overrides", "words"),
    [
        ({"stages.train.keep": [1, 4]}, r"\[4\]; it writes them after epochs 1, 2, 3"),
        ({"stages.warm.keep": [2]}, r"stage 'warm' writes no weights: \[2\]; it writes them after epoch 3"),
        ({"members": [2]}, r"\[2\], there are members 0 to 1, counted from 0"),
        ({"members": [1, 1]}, "inference.members names 1 more than once; each counts once"),
        ({"stages.train.keep": [1, 3, 3]}, "keep of stage 'train' names 3 more than once"),
        ({"members": []}, r"(?s)names no member.*found: *members=\[\].*leave it out for all"),
        ({"inference.members": []}, "names no member"),
        ({"members": 3}, "(?s)the training made fewer.*members=3.*at most 2.*stages.STAGE.keep"),
        ({"stages.train.keep": False}, "at least one stage must be kept"),
        ({"stages.train.snapshots": [1]}, "(?s)cannot be changed for a prediction.*stages.STAGE.keep"),
        ({"stages.train.save_every": 2}, "cannot be changed for a prediction"),
    ],
)
def test_weights_that_no_training_wrote_are_refused(tmp_path, model_folder, overrides, words):
    folder, _ = curriculum_model(model_folder, tmp_path)
    with pytest.raises(AutosegError, match=words):
        open_model(folder, overrides=overrides)


def test_missing_weights_are_said_with_those_that_there_are(tmp_path, model_folder):
    folder, _ = curriculum_model(model_folder, tmp_path)
    for member in (0, 1):
        (folder / "fold_0/weights" / weight_file_name("train", member, snapshot_epoch=1)).unlink()
    open_model(folder)
    words = r"(?s)no fold_0/weights/member0.train.epoch1.*written were .*member0.train.epoch2.safetensors"
    with pytest.raises(AutosegError, match=words):
        open_model(folder, overrides={"stages.train.keep": [1, 2]})


def test_finished_folds_are_taken_and_the_others_said(tmp_path, model_folder):
    folder = model_folder.make_model(tmp_path, (0.3, 0.4, 0.5, 0.6), folds=[0, 2, 10, "all"])
    (folder / "fold_2" / "weights" / weight_file_name("train")).unlink()
    messages.forget_warnings()
    assert open_model(folder).folds == ("0", "10")
    assert messages.warning_counts() == {"fold 2 has no member0.train.safetensors and is left out": 1}
    assert open_model(folder, folds=["all"]).folds == ("all",)
    with pytest.raises(AutosegError, match=r"(?s)no fold_2/weights/member0.train.safetensors.*--overwrite"):
        open_model(folder, folds=[2])
    with pytest.raises(AutosegError, match=r"(?s)no fold 3.*folds 0, 2, 10, all"):
        open_model(folder, folds=[3])
    with pytest.raises(AutosegError, match=r"(?s)member0.train.best.safetensors.*-chk final"):
        open_model(folder, checkpoint="best")
    for fold in (0, 10):
        (folder / f"fold_{fold}" / "weights" / weight_file_name("train")).unlink()
    assert open_model(folder).folds == ("all",)


def test_nothing_trained_is_explained(tmp_path, model_folder):
    folder = model_folder.make_model(tmp_path, ())
    with pytest.raises(AutosegError, match="(?s)weights are missing.*fold_0.*autoseg_train"):
        open_model(folder)
    with pytest.raises(AutosegError, match="no such model folder"):
        open_model(tmp_path / "nowhere")


def test_corrupt_and_foreign_weights_are_found_before_any_work(tmp_path, model_folder):
    folder = model_folder.make_model(tmp_path)
    path = folder / "fold_0" / "weights" / weight_file_name("train")
    whole = path.read_bytes()
    path.write_bytes(whole[:-3])
    (folder / CARD).unlink()
    with pytest.raises(AutosegError, match="(?s)member0.train.safetensors: the weight file is damaged"):
        Predictor(folder, device="cpu")
    model_folder.write_weights(path, torch.nn.Conv3d(3, 2, 1), open_model(folder).plan)
    write_model_card(folder)
    with pytest.raises(
        AutosegError, match=r"(?s)do not fit.*weight: \(2, 3, 1, 1, 1\) instead of \(2, 1, 1, 1, 1\)"
    ):
        Predictor(folder, device="cpu")


def test_weights_of_another_plan_are_said(tmp_path, model_folder):
    folder = model_folder.make_model(tmp_path)
    plan = open_model(folder).plan
    network = model_folder.threshold_network(1, 0.5)
    path = folder / "fold_0" / "weights" / weight_file_name("train")
    model_folder.write_weights(path, network, plan, plan_hash="0" * 64)
    write_model_card(folder)
    messages.forget_warnings()
    Predictor(folder, device="cpu")
    assert any("it was changed after the training" in text for text in messages.warning_counts())


def test_a_plan_that_an_older_autoseg_wrote_is_not_called_changed(tmp_path, model_folder):
    """The schema has got new fields since."""
    folder = model_folder.make_model(tmp_path)
    content = json.loads((folder / "plan.json").read_text())
    content["version"] = 1
    for name in ("patience", "leave_out"):
        del content["recipe"]["stages"][0][name]
    (folder / "plan.json").write_text(json.dumps(content))
    path = folder / "fold_0" / "weights" / weight_file_name("train")
    network = model_folder.threshold_network(1, 0.5)
    model_folder.write_weights(path, network, model_folder.make_plan(), plan_hash=hash_json(content))
    write_model_card(folder)
    messages.forget_warnings()
    Predictor(folder, device="cpu")
    assert not messages.warning_counts()


def test_weights_that_are_not_those_of_the_card_are_refused(tmp_path, model_folder):
    """Another threshold is a whole file of the right network: nothing but the hash can tell."""
    folder = model_folder.make_model(tmp_path)
    path = folder / "fold_0" / "weights" / weight_file_name("train")
    before = hash_file(path)
    model_folder.write_weights(path, model_folder.threshold_network(1, 0.9), open_model(folder).plan)
    with pytest.raises(FaultsError) as caught:
        predict(folder, brain())
    (fault,) = caught.value.faults
    assert fault.where == str(path) and fault.found == f"SHA-256 {hash_file(path)[:12]}"
    assert before[:12] in fault.expected and "--overwrite" in fault.fix
    with pytest.raises(FaultsError, match="are not those of its model_card.json"):
        export_bundle(folder, tmp_path / "out.zip")
    assert not (tmp_path / "out.zip").exists()


def test_a_fold_that_is_being_trained_is_not_held_against_an_earlier_card(tmp_path, model_folder):
    folder = model_folder.make_model(tmp_path)
    plan, path = open_model(folder).plan, folder / "fold_0" / "weights" / weight_file_name("train")
    (folder / "fold_0" / "checkpoint").mkdir()
    (folder / "fold_0" / "fold.json").unlink()
    model_folder.write_weights(path, model_folder.threshold_network(1, 0.9), plan)
    messages.forget_warnings()
    open_model(folder)
    assert not messages.warning_counts()


def test_weights_without_a_card_are_used_and_said_to_be_unchecked(tmp_path, model_folder):
    folder = model_folder.make_model(tmp_path)
    (folder / CARD).unlink()
    messages.forget_warnings()
    open_model(folder)
    assert any(
        "cannot be checked" in text and "no model_card.json" in text for text in messages.warning_counts()
    )


@pytest.mark.parametrize(
    "change, found",
    [
        ({"member": 1}, "under the name of another.*member 1, stage train"),
        ({"stage": "other"}, "under the name of another.*stage other"),
        ({"network": "judge"}, "of another network.*'judge'.*'main'"),
    ],
)
def test_weights_of_another_place_are_refused(tmp_path, model_folder, change, found):
    """A file that was copied over another of the same shape."""
    folder = model_folder.make_model(tmp_path)
    facts = {"network": "main", "stage": "train", "member": 0, "epoch": 3, "plan_hash": "h", **change}
    path = folder / "fold_0" / "weights" / weight_file_name("train")
    weights.save(path, model_folder.threshold_network(1, 0.5), **facts)
    write_model_card(folder)
    with pytest.raises(AutosegError, match=f"(?s){found}"):
        Predictor(folder, device="cpu")


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_weights_that_are_no_numbers_are_refused(tmp_path, model_folder, value):
    folder, network = model_folder.make_model(tmp_path), model_folder.threshold_network(1, 0.5)
    with torch.no_grad():
        network.bias[0] = value
    path = folder / "fold_0" / "weights" / weight_file_name("train")
    model_folder.write_weights(path, network, open_model(folder).plan)
    write_model_card(folder)
    with pytest.raises(AutosegError, match="(?s)member0.train.*hold NaN or Inf.*bias"):
        Predictor(folder, device="cpu")


def test_weights_of_whole_numbers_are_refused(tmp_path, model_folder):
    folder, network = model_folder.make_model(tmp_path), model_folder.threshold_network(1, 0.5)
    path, plan = folder / "fold_0" / "weights" / weight_file_name("train"), open_model(folder).plan
    for kind, found in ((torch.int64, "of another kind"), (torch.bool, "of a type that is not known")):
        model_folder.write_weights(path, {k: v.to(kind) for k, v in network.state_dict().items()}, plan)
        write_model_card(folder)
        with pytest.raises(AutosegError, match=found):
            Predictor(folder, device="cpu")


def test_logits_that_are_no_numbers_end_the_prediction(tmp_path, model_folder):
    """Weights so large that an image overflows; background everywhere would look like a healthy brain."""
    folder, network = model_folder.make_model(tmp_path), model_folder.threshold_network(1, 0.5)
    with torch.no_grad():
        network.weight[1, 0] = 3e38
    path = folder / "fold_0" / "weights" / weight_file_name("train")
    model_folder.write_weights(path, network, open_model(folder).plan)
    write_model_card(folder)
    predict(folder, brain())
    with pytest.raises(
        AutosegError, match=r"(?s)fold_0/weights.*answers with NaN or Inf.*\d+ of \d+ numbers"
    ):
        predict(folder, 10 * brain())


def test_a_model_folder_with_another_dataset_json_is_refused(tmp_path, model_folder):
    folder = model_folder.make_model(tmp_path)
    other = model_folder.make_model(tmp_path / "other", plan=model_folder.make_plan(channels=("T1",)))
    (folder / "dataset.json").write_text((other / "dataset.json").read_text())
    with pytest.raises(AutosegError, match="(?s)do not belong together.*T1.*T2"):
        Predictor(folder, device="cpu")


def test_the_hash_follows_weights_and_plan(tmp_path, model_folder):
    one = open_model(model_folder.make_model(tmp_path / "a", (0.5,))).hash
    assert one == open_model(model_folder.make_model(tmp_path / "b", (0.5,))).hash
    assert one != open_model(model_folder.make_model(tmp_path / "c", (0.6,))).hash


def test_regions_model(tmp_path, model_folder):
    """Two nested regions: whole > 0.3, core > 0.7."""
    plan = model_folder.make_plan()
    content = plan.model_dump()
    content.update(labels={"background": 0, "whole": [1, 2], "core": [2]}, regions_class_order=[1, 2])
    plan = type(plan).model_validate(content)
    folder = model_folder.make_model(tmp_path, plan=plan, regions_class_order=[1, 2])
    network = model_folder.pointwise(1, LabelSet.from_labels(plan.labels, [1, 2]).n_outputs)
    with torch.no_grad():
        network.weight.fill_(1.0)
        network.bias.copy_(torch.tensor([-0.3, -0.7]))
    model_folder.write_weights(folder / "fold_0" / "weights" / weight_file_name("train"), network, plan)
    write_model_card(folder)
    image = brain()
    expected = (image[0] > 0.3).astype(np.uint8) + (image[0] > 0.7)
    assert np.array_equal(predict(folder, image), expected)


def test_import_of_autoseg_is_light():
    code = "import sys, autoseg; assert autoseg.__version__; assert not {'torch', 'numpy'} & set(sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True, timeout=60)
    with pytest.raises(AttributeError, match="no attribute 'predikt'"):
        autoseg.predikt  # noqa: B018


# ------------------------------------------------------------------------------------------- other settings


def test_a_prediction_may_leave_a_step_out(tmp_path, model_folder):
    steps = [Named(name="remove_small_components", arguments={"fewer_than_voxels": 10_000})]
    folder, image = (
        model_folder.make_model(tmp_path, plan=model_folder.make_plan(postprocessing=steps)),
        brain(),
    )
    as_planned = Predictor(folder, device="cpu")
    without = Predictor(folder, device="cpu", overrides={"postprocessing.remove_small_components": "off"})
    assert not predict(as_planned, image).any()
    assert np.array_equal(predict(without, image), image[0] > 0.5)
    assert (
        as_planned.identity != without.identity and without.identity["model"] == as_planned.identity["model"]
    )


def test_a_step_that_is_left_out_needs_no_weights(tmp_path, model_folder):
    """The network that serves it was not trained to its end."""
    steps = [Named(name="remove_small_components", arguments={"fewer_than_voxels": 2})]
    plan = model_folder.make_plan(postprocessing=steps)
    judge = plan.recipe.stages[0].model_copy(update={"name": "judge", "network": "judge"})
    recipe = plan.recipe.model_copy(update={"stages": [*plan.recipe.stages, judge]})
    networks = {**plan.networks, "judge": plan.networks["main"]}
    plan = plan.model_copy(update={"recipe": recipe, "networks": networks})
    folder, off = model_folder.make_model(tmp_path, plan=plan), {"postprocessing.0": "off"}
    with pytest.raises(AutosegError, match=r"weights are missing(?s:.*)member0\.judge\.safetensors"):
        Predictor(folder, device="cpu")
    without, opened = Predictor(folder, device="cpu", overrides=off), open_model(folder, overrides=off)
    assert predict(without, brain()).any()
    assert without.identity == Predictor(opened, device="cpu").identity
    assert without.identity["overrides"] == off and len(opened.weights) == 1


def test_unknown_arguments_of_a_step_are_found_before_any_work(tmp_path, model_folder):
    steps = [Named(name="remove_small_components", arguments={"fewer_then_voxels": 10})]
    folder = model_folder.make_model(tmp_path, plan=model_folder.make_plan(postprocessing=steps))
    with pytest.raises(AutosegError, match="do not fit the post-processing step 'remove_small_components'"):
        Predictor(folder, device="cpu")


def test_a_prediction_may_take_other_arguments_of_a_network(tmp_path, model_folder):
    folder = model_folder.make_model(tmp_path)
    with pytest.raises(AutosegError, match="arguments do not fit the network"):
        Predictor(folder, device="cpu", overrides={"networks.main.arguments.unknown_argument": 1})


@pytest.mark.parametrize(
    "path", ["stages.0.epochs", "seed", "networks.main.name", "preprocessing.image_order"]
)
def test_a_prediction_cannot_change_the_training(tmp_path, model_folder, path):
    value = "unet" if path.endswith("name") else 2
    with pytest.raises(
        AutosegError, match=rf"(?s)cannot be changed for a prediction.*{path}.*postprocessing"
    ):
        Predictor(model_folder.make_model(tmp_path), device="cpu", overrides={path: value})


# ------------------------------------------------------------------------------------------------- orientation


def turning_model(tmp_path, model_folder):
    """It thickens slices along z of its own orientation, so that one that is turned wrongly is seen."""
    plan = model_folder.make_plan(spacing_mm=(1.0, 1.0, 1.0))
    preprocessing = plan.preprocessing.model_copy(update={"orientation": "LPS"})
    return model_folder.make_model(tmp_path, plan=plan.model_copy(update={"preprocessing": preprocessing}))


def test_an_array_is_turned_into_the_orientation_of_the_plan_and_its_mask_back(tmp_path, model_folder):
    folder, image = turning_model(tmp_path, model_folder), brain()
    mask, scores = predict(folder, image, return_probabilities=True)
    assert np.array_equal(predict(folder, image, orientation="LPS"), mask)
    # axes z, y, x of an array that is stored as SAR are R, A, S: the x, y and z of LPS, x and y reversed
    other = np.ascontiguousarray(image.transpose(0, 3, 2, 1)[:, ::-1, ::-1])
    found, other_scores = predict(folder, other, SPACING[::-1], orientation="SAR", return_probabilities=True)
    assert np.array_equal(found, mask.transpose(2, 1, 0)[::-1, ::-1])
    assert np.array_equal(other_scores, scores.transpose(0, 3, 2, 1)[:, ::-1, ::-1])


def test_a_model_without_orientation_takes_arrays_as_they_are(tmp_path, model_folder):
    folder, image = model_folder.make_model(tmp_path), brain()
    assert np.array_equal(predict(folder, image, orientation="SAR"), predict(folder, image))


def test_an_orientation_that_is_none_is_refused(tmp_path, model_folder):
    with pytest.raises(AutosegError) as caught:
        predict(model_folder.make_model(tmp_path), brain(), orientation="LRS")
    assert "LRS" in str(caught.value) and "such as RAS" in str(caught.value)
