"""Keeping an edited plan, as a user does it."""

import json

import pytest
import runs
import small

from autoseg.cli import plan_and_preprocess

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
    assert "1 cases preprocessed" in capfd.readouterr().out


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
