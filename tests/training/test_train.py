"""Training as a user runs it: exact continuation, signals, what is reported when it fails."""

import json
import os
import shutil
import signal
import subprocess
import sys
import time

import pytest
import runs
import torch
from runs import final, fold, log, same, stop_after

from autoseg.cli import train
from autoseg.training import stage as stage_module
from autoseg.training.interrupt import StopRequest

pytestmark = pytest.mark.slow


def test_a_log_names_members_epochs_and_cases_and_what_is_left(root, capfd):
    settings = ["members=2", "epochs=2", "validation.every=1"]
    assert train.main(["1", "0", "-device", "cpu", "--set", *settings]) == 0
    shown = [line for line in capfd.readouterr().err.splitlines() if line]
    expected = [
        "fold 0: 4 cases to train on, 1 to validate; plan unet, 2 epochs, on cpu",
        "member 1 of 2: 2 epochs of 4 iterations; the first iterations are timed",
        "member 1 of 2: measured on cpu: ",
        "member 1/2  epoch 1/2  loss ",
        "member 1/2  epoch 2/2  loss ",
        "member 2 of 2: 2 epochs of 4 iterations",
        "member 2/2  epoch 1/2  loss ",
        "member 2/2  epoch 2/2  loss ",
        "predicting 1 validation case of fold 0",
    ]
    begun = [next((text for text in expected if line.startswith(text)), None) for line in shown]
    assert [text for text in begun if text] == expected, shown
    assert "left: stage " in shown[3] and ", fold " in shown[3] and "left: fold " in shown[4]
    written = (fold(root) / "train.log").read_text()
    assert all(text in written for text in expected)


def test_a_training_leaves_everything_it_promises(whole):
    names = {str(p.relative_to(fold(whole))) for p in fold(whole).rglob("*")}
    promised = [
        "fold.json",
        "log.jsonl",
        "curves.png",
        "train.log",
        "validation/summary.json",
        "validation/summary.csv",
    ]
    assert set(promised) <= names
    record = json.loads((fold(whole) / "fold.json").read_text())
    assert set(record["train_cases"]) | set(record["validation_cases"]) == {f"case_{i:03}" for i in range(5)}
    assert not set(record["train_cases"]) & set(record["validation_cases"])
    assert record["command"] == "autoseg_train 1 0 -device cpu"
    entries = log(whole)
    assert [e["epoch"] for e in entries] == [0, 1, 2]
    assert all(e["loss"] > 0 and 0 <= e["wait_share"] <= 1 for e in entries)
    assert [e["validation_cases"] for e in entries if e["validation_dice"]] == [1] * 3
    assert "  Dice of 1 case 0." in (fold(whole) / "train.log").read_text()
    assert (fold(whole).parent / "model_card.json").exists()


@pytest.mark.parametrize("iterations", [2, 4, 7])
def test_a_continued_training_equals_an_uninterrupted_one(iterations, root, whole, monkeypatch):
    with pytest.MonkeyPatch.context() as patch:
        stop_after(patch, iterations)
        assert train.main(["1", "0", "-device", "cpu"]) == 128 + signal.SIGTERM
    assert not (fold(root) / "fold.json").exists()
    assert train.main(["1", "0", "--c", "-device", "cpu"]) == 0
    assert same(final(root), final(whole))
    ours, theirs = log(root), log(whole)
    assert [(e["epoch"], e["loss"], e["validation_dice"]) for e in ours] == [
        (e["epoch"], e["loss"], e["validation_dice"]) for e in theirs
    ]


def test_an_interrupted_fold_is_not_started_again_by_mistake(root, capfd):
    with pytest.MonkeyPatch.context() as patch:
        stop_after(patch, 2)
        assert train.main(["1", "0", "-device", "cpu"]) == 128 + signal.SIGTERM
    assert train.main(["1", "0", "-device", "cpu"]) == 1
    assert "--c continues it" in capfd.readouterr().err


def test_the_same_seed_gives_the_same_weights_and_another_does_not(root, whole):
    assert train.main(["1", "0", "-device", "cpu", "-workers", "0"]) == 0
    assert same(final(root), final(whole))
    assert train.main(["1", "0", "-device", "cpu", "--overwrite", "--set", "seed=7"]) == 0
    assert not same(final(root), final(whole))


def test_a_loss_that_is_not_a_number_names_the_cases_and_the_setting(root, capfd):
    arguments = [
        "1",
        "0",
        "-device",
        "cpu",
        "--set",
        "stages.0.optimiser.arguments.lr=1e30",
        "stages.0.gradient_clip=null",
    ]
    assert train.main(arguments) == 1
    text = capfd.readouterr().err
    assert "the loss became" in text and "case_00" in text and "optimiser.arguments.lr" in text


def test_memory_that_runs_out_names_the_patch(root, capfd, monkeypatch):
    def too_much(*_):
        raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2 GiB")

    monkeypatch.setattr(stage_module, "_step", too_much)
    assert train.main(["1", "0", "-device", "cpu"]) == 1
    text = capfd.readouterr().err
    assert "memory of cpu ran out" in text and "8 x 16 x 16" in text and "-gpu_memory_target" in text


def test_a_continued_training_needs_the_same_plan(root, capfd):
    with pytest.MonkeyPatch.context() as patch:
        stop_after(patch, 2)
        train.main(["1", "0", "-device", "cpu"])
    assert train.main(["1", "0", "--c", "-device", "cpu", "--set", "seed=9"]) == 1
    assert "trained by another plan" in capfd.readouterr().err


@pytest.mark.parametrize("name", [[], ["-name", "cc"]])
def test_c_takes_the_settings_again_that_the_training_was_begun_with(name, root, capfd):
    settings = ["--set", "epochs=2", "validation.every=1"]
    with pytest.MonkeyPatch.context() as patch:
        stop_after(patch, 2)
        assert train.main(["1", "0", "-device", "cpu", *name, *settings]) == 128 + signal.SIGTERM
    model = fold(root).parent.with_name("cc" if name else "unet__unet")
    before = (model / "plan.json").read_bytes()
    assert train.main(["1", "0", "--c", "-device", "cpu", *name, "--set", "seed=9", "epochs=3"]) == 1
    text = capfd.readouterr().err
    assert "different: recipe.stages.0.epochs, seed\n" in text and "leave --set out" in text
    assert (model / "plan.json").read_bytes() == before
    assert train.main(["1", "0", "--c", "-device", "cpu", *name]) == 0
    assert "begun with: --set epochs=2 validation.every=1\n" in capfd.readouterr().err
    assert (model / "plan.json").read_bytes() == before


def test_c_takes_the_plan_of_the_fold_that_was_begun(root, capfd):
    plans = root / "preprocessed" / fold(root).parents[1].name
    shutil.copytree(plans / "unet", plans / "another")
    with pytest.MonkeyPatch.context() as patch:
        stop_after(patch, 2)
        assert train.main(["1", "0", "-device", "cpu", "-p", "unet"]) == 128 + signal.SIGTERM
    assert train.main(["1", "1", "-device", "cpu", "--c"]) == 1
    assert "more than one plan" in capfd.readouterr().err
    assert train.main(["1", "0", "-device", "cpu", "--c"]) == 0
    assert "continuing plan unet, member 1 of 1" in capfd.readouterr().err


def test_c_under_torchrun_takes_the_settings_again(root):
    with pytest.MonkeyPatch.context() as patch:
        stop_after(patch, 2)
        assert train.main(["1", "0", "-device", "cpu", "--set", "epochs=1"]) == 128 + signal.SIGTERM
    done = runs.torchrun(root, "1", "0", "--c", timeout=300)
    assert done.returncode == 0, done.stderr[-3000:]
    assert done.stderr.count("begun with: --set epochs=1\n") == 1 and len(log(root)) == 1


def test_fold_all_trains_on_every_case(root):
    assert train.main(["1", "all", "-device", "cpu"]) == 0
    record = json.loads((fold(root).with_name("fold_all") / "fold.json").read_text())
    assert len(record["train_cases"]) == 5 and record["validation"] is None


def test_sigterm_saves_and_leaves_with_its_code(root):
    """A real process and a real signal."""
    command = [
        sys.executable,
        "-m",
        "autoseg.cli.train",
        "1",
        "0",
        "-device",
        "cpu",
        "--set",
        "stages.0.epochs=500",
    ]
    process = subprocess.Popen(
        command, stderr=subprocess.PIPE, text=True, env={**os.environ, "OMP_NUM_THREADS": "1"}
    )
    deadline = time.time() + 120
    while time.time() < deadline and not (fold(root) / "checkpoint" / "latest.safetensors").exists():
        time.sleep(0.1)
    process.send_signal(signal.SIGTERM)
    _, text = process.communicate(timeout=60)
    assert process.returncode == 128 + signal.SIGTERM, text
    assert "stopped by SIGTERM and saved; continue with --c" in text


def test_two_processes_train_like_one(root, whole):
    """torchrun on the CPU: the samples are the same, so the weights differ by rounding only."""
    done = runs.torchrun(root, "1", "0", timeout=300)
    assert done.returncode == 0, done.stderr[-3000:]
    one, two = final(whole), final(root)
    assert all(torch.allclose(one[k], two[k], atol=2e-3) for k in one)


def test_stop_request():
    stop = StopRequest()
    assert not stop.requested
    stop.set(signal.SIGINT)
    assert stop.requested and stop.signal == signal.SIGINT
