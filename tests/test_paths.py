"""Where the three folders lie, and what is said where they or a dataset are not known."""

import pytest

from autoseg import paths
from autoseg.bundle.opening import find_model
from autoseg.errors import AutosegError, nearest_names
from autoseg.preparation.prepared import open_prepared


def test_all_folders_that_are_not_known_are_said_at_once(tmp_path, monkeypatch):
    for kind in paths.KINDS:
        monkeypatch.delenv(f"autoseg_{kind}", raising=False)
    with pytest.raises(AutosegError) as caught:
        paths.roots(raw=None, preprocessed=tmp_path, results=None)
    said = str(caught.value)
    assert "the folders for raw and results data are not known" in said
    assert "export autoseg_raw=$HOME/autoseg/raw autoseg_results=$HOME/autoseg/results" in said
    assert "--raw FOLDER --results FOLDER" in said and "preprocessed" not in said
    with pytest.raises(AutosegError, match="the folder for raw data is not known"):
        paths.root("raw")
    assert paths.roots(raw=tmp_path / "a", results="b") == [tmp_path / "a", paths.Path("b")]


@pytest.mark.parametrize("there", [None, "Dataset001_Other"])
def test_a_dataset_that_was_never_planned_or_trained(tmp_path, there):
    folder = tmp_path / "folder"
    if there:
        (folder / there).mkdir(parents=True)
    for opened, words in (
        (open_prepared, "plan it first: autoseg_plan_and_preprocess -d 913"),
        (find_model, "train a model first: autoseg_train 913 0"),
    ):
        with pytest.raises(AutosegError) as caught:
            opened(folder, "913")
        assert str(caught.value).endswith(f"  do:       {words}") and "imagesTr" not in str(caught.value)
    if there:
        with pytest.raises(AutosegError, match=r"did you mean Dataset001_Other\? Or plan it first"):
            open_prepared(folder, "Dataset001_Othr")


def test_a_name_that_begins_with_what_was_typed_is_nearest():
    known = ["auto", "edd_muscle", "ratlesnetv2", "resunet", "unet"]
    assert nearest_names("rat", known) == nearest_names("RAT", known) == "did you mean ratlesnetv2?"
    assert nearest_names("unett", known).startswith("did you mean unet")


def test_a_folder_without_a_dataset_is_no_missing_plug_in(tmp_path):
    with pytest.raises(AutosegError, match="no dataset at all") as caught:
        paths.dataset_name(tmp_path, "77")
    assert "check the path" in str(caught.value) and "installed" not in str(caught.value)
