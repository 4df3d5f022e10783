"""Where patches come from."""

import json
from types import SimpleNamespace

import numpy as np
import pytest
import sweep

from autoseg import plan
from autoseg.errors import AutosegError
from autoseg.sampling import geometry, patches
from autoseg.sampling.case_cache import CaseCache
from autoseg.sampling.parameters import Parameters
from autoseg.sampling.patches import Foreground, ForegroundShare, Sample


def rng(i=0):
    return np.random.default_rng(i)


def test_the_last_samples_of_a_batch_are_forced():
    sampler = ForegroundShare(0.33, "voxel")
    assert [sampler.forced(rng(), i, 2) for i in range(2)] == [False, True]
    assert [sampler.forced(rng(), i, 12) for i in range(12)] == [False] * 8 + [True] * 4
    assert all(ForegroundShare(1.0, "voxel").forced(rng(), i, 3) for i in range(3))
    assert not any(ForegroundShare(0.0, "voxel").forced(rng(), i, 3) for i in range(3))


def test_a_batch_of_one_is_forced_by_chance():
    sampler = ForegroundShare(0.33, "voxel")
    share = np.mean([sampler.forced(rng(i), 0, 1) for i in range(2000)])
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
    assert ForegroundShare(1.0, "voxel").voxel(rng(), empty) is None


@pytest.mark.parametrize(
    ("voxel", "start"),
    [((10, 10, 10), (6, 6, 6)), ((0, 10, 19), (0, 6, 12)), ((19, 1, 18), (12, 0, 12))],
)
def test_a_forced_patch_has_its_voxel_in_the_middle_and_stays_within_the_image(voxel, start):
    assert patches.crop_start(rng(), (20, 20, 20), (8, 8, 8), voxel, None) == start


def test_a_random_patch_reaches_every_place_within_the_image_and_none_outside():
    found = np.array([patches.crop_start(rng(i), (10, 9, 8), (8, 8, 8), None, None) for i in range(300)])
    assert found.min(axis=0).tolist() == [0, 0, 0]
    assert found.max(axis=0).tolist() == [2, 1, 0]


def test_an_image_smaller_than_the_patch_lies_in_its_middle():
    assert patches.crop_start(rng(), (4, 5, 20), (8, 8, 8), (2, 2, 2), None) == (-2, -1, 0)
    image = np.ones((1, 4, 5, 20), np.float32)
    cut = patches.cut(image, ((-2, 6), (-1, 7), (0, 8)), 0, np.float32)
    assert cut.shape == (1, 8, 8, 8) and cut.sum() == 4 * 5 * 8
    assert cut[0, 2:6, 1:6].min() == 1


def test_cutting_is_padding_and_slicing():
    array = rng().standard_normal((2, 7, 8, 9)).astype(np.float32)
    padded = np.pad(array, [(0, 0), (5, 5), (5, 5), (5, 5)], constant_values=-1)
    for low in [(-5, -3, 0), (2, 2, 2), (5, 6, 7), (-4, 8, -4)]:
        box = tuple((a, a + 4) for a in low)
        expected = padded[(slice(None), *(slice(a + 5, b + 5) for a, b in box))]
        np.testing.assert_array_equal(patches.cut(array, box, -1, np.float32), expected)


def test_a_cut_is_a_copy():
    array = np.zeros((4, 4, 4), np.int8)
    patches.cut(array, ((0, 4),) * 3, -1, np.int8)[:] = 1
    assert array.sum() == 0


@pytest.mark.parametrize("in_plane", [False, True])
def test_turning_and_zooming_never_lose_the_voxel(in_plane):
    for i in range(300):
        r = rng(i)
        angles = tuple(r.uniform(-np.pi, np.pi, 1) if in_plane else r.uniform(-0.52, 0.52, 3))
        parameters = Parameters(rotation=angles, scale=float(r.uniform(0.7, 1.4)), in_plane=in_plane)
        matrix = patches.affine_of(parameters, 3)
        size, patch = r.integers(12, 40, 3), (4, 16, 16) if in_plane else (12, 16, 14)
        voxel = tuple(int(r.integers(0, n)) for n in size)
        start = patches.crop_start(r, size, patch, voxel, matrix)
        half = (np.array(patch) - 1) / 2
        seen = np.linalg.inv(matrix) @ (np.array(voxel) - start - half)
        assert (np.abs(seen) <= half + 0.5).all()


def test_the_source_box_holds_all_that_a_turned_patch_shows_and_no_more():
    for i in range(50):
        r = rng(i)
        parameters = Parameters(rotation=tuple(r.uniform(-0.5, 0.5, 3)), scale=float(r.uniform(0.7, 1.4)))
        matrix = geometry.affine(parameters, 3)
        corners = np.array(np.meshgrid(*[[-3.5, 3.5]] * 3)).reshape(3, -1)
        points = matrix @ corners + np.full((3, 1), 103.5)
        box = geometry.source_box(matrix, (100, 100, 100), (8, 8, 8), (300, 300, 300))
        for axis, (low, high) in enumerate(box):
            assert low <= points[axis].min() <= low + 1.01
            assert high - 2.01 <= points[axis].max() <= high - 1


def test_a_source_box_ends_one_voxel_beyond_the_image():
    matrix = np.eye(3) * 1.4 + 1e-9
    assert geometry.source_box(matrix, (-2, 0, 4), (8, 8, 8), (4, 8, 8)) == ((-1, 5), (-1, 9), (2, 9))


def test_present_values():
    assert patches.present(np.array([[3, -1], [0, 3]], np.int8)) == (-1, 0, 3)
    assert patches.present(np.full((2, 2), 127, np.int8)) == (127,)
    assert patches.present(np.array([127, -1], np.int8)) == (-1, 127)
    assert patches.present(np.array([300, 2, 300], np.int16)) == (2, 300)


def test_samples_survive_json():
    sample = Sample(
        1, 5, "a", True, (1, 2, 3), (0, 0, -1), (8, 8, 8), Parameters(rotation=(0.1,), mirror=(2,))
    )
    assert Sample.from_dict(json.loads(json.dumps(sample.to_dict()))) == sample


def case_with(*voxels, size=(20, 20, 20)):
    """One channel, label 1 at some voxels."""
    label = np.zeros(size, np.int16)
    rows = [(*voxel, 1, i) for i, voxel in enumerate(voxels)]
    for voxel in voxels:
        label[voxel] = 1
    foreground = np.array(rows, np.int32).reshape(-1, 5)
    return SimpleNamespace(image=label[None].astype(np.float32), label=label, foreground=foreground)


def first_places(make_store, make_stage, sampling, n, cases, **stage):
    """The places of the first n samples of an epoch, and the length of a pass."""
    stage = make_stage(sampling=sampling, iterations_per_epoch=None, **stage)
    sampler, known = (
        patches.build_sampler(stage.sampling),
        CaseCache(make_store(cases), [(1,)], 1, limit_gb=1.0),
    )
    places = sampler.places(sorted(cases), known, stage, (7, 0))
    return [places.place(0, index, None) for index in range(n)], places.pass_length, sampler


def share_of_the_foreground(make_store, make_stage):
    """One of each two is cut around the lesion voxel, moved to lie in the image; the other lies anywhere in it."""
    cases = {"a": case_with((10, 10, 10)), "b": case_with((0, 10, 19))}
    sampling = {"name": "foreground_share", "foreground_share": 0.5}
    found, pass_length, sampler = first_places(
        make_store, make_stage, sampling, 4, cases, patch_size=[8, 8, 8]
    )
    assert [place.forced for place in found] == [False, True, False, True]
    where = {"a": ((10, 10, 10), (6, 6, 6)), "b": ((0, 10, 19), (0, 6, 12))}
    assert all((place.voxel, place.start) == where[place.case] for place in found if place.forced)
    others = [place for place in found if not place.forced]
    assert all(place.voxel is None and 0 <= min(place.start) <= max(place.start) <= 12 for place in others)
    assert {place.size for place in found} == {(8, 8, 8)} and pass_length == 2
    assert (
        sorted(place.case for place in found[:2]) == sorted(place.case for place in found[2:]) == ["a", "b"]
    )
    assert sampler.outside == "zero" and not sampler.needs_lesions


def each_pixel_of_a_lesion(make_store, make_stage):
    """A patch of one voxel can only be the lesion voxel itself; each has its turn once in a pass."""
    cases = {"a": case_with((1, 2, 3), (0, 0, 0)), "b": case_with((19, 19, 4)), "none": case_with()}
    sampling = {"name": "lesion_pixels"}
    found, pass_length, sampler = first_places(
        make_store, make_stage, sampling, 3, cases, patch_size=[1, 1], batch_size=3
    )
    assert sorted((place.case, place.start) for place in found) == [
        ("a", (0, 0, 0)),
        ("a", (1, 2, 3)),
        ("b", (19, 19, 4)),
    ]
    assert all(place.forced and place.voxel == place.start and place.size == (1, 1, 1) for place in found)
    assert pass_length == 3 and sampler.outside == "minimum" and sampler.needs_lesions


CASES = {"foreground_share": share_of_the_foreground, "lesion_pixels": each_pixel_of_a_lesion}
WHERE = "CASES of tests/sampling/test_patches.py"


@pytest.mark.parametrize("name", patches.SAMPLERS.names())
def test_every_sampler_by_hand(name, make_store, make_stage):
    sweep.hand_worked(CASES, name, WHERE)(make_store, make_stage)


def test_no_case_is_left_over():
    sweep.refuse_leftovers(CASES, patches.SAMPLERS.names(), WHERE)


def test_an_unknown_sampler_or_argument_is_refused():
    with pytest.raises(AutosegError, match=r"no sampler 'foreground_shar'(.|\n)*foreground_share"):
        patches.build_sampler(plan.Sampling(name="foreground_shar"))
    with pytest.raises(AutosegError, match=r"arguments do not fit(.|\n)*shar"):
        patches.build_sampler(plan.Sampling(arguments={"shar": 1}))
