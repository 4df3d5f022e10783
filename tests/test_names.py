"""Names that become files: the pattern, and every door through which a name comes in."""

import json
from pathlib import Path

import pytest
import runs
import small

from autoseg.bundle.card import ModelCard, is_allowed
from autoseg.cli import import_weights, plan_and_preprocess, train
from autoseg.dataset.folds import read_folds
from autoseg.dataset.images_to_predict import list_images
from autoseg.dataset.raw_layout import load_raw
from autoseg.dataset.raw_writer import dataset_folder_name
from autoseg.errors import AutosegError, FaultsError
from autoseg.files import read_model, write_json
from autoseg.fingerprint import Fingerprint
from autoseg.inference.prediction_record import read_record
from autoseg.names import LONGEST, is_name
from autoseg.plan import Plan, apply_overrides
from autoseg.preparation.prepared import Prepared, model_folder

GOOD = [
    "a",
    "case_001",
    "sub-01_ses-2",
    "unet__unet",
    "patient 1",
    "M\u00fcller",
    "Mu\u0308ller",
    "v1.2",
    "\u5f71\u50cf 3 (2)",
    "=1+1",
]
EVIL = [
    *(
        "",
        ".",
        "..",
        "../up",
        "a/b",
        "/etc/passwd",
        "a/../../b",
        "..\\up",
        "C:up",
        "a\0b",
        "a\nb",
        "\x1b[31m",
    ),
    *(
        ".hidden",
        "end.",
        " a",
        "a ",
        "a*",
        "a?",
        "a|b",
        "<a>",
        "\ud800",
        "a\u202eb",
        "a\u200b",
        "x" * (LONGEST + 1),
    ),
    "\u00fc" * (LONGEST // 2 + 1),
]


@pytest.fixture
def root(tmp_path, monkeypatch) -> Path:
    """A raw dataset, with the three folders set."""
    small.dataset(tmp_path / "raw", n=2, n_test=1)
    runs.set_folders(monkeypatch, tmp_path)
    return tmp_path


@pytest.mark.parametrize("name", GOOD)
def test_a_name(name):
    assert is_name(name)


@pytest.mark.parametrize("name", EVIL, ids=ascii)
def test_what_is_no_name(name):
    assert not is_name(name)


def listed(root: Path, name: str) -> Path:
    """The dataset, whose dataset.json lists its first case under this name."""
    folder = root / "raw" / small.NAME
    info = json.loads((folder / "dataset.json").read_text())
    files = {"images": ["imagesTr/case_000_0000.nii.gz"], "label": "labelsTr/case_000.nii.gz"}
    (folder / "dataset.json").write_text(json.dumps({**info, "dataset": {name: files}}))
    return folder


@pytest.mark.parametrize("name", ["../../outside", "/outside", "a\\b", ""])
def test_cases_that_dataset_json_lists(root, name, capfd):
    with pytest.raises(FaultsError, match="cannot name a case"):
        load_raw(listed(root, name))
    assert plan_and_preprocess.main(["-d", "1", "-np", "1"]) == 1
    assert "cannot name a case" in capfd.readouterr().err
    assert not list((root / "preprocessed").rglob("*.b2nd")) and not list(root.glob("**/outside*"))


def test_files_of_a_raw_dataset_and_of_a_prediction(root):
    folder = root / "raw" / small.NAME
    (folder / "imagesTr" / "case_000_0000.nii.gz").rename(folder / "imagesTr" / "a\tb_0000.nii.gz")
    with pytest.raises(FaultsError, match=r"'a\\tb' +cannot name a case"):
        load_raw(folder)
    info = load_raw(root / "raw" / small.dataset(root / "raw", n=2, name="Dataset002_B").name).info
    faults = [case.fault for case in list_images(folder / "imagesTr", info) if case.fault]
    assert [fault.problem for fault in faults] == ["cannot name a case"]  # the others are predicted
    with pytest.raises(FaultsError, match="cannot name a case"):
        list_images(folder / "imagesTr" / "a\tb_0000.nii.gz", info)


def test_the_folder_of_a_raw_dataset(root):
    (root / "raw" / small.NAME).rename(root / "raw" / "Dataset001_a:b")
    with pytest.raises(AutosegError, match="cannot name a dataset"):
        load_raw(root / "raw" / "Dataset001_a:b")
    with pytest.raises(AutosegError, match="does not name a dataset"):
        dataset_folder_name("Dataset001_a/../../b", "b")


def test_cases_of_folds(tmp_path):
    path = tmp_path / "splits.json"
    path.write_text(json.dumps([{"train": ["../a"], "val": ["b"]}]))
    with pytest.raises(FaultsError, match="train has names that no case has"):
        read_folds(path, ["../a", "b"])


@pytest.mark.parametrize(
    ("path", "value"),
    [
        ("stages.0.name", "../../evil"),
        ("stages.0.name", "a/b"),
        ("stages.0.start", {"model": "unet__unet", "stage": "../evil"}),
        ("networks", {"main": {"name": "unet"}, "../evil": {"name": "unet"}}),
        ("trainer", "../evil"),
        ("dataset", "../evil"),
        ("planner", "../evil"),
        ("preprocessing.mask", {"folder": "../../evil"}),
        ("preprocessing.mask", {"folder": "/evil"}),
    ],
)
def test_names_in_a_plan(path, value, model_folder, tmp_path):
    plan = model_folder.make_plan()
    with pytest.raises(FaultsError, match="cannot be the name of a file|lies in that of the dataset"):
        apply_overrides(plan, {path: value})
    content = plan.model_dump(mode="json")
    place = content["recipe"]["stages"][0] if path.startswith("stages") else content
    place = place["preprocessing"] if path.startswith("pre") else place
    place[path.rpartition(".")[2]] = value
    write_json(tmp_path / "plan.json", content)
    with pytest.raises(FaultsError, match="cannot be the name of a file|lies in that of the dataset"):
        read_model(tmp_path / "plan.json", Plan)


def test_a_mask_folder_within_folders(model_folder):
    after = apply_overrides(
        model_folder.make_plan(), {"preprocessing.mask": {"folder": "derived/brain masks"}}
    )
    assert after.preprocessing.mask.folder == "derived/brain masks"


@pytest.mark.parametrize("second", ["train", "TRAIN", "train.best", "Train.epoch3"])
def test_stages_whose_weights_would_have_one_file(second, model_folder):
    plan = model_folder.make_plan()
    stages = [plan.recipe.stages[0].model_dump(), {**plan.recipe.stages[0].model_dump(), "name": second}]
    with pytest.raises(FaultsError, match="files of another stage|must be unique"):
        apply_overrides(plan, {"stages": stages})


@pytest.mark.parametrize("field", ["name", "dataset", "trainer"])
def test_names_on_a_card(field, model_folder, tmp_path):
    path = model_folder.make_model(tmp_path) / "model_card.json"
    write_json(path, {**json.loads(path.read_text()), field: "../../evil"})
    with pytest.raises(FaultsError, match="cannot be the name of a file"):
        read_model(path, ModelCard)


def test_files_of_a_bundle():
    assert is_allowed("fold_0/weights/member0.stage 1.safetensors")
    for name in EVIL:
        assert not is_allowed(f"fold_0/weights/../{name}/x.safetensors")
        assert not is_allowed(f"fold_0/weights/a/{name}.safetensors")


def test_cases_of_a_fingerprint(make_fingerprint, tmp_path):
    content = make_fingerprint([(1, 1, 1)], [(16, 16, 16)]).model_dump(mode="json")
    content["cases"] = [{**case, "name": "../evil"} for case in content["cases"]]
    write_json(tmp_path / "fingerprint.json", content)
    with pytest.raises(FaultsError, match="cannot be the name of a file"):
        read_model(tmp_path / "fingerprint.json", Fingerprint)


@pytest.mark.parametrize(("case", "file"), [("../evil", "a.nii.gz"), ("a", "../evil.nii.gz")])
def test_cases_and_files_of_a_prediction(case, file, tmp_path):
    entry = {"status": "done", "made_by": "x", "input_sha256": "x", "files": {file: "x"}}
    content = {"version": 1, "autoseg_version": "0", "identity": {}, "cases": {case: entry}}
    write_json(tmp_path / "prediction.json", content)
    with pytest.raises(FaultsError, match="cannot be the name of a file"):
        read_record(tmp_path)


@pytest.mark.parametrize("name", ["../evil", "/tmp/evil", ".."])
def test_names_that_a_user_gives(root, name, capfd):
    with pytest.raises(AutosegError, match="cannot name a plan"):
        Prepared(root / "preprocessed" / small.NAME, name)
    with pytest.raises(AutosegError, match="cannot name a model"):
        model_folder_of = model_folder(root / "results", small.NAME, "unet", "unet", name)
        raise ValueError(model_folder_of)
    assert plan_and_preprocess.main(["-d", "1", "-np", "1", "-p", name, "--no_pp"]) == 1
    assert "choose another name with -p" in capfd.readouterr().err
    assert plan_and_preprocess.main(["-d", "1", "-np", "1", "-pl", "unet", "--no_pp"]) == 0
    assert train.main(["1", "0", "-device", "cpu", "-name", name]) == 1
    assert "choose another name with -name" in capfd.readouterr().err
    assert not list(root.glob("**/evil*")) and not (root / "results").exists()


def test_the_name_of_an_imported_model(tmp_path, capfd):
    (tmp_path / "weights.pt").write_bytes(b"x")
    output = str(tmp_path / "a:b")
    assert import_weights.main([str(tmp_path / "weights.pt"), "-o", output, "--license", "MIT"]) == 1
    assert "cannot name a model" in capfd.readouterr().err
