"""What a stage may do beside training all its epochs: stop early, leave cases out, compute in bfloat16."""

import json
from functools import partial

import pytest
import runs
import torch
from runs import final, fold, log

from autoseg.bundle import weights
from autoseg.cli import train
from autoseg.errors import AutosegError
from autoseg.training import distributed, sources, stage, validation

pytestmark = pytest.mark.slow


def trained_with(*settings: str) -> int:
    return train.main(["1", "0", "-device", "cpu", "--set", *settings])


def test_patience_ends_a_stage_with_its_best_weights(root, monkeypatch, capfd):
    scores = iter([0.5, 0.3, 0.7, 0.6, 0.7, 0.1, 0.9])
    monkeypatch.setattr(stage, "mean_score", lambda _: next(scores))
    assert trained_with("stages.0.epochs=20", "stages.0.patience=3", "validation.every=1") == 0
    assert len(log(root)) == 6  # the third was the best, and an equal one is no better
    folder = fold(root) / "weights"
    assert weights.read_info(folder / "member0.train.safetensors").epoch == 3
    assert runs.same(final(root), weights.read(folder / "member0.train.best.safetensors").tensors)
    text = capfd.readouterr().err
    assert "no better validation Dice than 0.700 (epoch 3) for 3 epochs" in text


def test_a_stage_that_never_tires_leaves_its_best_weights_too(root, monkeypatch):
    scores = iter([0.5, 0.3])
    monkeypatch.setattr(stage, "mean_score", lambda _: next(scores))
    assert trained_with("stages.0.epochs=2", "stages.0.patience=3", "validation.every=1") == 0
    assert weights.read_info(fold(root) / "weights" / "member0.train.safetensors").epoch == 1


def test_patience_is_judged_where_there_is_a_validation(root, monkeypatch):
    """Every second epoch has one; the first one has the best score."""
    scores = iter([0.5, 0.3, 0.4])
    monkeypatch.setattr(stage, "mean_score", lambda _: next(scores))
    assert trained_with("stages.0.epochs=20", "stages.0.patience=1", "validation.every=2") == 0
    assert len(log(root)) == 4
    assert weights.read_info(fold(root) / "weights" / "member0.train.safetensors").epoch == 2


def test_a_stage_trains_without_the_part_it_leaves_out_and_is_validated_on_it(root, monkeypatch):
    seen = []
    made = sources.BatchSource

    def noted(store, cases, *args, **kwargs):
        seen.append(cases)
        return made(store, cases, *args, **kwargs)

    monkeypatch.setattr(sources, "BatchSource", noted)
    measured = []
    plain = validation.Validator.__call__
    monkeypatch.setattr(
        validation.Validator,
        "__call__",
        lambda self, network: (measured.append(self.cases), plain(self, network))[1],
    )
    settings = ("stages.0.leave_out=[1,2]", "stages.0.epochs=1", "validation.cases=4")
    assert trained_with(*settings) == 0
    splits = json.loads((root / "preprocessed" / "Dataset001_Small" / "splits.json").read_text())
    assert [sorted(cases) for cases in measured] == [sorted(splits[0]["train"])[1::2]]
    assert seen == [tuple(sorted(splits[0]["train"])[0::2])]


def test_too_few_cases_for_the_parts_are_refused(root, capfd):
    assert trained_with("stages.0.leave_out=[1,9]") == 1
    assert "there are too few cases for stage 'train'" in capfd.readouterr().err
    assert not fold(root).exists()


def test_bfloat16_trains_and_predicts_on_a_cpu(root, capfd):
    assert trained_with("precision=bfloat16", "stages.0.epochs=2") == 0
    assert all(entry["loss"] > 0 for entry in log(root))
    assert all(tensor.dtype == torch.float32 for tensor in final(root).values())
    assert (fold(root) / "validation" / "summary.json").exists()


def test_a_stage_to_redo_must_exist_and_have_one_before_it(trained, capfd):
    assert train.main(["1", "0", "--redo_from", "trian"]) == 1
    assert "the plan has no stage 'trian'" in capfd.readouterr().err
    assert train.main(["1", "0", "--redo_from", "train"]) == 1
    assert "'train' is the first stage: there is nothing to keep" in capfd.readouterr().err
    assert (fold(trained) / "fold.json").exists()


@pytest.mark.parametrize(("other", "agree"), [([12, 40, 7], True), ([13, 40, 8], False)])
def test_processes_that_would_wait_for_each_other_are_stopped(other, agree, monkeypatch):
    """Two processes that found another number of candidates have epochs of another length."""

    def all_reduce(mine, kind):
        meet = torch.minimum if kind == distributed.dist.ReduceOp.MIN else torch.maximum
        mine.copy_(meet(mine, torch.tensor(other)))

    monkeypatch.setattr(distributed.dist, "all_reduce", all_reduce)
    two, what = distributed.World(1, 2), {"what": "the batches", "where": "stage muscle"}
    check = partial(two.check_same, [12, 40, 7], torch.device("cpu"), **what)
    if agree:
        check()
        return
    with pytest.raises(
        AutosegError, match=r"do not agree on the batches(?s:.*)\[12, 40, 7\] to \[13, 40, 8\]"
    ):
        check()
