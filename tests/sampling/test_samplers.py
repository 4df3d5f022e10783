"""Which patch of which case: the rules by hand, and one that a family brings."""

from types import SimpleNamespace

import numpy as np
import pytest
import sweep

from autoseg import plan
from autoseg.errors import AutosegError
from autoseg.plugins.parts import Place, SamplerPart
from autoseg.plugins.trainer import Trainer
from autoseg.sampling import samplers
from autoseg.sampling.case_cache import CaseCache
from autoseg.sampling.foreground import Foreground
from autoseg.sampling.foreground_share import crop_start, is_forced
from autoseg.sampling.stage_cases import StageCases


def rng(i=0):
    return np.random.default_rng(i)


def test_the_last_samples_of_a_batch_are_forced():
    assert [is_forced(rng(), 0.33, i, 2) for i in range(2)] == [False, True]
    assert [is_forced(rng(), 0.33, i, 12) for i in range(12)] == [False] * 8 + [True] * 4
    assert all(is_forced(rng(), 1.0, i, 3) for i in range(3))
    assert not any(is_forced(rng(), 0.0, i, 3) for i in range(3))


def test_a_batch_of_one_is_forced_by_chance():
    share = np.mean([is_forced(rng(i), 0.33, 0, 1) for i in range(2000)])
    assert abs(share - 0.33) < 4 * np.sqrt(0.33 * 0.67 / 2000)


def big_and_small():
    """Class 1: component 0 of 90 voxels and component 1 of 10; class 2: one voxel."""
    rows = [(0, 0, i, 1, 0) for i in range(90)] + [(1, 0, i, 1, 1) for i in range(10)] + [(2, 0, 0, 2, 0)]
    return np.array(rows)


@pytest.mark.parametrize(("by_component", "small"), [(False, 0.1), (True, 0.5)])
def test_classes_are_balanced_and_components_where_asked_for(by_component, small):
    foreground = Foreground(big_and_small(), [(1,), (2,)])
    generator = rng()
    planes = np.array([foreground.draw(generator, by_component=by_component)[0] for _ in range(3000)])
    assert abs(np.mean(planes == 2) - 0.5) < 4 * np.sqrt(0.25 / 3000)
    of_class_1 = planes[planes < 2]
    assert abs(np.mean(of_class_1 == 1) - small) < 4 * np.sqrt(small * (1 - small) / len(of_class_1))


def test_a_region_draws_from_all_its_values():
    foreground = Foreground(big_and_small(), [(1, 2)])
    found = {foreground.draw(rng(i), by_component=True)[0] for i in range(50)}
    assert found == {0, 1, 2}


def test_a_case_without_foreground_has_no_voxel():
    empty = Foreground(np.zeros((0, 5)), [(1,)])
    assert empty.is_empty


@pytest.mark.parametrize(
    ("voxel", "start"),
    [((10, 10, 10), (6, 6, 6)), ((0, 10, 19), (0, 6, 12)), ((19, 1, 18), (12, 0, 12))],
)
def test_a_forced_patch_has_its_voxel_in_the_middle_and_stays_within_the_image(voxel, start):
    assert crop_start(rng(), (20, 20, 20), (8, 8, 8), voxel, None) == start


def test_a_random_patch_reaches_every_place_within_the_image_and_none_outside():
    found = np.array([crop_start(rng(i), (10, 9, 8), (8, 8, 8), None, None) for i in range(300)])
    assert found.min(axis=0).tolist() == [0, 0, 0]
    assert found.max(axis=0).tolist() == [2, 1, 0]


def case_with(*voxels, size=(20, 20, 20)):
    """One channel, label 1 at some voxels."""
    label = np.zeros(size, np.int16)
    rows = [(*voxel, 1, i) for i, voxel in enumerate(voxels)]
    for voxel in voxels:
        label[voxel] = 1
    foreground = np.array(rows, np.int32).reshape(-1, 5)
    return SimpleNamespace(image=label[None].astype(np.float32), label=label, foreground=foreground)


def first_places(make_store, make_stage, sampling, n, cases, **stage):
    """The places of the first n samples of an epoch, the length of a pass, and the sampler's row."""
    stage = make_stage(sampling=sampling, iterations_per_epoch=None, **stage)
    cache = CaseCache(make_store(cases), [(1,)], 1, limit_gb=1.0)
    sampler = samplers.build(StageCases(tuple(sorted(cases)), stage, (7, 0), cache))
    found = [sampler.place(0, index, None) for index in range(n)]
    return found, sampler.pass_length, samplers.check(stage.sampling)


def share_of_the_foreground(make_store, make_stage):
    """One of each two is cut around the lesion voxel, moved to lie in the image; the other lies anywhere in it."""
    cases = {"a": case_with((10, 10, 10)), "b": case_with((0, 10, 19))}
    sampling = {"name": "foreground_share", "foreground_share": 0.5}
    found, pass_length, part = first_places(make_store, make_stage, sampling, 4, cases, patch_size=[8, 8, 8])
    assert [place.forced for place in found] == [False, True, False, True]
    where = {"a": ((10, 10, 10), (6, 6, 6)), "b": ((0, 10, 19), (0, 6, 12))}
    assert all((place.voxel, place.start) == where[place.case] for place in found if place.forced)
    others = [place for place in found if not place.forced]
    assert all(place.voxel is None and 0 <= min(place.start) <= max(place.start) <= 12 for place in others)
    assert {place.size for place in found} == {(8, 8, 8)} and pass_length == 2
    assert (
        sorted(place.case for place in found[:2]) == sorted(place.case for place in found[2:]) == ["a", "b"]
    )
    assert part.outside == "zero" and not part.needs_lesions


def each_pixel_of_a_lesion(make_store, make_stage):
    """A patch of one voxel can only be the lesion voxel itself; each has its turn once in a pass."""
    cases = {"a": case_with((1, 2, 3), (0, 0, 0)), "b": case_with((19, 19, 4)), "none": case_with()}
    sampling = {"name": "lesion_pixels"}
    found, pass_length, part = first_places(
        make_store, make_stage, sampling, 3, cases, patch_size=[1, 1], batch_size=3
    )
    assert sorted((place.case, place.start) for place in found) == [
        ("a", (0, 0, 0)),
        ("a", (1, 2, 3)),
        ("b", (19, 19, 4)),
    ]
    assert all(place.forced and place.voxel == place.start and place.size == (1, 1, 1) for place in found)
    assert pass_length == 3 and part.outside == "minimum" and part.needs_lesions


def parts_of_the_depth(make_store, make_stage):
    """All parts of two stacks; the only crop of 2 x 2 in 3 x 3 that shows both lesion voxels."""
    cases = {
        "a": case_with((0, 1, 1), (1, 2, 2), size=(2, 3, 3)),
        "b": case_with((0, 0, 1), (0, 1, 2), size=(3, 3, 3)),
    }
    sampling = {"name": "sub_volumes", "arguments": {"epoch": "all_subvolumes"}}
    found, pass_length, part = first_places(
        make_store, make_stage, sampling, 3, cases, patch_size=[2, 2, 2], batch_size=3
    )
    starts = {(place.case, place.start[0]): place for place in found}
    assert set(starts) == {("a", 0), ("b", 0), ("b", 1)} and pass_length == 3
    assert starts["a", 0].start == (0, 1, 1) and starts["b", 0].start == (0, 0, 1)
    assert starts["a", 0].forced and starts["b", 0].forced and not starts["b", 1].forced
    assert part.outside == "minimum" and not part.needs_lesions


def lesion_and_background_in_sub_epochs(make_store, make_stage):
    """Four samples of each kind over two cases, in two batches; only one background voxel of ``b`` counts."""
    b = case_with((5, 5, 5), size=(10, 10, 10))
    b.label[b.label == 0] = -1
    b.label[6, 6, 6] = 0
    cases = {"a": case_with((10, 10, 10), (0, 0, 0)), "b": b}
    sampling = {"name": "sub_epochs", "foreground_share": 0.5, "arguments": {"segments": 9}}
    found, pass_length, part = first_places(
        make_store, make_stage, sampling, 16, cases, patch_size=[3, 3, 3], batch_size=4
    )
    assert pass_length == 8 and part.needs_lesions and part.outside == "zero"
    lesion = {place.case: place for place in found if place.forced}
    # the other lesion voxel of ``a`` lies in the corner, where no patch fits
    assert (lesion["a"].voxel, lesion["a"].start) == ((10, 10, 10), (9, 9, 9))
    assert (lesion["b"].voxel, lesion["b"].start) == ((5, 5, 5), (4, 4, 4))
    background = {place.start for place in found if place.case == "b" and not place.forced}
    assert background == {(5, 5, 5)}
    for eight in (found[:8], found[8:]):
        kinds = [(place.case, place.forced) for place in eight]
        assert all(1 <= kinds.count((case, forced)) <= 4 for case in "ab" for forced in (True, False))


def any_voxel_that_counts(make_store, make_stage):
    """Three voxels of ``a`` count, one of ``b`` and none of ``c``, which is passed over; patches may reach beyond."""
    cases = {name: case_with(size=(6, 6, 6)) for name in "abc"}
    for case in cases.values():
        case.label[...] = -1
    cases["a"].label[0, 0, :3] = (0, 1, 0)
    cases["b"].label[5, 5, 5] = 0
    sampling = {"name": "counted_voxels"}
    found, pass_length, part = first_places(
        make_store, make_stage, sampling, 60, cases, patch_size=[3, 3, 3], batch_size=1
    )
    assert [place.case for place in found] == ["a", "b"] * 30 and pass_length == 2
    assert {place.start for place in found[::2]} == {(-1, -1, -1), (-1, -1, 0), (-1, -1, 1)}
    assert {place.start for place in found[1::2]} == {(4, 4, 4)}
    assert not any(place.forced for place in found) and part.outside == "zero" and not part.needs_lesions
    with pytest.raises(AutosegError, match="(?s)no case has a voxel that counts.*preprocessing.mask"):
        first_places(make_store, make_stage, sampling, 1, {"c": cases["c"]})


CASES = {
    "counted_voxels": any_voxel_that_counts,
    "sub_epochs": lesion_and_background_in_sub_epochs,
    "foreground_share": share_of_the_foreground,
    "lesion_pixels": each_pixel_of_a_lesion,
    "sub_volumes": parts_of_the_depth,
}
WHERE = "CASES of tests/sampling/test_samplers.py"


@pytest.mark.parametrize("name", samplers.REGISTRY.names())
def test_every_sampler_by_hand(name, make_store, make_stage):
    sweep.hand_worked(CASES, name, WHERE)(make_store, make_stage)


def test_no_case_is_left_over():
    sweep.refuse_leftovers(CASES, samplers.REGISTRY.names(), WHERE)


def test_an_unknown_sampler_or_argument_is_refused():
    with pytest.raises(AutosegError, match=r"no sampler 'foreground_shar'(.|\n)*foreground_share"):
        samplers.check(plan.Sampling(name="foreground_shar"))
    with pytest.raises(AutosegError, match=r"arguments do not fit(.|\n)*shar"):
        samplers.check(plan.Sampling(arguments={"shar": 1}))


class FirstSlices:
    """A family's own rule: the first voxels of each case in turn."""

    def __init__(self, cases, shift=0):
        self.cases, self.shift = cases, shift
        self.pass_length = len(cases.names)

    def place(self, epoch, index, matrix):
        name = self.cases.names[index % self.pass_length]
        return Place(name, False, None, (self.shift, 0, 0), self.cases.patch_size(name))


FIRST_SLICES = SamplerPart("first_slices", FirstSlices, check=lambda shift=0: _refuse_negative(shift))


def _refuse_negative(shift):
    if shift < 0:
        raise AutosegError("shift must not be negative")


def test_a_family_brings_a_sampler_of_its_own(make_store, make_stage):
    trainer = Trainer("theirs", "a family", samplers=(FIRST_SLICES,))
    stage = make_stage(
        sampling={"name": "first_slices", "arguments": {"shift": 3, "outside": "minimum"}}, patch_size=[4, 4]
    )
    cache = CaseCache(make_store({"a": case_with((1, 1, 1))}), [(1,)], 1, limit_gb=1.0)
    sampler = samplers.build(StageCases(("a",), stage, (7,), cache), trainer)
    assert sampler.place(0, 5, None) == Place("a", False, None, (3, 0, 0), (1, 4, 4))
    part = samplers.check(stage.sampling, trainer)
    assert part is FIRST_SLICES and samplers.outside_of(stage.sampling, part) == "minimum"
    with pytest.raises(AutosegError, match="no sampler 'first_slices'"):
        samplers.check(stage.sampling)
    with pytest.raises(AutosegError, match=r"sampler 'first_slices' \(every sampler also takes outside"):
        samplers.check(plan.Sampling(name="first_slices", arguments={"shit": 1}), trainer)
    with pytest.raises(AutosegError, match="must not be negative"):
        samplers.check(plan.Sampling(name="first_slices", arguments={"shift": -1}), trainer)
