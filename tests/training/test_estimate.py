"""The time that a fold takes, worked out by hand."""

import pytest
from workload import amounts, plan, stage

from autoseg.training.estimate import (
    EVENING,
    Ahead,
    Left,
    Measured,
    evening,
    left_words,
    n_validations,
    what_is_left,
)


def test_a_fold_of_one_stage():
    """10 epochs of 100 iterations of 2 s, 1 s of saving each; validations after epochs 4, 8 and 10 of 2 cases of 5 s;
    then 3 cases of 5 s."""
    measured = Measured(iteration={0: 2.0}, iterations={0: 100}, case=5.0, rest=1.0)
    found = what_is_left(plan(), amounts(), measured, [Ahead(0)])
    assert found == Left(epoch=200, stage=2010 + 3 * 2 * 5, fold=2040 + 3 * 5)


def test_only_what_remains_counts():
    """From epoch 9, iteration 40 on: 60 + 100 iterations of 2 s, one validation."""
    measured = Measured(iteration={0: 2.0}, iterations={0: 100}, case=5.0)
    found = what_is_left(plan(), amounts(), measured, [Ahead(0, 8, 40)])
    assert found == Left(epoch=120, stage=320 + 10, fold=330 + 15)


def test_before_a_case_was_predicted_it_is_worked_out_by_voxels():
    """6000 voxels of a case against 1000 in a step of 2 s, of which a third is the way forward: 4 s."""
    measured = Measured(iteration={0: 2.0}, iterations={0: 100})
    found = what_is_left(plan(), amounts(), measured, [Ahead(0)])
    assert found.stage == pytest.approx(2000 + 3 * 2 * 4) and found.fold == pytest.approx(found.stage + 3 * 4)


def test_all_members_and_stages_and_their_predictions_are_in_it():
    """Two members of two stages; the second stage sees half the voxels: 1 s an iteration. Both are kept: 4 networks."""
    two = plan(stage(), stage("later", iterations_per_epoch=50), every=10, members=2)
    measured = Measured(iteration={0: 2.0}, iterations={0: 100}, case=5.0)
    found = what_is_left(two, amounts(), measured, [Ahead(0), Ahead(1), Ahead(0), Ahead(1)])
    assert found.whole and found.stage == 2000 + 10
    assert found.fold == 2 * (2000 + 10) + 2 * (500 + 10) + 4 * 3 * 5


def test_a_stage_of_the_same_network_is_known_before_it_is_measured():
    two = plan(stage(), stage("later", iterations_per_epoch=50), every=10)
    measured = Measured(iteration={0: 2.0}, iterations={0: 100, 1: 50}, case=5.0)
    found = what_is_left(two, amounts(), measured, [Ahead(1, 9, 20)])
    assert found == Left(epoch=30, stage=30 + 10, fold=40 + 2 * 3 * 5)
    over = what_is_left(two, amounts(), measured, [Ahead(1, 10)])
    assert left_words(over) == "fold 30 s"


def test_a_stage_of_another_network_is_unknown_until_it_is_measured():
    two = plan(stage(), stage("judge", network="second", iterations_per_epoch=None))
    measured = Measured(iteration={0: 2.0}, iterations={0: 100}, case=5.0)
    found = what_is_left(two, amounts(), measured, [Ahead(0), Ahead(1)])
    assert not found.whole and left_words(found) == "stage 34 min, fold at least 34 min"
    assert what_is_left(two, amounts(), measured, [Ahead(1)]) is None
    measured.iteration[1], measured.iterations[1] = 0.5, 4
    found = what_is_left(two, amounts(), measured, [Ahead(1)])
    assert found == Left(epoch=2, stage=20, fold=20 + 15), "another network is not validated"


def test_mirrored_copies_of_the_prediction_and_cases_of_steps_that_learn():
    measured = Measured(iteration={0: 2.0}, iterations={0: 100}, case=5.0)
    more = amounts(mirrorings=8, fitted=2)
    assert what_is_left(plan(mirror=(0, 1, 2)), more, measured, [Ahead(0)]).fold == 2030 + (3 + 2) * 8 * 5
    assert what_is_left(plan(), more, measured, [Ahead(0)]).fold == 2030 + (3 + 2) * 5


@pytest.mark.parametrize(("epoch", "left"), [(0, 3), (3, 3), (4, 2), (8, 1), (9, 1), (10, 0)])
def test_validations_after_epochs_4_8_and_the_last_one_of_10(epoch, left):
    made = plan()
    assert n_validations(made, made.recipe.stages[0], epoch) == left


def test_epochs_are_cut_to_an_evening():
    """An epoch takes 100 x 6 s, its validation 40 s, the rest 60 s: 22 fit into 4 hours, 23 do not."""
    long = plan(stage(epochs=1000), every=1)
    measured = Measured(iteration={0: 6.0}, iterations={0: 100}, case=20.0)
    assert evening(long, amounts(), measured) == (["epochs=22"], 22 * 640 + 60)
    assert 23 * 640 + 60 > EVENING >= 22 * 640 + 60


def test_where_few_epochs_would_be_left_other_things_are_cut_first():
    """With 3 members 2 epochs of 2000 s fit; with one 7."""
    long = plan(stage(epochs=1000, iterations_per_epoch=1000), every=1000, members=3)
    measured = Measured(iteration={0: 2.0}, iterations={0: 1000}, case=0.0)
    words, seconds = evening(long, amounts(), measured)
    assert (words, seconds) == (["epochs=7", "members=1"], 7 * 2000)
    slow = Measured(iteration={0: 20.0}, iterations={0: 1000}, case=0.0)
    words, seconds = evening(long, amounts(), slow)
    assert (
        words == ["epochs=14", "members=1", "stages.train.iterations_per_epoch=50"]
        and seconds == 14 * 50 * 20
    )


def test_snapshots_beyond_the_cut_go_and_what_is_too_slow_cannot_be_cut():
    long = plan(stage(epochs=1000, snapshots=[500]))
    measured = Measured(iteration={0: 6.0}, iterations={0: 100}, case=0.0)
    assert evening(long, amounts(), measured)[0] == ["epochs=24", "snapshots=[]"]
    assert evening(long, amounts(), Measured(iteration={0: 9000.0}, iterations={0: 100}, case=0.0)) is None
