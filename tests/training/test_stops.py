"""A training that is stopped: in a validation, by a signal to all its processes, between files; and how it goes on."""

import errno
import json
import shutil
import signal
import time

import pytest
import runs
import torch
from runs import final, fold, log, same, stop_after

from autoseg.bundle import weights
from autoseg.cli import train
from autoseg.errors import AutosegError
from autoseg.inference import folder
from autoseg.sampling import loader
from autoseg.training import journal, stage, train_fold, validation
from autoseg.training.interrupt import Interrupted, StopRequest, stop_on_signals

pytestmark = pytest.mark.slow
STOPPED = 128 + signal.SIGTERM


def test_a_stop_within_a_validation_saves_the_epoch_before_it(root, whole, capfd):
    predict, calls = validation.predict_logits, []

    def signalled(*args, progress, **options):
        calls.append(1)
        if len(calls) == 2:
            signal.raise_signal(signal.SIGTERM)
        return predict(*args, progress=progress, **options)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(validation, "predict_logits", signalled)
        assert train.main(["1", "0", "-device", "cpu"]) == STOPPED
    assert len(calls) == 2 and [entry["epoch"] for entry in log(root)] == [0]
    assert train.main(["1", "0", "--c", "-device", "cpu"]) == 0
    text = capfd.readouterr().err
    assert "continuing plan unet, member 1 of 1, stage train in epoch 2, after iteration 4\n" in text
    assert "3 epochs of 4 iterations; of epoch 2 only the end is left, with its validation" in text
    assert same(final(root), final(whole))
    assert [e["validation_dice"] for e in log(root)] == [e["validation_dice"] for e in log(whole)]


def test_a_signal_in_the_final_validation_stops_it_and_c_does_only_the_rest(root, capfd):
    def signalled(*_):
        signal.raise_signal(signal.SIGTERM)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(folder._FolderRun, "_predict_one", signalled)
        assert train.main(["1", "0", "-device", "cpu"]) == STOPPED
    assert "stopped by SIGTERM and saved" in capfd.readouterr().err
    assert not (fold(root) / "fold.json").exists()
    final_weights = fold(root) / "weights" / "member0.train.safetensors"
    before = final_weights.stat().st_mtime_ns
    assert train.main(["1", "0", "--c", "-device", "cpu"]) == 0
    assert final_weights.stat().st_mtime_ns == before and len(log(root)) == 3
    assert json.loads((fold(root) / "fold.json").read_text())["validation"]


def test_a_signal_to_all_processes_saves_although_the_workers_are_gone(root, monkeypatch):
    """The workers die first, the training's own signal comes a little later."""
    plain, left = loader.BatchSource.batches, []

    def broken(self, *args):
        for batch in plain(self, *args):
            left.append(batch)
            if len(left) == 3:
                signal.setitimer(signal.ITIMER_REAL, 0.1)
                raise AutosegError("a worker process died")
            yield batch

    monkeypatch.setattr(loader.BatchSource, "batches", broken)
    signal.signal(signal.SIGALRM, lambda *_: signal.raise_signal(signal.SIGTERM))
    assert train.main(["1", "0", "-device", "cpu"]) == STOPPED
    assert (fold(root) / "checkpoint" / "latest.safetensors").exists()
    monkeypatch.setattr(loader.BatchSource, "batches", lambda *_: iter(_raise(AutosegError("by itself"))))
    assert train.main(["1", "0", "--c", "-device", "cpu"]) == 1


def _raise(error):
    raise error
    yield


def test_a_line_of_the_log_that_is_half_written_is_forgotten(root):
    with pytest.MonkeyPatch.context() as patch:
        stop_after(patch, 6)
        assert train.main(["1", "0", "-device", "cpu"]) == STOPPED
    with open(fold(root) / "log.jsonl", "a") as handle:
        handle.write('{"member": 0, "sta')
    assert train.main(["1", "0", "--c", "-device", "cpu"]) == 0
    assert [entry["epoch"] for entry in log(root)] == [0, 1, 2]


def test_other_cases_in_the_fold_are_not_continued_on(root, capfd):
    with pytest.MonkeyPatch.context() as patch:
        stop_after(patch, 6)
        assert train.main(["1", "0", "-device", "cpu"]) == STOPPED
    splits = next((root / "preprocessed").glob("*/splits.json"))
    splits.write_text(json.dumps(json.loads(splits.read_text())[::-1]))
    assert train.main(["1", "0", "--c", "-device", "cpu"]) == 1
    text = capfd.readouterr().err
    assert "trained on other cases than the fold has now" in text and "splits.json" in text


def test_from_now_on_at_once():
    with stop_on_signals() as stop:
        signal.raise_signal(signal.SIGTERM)
        with pytest.raises(Interrupted):
            stop.from_now_on_at_once()
        with pytest.raises(Interrupted):
            signal.raise_signal(signal.SIGTERM)
    assert not StopRequest().comes_within(0.01)


def test_ctrl_c_answers_at_once_and_a_second_one_leaves(caplog):
    caplog.set_level("INFO")
    with stop_on_signals() as stop:
        signal.raise_signal(signal.SIGINT)
        assert stop.requested and "stopping: finishing the step, then saving" in caplog.text
        with pytest.raises(KeyboardInterrupt):
            signal.raise_signal(signal.SIGINT)


def _interrupted(*_):
    raise KeyboardInterrupt


@pytest.mark.parametrize(
    ("where", "words"),
    [("_begin", "nothing was changed; run it again"), ("_train_members", "--c continues from the last")],
)
def test_a_stop_without_saving_proposes_c_only_where_there_is_a_checkpoint(where, words, root, capfd):
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(train_fold, where, _interrupted)
        assert train.main(["1", "0", "-device", "cpu"]) == 130
    said = capfd.readouterr().err
    assert "stopped by Ctrl-C; " in said and words in said and said.count("--c") == (where != "_begin")


def test_a_finished_fold_is_not_continued_after_a_stop_before_all(trained, capfd):
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(train_fold, "_begin", _interrupted)
        assert train.main(["1", "0", "-device", "cpu", "--overwrite"]) == 130
    assert "nothing was changed; run it again" in capfd.readouterr().err


def test_a_saved_stop_has_the_same_word_for_the_signal():
    assert [str(Interrupted(n)) for n in (signal.SIGINT, signal.SIGTERM)] == ["Ctrl-C", "SIGTERM"]


def test_a_hang_up_saves_unless_whoever_started_it_wants_it_ignored():
    before = signal.signal(signal.SIGHUP, signal.SIG_DFL)
    try:
        with stop_on_signals() as stop:
            signal.raise_signal(signal.SIGHUP)
            assert stop.requested and stop.signal == signal.SIGHUP
        signal.signal(signal.SIGHUP, signal.SIG_IGN)  # nohup
        with stop_on_signals() as stop:
            signal.raise_signal(signal.SIGHUP)
            assert not stop.requested
    finally:
        signal.signal(signal.SIGHUP, before)


@pytest.mark.parametrize("nth", [2, 5])
def test_a_full_disk_stops_a_training_and_c_continues_it_exactly(nth, root, whole, capfd):
    """The disk is full at one of the weight files or checkpoints; the message names the way on."""
    write, calls = weights.write_tensors, []

    def full(*args):
        calls.append(1)
        if len(calls) == nth:
            raise OSError(errno.ENOSPC, "No space left on device")
        write(*args)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(weights, "write_tensors", full)
        assert train.main(["1", "0", "-device", "cpu"]) == 1
    text = capfd.readouterr().err
    assert "the disk is full" in text and "autoseg_train with --c" in text
    assert train.main(["1", "0", "-device", "cpu", "--c"]) == 0
    assert same(final(root), final(whole))


def test_other_threads_than_before_are_said(root, capfd):
    threads = torch.get_num_threads()
    with pytest.MonkeyPatch.context() as patch:
        stop_after(patch, 3)
        assert train.main(["1", "0", "-device", "cpu"]) == STOPPED
    torch.set_num_threads(threads + 1)
    try:
        assert train.main(["1", "0", "--c", "-device", "cpu"]) == 0
    finally:
        torch.set_num_threads(threads)
    text = capfd.readouterr().err
    assert (
        f"continued with other threads {threads + 1} (before: {threads}): the weights will differ in rounding"
        in text
    )


def test_a_full_disk_is_explained_where_epochs_are_recorded(tmp_path):
    (tmp_path / "log.jsonl").mkdir()
    with pytest.raises(AutosegError, match="cannot be written"):
        journal.Journal(tmp_path, tensorboard=False).record({})


def test_a_refusal_under_torchrun_is_said_once_and_not_as_a_crash(trained):
    """Both processes leave with a message; none waits for the other."""
    started = time.monotonic()
    done = runs.torchrun(trained, "1", "0", timeout=120)
    assert done.returncode == 1 and time.monotonic() - started < 100
    assert done.stderr.count("fold 0 has a result already") == 1
    assert "[rank1]: Traceback" not in done.stderr


@pytest.fixture(scope="module")
def curriculum(prepared, tmp_path_factory):
    """An uninterrupted training: two members, two stages with snapshots, layers frozen in the second, Adam."""
    root = tmp_path_factory.mktemp("curriculum") / "work"
    with pytest.MonkeyPatch.context() as patch:
        runs.copied(patch, prepared, root)
        path = next((root / "preprocessed").glob("*/unet/plan.json"))
        content = json.loads(path.read_text())
        recipe = content["recipe"]
        recipe["members"] = 2
        first = recipe["stages"][0]
        first["optimiser"] = {"name": "adam", "arguments": {"lr": 0.003}}
        first |= {"epochs": 2, "save_every": 1}
        changes = {
            "name": "second",
            "start": "previous",
            "snapshots": [1, 2],
            "frozen": ["encoder.stages.0.*"],
        }
        recipe["stages"].append({**first, **changes})
        path.write_text(json.dumps(content))
        shutil.copytree(root, root.with_name("untrained"))
        assert train.main(["1", "0", "-device", "cpu"]) == 0
    return root


def all_weights(root):
    """Every weight file without its metadata."""
    return {path.name: weights.read(path).tensors for path in (fold(root) / "weights").iterdir()}


# within the first stage, at the end of a stage, at a snapshot, in the second member, at the very end
@pytest.mark.parametrize("iterations", [(3, 8), (12,), (22, 1, 4), (32,)])
def test_members_stages_and_snapshots_continue_exactly(iterations, curriculum, tmp_path, monkeypatch):
    root = runs.copied(monkeypatch, curriculum.with_name("untrained"), tmp_path / "work")
    again = []
    for n in iterations:
        with pytest.MonkeyPatch.context() as patch:
            stop_after(patch, n)
            assert train.main(["1", "0", "-device", "cpu", *again]) == STOPPED
        again = ["--c"]
    assert train.main(["1", "0", "-device", "cpu", "--c"]) == 0
    ours, theirs = all_weights(root), all_weights(curriculum)
    assert ours.keys() == theirs.keys()
    written = {name.removesuffix(".safetensors") for name in ours if "best" not in name}
    kinds = (
        "train",
        "train.epoch1",
        "second",
        "second.epoch1",
        "second.epoch2",
    )  # snapshots are asked for by name
    first = json.loads(next(root.glob("results/*/*/plan.json")).read_text())["recipe"]["stages"][0]["name"]
    assert written == {f"member{m}.{kind.replace('train', first)}" for m in (0, 1) for kind in kinds}
    assert all(same(ours[name], theirs[name]) for name in ours)


def test_a_process_that_dies_before_it_saves_an_epoch_repeats_it_exactly(curriculum, tmp_path, monkeypatch):
    """Weights and log of the epoch are there already, the checkpoint is of the epoch before."""
    root = runs.copied(monkeypatch, curriculum.with_name("untrained"), tmp_path / "work")
    save, calls = stage.checkpoint.save, []

    def dies(*args):
        calls.append(1)
        if len(calls) == 4:
            raise RuntimeError("killed")
        save(*args)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(stage.checkpoint, "save", dies)
        with pytest.raises(RuntimeError, match="killed"):
            train.main(["1", "0", "-device", "cpu"])
    assert train.main(["1", "0", "-device", "cpu", "--c"]) == 0
    ours, theirs = all_weights(root), all_weights(curriculum)
    assert ours.keys() == theirs.keys() and all(same(ours[name], theirs[name]) for name in ours)
    assert len(log(root)) == 8
