"""Trainings that start from another one: found or trained first, on record; weight and error maps; the fold all."""

import json
import shutil

import numpy as np
import pytest
import runs
import small

from autoseg.bundle import weights
from autoseg.bundle.card import ModelCard
from autoseg.cli import plan_and_preprocess, train
from autoseg.files import hash_file, read_json, read_model
from autoseg.sampling.voxel_weights import read_weights

pytestmark = pytest.mark.slow

NETWORK = {"feature_maps": [2] * 8, "common_maps": [4, 4]}
TINY = [
    f"networks.main.arguments={json.dumps(NETWORK)}",
    "batch_size=2",
    "patch_size=[3, 3, 3]",
    "inference.patch_size=[12, 24, 24]",
    "epochs=1",
    "iterations_per_epoch=1",
    "validation.every=1",
    "validation.samples=4",
    'sampling.arguments={"segments": 4}',
]


@pytest.fixture(scope="module")
def planned(tmp_path_factory):
    """Six small cases of four maps, two folds of three, planned for deepmedic."""
    root = tmp_path_factory.mktemp("chain")
    with pytest.MonkeyPatch.context() as patch:
        folder = small.dataset(root / "raw", n=6, channels=4, n_test=0)
        info = read_json(folder / "dataset.json")
        info["channel_names"] = dict(enumerate(("ADC", "MTT", "rCBF", "rCBV")))
        (folder / "dataset.json").write_text(json.dumps(info))
        runs.set_folders(patch, root)
        prepare = ["-d", "1", "-pl", "deepmedic", "-np", "1", "--set", *TINY]
        assert plan_and_preprocess.main(prepare) == 0
        names = [f"case_{i:03}" for i in range(6)]
        folds = [{"train": names[3:], "val": names[:3]}, {"train": names[:3], "val": names[3:]}]
        (root / "preprocessed" / small.NAME / "splits.json").write_text(json.dumps(folds))
    return root


@pytest.fixture
def root(planned, tmp_path, monkeypatch):
    return runs.copied(monkeypatch, planned, tmp_path / "copy")


@pytest.fixture(scope="module")
def e1(planned, tmp_path_factory):
    """The same with both folds of E1."""
    root = tmp_path_factory.mktemp("e1") / "copy"
    with pytest.MonkeyPatch.context() as patch:
        runs.copied(patch, planned, root)
        assert trained("E1", fold=0) == 0 and trained("E1", fold=1) == 0
    return root


@pytest.fixture
def with_e1(e1, tmp_path, monkeypatch):
    return runs.copied(monkeypatch, e1, tmp_path / "copy")


def trained(experiment, *settings, fold=0, options=()) -> int:
    words = [f"experiment={experiment}", *settings]
    return train.main(["1", str(fold), "-device", "cpu", *options, "--set", *words])


def model(root, name):
    return root / "results" / small.NAME / f"deepmedic__deepmedic__{name}"


def file(root, name, fold=0):
    return model(root, name) / f"fold_{fold}" / "weights" / "member0.train.safetensors"


def test_what_a_training_starts_from_is_trained_first_and_on_record(root, capfd):
    assert trained("E3") == 0
    said = capfd.readouterr().err
    assert "E3 starts from deepmedic__deepmedic__E1, whose fold 0 is not trained: it is trained first" in said
    assert "stage train goes on with rCBV in the place of rCBF (channel 3)" in said
    record = read_json(model(root, "E3") / "fold_0" / "fold.json")["start"]
    assert record["model"] == "deepmedic__deepmedic__E1" and record["sha256"] == hash_file(file(root, "E1"))
    card = read_model(model(root, "E3") / "model_card.json", ModelCard)
    assert card.folds[0].start == record
    first, last = (weights.read(file(root, name)).tensors for name in ("E1", "E3"))
    frozen = [
        n for n in first if n.startswith(("normal.", "low.")) and not n.endswith(("means", "variances"))
    ]
    assert frozen and runs.same({n: first[n] for n in frozen}, {n: last[n] for n in frozen})
    assert not runs.same(first, last)
    before = file(root, "E1").stat().st_mtime_ns
    assert trained("E5") == 0 and "not trained" not in capfd.readouterr().err
    assert file(root, "E1").stat().st_mtime_ns == before


def test_settings_that_hold_for_the_start_too_are_said(root, capfd):
    assert trained("E3", "iterations_per_epoch=2", options=["-tr", "deepmedic"]) == 0
    said = capfd.readouterr().err
    assert "what was set for deepmedic__deepmedic__E3 holds for it too: iterations_per_epoch=2" in said
    assert "trainer" not in read_json(model(root, "E3") / "plan.json")["overrides"]


def test_the_own_trainer_of_a_plan_is_no_setting(root):
    assert train.main(["1", "0", "-device", "cpu", "-tr", "deepmedic"]) == 0
    found = read_json(root / "results" / small.NAME / "deepmedic__deepmedic" / "plan.json")
    assert "trainer" not in found["overrides"]


def test_a_training_that_cannot_be_is_refused_before_what_it_starts_from_is_trained(root, capfd):
    assert trained("E3", "loss.name=none_such") == 1
    assert "none_such" in capfd.readouterr().err and not model(root, "E1").exists()


def test_stopped_in_what_it_starts_from_the_same_command_goes_on(root, monkeypatch, capfd):
    with monkeypatch.context() as patch:
        runs.stop_after(patch, 1)
        assert trained("E3", "iterations_per_epoch=3") != 0
    assert model(root, "E1").exists() and not model(root, "E3").exists()
    assert (
        train.main(["1", "0", "-device", "cpu", "-p", "deepmedic", "--c"]) == 1
    )  # its options were forgotten
    assert "begun and not finished: deepmedic__deepmedic__E1" in capfd.readouterr().err
    assert trained("E3", "iterations_per_epoch=3", options=["--c"]) == 0
    assert "it goes on with its training" in capfd.readouterr().err
    assert (model(root, "E3") / "fold_0" / "fold.json").exists()


def test_best_takes_the_better_one_of_this_fold(with_e1, capfd):
    assert train.main(["1", "0", "-device", "cpu", "-name", "deepmedic__deepmedic"]) == 0
    scores = {"deepmedic__deepmedic": 0.4, "deepmedic__deepmedic__E1": 0.3}
    for name, score in scores.items():
        log = with_e1 / "results" / small.NAME / name / "fold_0" / "log.jsonl"
        entry = json.loads(log.read_text().splitlines()[-1])
        log.write_text(json.dumps({**entry, "validation_dice": {"lesion": score}}) + "\n")
    capfd.readouterr()
    assert trained("E5", "start_from=best") == 0
    said = capfd.readouterr().err
    assert "deepmedic__deepmedic 0.400, deepmedic__deepmedic__E1 0.300" in said
    found = read_json(model(with_e1, "E5__best") / "fold_0" / "fold.json")["start"]
    assert found["model"] == "deepmedic__deepmedic"


def test_a_variant_keeps_the_reasons_of_its_model_and_what_the_prepared_plan_has_of_its_own(with_e1):
    """A later autoseg words reasons otherwise: the other folds go on. A plan that was edited by hand stays edited."""
    path = model(with_e1, "E1") / "plan.json"
    content = read_json(path)
    content["reasons"][0]["why"] = "as an earlier autoseg said"
    path.write_text(json.dumps(content))
    assert trained("E1", fold=1, options=["--overwrite"]) == 0
    assert read_json(path)["reasons"][0]["why"] == "as an earlier autoseg said"
    prepared = with_e1 / "preprocessed" / small.NAME / "deepmedic" / "plan.json"
    edited = read_json(prepared)
    edited["recipe"]["stages"][0]["optimiser"]["arguments"]["eps"] = 0.5
    prepared.write_text(json.dumps(edited))
    assert trained("E5") == 0
    stage = read_json(model(with_e1, "E5") / "plan.json")["recipe"]["stages"][0]
    assert stage["optimiser"]["arguments"]["eps"] == 0.5 and stage["epochs"] == 1


# ---------------------------------------------------------------------------------------------- what is refused


def test_a_start_with_other_folds_is_refused(with_e1, capfd):
    path = with_e1 / "preprocessed" / small.NAME / "splits.json"
    folds = read_json(path)
    path.write_text(json.dumps(folds[::-1]))
    assert trained("E3") == 1
    said = capfd.readouterr().err
    assert "the model that stage 'train' starts from has other folds" in said
    assert "it was trained on 3 cases that this fold is scored on: case_003" in said


@pytest.mark.parametrize(
    ("channels", "found"),
    [('["MTT", "ADC", "rCBF"]', "ADC, MTT, rCBF"), ('["ADC", "MTT"]', "ADC, MTT, rCBF")],
)
def test_a_start_with_other_channels_is_refused(with_e1, capfd, channels, found):
    assert trained("E5", f"stages.train.channels={channels}") == 1
    said = capfd.readouterr().err
    assert (
        "the model that stage 'train' starts from sees other channels" in said
        and f"found:    {found}" in said
    )


def test_layers_that_do_not_exist_are_refused(root, capfd):
    assert trained("E4", "frozen_layers=[9]") == 1
    assert "planner.frozen_layers names layers that do not exist" in capfd.readouterr().err
    assert trained("E1", 'frozen=["normal.layer9.*"]') == 1
    assert "freezes 'normal.layer9.*', which fits no parameter" in capfd.readouterr().err


def test_options_that_change_the_preprocessing_are_refused(root, capfd):
    assert trained("E0", "planner.mask=ADC") == 1
    assert "a training cannot change how" in capfd.readouterr().err


# ------------------------------------------------------------------------------------------------ weight maps


def test_error_maps_are_made_by_the_folds_that_held_the_cases_out(with_e1, capfd):
    assert trained("E2") == 0
    said = capfd.readouterr().err
    assert "error maps of 3 training cases from deepmedic__deepmedic__E1, folds 1" in said
    assert "on 3 of the 3 cases that fold 0 is watched with and scored on" in said
    folder = model(with_e1, "E2") / "fold_0" / "sampling_weights" / "train"
    assert sorted(path.stem for path in folder.glob("*.npz")) == ["case_003", "case_004", "case_005"]
    made = read_weights(folder, "case_003")
    assert made.min() == 0 and made.max() > 0


def test_without_these_folds_the_commands_are_said(root, capfd):
    assert trained("E2") == 1
    said = capfd.readouterr().err
    assert "draws patches by error maps, and 3 training cases have none" in said
    assert f"autoseg_train {small.NAME} 1 -p deepmedic --set planner.experiment=E1" in said
    assert not model(root, "E1").exists()
    assert trained("E2", "error_maps=off") == 0
    assert (model(root, "E2__error_maps-off") / "fold_0" / "fold.json").exists()


def write_maps(root, **values):
    """Maps of a case, all of one value but the first voxel, which is 1."""
    folder = root / "raw" / small.NAME
    for path in (folder / "labelsTr").glob("*.nii.gz"):
        name = path.name.removesuffix(".nii.gz")
        image = np.full((10, 24, 24), values.get(name, 0.5), np.float32)
        image[0, 0, 0] = max(values.get(name, 1), 0)
        small.write(folder / "weightsTr" / path.name, image)


def test_maps_of_a_folder_weigh_the_voxels_of_their_kind(root):
    write_maps(root)
    assert trained("E0", 'sampling.weights={"background": "weightsTr"}') == 0
    name = root / "results" / small.NAME / "deepmedic__deepmedic" / "fold_0" / "sampling_weights" / "train"
    made = read_weights(name, "case_004")
    assert set(np.unique(made)) == {0.5, 1.0} and made[0, 0, 0] == 1
    assert 1 < (made == 1).sum() < 1000  # the lesion, whose voxels are alike


@pytest.mark.parametrize(("value", "words"), [(-1.0, "-1 in some voxel"), (0.0, "0 throughout")])
def test_maps_that_cannot_be_drawn_by_name_their_case(root, capfd, value, words):
    write_maps(root, case_004=value)
    assert trained("E0", 'sampling.weights={"foreground": "weightsTr"}') == 1
    said = capfd.readouterr().err
    assert "the weight map of case case_004 cannot be drawn by" in said and words in said
    shutil.rmtree(root / "raw" / small.NAME / "weightsTr")
    assert trained("E0", 'sampling.weights={"foreground": "weightsTr"}') == 1
    assert "case case_003 has no weight map" in capfd.readouterr().err


def test_a_sampler_that_heeds_no_weights_says_so(root, capfd):
    settings = ["sampling.name=foreground_share", "sampling.arguments={}"]
    assert trained("E0", *settings, 'sampling.weights={"foreground": "weightsTr"}') == 1
    said = capfd.readouterr().err
    assert "the sampler 'foreground_share' draws no patch by the weights of voxels" in said


# ------------------------------------------------------------------------------------------------- the fold all


def test_the_fold_all_takes_over_what_the_folds_have_learned(with_e1, capfd):
    for fold, iterations in ((0, 2.0), (1, 5.0)):
        path = model(with_e1, "E1") / f"fold_{fold}" / "fitted.json"
        content = read_json(path)
        content["steps"]["closing"]["learned"] = {"iterations": iterations}
        path.write_text(json.dumps(content))
    assert trained("E1", fold="all") == 0
    said = capfd.readouterr().err
    assert "fold all: 6 cases to train on with 1 clone of each, 0 to validate" in said
    assert "closing: iterations 3, from what 2 folds (0, 1) learned" in said  # 3.5, rounded down
    fitted = read_json(model(with_e1, "E1") / "fold_all" / "fitted.json")
    assert fitted["steps"]["closing"]["learned"] == {"iterations": 3.0}
    assert len(fitted["steps"]["closing"]["cases"]) == 6


def test_without_folds_the_fold_all_has_nothing_to_take_over(root, capfd):
    assert trained("E1", fold="all") == 1
    assert "train numbered folds first" in capfd.readouterr().err
