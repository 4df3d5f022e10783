"""A training that is killed before each of the changes that it makes to files; whatever is named then ends well."""

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import runs
import small
from runs import final, fold, same

from autoseg.bundle.card import bundle_files, make_card
from autoseg.cli import predict, train
from autoseg.files import read_json

pytestmark = pytest.mark.slow
SHORT = ("1", "0", "-device", "cpu", "--set", "stages.0.epochs=1", "stages.0.iterations_per_epoch=1")


class Killed(BaseException):
    """As a kill: nothing is done any more."""


def kill_at(patch: pytest.MonkeyPatch, n: int | None) -> list[str]:
    """Before the n-th change to a file of the results everything stops; the list tells all changes."""
    changes: list[str] = []

    def counted(function, place=0):
        def change(*args, **options):
            path = Path(args[place])
            if "results" in path.parts and path.exists():
                changes.append(f"{function.__name__} {path.name}")
            if n is not None and len(changes) > n:
                raise Killed
            return function(*args, **options)

        return change

    patch.setattr(os, "replace", counted(os.replace))
    patch.setattr(Path, "unlink", counted(Path.unlink))
    patch.setattr(shutil, "rmtree", counted(shutil.rmtree))
    return changes


def named(text: str) -> list[list[str]]:
    """The options that a message names, each with its argument."""
    line = re.search(r"do: +(.*)", text)
    return [way.split() for way in re.findall(r"--c\b|--overwrite|--redo_from \w+", line[1] if line else "")]


@pytest.fixture(scope="module")
def short(prepared, tmp_path_factory) -> Path:
    """A finished training of one step."""
    with pytest.MonkeyPatch.context() as patch:
        root = runs.copied(patch, prepared, tmp_path_factory.mktemp("short") / "work")
        assert train.main([*SHORT]) == 0
    return root


def assert_finished_as(root: Path, short: Path) -> None:
    assert same(final(root), final(short))
    ours, theirs = (read_json(fold(one) / "fold.json") for one in (root, short))
    assert all(ours[key] == theirs[key] for key in ours if key not in ("seconds", "command"))
    assert not list(root.rglob(".tmp-*"))
    model = fold(root).parent
    assert read_json(model / "model_card.json") == make_card(model, bundle_files(model)).model_dump(
        mode="json"
    )


@pytest.mark.parametrize("n", [0, 1, 2, 4, 5, 6, 9, 11, 12, 13, 15, 18, 22, 23])
def test_whatever_a_killed_training_names_ends_well(n, short, tmp_path, monkeypatch, capfd):
    """It replaces an earlier one: 24 changes, from the record of the old result to that of the new one."""
    root = runs.copied(monkeypatch, short, tmp_path / "work")
    with pytest.MonkeyPatch.context() as patch:
        kill_at(patch, n)
        with pytest.raises(Killed):
            train.main([*SHORT, "--overwrite"])
    capfd.readouterr()
    nothing_left = not list((fold(root) / "weights").glob("*.safetensors"))
    if train.main([*SHORT]):  # a result, or what was begun, is not touched unasked
        assert (way := named(capfd.readouterr().err)) and not nothing_left
        assert train.main([*SHORT, *way[0]]) == 0
    assert_finished_as(root, short)


@pytest.mark.parametrize("n", [0, 1, 3, 5])
def test_a_first_training_that_was_killed_before_its_first_step_begins_again(
    n, prepared, short, tmp_path, monkeypatch
):
    """With --c or without: nothing is lost."""
    for again in ([], ["--c"]):
        root = runs.copied(monkeypatch, prepared, tmp_path / f"work{len(again)}")
        with pytest.MonkeyPatch.context() as patch:
            kill_at(patch, n)
            with pytest.raises(Killed):
                train.main([*SHORT])
        assert train.main([*SHORT, *again]) == 0
        assert_finished_as(root, short)


def test_all_changes_are_those_that_are_tried(short, tmp_path, monkeypatch):
    root = runs.copied(monkeypatch, short, tmp_path / "work")
    with pytest.MonkeyPatch.context() as patch:
        changes = kill_at(patch, None)
        assert train.main([*SHORT, "--overwrite"]) == 0
    assert len(changes) == 24 and changes[0] == "unlink fold.json" and changes[-1].endswith("-fold.json")
    assert_finished_as(root, short)


def test_imported_weights_are_not_taken_for_a_beginning(short, tmp_path, monkeypatch, capfd):
    root = runs.copied(monkeypatch, short, tmp_path / "work")
    (fold(root) / "fold.json").unlink()
    shutil.rmtree(fold(root) / "checkpoint")
    before = final(root)
    assert train.main([*SHORT, "--c"]) == 1
    text = capfd.readouterr().err
    assert "no checkpoint to continue from" in text and named(text) == [["--overwrite"]]
    assert same(final(root), before)
    assert train.main([*SHORT, "--overwrite"]) == 0
    assert_finished_as(root, short)


def test_a_damaged_checkpoint_and_weights_that_are_gone_name_a_way_that_ends_well(
    short, tmp_path, monkeypatch, capfd
):
    root = runs.copied(monkeypatch, short, tmp_path / "work")
    (fold(root) / "fold.json").unlink()
    path = fold(root) / "checkpoint" / "latest.safetensors"
    path.write_bytes(path.read_bytes()[:100])
    assert train.main([*SHORT, "--c"]) == 1
    assert named(capfd.readouterr().err) == [["--overwrite"]]
    assert train.main([*SHORT, "--overwrite"]) == 0
    assert_finished_as(root, short)
    (fold(root) / "weights" / "member0.train.safetensors").unlink()
    images = root / "raw" / small.NAME / "imagesTs"
    asked = ["-i", str(images), "-o", str(tmp_path / "masks"), "-d", "1", "-device", "cpu"]
    capfd.readouterr()
    assert predict.main(asked) == 1
    text = capfd.readouterr().err
    # --c would say that it is finished
    assert "weights are missing" in text and named(text) == [["--overwrite"]]
    assert train.main([*SHORT, "--overwrite"]) == 0
    assert predict.main(asked) == 0


def test_commands_that_are_killed_at_random_times_end_as_if_nobody_had_touched_them():
    """A few of the attacks of tests/kills.py, on all four commands."""
    script = Path(__file__).parents[1] / "kills.py"
    done = subprocess.run(
        [sys.executable, str(script), "--kills", "3", "--seed", "0"],
        capture_output=True,
        text=True,
        timeout=600,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert "0 failures" in done.stdout
