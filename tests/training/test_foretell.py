"""What a training will take, worked out by hand from measured steps; and trainings that are cut to hours."""

import pretend_card
import pytest
import torch
from workload import amounts, plan, stage

from autoseg.errors import AutosegError
from autoseg.plan import Named, hash_plan
from autoseg.plugins.planner import Budget
from autoseg.preparation.choice import make_plan
from autoseg.trainers.unet import TRAINER
from autoseg.training import foretell
from autoseg.training.dry_steps import DryStep, measure_step, scaled
from autoseg.training.estimate import Measured
from autoseg.training.foretell import Workload, as_record, fit_hours, measure, working_shape
from autoseg.training.planned import complete

HOUR = 3600.0
SMALL = {"spacings": [(1, 1, 1)], "shapes": [(24, 24, 24)] * 6}
TINY = {
    "networks.main.arguments": {
        "n_stages": 2,
        "features_per_stage": [4, 8],
        "kernel_sizes": [[3, 3, 3], [3, 3, 3]],
        "strides": [[1, 1, 1], [2, 2, 2]],
        "n_conv_per_stage": 1,
        "n_conv_per_stage_decoder": 1,
        "deep_supervision": True,
    },
    "stages.train.patch_size": [16, 16, 16],
}


def work(seconds: dict[int, float], iterations: dict[int, int], case: float = 0.0) -> Workload:
    measured = Measured(iteration=seconds, iterations=iterations, case=case)
    return Workload(amounts(), measured, {i: DryStep(s, None, 1.0) for i, s in seconds.items()}, "a test")


# ------------------------------------------------------------------------------------------------ hours


def test_epochs_are_cut_to_the_hours_and_the_published_length_stands_beside_them():
    """100 epochs of 100 iterations of 3.6 s are 10 hours; 4 hours are 40 epochs."""
    full = plan(stage(epochs=100), every=1000)
    cut = fit_hours(full, work({0: 3.6}, {0: 100}), 4, TRAINER)
    (found,) = cut.recipe.stages
    assert (found.epochs, found.iterations_per_epoch) == (40, 100)
    assert cut.reasons[0].what == "length" and cut.planner_options["hours"] == 4
    assert (
        "about 4.0 h" in cut.reasons[0].why
        and "100 epochs of 100) would take about 10.0 h" in cut.reasons[0].why
    )
    assert hash_plan(cut) != hash_plan(full)


def test_all_stages_keep_their_proportions_and_what_counts_in_epochs_follows():
    """150 epochs of 36 s x 10 are 15 hours; a third of them: cycles of 10 and snapshots with them."""
    cosine = Named(name="cosine", arguments={"cycle_epochs": 30})
    first = stage("first", epochs=120, iterations_per_epoch=10, schedule=cosine, snapshots=[30, 60])
    full = plan(first, stage("last", epochs=30, iterations_per_epoch=10, save_every=6), every=1000)
    cut = fit_hours(full, work({0: 36.0, 1: 36.0}, {0: 10, 1: 10}), 5, TRAINER)
    one, two = cut.recipe.stages
    assert (one.epochs, one.schedule.arguments, one.snapshots) == (40, {"cycle_epochs": 10}, [10, 20])
    assert (two.epochs, two.save_every) == (10, 2)


def test_where_few_epochs_would_be_left_their_iterations_are_cut():
    """20 passes of 100 iterations of 36 s are 20 hours; 2 of them: ten epochs of 20 iterations."""
    full = plan(stage(epochs=20, iterations_per_epoch=None), every=1000)
    (found,) = fit_hours(full, work({0: 36.0}, {0: 100}), 2.001, TRAINER).recipe.stages
    assert (found.epochs, found.iterations_per_epoch) == (10, 20)


def test_what_is_short_enough_stays_and_says_so():
    full = plan(stage(epochs=10), every=1000)
    found = fit_hours(full, work({0: 3.6}, {0: 100}), 2, TRAINER)
    assert found.recipe == full.recipe
    assert found.reasons[0].why == "--hours 2: the whole length takes about 60 min for a fold on a test"


def test_too_few_hours_are_refused_with_the_fewest_that_work():
    """Five iterations of 720 s are an hour."""
    full = plan(stage(epochs=100), every=1000)
    with pytest.raises(AutosegError, match=r"0.5 hours are too few[\s\S]*--hours 1 or more"):
        fit_hours(full, work({0: 720.0}, {0: 100}), 0.5, TRAINER)
    (found,) = fit_hours(full, work({0: 720.0}, {0: 100}), 1, TRAINER).recipe.stages
    assert (found.epochs, found.iterations_per_epoch) == (1, 5)


@pytest.mark.parametrize("hours", [0.3, 1, 3, 7.7])
def test_a_cut_training_takes_no_longer_than_the_hours(hours):
    full = plan(stage(epochs=700, iterations_per_epoch=11), stage("b", epochs=30), every=7, members=2)
    load = work({0: 4.0, 1: 2.0}, {0: 11, 1: 100}, case=5.0)
    assert 0.9 * hours * HOUR < load.seconds(fit_hours(full, load, hours, TRAINER)) <= hours * HOUR


# ------------------------------------------------------------------------------------------------ steps


def test_what_costs_the_same_in_every_step_is_not_scaled():
    """1 s and a second for each 100 voxels; where the smaller step is as long as the larger, at most 3/4 of it."""
    assert scaled({100: 2.0, 400: 5.0}, 1000) == pytest.approx(11.0)
    assert scaled({100: 4.0, 400: 4.0}, 1600) == pytest.approx(4.0 + 1200 / 400)
    assert scaled({400: 4.0}, 800) == pytest.approx(8.0)
    assert scaled({100: 0.5, 400: 4.0}, 800) == pytest.approx(8.0)  # a step never costs less than nothing


def test_a_step_is_measured_on_random_numbers_and_leaves_no_trace(make_fingerprint):
    found = make_plan(make_fingerprint(**SMALL), "unet", Budget(), TINY)
    torch.manual_seed(1)
    before = torch.get_rng_state()
    step = measure_step(found, found.recipe.stages[0], TRAINER, torch.device("cpu"), (24, 24, 24))
    assert step.seconds > 0 and step.peak_gb is None and step.scale == 1  # 2 x 16^3 voxels are not many
    assert torch.equal(torch.get_rng_state(), before)


@pytest.mark.parametrize(
    "family", ["brainsegnet", "deepmedic", "edd_muscle", "ratlesnetv2", "resunet", "unet"]
)
def test_a_fold_of_every_family_can_be_foretold(make_fingerprint, family):
    """With the quick plans, whose networks are narrow."""
    from autoseg import plugins

    rodent = {"spacings": [(1, 0.12, 0.12)], "shapes": [(12, 64, 64)] * 6, "channels": ("T2",)}
    fingerprint = make_fingerprint(**rodent)
    found = make_plan(fingerprint, family, Budget(), {"planner.length": "quick"})
    load = measure(found, fingerprint, plugins.load(plugins.TRAINERS, family), torch.device("cpu"))
    assert len(load.steps) == len(found.recipe.stages) and load.seconds(found) > 0
    assert load.whole(found) == (family != "edd_muscle")  # how many candidates there will be nobody knows
    record = as_record(found, load)
    assert record.device == "cpu" and set(record.step_seconds) == {s.name for s in found.recipe.stages}


def test_the_passes_of_a_sampler_are_foretold(make_fingerprint):
    """Whole images: one batch for each of 10 training cases of 12; EDD Net: 5 x 2^2 / 1.6^2 pixels of each lesion."""
    from autoseg import plugins

    shapes = [(12, 64, 64)] * 12
    rats = make_fingerprint([(1, 0.12, 0.12)], shapes, channels=("T2",))
    found = make_plan(rats, "ratlesnetv2", Budget(), {"planner.width": 2})
    load = measure(found, rats, plugins.load(plugins.TRAINERS, "ratlesnetv2"), torch.device("cpu"))
    n_train = 12 - 3  # of five folds of 12 cases the first holds 3
    assert load.measured.iterations == {0: n_train}
    people = make_fingerprint([(6, 2, 2)], [(20, 100, 100)] * 12, channels=("DWI",), components=[[5000]] * 12)
    found = make_plan(
        people, "edd_muscle", Budget(), {"stages.edd.batch_size": 2, "stages.muscle.batch_size": 2}
    )
    load = measure(found, people, plugins.load(plugins.TRAINERS, "edd_muscle"), torch.device("cpu"))
    assert load.measured.iterations[0] == pytest.approx(n_train * 5000 * (2 / 1.6) ** 2 / 2, abs=1)
    assert not load.whole(found)  # how many candidates there will be nobody knows


def test_sizes_on_the_working_grid_follow_from_the_plan(make_fingerprint):
    """4 x 2 x 2 mm to 1 mm, with x first."""
    fingerprint = make_fingerprint([(4, 2, 2)], [(10, 50, 60)])
    found = plan()
    settings = found.preprocessing.model_copy(update={"transpose": (2, 0, 1), "spacing_mm": (1.0, 2.0, None)})
    found = found.model_copy(update={"preprocessing": settings})
    assert working_shape(fingerprint.cases[0], found) == (120, 20, 50)


# ------------------------------------------------------------------------------------------------ beside the plan


def test_what_is_found_out_beside_a_plan_does_not_change_it(make_fingerprint):
    fingerprint = make_fingerprint(**SMALL)
    found = make_plan(fingerprint, "unet", Budget(), TINY)
    done = complete(found, fingerprint, Budget(), torch.device("cpu"), ranked=False)
    assert hash_plan(done) == hash_plan(found) and done.recipe == found.recipe
    assert done.proposals.time.fold_seconds > 0 and not done.proposals.families


def test_planning_twice_gives_the_same_plan(make_fingerprint, monkeypatch):
    """What was measured is not measured again, with and without hours."""
    fingerprint = make_fingerprint(**SMALL)
    found = make_plan(fingerprint, "unet", Budget(), TINY)
    device = torch.device("cpu")
    whole = complete(found, fingerprint, Budget(), device, ranked=False)
    short = complete(found, fingerprint, Budget(), device, ranked=False, hours=0.5)

    def refuse(*_):
        raise AssertionError("measured again")

    monkeypatch.setattr(foretell, "measure_step", refuse)
    assert complete(found, fingerprint, Budget(), device, ranked=False, before=whole) == whole
    again = complete(found, fingerprint, Budget(), device, ranked=False, hours=0.5, before=short)
    assert again.recipe == short.recipe and hash_plan(again) == hash_plan(short)


@pytest.mark.skipif(bool(pretend_card.missing()), reason=pretend_card.missing())
def test_on_a_card_the_step_is_that_of_the_plan_and_its_memory_is_told(make_fingerprint):
    """The patch is more than is timed on a CPU; the pretended card says that it took no memory."""
    fingerprint = make_fingerprint([(1, 1, 1)], [(48, 48, 48)] * 6)
    patch = {"stages.train.patch_size": [48, 48, 48], "stages.train.batch_size": 1}
    found = make_plan(fingerprint, "unet", Budget(), {**TINY, **patch})
    with pretend_card.pretend_card():
        step = measure_step(found, found.recipe.stages[0], TRAINER, torch.device("cuda", 0), (48, 48, 48))
    assert step.scale == 1 and step.peak_gb == 0 and step.seconds > 0
    assert measure_step(found, found.recipe.stages[0], TRAINER, torch.device("cpu"), (48, 48, 48)).scale > 1


def test_a_step_that_does_not_fit_is_said_and_refused_only_where_hours_need_it(make_fingerprint, monkeypatch):
    from autoseg import messages
    from autoseg.training import dry_steps

    def full(*_):
        raise RuntimeError("CUDA out of memory. Tried to allocate 9 GiB\nmore")

    messages.forget_warnings()
    monkeypatch.setattr(dry_steps, "_time", full)
    fingerprint = make_fingerprint(**SMALL)
    found = make_plan(fingerprint, "unet", Budget(), TINY)
    done = complete(found, fingerprint, Budget(), torch.device("cpu"), ranked=False)
    assert done.proposals.time is None
    (text,) = messages.warning_counts()
    assert "how long 'unet' takes is not known" in text and "Tried to allocate 9 GiB)" in text
    with pytest.raises(AutosegError, match=r"does not fit this device[\s\S]*-gpu_memory_target"):
        complete(found, fingerprint, Budget(), torch.device("cpu"), ranked=False, hours=1)
    messages.forget_warnings()
