"""What is told of a training, by a clock that the test turns."""

import logging

import pytest
from workload import amounts, plan, stage

from autoseg import messages
from autoseg.training.progress import FoldProgress


class Clock:
    """Seconds that pass when the test says so."""

    def __init__(self):
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock():
    return Clock()


@pytest.fixture
def told(caplog):
    """The lines of a log."""
    caplog.set_level(logging.INFO, "autoseg")
    return lambda: [record.getMessage() for record in caplog.records]


def follow(clock, made, **options) -> FoldProgress:
    return FoldProgress(
        made, amounts(), clock=clock, ticker=messages.Ticker(clock, terminal=False), **options
    )


def look(progress, clock, iteration, seconds, loss=0.5):
    clock.now += seconds
    progress.looked(iteration, loss)


def test_the_first_iterations_are_measured_and_the_very_first_is_not_counted(clock, told):
    progress = follow(clock, plan(every=10))
    progress.begin_stage(0, 0, 100)
    progress.begin_epoch(0, 0)
    look(progress, clock, 1, 9)
    for iteration in (2, 3, 4):
        assert len(told()) == 1 and progress.measured.iteration.get(0) in (None, 2.0)
        look(progress, clock, iteration, 2)
    # 996 iterations of 2 s; a case is 4 s (see the test of the estimate): 2 in the validation, 3 at the end
    assert told() == [
        "10 epochs of 100 iterations; the first iterations are timed",
        "measured on this device: 2.0 s for an iteration, 3 min for an epoch of 100; left: stage 33 min, fold 34 min",
    ]
    left = progress.left()
    assert (left.epoch, left.stage, left.fold) == (192, pytest.approx(2000), pytest.approx(2012))


def test_a_log_gets_a_line_every_two_minutes_and_no_more(clock, told):
    progress = follow(clock, plan(stage(epochs=2, iterations_per_epoch=200), every=10))
    progress.begin_stage(0, 0, 200)
    progress.begin_epoch(0, 0)
    for iteration in range(1, 181):
        look(progress, clock, iteration, 2)
    lines = told()[2:]
    assert len(lines) == 2, lines  # 360 s, the estimate after 8 s was as good as a line
    assert lines[0].startswith("epoch 1 of 2, iteration 64 of 200, loss 0.5; left: epoch 5 min, stage 11 min")


def test_a_day_on_this_device_is_answered_with_two_settings(clock, told):
    progress = follow(
        clock,
        plan(stage(epochs=1000), every=1000),
        advice="autoseg_plan_and_preprocess -d 1 -pl unet -p quick",
    )
    progress.begin_stage(0, 0, 100)
    progress.begin_epoch(0, 0)
    for iteration in range(1, 5):
        look(progress, clock, iteration, 6)
    text = "\n".join(told())
    assert "more than a day on this device" in text and "fold 7 days" in text
    assert "autoseg_plan_and_preprocess -d 1 -pl unet -p quick --set planner.length=quick" in text
    # 23 epochs of 600 s, a validation of 2 cases and 3 more, 12 s each: 13860 s
    assert "--overwrite --set epochs=23  (about 3.9 h)" in text


def test_members_stages_and_validations_are_named_and_measured(clock, told):
    two = plan(
        stage(epochs=2), stage("judge", network="second", epochs=3, iterations_per_epoch=None), members=2
    )
    progress = follow(clock, two)
    progress.begin_stage(0, 0, 100)
    progress.begin_epoch(0, 0)
    for iteration in range(1, 101):
        look(progress, clock, iteration, 0.1)
    progress.end_iterations()
    clock.now += 1  # the curves
    progress.validating(0, 2)
    clock.now += 125
    progress.validating(1, 2)
    assert (
        told()[-1] == "member 1 of 2, stage train, epoch 1 of 2, iteration 100 of 100, validating case 2 of 2"
    )
    clock.now += 135
    progress.validating(2, 2)
    assert progress.measured.case == 130
    clock.now += 2  # the checkpoint
    left = progress.end_epoch(ended=False)
    progress.begin_epoch(1, 0)
    assert progress.measured.rest == 0 and not left.whole, "the first time something is imported"
    progress.end_iterations()
    clock.now += 3
    progress.begin_epoch(1, 0)
    assert progress.measured.rest == 3
    assert progress.end_epoch(ended=True).stage == 0
    progress.begin_stage(0, 1, 4)
    assert (
        told()[-1] == "member 1 of 2, stage judge: 3 epochs of 4 iterations; the first iterations are timed"
    )
    assert progress.left() is None
    progress.begin_epoch(0, 0)
    for iteration in (1, 2, 3, 4):
        look(progress, clock, iteration, 1)
    left = progress.left()
    # of this stage 8 iterations; of member 2 200 and 12; what is kept is one network of each member; 3 s of saving each
    assert left.whole and left.stage == pytest.approx(8 + 9)
    assert left.fold == pytest.approx(17 + (20 + 2 * 130 + 6) + (12 + 9) + 2 * 3 * 130)
    progress.begin_stage(1, 0, 100)
    assert told()[-1] == "member 2 of 2, stage train: 2 epochs of 100 iterations"


def test_patience_does_not_contradict_what_is_not_measured_yet(clock, told):
    """Of two stages one was measured; it may end earlier."""
    first = stage(patience=3)
    second = stage("judge", network="second", epochs=3, iterations_per_epoch=None)
    for made, words in (
        (plan(first), " or less (patience)"),
        (plan(first, second), ", unless patience ends a stage earlier"),
    ):
        progress = follow(clock, made)
        progress.begin_stage(0, 0, 100)
        progress.begin_epoch(0, 0)
        for iteration in (1, 2, 3, 4):
            look(progress, clock, iteration, 2)
        assert told()[-1].endswith(words) and ("at least" in told()[-1]) == words.startswith(",")


def test_what_is_done_already_is_not_ahead(clock):
    progress = follow(clock, plan(members=3, every=10), done={(0, 0), (2, 0)})
    progress.begin_stage(1, 0, 100, epoch=9)
    progress.begin_epoch(9, 50)
    for iteration in range(51, 56):
        look(progress, clock, iteration, 2)
    assert progress.where() == "member 2 of 3, epoch 10 of 10, iteration 55 of 100"
    assert progress.left().stage == pytest.approx(90 + 2 * 4)
    assert progress.left().fold == pytest.approx(98 + 3 * 3 * 4)


def test_a_device_that_is_looked_at_every_ten_iterations(clock):
    progress = follow(clock, plan(stage(epochs=1), every=10))
    progress.begin_stage(0, 0, 100)
    progress.begin_epoch(0, 0)
    for iteration, seconds in ((10, 12), (20, 2), (30, 3), (40, 4)):
        look(progress, clock, iteration, seconds)
    assert progress.measured.iteration[0] == pytest.approx(0.3)
    assert progress.left().epoch == pytest.approx(60 * 0.3)


def test_a_long_first_iteration_counts(clock, told):
    progress = follow(clock, plan(stage(epochs=1), every=10))
    progress.begin_stage(0, 0, 10)
    progress.begin_epoch(0, 0)
    look(progress, clock, 1, 60)
    assert "measured on this device: 60.0 s for an iteration" in told()[1]


def test_a_terminal_has_one_changing_line_and_a_log_the_others(clock, caplog, capsys):
    caplog.set_level(logging.DEBUG, "autoseg")
    ticker = messages.Ticker(clock, terminal=True)
    for number in range(200):
        clock.now += 1
        ticker.tell(f"number {number}")
    ticker.close()
    assert [(r.levelname, r.getMessage()) for r in caplog.records] == [("DEBUG", "number 119")]
    shown = capsys.readouterr().err
    assert "number 199" in shown and "\n" not in shown


def test_a_narrow_terminal_has_a_short_line(clock, monkeypatch, capsys):
    monkeypatch.setenv("COLUMNS", "70")
    progress = FoldProgress(
        plan(members=3), amounts(), clock=clock, ticker=messages.Ticker(clock, terminal=True)
    )
    progress.begin_stage(0, 0, 100)
    progress.begin_epoch(0, 0)
    for iteration in (1, 2, 3):
        look(progress, clock, iteration, 2)
    progress.close()
    assert "1/3 1/10 3/100 loss 0.5; stage 34 min, fold 1.7 h left" in capsys.readouterr().err
