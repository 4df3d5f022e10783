"""A fold that is trained again from a stage on: what is kept, what is refused, and what an interruption leaves."""

import json
import shutil
import signal
from pathlib import Path

import pytest
import runs
from runs import fold, log, same, stop_after

from autoseg.bundle import weights
from autoseg.bundle.opening import read_plan
from autoseg.cli import train
from autoseg.plan import hash_plan
from autoseg.training import sources, train_fold
from autoseg.training.interrupt import Interrupted

pytestmark = pytest.mark.slow

STOPPED = 128 + signal.SIGTERM
REDO = ("--redo_from", "second")


def trained_with(*options: str) -> int:
    return train.main(["1", "0", "-device", "cpu", *options])


def plan_path(root: Path) -> Path:
    return next((root / "preprocessed").glob("*/unet/plan.json"))


@pytest.fixture(scope="module")
def twice(prepared, tmp_path_factory) -> Path:
    """An uninterrupted training: two members of two stages."""
    with pytest.MonkeyPatch.context() as patch:
        root = runs.copied(patch, prepared, tmp_path_factory.mktemp("twice") / "work")
        content = json.loads(plan_path(root).read_text())
        recipe = content["recipe"]
        recipe["members"] = 2
        first = {**recipe["stages"][0], "iterations_per_epoch": 2, "epochs": 2}
        recipe["stages"] = [{**first, "snapshots": [1]}, {**first, "name": "second", "start": "previous"}]
        plan_path(root).write_text(json.dumps(content))
        assert trained_with() == 0
    return root


@pytest.fixture
def root(twice, tmp_path, monkeypatch) -> Path:
    return runs.copied(monkeypatch, twice, tmp_path / "work")


def all_weights(root: Path) -> dict:
    return {path.name: weights.read(path).tensors for path in (fold(root) / "weights").iterdir()}


def epochs(root: Path) -> list[tuple]:
    return sorted((e["member"], e["stage"], e["epoch"], e["loss"]) for e in log(root))


def assert_as_never_touched(root: Path, twice: Path) -> None:
    ours, theirs = all_weights(root), all_weights(twice)
    assert ours.keys() == theirs.keys() and all(same(ours[name], theirs[name]) for name in ours)
    assert epochs(root) == epochs(twice) and len(epochs(twice)) == 8
    assert (fold(root) / "fold.json").exists()


def test_an_interrupted_redo_continues_and_keeps_the_record_of_all_members(root, twice):
    """The first stage of member 1 comes after the interruption in the order of a training, but is not done again."""
    with pytest.MonkeyPatch.context() as patch:
        stop_after(patch, 3)
        assert trained_with(*REDO) == STOPPED
    begun = [(0, "second"), (0, "train"), (0, "train"), (1, "train"), (1, "train")]
    assert sorted((e["member"], e["stage"]) for e in log(root)) == begun
    assert trained_with("--c") == 0
    assert_as_never_touched(root, twice)


def test_a_redo_that_is_stopped_while_its_batches_are_sought_continues(root, twice, capfd):
    """As in the search for candidates, before there is any iteration to save after."""

    def stopped(*args, **kwargs):
        raise Interrupted(signal.SIGTERM)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sources, "BatchSource", stopped)
        assert trained_with(*REDO) == STOPPED
    assert "saved; continue with --c" in capfd.readouterr().err
    assert trained_with("--c") == 0
    assert "continuing plan unet, member 1 of 2, stage second at epoch 1" in capfd.readouterr().err
    assert_as_never_touched(root, twice)


@pytest.mark.parametrize("again", [("--c",), REDO, ("--overwrite",)])
def test_a_redo_that_was_killed_at_once_goes_on_in_any_way_that_is_named(again, root, twice, capfd):
    """Its first step was not yet saved; half-written files of the killed process do not matter."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(train_fold, "train_stage", killed)
        with pytest.raises(RuntimeError, match="killed"):
            trained_with(*REDO)
    (fold(root) / "weights" / ".tmp-1-member0.second.safetensors").write_bytes(b"half")
    assert trained_with() == 1
    text = capfd.readouterr().err
    assert "was begun and not finished" in text
    assert "--c continues it, --overwrite starts again, --redo_from second keeps the stages before it" in text
    assert trained_with(*again) == 0
    assert_as_never_touched(root, twice)


def killed(*_):
    raise RuntimeError("killed")


def test_all_weights_that_stay_belong_to_the_plan_of_the_redo(root):
    """Also snapshots and best weights, of which predictions would else be warned."""
    assert trained_with(*REDO, "--set", "stages.second.epochs=1", "members=1") == 0
    infos = {p.name: weights.read_info(p) for p in (fold(root) / "weights").iterdir()}
    kinds = ("train", "train.best", "train.epoch1", "second", "second.best")
    assert infos.keys() == {f"member0.{kind}.safetensors" for kind in kinds}
    assert {info.plan_hash for info in infos.values()} == {hash_plan(read_plan(fold(root).parent))}


def test_stages_may_come_and_go_behind_those_that_are_kept(root, twice):
    content = json.loads(plan_path(root).read_text())
    content["recipe"]["stages"][1]["name"] = "third"
    plan_path(root).write_text(json.dumps(content))
    assert trained_with("--redo_from", "third") == 0
    names = {name.replace("second", "third") for name in all_weights(twice)}
    assert all_weights(root).keys() == names
    assert {e["stage"] for e in log(root)} == {"train", "third"}


@pytest.mark.parametrize("finished", [True, False])
def test_other_cases_in_the_fold_are_refused(finished, root, capfd):
    """The weights that stay may have seen what are validation cases now."""
    splits = next((root / "preprocessed").glob("*/splits.json"))
    splits.write_text(json.dumps(json.loads(splits.read_text())[::-1]))
    if not finished:
        (fold(root) / "fold.json").unlink()
    assert trained_with(*REDO) == 1
    assert "the stages before 'second' were trained on other cases" in capfd.readouterr().err
    assert (fold(root) / "weights" / "member0.second.safetensors").exists()


@pytest.mark.parametrize(
    "change", ["stages.train.optimiser.arguments.lr=0.5", "precision=bfloat16", "seed=4"]
)
def test_earlier_stages_that_would_be_others_now_are_refused(change, root, capfd):
    assert trained_with(*REDO, "--set", change) == 1
    assert "the stages before 'second' were trained by another plan" in capfd.readouterr().err
    assert (fold(root) / "fold.json").exists()


def test_only_the_validation_is_left_of_a_training_that_ended(root, monkeypatch):
    """No batches are sought for a stage that is done."""
    (fold(root) / "fold.json").unlink()
    shutil.rmtree(fold(root) / "validation")
    monkeypatch.setattr(sources, "BatchSource", killed)
    assert trained_with("--c") == 0
