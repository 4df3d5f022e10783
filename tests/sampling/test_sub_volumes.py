"""The sampler ``sub_volumes``: equal parts of the depth, crops that show the lesion, epochs."""

from collections import Counter
from types import SimpleNamespace

import numpy as np
import pytest
from scipy import stats

from autoseg import plan
from autoseg.errors import AutosegError
from autoseg.sampling import samplers
from autoseg.sampling.case_cache import CaseCache
from autoseg.sampling.loader import BatchSource
from autoseg.sampling.stage_cases import StageCases
from autoseg.sampling.sub_volumes import background_voxel, depth_starts

QUARTER = np.array([[1.0, 0, 0], [0, 0, 1], [0, -1, 0]])
HALF_AS_LARGE = np.diag([1.0, 2, 2])


def case(size, *boxes):
    """One channel of noise from 1 to 2, its minimum -3 in a corner; label 1 in boxes."""
    image = np.random.default_rng(0).uniform(1, 2, (1, *size)).astype(np.float32)
    image[0, 0, 0, 0] = -3
    label = np.zeros(size, np.int16)
    for box in boxes:
        label[tuple(slice(*pair) for pair in box)] = 1
    rows = np.argwhere(label == 1)[:1]  # the store keeps a part of them only
    foreground = np.column_stack((rows, np.ones((len(rows), 2), int))).astype(np.int32).reshape(-1, 5)
    return SimpleNamespace(image=image, label=label, foreground=foreground)


@pytest.fixture
def make(make_store, make_stage):
    def build(cases, arguments=None, **stage):
        content = {"patch_size": [7, 16, 20], "iterations_per_epoch": None, **stage}
        stage = make_stage(sampling={"name": "sub_volumes", "arguments": arguments or {}}, **content)
        cache = CaseCache(make_store(cases), [(1,)], 1, limit_gb=1.0)
        return samplers.build(StageCases(tuple(sorted(cases)), stage, (7, 0), cache))

    return build


def shown(place, voxels, matrix=None):
    """The positions in the patch, from its middle, of voxels of the image ``[n, 3]``; half the patch."""
    half = (np.array(place.size) - 1) / 2
    turn = np.eye(3) if matrix is None else matrix
    return np.linalg.solve(turn, (voxels - np.array(place.start) - half).T).T, half


@pytest.mark.parametrize(
    ("size", "part", "starts"),
    [
        (20, 7, [0, 7, 13]),
        (19, 7, [0, 7, 12]),
        (155, 12, [*range(0, 133, 12), 143]),
        (7, 7, [0]),
        (14, 7, [0, 7]),
        (6, 7, [0]),
        (3, 7, [-2]),
        (3, 1, [0, 1, 2]),
    ],
)
def test_equal_parts_of_the_depth(size, part, starts):
    assert depth_starts(size, part) == starts


def test_every_crop_that_shows_the_lesion_is_as_likely(make):
    """16 x 20 in 30 x 40, lesion rows 10 to 17 and columns 3 to 9: from row 2 to 10 and column 0 to 3."""
    sampler = make({"a": case((7, 30, 40), ((2, 5), (10, 18), (3, 10)))})
    places = [sampler.place(0, i, None) for i in range(3600)]
    counts = Counter(place.start[1:] for place in places)
    assert set(counts) == {(y, x) for y in range(2, 11) for x in range(4)}
    assert stats.chisquare(list(counts.values())).pvalue > 0.01
    assert all(place.forced and place.start[0] == 0 for place in places)


def test_only_the_lesion_of_the_chosen_planes_counts(make):
    """Planes 0 to 6 have one in a corner, 7 to 13 none, 14 to 20 one in the other corner."""
    sampler = make({"a": case((21, 30, 40), ((0, 1), (0, 1), (0, 1)), ((20, 21), (29, 30), (39, 40)))})
    places = [sampler.place(0, i, None) for i in range(300)]
    of_planes = {z: [p for p in places if p.start[0] == z] for z in (0, 7, 14)}
    assert min(map(len, of_planes.values())) > 60 and sum(map(len, of_planes.values())) == 300
    assert {p.start for p in of_planes[0]} == {(0, 0, 0)} and {p.start for p in of_planes[14]} == {
        (14, 14, 20)
    }
    free = np.array([p.start[1:] for p in of_planes[7]])
    assert not any(p.forced or p.voxel for p in of_planes[7])
    assert free.min(0).tolist() == [0, 0] and free.max(0).tolist() == [14, 20]


def test_a_lesion_that_does_not_fit_has_one_of_its_voxels_in_the_middle(make):
    sampler = make({"a": case((7, 60, 60), ((0, 7), (5, 55), (30, 31)))})
    for i in range(100):
        place = sampler.place(0, i, None)
        (y, x), (_, row, column) = place.start[1:], place.voxel
        assert place.voxel[2] == 30 and 5 <= row < 55
        assert abs(y - min(max(row - 8, 0), 44)) <= 1 and x - (column - 10) in (0, 1)
        assert 0 <= y <= 44


@pytest.mark.parametrize("matrix", [QUARTER, np.diag([1.0, -1, 1]), np.diag([1.0, 0.9, 0.9]), HALF_AS_LARGE])
def test_crops_that_are_turned_or_scaled_show_the_lesion_too(make, matrix):
    boxes = ((1, 3), (10, 21), (20, 31)), ((5, 6), (12, 14), (25, 33))
    there = case((7, 40, 60), *boxes)
    sampler, voxels = make({"a": there}), np.argwhere(there.label == 1)
    corners = np.array([(z, y, x) for z in (0, 6) for y in (0, 39) for x in (0, 59)])
    starts = set()
    for i in range(200):
        place = sampler.place(0, i, matrix)
        starts.add(place.start)
        seen, half = shown(place, voxels, matrix)
        assert (np.abs(seen) <= half + 0.6).all()
        border, half = shown(place, corners, matrix)  # the crop stays within the image where it fits
        fits = border.max(0) - border.min(0) >= 2 * half
        inside = (border.min(0) <= -half + 0.6) & (border.max(0) >= half - 0.6)
        assert inside[fits].all()
    assert len(starts) > 5


def test_images_smaller_than_the_patch_lie_in_its_middle(make):
    """4 of 7 planes, 11 of 16 rows, 7 of 20 columns: after an odd margin the larger half follows."""
    for boxes in ((), (((0, 4), (0, 11), (0, 7)),)):
        sampler = make({"a": case((4, 11, 7), *boxes)})
        assert {sampler.place(0, i, None).start for i in range(20)} == {(-1, -2, -6)}


def test_whole_axes_and_planes_of_a_2d_network(make):
    there = {"a": case((5, 11, 30), ((2, 3), (4, 5), (25, 26)))}
    sampler = make(there, patch_size=["whole", "whole", 8], batch_size=1)
    places = [sampler.place(0, i, None) for i in range(50)]
    assert {p.start[:2] for p in places} == {(0, 0)} and {p.size for p in places} == {(5, 11, 8)}
    assert {p.start[2] for p in places} == {18, 19, 20, 21, 22}
    flat = make(there, patch_size=[4, 4])
    assert {flat.place(0, i, None).start[0] for i in range(60)} == {0, 1, 2, 3, 4}


# Around a voxel ------------------------------------------------------------------------------------------------------


def test_half_of_the_samples_lie_around_the_lesion_in_depth_too(make):
    there = {"a": case((21, 30, 40), ((10, 11), (9, 10), (20, 22)))}
    sampler = make(there, {"rule": "around_voxel"})
    places = [sampler.place(0, i, None) for i in range(1000)]
    forced = [p for p in places if p.forced]
    assert abs(len(forced) / 1000 - 0.5) < 4 * np.sqrt(0.25 / 1000)
    assert {(p.voxel, p.start) for p in forced} == {((10, 9, 20), (7, 1, 10)), ((10, 9, 21), (7, 1, 11))}
    others = np.array([p.start for p in places if not p.forced])
    assert others.min(0).tolist() == [0, 0, 0] and others.max(0).tolist() == [14, 14, 20]
    assert all(p.voxel is None for p in places if not p.forced)
    always = make(there, {"rule": "around_voxel", "lesion_share": 1.0})
    assert all(always.place(0, i, None).voxel for i in range(20))
    none = make({"a": case((7, 30, 40))}, {"rule": "around_voxel", "lesion_share": 1.0})
    assert none.place(0, 0, None).forced and none.place(0, 0, None).voxel is None


def test_every_background_voxel_is_as_likely_and_no_other():
    size, lesion = (2, 3, 4), np.array([(0, 0, 0), (0, 0, 1), (0, 2, 3), (1, 0, 0), (1, 2, 3)], np.uint16)
    rng = np.random.default_rng(3)
    counts = Counter(background_voxel(rng, lesion, size) for _ in range(4000))
    everything = set(map(tuple, np.argwhere(np.ones(size))))
    assert set(counts) == everything - set(map(tuple, lesion))
    assert stats.chisquare(list(counts.values())).pvalue > 0.01
    full = np.argwhere(np.ones(size)).astype(np.uint16)
    assert {background_voxel(rng, full, size) for _ in range(300)} == everything


# Epochs --------------------------------------------------------------------------------------------------------------

THREE = {"a": (20, 3), "b": (7, 1), "c": (12, 2)}  # planes, parts of 7


def stacks():
    return {
        name: case((planes, 20, 22), ((0, planes), (8, 9), (8, 9))) for name, (planes, _) in THREE.items()
    }


def test_one_sub_volume_of_each_scan(make):
    sampler = make(stacks())
    assert sampler.pass_length == 3
    epochs = [[sampler.place(e, i, None) for i in range(3)] for e in range(30)]
    assert all(sorted(p.case for p in epoch) == ["a", "b", "c"] for epoch in epochs)
    assert {p.start[0] for epoch in epochs for p in epoch if p.case == "a"} == {0, 7, 13}
    assert len({tuple(p.case for p in epoch) for epoch in epochs}) > 1


def test_all_sub_volumes_of_each_scan(make):
    sampler = make(stacks(), {"epoch": "all_subvolumes"})
    expected = {("a", 0), ("a", 7), ("a", 13), ("b", 0), ("c", 0), ("c", 5)}
    assert sampler.pass_length == 6
    for epoch in range(3):
        found = [sampler.place(epoch, i, None) for i in range(8)]
        assert {(p.case, p.start[0]) for p in found[:6]} == expected
        assert [(p.case, p.start[0]) for p in found[6:]] == [(p.case, p.start[0]) for p in found[:2]]
    other = make(stacks(), {"epoch": "all_subvolumes", "rule": "around_voxel"})
    assert other.pass_length == 6
    assert Counter(other.place(0, i, None).case for i in range(6)) == {"a": 3, "b": 1, "c": 2}


def test_epochs_of_some_iterations_go_on_through_the_passes(make):
    sampler = make(stacks(), {"epoch": "all_subvolumes"}, iterations_per_epoch=2, batch_size=2)
    found = [(p.case, p.start[0]) for e in range(3) for p in (sampler.place(e, i, None) for i in range(4))]
    assert Counter(found) == dict.fromkeys(found[:6], 2)


def test_the_published_numbers_of_steps(make):
    """43 stacks of 20 planes, 40 in a batch: 2 steps of one sub-volume each, or 4 of 129 sub-volumes."""
    there = {f"{i:02}": case((20, 8, 8)) for i in range(43)}
    for epoch, n, steps in (("one_per_scan", 43, 2), ("all_subvolumes", 129, 4)):
        n_found = make(there, {"epoch": epoch}, patch_size=[7, 8, 8], batch_size=40).pass_length
        assert n_found == n and -(-n_found // 40) == steps


def test_samples_that_are_not_augmented_show_the_lesion_too(make_store, make_stage):
    """Of a share of half; all of them are the same with any number of workers, and beyond the image is its minimum."""
    store = make_store({"a": case((4, 30, 40), ((1, 2), (3, 9), (30, 39)))})
    moves = [{"name": "quarter_turns"}, {"name": "rescale"}, {"name": "flip", "arguments": {"axis": 2}}]
    stage = make_stage(
        patch_size=[7, 16, 20],
        iterations_per_epoch=20,
        sampling={"name": "sub_volumes"},
        augmentation={"name": "none", "backend": "torch", "share": 0.5, "transforms": moves},
    )
    batches = []
    for workers in (0, 2):
        with BatchSource(
            store, ["a"], stage, (7, 0), "cpu", inside_nonzero=[False], label_values=[1], workers=workers
        ) as source:
            batches.append(list(source.batches(0)))
    for one, other in zip(*batches, strict=True):
        assert one.samples == other.samples and np.array_equal(one.images, other.images)
    plain = [
        (sample, image, target)
        for batch in batches[0]
        for sample, image, target in zip(batch.samples, batch.images, batch.target, strict=True)
        if not any(sample.transforms)
    ]
    assert 10 < len(plain) < 30
    for sample, image, target in plain:
        assert sample.place.start[0] == -1 and target.sum() == 54
        assert (image[:, 0] == -3).all() and (image[:, 5:] == -3).all()
    assert all(bool(batch.target.flatten(1).any(1).all()) for batch in batches[0])


def test_what_cannot_work_is_refused():
    def refused(**arguments):
        with pytest.raises(AutosegError) as error:
            samplers.check(plan.Sampling(name="sub_volumes", arguments=arguments))
        return str(error.value)

    assert "'around_lesion' or 'around_voxel'" in refused(rule="around")
    assert "'one_per_scan' or 'all_subvolumes'" in refused(epoch="all")
    assert "lesion_share" in refused(lesion_share=1.5) and "from 0 to 1" in refused(lesion_share=1.5)
