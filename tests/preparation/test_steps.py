"""Keeping an edited plan, as a user does it."""

import json
import shutil

import pytest
import runs
import small
from storage import store_as

from autoseg.cli import plan_and_preprocess, train
from autoseg.files import exclusive, read_model
from autoseg.plan import Plan, hash_plan

pytestmark = pytest.mark.slow
KEEP = ["-d", "1", "-np", "1", "--keep_plan"]


@pytest.fixture
def root(tmp_path, monkeypatch):
    return runs.prepare(monkeypatch, tmp_path)


def plan_path(root):
    return root / "preprocessed" / small.NAME / "unet" / "plan.json"


def test_the_only_plan_is_kept_without_being_named_and_nothing_is_recorded(root, capfd):
    before = json.loads(plan_path(root).read_text())
    small.dataset(root / "raw", n=6, n_test=0)  # a case more
    assert plan_and_preprocess.main(KEEP) == 0
    after = json.loads(plan_path(root).read_text())
    assert after.pop("fingerprint_hash") != before.pop("fingerprint_hash")
    assert after == before
    assert "1 case preprocessed" in capfd.readouterr().out


def test_the_orientation_is_that_of_most_cases_or_none(root, capfd):
    """Another one is refused: the plan's axes are not its axes. Without one, mixed cases are said."""
    assert json.loads(plan_path(root).read_text())["preprocessing"]["orientation"] == "LPS"
    common = ["-d", "1", "-np", "1", "-pl", "unet", "--no_pp", "--set", *small.TINY]
    assert plan_and_preprocess.main([*common, "preprocessing.orientation=RAS"]) == 1
    text = capfd.readouterr().err
    assert "RAS" in text and "LPS, that of most cases, or null" in text
    assert plan_and_preprocess.main([*common, "preprocessing.orientation=LPR"]) == 1
    assert "one letter each of L or R, P or A, and S or I" in capfd.readouterr().err
    for path in (root / "raw" / small.NAME).glob("*Tr/case_003*"):
        store_as(path, "SRA")
    assert plan_and_preprocess.main([*common, "preprocessing.orientation=null", "--overwrite"]) == 0
    assert json.loads(plan_path(root).read_text())["preprocessing"]["orientation"] is None
    text = " ".join("".join(capfd.readouterr()).split())
    assert "the plan takes cases as they are stored" in text and "LPS (4 cases), SRA (case_003)" in text


def test_a_plan_of_an_earlier_autoseg_is_no_other_setting_where_all_cases_are_stored_alike(root, capfd):
    """It named no orientation. Where cases are stored differently it prepared them in another way."""
    content = json.loads(plan_path(root).read_text())
    content["preprocessing"]["orientation"] = None
    plan_path(root).write_text(json.dumps(content))
    again = ["-d", "1", "-np", "1", "-pl", "unet", "--set", *small.TINY]
    assert plan_and_preprocess.main(again) == 0
    assert json.loads(plan_path(root).read_text())["preprocessing"]["orientation"] == "LPS"
    assert "5 were up to date" in capfd.readouterr().out
    for path in (root / "raw" / small.NAME).glob("*Tr/case_003*"):
        store_as(path, "SRA")
    assert plan_and_preprocess.main([*again, "--no_pp"]) == 0  # other data are no other setting
    content = json.loads(plan_path(root).read_text())
    content["preprocessing"]["orientation"] = None
    plan_path(root).write_text(json.dumps(content))
    assert plan_and_preprocess.main(again) == 1
    assert "preprocessing.orientation" in capfd.readouterr().err


def test_reasons_in_other_words_are_no_other_plan(root, capfd):
    """A later autoseg gives them; trainings by the plan that is there go on."""
    content = json.loads(plan_path(root).read_text())
    content["reasons"][0]["why"] = "as an earlier autoseg said it"
    plan_path(root).write_text(json.dumps(content))
    before = hash_plan(read_model(plan_path(root), Plan))
    again = ["-d", "1", "-np", "1", "-pl", "unet", "--set", *small.TINY]
    assert plan_and_preprocess.main(again) == 0
    assert hash_plan(read_model(plan_path(root), Plan)) == before
    assert "is replaced" not in "".join(capfd.readouterr())
    assert plan_and_preprocess.main([*again, "stages.0.epochs=7", "--overwrite"]) == 0
    after = read_model(plan_path(root), Plan)
    assert hash_plan(after) != before and after.reasons[0].why != content["reasons"][0]["why"]


def test_a_plan_for_other_classes_is_not_kept(root, capfd):
    path = root / "raw" / small.NAME / "dataset.json"
    content = json.loads(path.read_text())
    content["labels"]["core"] = 2
    path.write_text(json.dumps(content))
    before = plan_path(root).read_bytes()
    assert plan_and_preprocess.main([*KEEP, "-p", "unet"]) == 1
    text = capfd.readouterr().err
    assert "the plan was made for other labels" in text and "core" in text and "--keep_plan" in text
    assert plan_path(root).read_bytes() == before


def test_without_a_plan_there_is_nothing_to_keep(root, capfd):
    assert plan_and_preprocess.main([*KEEP, "-p", "unett"]) == 1
    assert "did you mean unet" in capfd.readouterr().err


PLAN = ["-d", "1", "-pl", "unet", "-np", "1"]


def test_a_plan_of_other_settings_is_replaced_only_when_asked(root, capfd):
    before, settings = plan_path(root).read_bytes(), ["--set", *small.TINY]
    assert plan_and_preprocess.main([*PLAN, *settings]) == 0
    assert plan_and_preprocess.main(PLAN) == 1
    said = capfd.readouterr().err
    assert "the plan 'unet' is there, made with other settings" in said
    assert "stages.0.epochs (3 there, not given now)" in said and "{'" not in said
    assert plan_path(root).read_bytes() == before
    assert plan_and_preprocess.main([*PLAN, "-p", "other"]) == 0
    assert plan_and_preprocess.main([*PLAN, "--overwrite", "--no_pp"]) == 0
    assert json.loads(plan_path(root).read_text())["overrides"] == {}


def test_of_options_only_those_that_differ_are_shown(root, capfd):
    assert plan_and_preprocess.main([*PLAN, "--overwrite", "--set", *small.TINY]) == 0
    capfd.readouterr()
    assert plan_and_preprocess.main([*PLAN, "--set", *small.TINY, "planner.length=quick"]) == 1
    found = [line for line in capfd.readouterr().err.splitlines() if "found:" in line]
    assert [line.split(None, 1)[1] for line in found] == ["different: planner.length (full there, quick now)"]


def test_the_next_command_reads_the_folders_that_were_given(root, capfd, monkeypatch):
    folders = ["--raw", str(root / "raw"), "--preprocessed", str(root / "preprocessed")]
    for name in ("raw", "preprocessed"):
        monkeypatch.setenv(f"autoseg_{name}", str(root / "others"))
    assert plan_and_preprocess.main([*KEEP, *folders]) == 0
    assert capfd.readouterr().out.splitlines()[-1].endswith(f" 0 -p unet {' '.join(folders)}")
    assert plan_and_preprocess.main([*KEEP, "--no_pp", *folders]) == 0
    assert capfd.readouterr().out.splitlines()[-1].endswith(f" --keep_plan {' '.join(folders)}")


def test_an_edited_plan_is_not_lost_by_planning_again(root, capfd):
    content = json.loads(plan_path(root).read_text())
    content["recipe"]["stages"][0]["epochs"] = 77
    plan_path(root).write_text(json.dumps(content))
    assert plan_and_preprocess.main([*PLAN, "--set", *small.TINY]) == 1
    assert "different: recipe.stages.0.epochs" in capfd.readouterr().err
    assert plan_and_preprocess.main(KEEP) == 0
    assert json.loads(plan_path(root).read_text())["recipe"]["stages"][0]["epochs"] == 77


def test_other_data_and_the_same_settings_make_a_new_plan_without_asking(root, capfd):
    small.dataset(root / "raw", n=7, n_test=0)
    assert plan_and_preprocess.main([*PLAN, "--set", *small.TINY]) == 0
    assert "2 cases preprocessed" in capfd.readouterr().out


def test_a_plan_that_nothing_was_prepared_by_is_tried_out_freely(root):
    shutil.rmtree(plan_path(root).parent / "store")
    assert plan_and_preprocess.main([*PLAN, "--no_pp"]) == 0


def splits(root):
    return root / "preprocessed" / small.NAME / "splits.json"


def test_folds_with_a_test_part_and_subjects_together(root, capfd):
    """Six cases of four rats in three folds: the two rats with two scans each, and two with one."""
    small.dataset(root / "raw", n=6, n_test=0)
    names = sorted(
        path.name.removesuffix(".nii.gz") for path in (root / "raw" / small.NAME / "labelsTr").iterdir()
    )
    rats = dict(zip(names, ("x", "x", "y", "y", "z", ""), strict=True))
    groups = root / "raw" / small.NAME / "groups.csv"
    groups.write_text("case,subject\n" + "".join(f"{name},{rat}\n" for name, rat in rats.items()))
    asked = ["-d", "1", "-np", "1", "-pl", "unet", "--no_pp", "--overwrite", "--folds", "3", "--test_part"]
    assert plan_and_preprocess.main(asked) == 0
    said = capfd.readouterr()
    assert "3 folds; 2 cases train, 2 cases validate, 2 cases test" in said.out + said.err
    assert f"names no subject of {names[5]}" in said.out + said.err
    assert (splits(root).parent / "groups.csv").read_bytes() == groups.read_bytes()
    folds = json.loads(splits(root).read_text())
    assert len(folds) == 3 and all(list(fold) == ["train", "val", "test"] for fold in folds)
    assert sorted(name for fold in folds for name in fold["test"]) == names
    parts = [sorted(fold["test"]) for fold in folds]
    assert names[:2] in parts and names[2:4] in parts and names[4:] in parts
    before = splits(root).read_bytes()
    assert plan_and_preprocess.main(asked) == 0  # the same again
    assert plan_and_preprocess.main([*asked[:-1]]) == 1
    assert "other folds are in use" in capfd.readouterr().err
    assert splits(root).read_bytes() == before


def test_folds_that_are_asked_for_and_those_of_the_raw_dataset(root, capfd):
    asked = ["-d", "1", "-np", "1", "-pl", "unet", "--no_pp", "--overwrite", "--test_part"]
    assert plan_and_preprocess.main(asked) == 0
    assert len(json.loads(splits(root).read_text())) == 5
    given = root / "raw" / small.NAME / "splits.json"
    given.write_bytes(splits(root).read_bytes())
    assert plan_and_preprocess.main(asked) == 1
    assert "the raw dataset has folds of its own" in capfd.readouterr().err
    assert plan_and_preprocess.main(asked[:-1]) == 0
    assert plan_and_preprocess.main([*asked[:-1], "--folds", "0"]) == 1


def test_folds_of_a_list_and_in_proportions(root, capfd, tmp_path):
    """A list that does not fit is refused before anything is looked at; a good one is what a training uses."""
    names = sorted(
        path.name.removesuffix(".nii.gz") for path in (root / "raw" / small.NAME / "labelsTr").iterdir()
    )
    asked = ["-d", "1", "-np", "1", "-pl", "unet", "--no_pp", "--overwrite", "--folds"]
    given = tmp_path / "folds.csv"
    given.write_text("case,part\n" + "".join(f"{name},train\n" for name in names) + "case_99,val\n")
    fingerprint = root / "preprocessed" / small.NAME / "fingerprint.json"
    fingerprint.unlink()
    assert plan_and_preprocess.main([*asked, str(given)]) == 1
    error = capfd.readouterr().err
    assert "case_99" in error and "is no case of the dataset" in error
    assert not fingerprint.exists() and not splits(root).exists()
    rows = [f"{name},{'val' if name == names[1] else 'train'}\n" for name in names]
    given.write_text("case,part\n" + "".join(rows))
    assert plan_and_preprocess.main([*asked, str(given)]) == 0
    said = "".join(capfd.readouterr())
    assert f"1 fold; {len(names) - 1} cases train, 1 cases validate" in said
    (fold,) = json.loads(splits(root).read_text())
    assert fold == {"train": [names[0], *names[2:]], "val": [names[1]]}
    assert plan_and_preprocess.main([*asked, f"{len(names) - 2}/1/1"]) == 1
    assert "other folds are in use" in capfd.readouterr().err
    splits(root).unlink()
    assert plan_and_preprocess.main([*asked, f"{len(names) - 2}/1/1"]) == 0
    (fold,) = json.loads(splits(root).read_text())
    assert [len(fold[part]) for part in ("train", "val", "test")] == [len(names) - 2, 1, 1]


def test_a_run_that_comes_second_changes_nothing(root, capfd):
    """Not even the plan, with which the store of the first would not agree."""
    folder = root / "preprocessed" / small.NAME
    before = {
        path: path.read_bytes() for path in folder.rglob("*") if path.is_file() and path.suffix != ".log"
    }
    with exclusive(folder / "unet" / ".lock", doing="preparing"):
        again = ["-d", "1", "-pl", "unet", "-np", "1", "--overwrite"]
        again += ["--set", "preprocessing.spacing_mm=[3,2,2]"]
        assert plan_and_preprocess.main(again) == 1
    assert "another process is preparing Dataset001_Small with the plan 'unet'" in capfd.readouterr().err
    assert all(path.read_bytes() == content for path, content in before.items())
    assert plan_and_preprocess.main(again) == 0  # the remedy: it has ended
    assert "5 cases preprocessed" in capfd.readouterr().out


def test_damaged_folds_are_found_when_planning_and_made_again_as_told(root, capfd):
    path = root / "preprocessed" / small.NAME / "splits.json"
    assert train.main(["1", "0", "-device", "cpu", "--set", "epochs=1", "iterations_per_epoch=1"]) == 0
    before = path.read_bytes()
    path.write_bytes(before[:-20])
    again = ["-d", "1", "-p", "unet", "--keep_plan", "-np", "1"]
    assert plan_and_preprocess.main(again) == 1
    assert "delete it: the default folds, always the same, are made again; others" in capfd.readouterr().err
    path.unlink()
    assert plan_and_preprocess.main(again) == 0
    assert train.main(["1", "1", "-device", "cpu", "--set", "epochs=1", "iterations_per_epoch=1"]) == 0
    assert path.read_bytes() == before


def test_a_plan_that_cannot_be_read_is_replaced_only_when_asked(root, capfd):
    """As with a slip in an edit by hand, whose other changes would be lost."""
    path = plan_path(root)
    edited = path.read_text().replace('"gradient_clip"', '"gradient_clipp"', 1)
    path.write_text(edited)
    again = ["-d", "1", "-pl", "unet", "-np", "1", "--set", *small.TINY]
    assert plan_and_preprocess.main(again) == 1
    said = capfd.readouterr().err
    assert "is there and cannot be used" in said and "gradient_clipp" in said and "--overwrite" in said
    assert path.read_text() == edited
    path.write_text(edited.replace('"gradient_clipp"', '"gradient_clip"'))
    assert plan_and_preprocess.main(["-d", "1", "-p", "unet", "-np", "1", "--keep_plan"]) == 0
    path.write_text(edited)
    assert plan_and_preprocess.main(["--overwrite", *again]) == 0


# ------------------------------------------------------------------------------------------------ beside the plan


def test_the_time_is_said_and_kept_and_planning_again_changes_nothing(root, capfd):
    """Without -pl the ranked table too: tests/test_third_party.py."""
    asked = [*PLAN, "-p", "timed", "--no_pp", "--set", *small.TINY]
    assert plan_and_preprocess.main(asked) == 0
    text = capfd.readouterr().out
    assert "\nTIME\n  one fold takes about " in f"\n{text}" and "METHODS" not in text
    path = plan_path(root).parents[1] / "timed" / "plan.json"
    before = path.read_bytes()
    assert json.loads(before)["proposals"]["time"]["device"] == "cpu"
    assert plan_and_preprocess.main(asked) == 0
    assert path.read_bytes() == before


def test_hours_that_are_none_or_with_a_kept_plan_are_refused(root, capfd):
    for text in ("0", "-1", "night", "inf"):
        with pytest.raises(SystemExit):
            plan_and_preprocess.main([*PLAN, f"--hours={text}"])
        assert f"'{text}' is no number of hours above 0" in capfd.readouterr().err
    assert plan_and_preprocess.main([*KEEP, "--hours", "3"]) == 1
    assert "--hours makes another plan" in capfd.readouterr().err
    assert plan_and_preprocess.main([*PLAN, "-device", "tpu"]) == 1
    assert "unknown device" in capfd.readouterr().err


def test_a_plan_for_some_hours_says_so_and_can_be_made_again(root, capfd):
    asked = [*PLAN, "-p", "soon", "--hours", "0.002", "--set", *small.TINY[:-1], "epochs=1000"]
    assert plan_and_preprocess.main(asked) == 0
    text = " ".join(capfd.readouterr().out.split())
    assert "cut by --hours 0.002 (published: 1000 epochs" in text
    content = json.loads((plan_path(root).parents[1] / "soon" / "plan.json").read_text())
    assert content["recipe"]["stages"][0]["epochs"] < 1000 and content["planner_options"]["hours"] == 0.002
    assert plan_and_preprocess.main(asked) == 0
    assert "5 were up to date" in capfd.readouterr().out
