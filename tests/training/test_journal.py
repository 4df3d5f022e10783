"""The line of an epoch, and what is forgotten when epochs are done again."""

from autoseg.training.estimate import Left
from autoseg.training.journal import Journal, epoch_line

ENTRY = {
    "member": 0,
    "stage": "train",
    "stage_index": 0,
    "epoch": 36,
    "loss": 0.43123,
    "lr": 0.009667,
    "seconds": 41.26,
    "wait_share": 0.012,
    "validation_dice": {"core": 0.5, "edema": 0.7, "necrosis": None},
    "validation_cases": 2,
}


def test_the_line_of_an_epoch():
    assert epoch_line(ENTRY, 1000, Left(epoch=40, stage=40000, fold=90000)) == (
        "epoch   37/1000  loss 0.4312  Dice of 2 cases 0.600 (core 0.500, edema 0.700)  lr 0.00967  41.3 s  "
        "waiting 1 %  left: stage 11.1 h, fold 25.0 h"
    )


def test_members_and_stages_are_named_where_there_are_several():
    line = epoch_line({**ENTRY, "members": 3, "stages": 2, "validation_dice": {}}, 1000)
    assert (
        line.startswith("member 1/3  stage train  epoch   37/1000")
        and "Dice" not in line
        and "left" not in line
    )


def test_epochs_that_are_done_again_are_forgotten(tmp_path):
    journal = Journal(tmp_path, tensorboard=False)
    for stage in (0, 1):
        for epoch in (0, 1, 2):
            journal.record({**ENTRY, "stage_index": stage, "epoch": epoch})
    journal.record({**ENTRY, "member": 1, "epoch": 0})
    journal.keep({(0, 0): 3, (0, 1): 1})
    kept = [(e["member"], e["stage_index"], e["epoch"]) for e in journal.entries()]
    assert kept == [(0, 0, 0), (0, 0, 1), (0, 0, 2), (0, 1, 0)]
