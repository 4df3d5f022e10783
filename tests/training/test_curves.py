import json
import math
import time

import pytest

from autoseg.report import charts
from autoseg.report.collect import Training
from autoseg.training import curves


def write_log(path, epochs=5, **changes):
    lines = []
    for member in range(2):
        for stage in ("first", "second"):
            for epoch in range(epochs):
                entry = {
                    "member": member,
                    "stage": stage,
                    "epoch": epoch,
                    "loss": 1 / (epoch + 1),
                    "lr": 0.01,
                }
                entry |= {"seconds": 3.5, "wait_share": 0.02, "validation_dice": None}
                if epoch % 2:
                    entry["validation_dice"] = {"core": 0.1 * epoch, "oedema": None if epoch < 3 else 0.5}
                lines.append(json.dumps(entry | changes))
    path.write_text("\n".join(lines) + "\n")
    return path


def is_png(path):
    return path.read_bytes().startswith(b"\x89PNG\r\n")


def test_draws_stages_and_members(tmp_path):
    curves.plot(write_log(tmp_path / "log.jsonl"), tmp_path / "curves.png")
    assert is_png(tmp_path / "curves.png")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["curves.png", "log.jsonl"]


@pytest.mark.parametrize(
    "changes",
    [
        {"loss": float("nan")},
        {"validation_dice": None},
        {"validation_dice": {"core": None}},
        {"wait_share": None},
        {"seconds": 0.0, "wait_share": 0.0},
    ],
)
def test_incomplete_logs(tmp_path, changes):
    curves.plot(write_log(tmp_path / "log.jsonl", 1, **changes), tmp_path / "curves.png")
    assert is_png(tmp_path / "curves.png")


def test_a_line_that_was_cut_off_and_an_empty_log(tmp_path):
    log = write_log(tmp_path / "log.jsonl")
    log.write_text(log.read_text() + '{"member": 0, "sta')
    assert len(curves.read_log(log)) == 20
    log.write_text("")
    curves.plot(log, tmp_path / "curves.png")
    assert not (tmp_path / "curves.png").exists()


@pytest.mark.parametrize(
    ("changes", "words"),
    [({}, "whole volumes"), ({"validation_view": "lesion_crop"}, "crops centred on lesions")],
)
def test_what_the_dice_is_measured_on_is_said(tmp_path, changes, words):
    """On the curves and in the report."""
    entries = curves.read_log(write_log(tmp_path / "log.jsonl", **changes))
    assert curves.what_is_watched(entries) == words
    chart = charts.training_curves([Training("fold 0", tuple(entries))])
    assert f"Dice on {words} of a few validation cases" in chart.caption


def test_whatever_was_validated_is_read():
    """Dice of whole volumes, a metric by class, and metrics of samples by class; nothing that is no number."""
    entry = {
        "loss": 1.0,
        "validation_cases": 3,
        "validation_view": "whole",
        "validation_dice": {"core": 0.5, "edema": None},
        "validation_tpr": {"core": 0.25},
        "validation_samples": {"core": {"accuracy": 0.75, "dice": math.nan}},
    }
    assert curves.validation_numbers(entry) == {
        ("dice", "core"): 0.5,
        ("tpr", "core"): 0.25,
        ("accuracy, samples", "core"): 0.75,
    }


def test_the_mean_and_sd_of_folds():
    """0.2 and 0.4: mean 0.3, SD 0.1414; the second fold stopped, and the fold all has no validation cases."""
    logs = ([0.2, 0.4], [0.4], [0.9, 0.9])
    folds = [
        Training(fold, tuple({"stage": "s", "validation_dice": {"lesion": v}} for v in log))
        for fold, log in zip(("0", "1", "all"), logs, strict=True)
    ]
    first, second = charts.folds_means(folds)
    assert (first.mean, first.sd, first.folds) == pytest.approx((0.3, 0.1414214, 2))
    assert (second.epoch, second.mean, second.sd, second.folds) == (2, 0.4, None, 1)
    (panel,) = charts.fold_curves(folds).panels
    assert panel.alt == "Dice by epoch; at the end lesion 0.400"
    assert charts.fold_curves(folds[1:]) is None  # one fold has no spread


def test_a_thousand_epochs_cost_little(tmp_path):
    """The journal draws after every epoch; processor time, because a shared machine's clock says nothing."""
    log = write_log(tmp_path / "log.jsonl", 250)
    curves.plot(log, tmp_path / "curves.png")  # imports and fonts
    start = time.process_time()
    curves.plot(log, tmp_path / "curves.png")
    assert time.process_time() - start < 1.5
