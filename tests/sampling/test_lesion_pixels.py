"""The sampler ``lesion_pixels``: every lesion pixel once in a pass, anywhere in its patch."""

from collections import Counter
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from scipy import stats

from autoseg import plan
from autoseg.errors import AutosegError
from autoseg.plugins.parts import Batch
from autoseg.preprocessing.lesion_changes import foreground_voxels
from autoseg.sampling import geometry, samplers, torch_backend
from autoseg.sampling.keys import Purpose, generator
from autoseg.sampling.loader import BatchSource

TURNED = {"rotation_p": 1.0, "rotation_degrees": [-180, 180]}
OTHERS_OFF = {
    f"{name}_p": 0.0
    for name in (
        "scaling",
        "noise",
        "blur",
        "brightness",
        "contrast",
        "low_resolution",
        "gamma_inverted",
        "gamma",
    )
}
BACKENDS = ["torch", "batchgenerators"]


def planes(size, lesions, seed=0):
    """Two channels of values from 1 to 2, the least of each in one voxel of slice 0; 3 x 3 lesions around places."""
    image = np.random.default_rng(seed).uniform(1, 2, (2, *size)).astype(np.float32)
    image[:, 0, 0, 0] = -3, -4
    label = np.zeros(size, np.int16)
    for z, y, x in lesions:
        label[z, y - 1 : y + 2, x - 1 : x + 2] = 1
    rows = np.argwhere(label == 1)[:2]  # the store keeps a part of them only
    foreground = np.column_stack((rows, np.ones((len(rows), 2), int))).astype(np.int32).reshape(-1, 5)
    return SimpleNamespace(image=image, label=label, foreground=foreground)


@pytest.fixture
def store(make_store):
    return make_store(
        {
            "large": planes((3, 40, 44), [(0, 1, 1), (1, 20, 22), (2, 38, 42)], 1),
            "none": planes((2, 30, 30), [], 2),
            "one_slice": planes((1, 30, 34), [(0, 15, 3)], 3),
            "small": planes((2, 9, 7), [(1, 4, 3)], 4),
        }
    )


@pytest.fixture
def make_source(store, make_stage):
    sources = []

    def make(names=None, augmentation=None, outside="minimum", options=(), **stage):
        content = {
            "patch_size": [16, 12],
            "batch_size": 5,
            "iterations_per_epoch": None,
            "sampling": {"name": "lesion_pixels", "arguments": {"outside": outside}},
            "augmentation": augmentation or {"name": "none"},
            **stage,
        }
        settings = {"inside_nonzero": [False, True], "label_values": [1], "cache_gb": 1.0, **dict(options)}
        source = BatchSource(store, names or store.names(), make_stage(**content), (7, 0), "cpu", **settings)
        sources.append(source)
        return source

    yield make
    for source in sources:
        source.close()


def turned(backend, **changes):
    return {
        "name": "nnunet",
        "backend": backend,
        "arguments": {**OTHERS_OFF, **TURNED},
        "mirror_axes": [2],
        **changes,
    }


def same(first, second):
    return (
        first.samples == second.samples
        and torch.equal(first.images, second.images)
        and torch.equal(first.target, second.target)
    )


def all_pixels(store):
    return Counter(
        (name, *map(int, place))
        for name, case in store.cases.items()
        for place in np.argwhere(case.label == 1)
    )


def shown(source, epochs):
    """The pixels that the samples of some epochs are cut for, in order."""
    count = source.iterations * source.stage.batch_size
    samples = [source.sample(epoch, index) for epoch in epochs for index in range(count)]
    return [(sample.place.case, *sample.place.voxel) for sample in samples]


def test_an_epoch_without_a_number_of_iterations_shows_every_pixel_once(make_source, store):
    source, pixels = make_source(), all_pixels(store)
    assert sum(pixels.values()) == source.sampler.pass_length == 45 and source.iterations == 9
    assert Counter(shown(source, [0])) == pixels
    assert shown(source, [0]) != shown(source, [1])


@pytest.mark.parametrize("augmentation", [{"name": "none"}, turned("torch")])
def test_patches_may_lie_in_the_middle_of_their_slice(make_source, store, augmentation):
    """16 x 12 of 40 x 44 pixels begin at 12, 16; slices of 9 x 7 lie in the middle of the patch."""
    source = make_source(
        sampling={"name": "lesion_pixels", "arguments": {"where": "centre"}}, augmentation=augmentation
    )
    places = [source.sample(0, index).place for index in range(45)]
    starts = {(place.case, *place.start[1:]) for place in places}
    assert starts == {("large", 12, 16), ("one_slice", 7, 11), ("small", -3, -2)}
    assert all(place.start[0] == place.voxel[0] for place in places)
    assert Counter((place.case, *place.voxel) for place in places) == all_pixels(store)
    with pytest.raises(AutosegError, match="found:    corner\n  expected: anywhere or centre"):
        make_source(sampling={"name": "lesion_pixels", "arguments": {"where": "corner"}})


def test_the_last_batch_is_filled_from_the_beginning(make_source, store):
    source = make_source(batch_size=6)
    found = shown(source, [2])
    assert source.iterations == 8 and len(found) == 48
    assert Counter(found[:45]) == all_pixels(store) and found[45:] == found[:3]


def test_epochs_of_some_iterations_go_on_through_the_passes(make_source, store):
    source, pixels = make_source(iterations_per_epoch=4), all_pixels(store)
    found = shown(source, range(7))
    assert len(found) == 7 * 20
    passes = [found[:45], found[45:90], found[90:135]]
    assert all(Counter(one) == pixels for one in passes)
    assert passes[0] != passes[1] != passes[2]


def test_pixels_that_the_store_does_not_list_are_shown_too(make_source, store):
    case = store.cases["none"]
    case.image, case.label = np.ones((2, 1, 120, 100), np.float32), np.zeros((1, 120, 100), np.int16)
    case.label[:, :110] = 1
    case.foreground = foreground_voxels(case.label)
    source = make_source(["none"])
    assert len(case.foreground) == 10_000 and source.sampler.pass_length == 11_000
    assert len({source.sample(0, index).place.voxel for index in range(11_000)}) == 11_000


def test_every_value_of_the_classes_is_a_lesion_and_the_ignore_label_is_not(make_source, store):
    store.cases["large"].label[0, 10, 10:13] = 2, 3, 9
    source = make_source(options={"label_values": [1, (2, 3)]})
    more = Counter([("large", 0, 10, 10), ("large", 0, 10, 11)])
    assert source.sampler.pass_length == 47
    assert Counter(shown(source, [0])[:47]) == all_pixels(store) + more


@pytest.mark.parametrize("augmentation", [{"name": "none"}, turned("torch", mirror_axes=[])])
def test_the_pixel_is_at_a_uniformly_random_place(make_source, augmentation):
    """Chi-square over the pixels of the patch, and over its rows and columns; the seed is fixed."""
    source = make_source(augmentation=augmentation, iterations_per_epoch=1000)
    half = (np.array([1, 16, 12]) - 1) / 2
    counts = np.zeros((16, 12))
    for index in range(4000):
        sample = source.sample(0, index)
        seen = np.array(sample.place.voxel) - sample.place.start - half
        matrix = geometry.in_space(sample.parameters, 2)
        seen = (seen if matrix is None else np.linalg.solve(matrix, seen)) + half
        y, x = np.clip(np.rint(seen[1:]).astype(int), 0, (15, 11))
        counts[y, x] += 1
        assert sample.place.start[0] == sample.place.voxel[0] and (np.abs(seen - half) < half + 0.75).all()
    if matrix is None:  # rounding the start blurs the counts of single pixels
        assert stats.chisquare(counts.ravel()).pvalue > 0.01
        assert stats.chisquare(counts.sum(0)).pvalue > 0.01 and stats.chisquare(counts.sum(1)).pvalue > 0.01
    quarters = counts.reshape(2, 8, 2, 6).sum((1, 3)).ravel()
    assert stats.chisquare(quarters).pvalue > 0.01


def test_without_turning_the_start_is_pixel_minus_position(make_source):
    source = make_source()
    for index in range(45):
        sample = source.sample(1, index)
        position = generator(Purpose.CROP, (7, 0, 1, index)).integers(0, (1, 16, 12))
        assert sample.place.start == tuple(np.array(sample.place.voxel) - position)


@pytest.mark.parametrize("size", [(1, 64, 64), (1, 17, 12), (8, 9, 10)])
def test_a_start_shows_the_voxel_where_it_should(size):
    r = np.random.default_rng(0)
    half = (np.array(size) - 1) / 2
    for _ in range(200):
        voxel, position = r.integers(0, 50, 3), r.integers(0, size)
        start = geometry.start_that_shows(voxel, position, None, size)
        assert (np.array(start) + position == voxel).all()
        matrix = np.eye(3)
        turn = r.uniform(-np.pi, np.pi)
        matrix[1:, 1:] = [[np.cos(turn), -np.sin(turn)], [np.sin(turn), np.cos(turn)]]
        start = geometry.start_that_shows(voxel, position, matrix, size)
        point = np.array(start) + half + matrix @ (position - half)
        assert (np.abs(point - voxel) <= 0.5 + 1e-9).all()


@pytest.mark.parametrize("backend", BACKENDS)
def test_a_turned_patch_shows_the_lesion_where_its_pixel_is(make_source, store, backend):
    """The middle of a 3 x 3 lesion: what is half a pixel away is lesion too."""
    source = make_source(augmentation=turned(backend, mirror_axes=[]))
    half = (np.array([1, 16, 12]) - 1) / 2
    seen = 0
    for epoch in range(10):
        for batch in source.batches(epoch):
            for sample, target in zip(batch.samples, batch.target, strict=True):
                z, y, x = sample.place.voxel
                if store.cases[sample.place.case].label[z, y - 1 : y + 2, x - 1 : x + 2].sum() != 9:
                    continue
                matrix = geometry.in_space(sample.parameters, 2)
                drawn = generator(Purpose.CROP, (7, 0, sample.epoch, sample.index)).integers(0, (1, 16, 12))
                assert target[tuple(drawn[1:])] == 1
                point = np.array(sample.place.start) + half + matrix @ (drawn - half)
                assert (np.abs(point - sample.place.voxel) <= 0.5 + 1e-9).all()
                seen += 1
    assert seen == 50


def image_points(sample):
    """Where in its slice each pixel of a patch lies: ``[2, y, x]``, by the definitions of start, matrix and mirror."""
    size = np.array(sample.place.size[1:])
    steps = np.moveaxis(np.indices(size), 0, -1) - (size - 1) / 2
    matrix = np.eye(3) if not sample.parameters.is_spatial else geometry.in_space(sample.parameters, 2)
    points = steps @ matrix[1:, 1:].T + (size - 1) / 2 + sample.place.start[1:]
    return np.moveaxis(np.flip(points, sample.parameters.mirror), -1, 0)


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("inside_nonzero", [(False, False), (True, True)])
def test_beyond_the_image_lies_its_minimum_also_when_turned(make_source, store, backend, inside_nonzero):
    """Also in a slice of its own, in slices smaller than the patch, and in channels that are 0 outside a mask."""
    for augmentation in ({"name": "none", "backend": backend}, turned(backend)):
        source = make_source(
            augmentation=augmentation, patch_size=[30, 34], options={"inside_nonzero": inside_nonzero}
        )
        beyond = 0
        for batch in source.batches(0):
            for sample, image, target in zip(batch.samples, batch.images, batch.target, strict=True):
                y, x = image_points(sample)
                n_y, n_x = store.cases[sample.place.case].label.shape[1:]
                outside = (y < -1) | (y > n_y) | (x < -1) | (x > n_x)
                inside = (y >= 0) & (y <= n_y - 1) & (x >= 0) & (x <= n_x - 1) & ((y > 1) | (x > 1))
                for channel, lowest in enumerate((-3, -4)):
                    np.testing.assert_allclose(image[channel][outside], lowest, atol=1e-5)
                    assert image[channel][inside].min() >= 1 - 1e-5
                assert (target[outside] == 0).all()
                beyond += outside.sum()
        assert beyond > 45 * 100


@pytest.mark.parametrize("backend", BACKENDS)
def test_the_mask_within_the_image_is_still_zero(make_source, store, backend):
    label = store.cases["small"].label
    label[:, :, 5:] = -1
    source = make_source(["small"], {"name": "none", "backend": backend}, patch_size=[30, 30])
    for batch in source.batches(0):
        for sample, image in zip(batch.samples, batch.images, strict=True):
            _, y, x = (-v for v in sample.place.start)
            assert (image[1, max(y, 0) : y + 9, x + 5 : x + 7] == 0).all()
            assert (image[0] == 0).sum() == 0
            assert image[1].min() == -4 and (image[1] == 0).sum() <= 18


def test_zero_beyond_the_image_where_the_plan_says_so(make_source):
    batch = next(make_source(["small"], outside="zero").batches(0))
    assert (batch.images == 0).sum() > 0 and batch.images.min() == 0


def test_foreground_share_can_show_the_minimum_too(make_source):
    sampling = {"foreground_share": 1.0, "arguments": {"outside": "minimum"}}
    batch = next(make_source(["small"], sampling=sampling, iterations_per_epoch=1).batches(0))
    assert (batch.images == 0).sum() == 0 and (batch.images == -3).sum() > 100


@pytest.mark.parametrize("backend", BACKENDS)
def test_the_same_batches_whatever_workers_ranks_and_resuming(make_source, backend):
    def make(**options):
        return make_source(augmentation=turned(backend), iterations_per_epoch=6, options=options)

    whole = list(make().batches(1))
    assert all(map(same, whole, make().batches(1)))
    assert not any(map(same, whole, make().batches(0)))
    assert all(map(same, whole[4:], make().batches(1, start_iteration=4)))
    assert all(map(same, whole, make(workers=2).batches(1)))
    assert all(map(same, whole, make(cache_gb=0).batches(1)))
    parts = [list(make(rank=rank, world_size=2).batches(1)) for rank in range(2)]
    for batch, even, odd in zip(whole, *parts, strict=True):
        assert torch.equal(batch.images[0::2], even.images) and torch.equal(batch.images[1::2], odd.images)
        assert batch.samples[1::2] == odd.samples and batch.cases[0::2] == even.cases


@pytest.mark.parametrize("arguments", [{**OTHERS_OFF, **TURNED}, {"rotation_p": 0.5, "gamma_p": 1.0}])
def test_patches_that_are_turned_together_are_the_same_as_alone(make_source, arguments):
    source = make_source(augmentation=turned("torch", arguments=arguments, mirror_axes=[1, 2]), batch_size=20)
    for batch in source.batches(0):
        alone = [source.replay(sample) for sample in batch.samples]
        assert torch.equal(batch.images, torch.stack([image for image, _ in alone]))
        assert torch.equal(batch.target, torch.stack([target for _, target in alone]))
    groups = torch_backend.alike([source._cut(sample) for sample in batch.samples])
    assert sorted(sum(groups, [])) == list(range(20)) and len(groups) < 20


def test_a_plane_is_cut_with_room_for_any_angle():
    size, corners = (1, 16, 11), np.array([[0, 0, 0, 0], [-7.5, -7.5, 7.5, 7.5], [-5, 5, -5, 5]])
    boxes = set()
    for turn in np.linspace(0, 2 * np.pi, 50):
        start = (4, int(100 * turn) - 300, 7)
        box = geometry.box_for_any_angle(start, size)
        matrix = np.array([[np.cos(turn), -np.sin(turn)], [np.sin(turn), np.cos(turn)]])
        points = matrix @ corners[1:] + (np.array(start) + [0, 7.5, 5])[1:, None]
        for axis, (low, high) in enumerate(box[1:]):
            assert low <= points[axis].min() and points[axis].max() <= high - 1
        boxes.add(tuple(high - low for low, high in box))
    assert boxes == {(1, 20, 21)}


def test_the_minimum_of_a_case_is_found_once(make_source, store):
    source = make_source(options={"cache_gb": 0})
    list(source.batches(0))
    store.reads.clear()
    np.testing.assert_array_equal(source.cases.minimum("large"), [-3, -4])
    assert store.reads == []


def test_nothing_but_lesions_is_kept_of_a_case_that_does_not_fit(make_source):
    source = make_source(options={"cache_gb": 0})
    kept = source.sampler._pixels
    assert [len(pixels) for pixels in kept] == [27, 0, 9, 9]
    assert all(pixels.dtype == np.int32 and pixels.base is None for pixels in kept)


def test_a_fold_without_any_lesion_is_refused_before_training(make_source, store):
    store.cases["none"].label[:] = 5  # the ignore label
    with pytest.raises(AutosegError) as error:
        make_source(["none"])
    text = str(error.value)
    assert "stage full" in text and "no training case has a lesion" in text
    assert "no lesion voxel in its training cases, 1 in all" in text
    assert "splits.json" in text and "--set stages.full.sampling.name=foreground_share" in text


def test_settings_are_checked_without_data():
    assert samplers.check(plan.Sampling(name="lesion_pixels")).outside == "minimum"
    assert samplers.check(plan.Sampling()).outside == "zero"
    with pytest.raises(
        AutosegError, match=r"sampling.arguments.outside(.|\n)*'black'(.|\n)*zero, or minimum"
    ):
        samplers.check(plan.Sampling(name="lesion_pixels", arguments={"outside": "black"}))
    with pytest.raises(AutosegError, match=r"arguments do not fit the sampler 'lesion_pixels'(.|\n)*share"):
        samplers.check(plan.Sampling(name="lesion_pixels", arguments={"share": 1}))


def test_another_source_may_give_batches_without_samples():
    batch = Batch(torch.zeros(2, 4, 16, 16), torch.tensor([0, 1]), ("a", "b"), 0.0)
    assert batch.samples == () and batch.cases == ("a", "b")
