"""What a network sees of a case: context, some of the channels, whole axes, images that are prepared."""

import numpy as np
import pytest
import torch
from scipy.ndimage import map_coordinates

from autoseg.sampling import geometry
from autoseg.sampling.loader import BatchSource
from autoseg.sampling.stage_cases import full_size, whole_axes

NAMES = ["case0", "case1", "case2", "case3", "empty"]
BACKENDS = ["torch", "batchgenerators"]
MARGIN = 60


@pytest.fixture
def make_source(store, make_stage):
    sources = []

    def make(names=NAMES, options=(), **stage):
        settings = {
            "inside_nonzero": [False, False],
            "label_values": [1, 2],
            "cache_gb": 1.0,
            **dict(options),
        }
        source = BatchSource(store, names, make_stage(**stage), (7, 0), "cpu", **settings)
        sources.append(source)
        return source

    yield make
    for source in sources:
        source.close()


def in_a_wide_world(case, outside):
    """The whole volume with a wide margin: image and label, or what the label counts as."""
    image, label = case.image, case.label
    fill = image.min(axis=(1, 2, 3)) if outside == "minimum" else np.zeros(len(image))
    wide = np.stack([np.pad(c, MARGIN, constant_values=v) for c, v in zip(image, fill, strict=True)])
    return wide, np.pad(label, MARGIN, constant_values=0 if outside == "minimum" else -1)


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("outside", ["zero", "minimum"])
@pytest.mark.parametrize("context", [[3, 0, 5], [9, 9, 9]])
def test_a_patch_with_context_is_indexed_in_the_padded_volume(make_source, store, backend, outside, context):
    source = make_source(
        context=context,
        patch_size=[8, 12, 10],
        augmentation={"name": "none", "backend": backend},
        sampling={"arguments": {"outside": outside}},
    )
    for batch in source.batches(0):
        for sample, image, target in zip(batch.samples, batch.images, batch.target, strict=True):
            wide, label = in_a_wide_world(store.cases[sample.place.case], outside)
            start = np.array(sample.place.start) + MARGIN
            seen = tuple(slice(a - c, a + n + c) for a, c, n in zip(start, context, (8, 12, 10), strict=True))
            inner = tuple(slice(a, a + n) for a, n in zip(start, (8, 12, 10), strict=True))
            np.testing.assert_array_equal(image, wide[(slice(None), *seen)])
            np.testing.assert_array_equal(target, np.maximum(label[inner], 0))


def interpolated(wide, points):
    return map_coordinates(wide.astype(np.float64), points, order=1)


def largest_share(label, points):
    """The value with the largest interpolated share, and whether it is clearly so."""
    values = np.unique(label)
    shares = np.stack([interpolated(label == value, points) for value in values])
    first, second = np.sort(shares, axis=0)[::-1][:2]
    return np.maximum(values[shares.argmax(axis=0)], 0), first - second > 1e-3


MOVED = {
    "name": "nnunet",
    "mirror_axes": [],
    "arguments": {
        **{
            f"{n}_p": 0
            for n in (
                "noise",
                "blur",
                "brightness",
                "contrast",
                "low_resolution",
                "gamma_inverted",
                "gamma",
            )
        },
        "rotation_p": 1,
        "scaling_p": 1,
    },
}


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("transforms", [[], [{"name": "quarter_turns"}, {"name": "flip"}]])
@pytest.mark.parametrize("patch_size", [[8, 12, 10], [4, 14, 14]])
def test_a_turned_and_scaled_patch_with_context_is_interpolated_in_the_padded_volume(
    make_source, store, backend, transforms, patch_size
):
    transforms = [{**spec, "arguments": {"axis": 1} if spec["name"] == "flip" else {}} for spec in transforms]
    context = [2, 3, 5]
    source = make_source(
        context=context,
        patch_size=patch_size,
        augmentation={**MOVED, "backend": backend, "transforms": transforms},
    )
    wrong = []
    for batch in source.batches(0):
        for sample, image, target in zip(batch.samples, batch.images, batch.target, strict=True):
            wide, label = in_a_wide_world(store.cases[sample.place.case], "zero")
            matrix = geometry.in_space(sample.parameters, 3, source.transforms.affine(sample.transforms, 3))
            size = np.array(patch_size) + 2 * np.array(context)
            steps = np.indices(size) - np.reshape((size - 1) / 2, (3, 1, 1, 1))
            middle = np.array(sample.place.start) + (np.array(patch_size) - 1) / 2 + MARGIN
            points = np.tensordot(matrix, steps, 1) + np.reshape(middle, (3, 1, 1, 1))
            for channel, found in enumerate(image):
                np.testing.assert_allclose(found, interpolated(wide[channel], points), atol=1e-3)
            inner = (slice(None), *(slice(c, c + n) for c, n in zip(context, patch_size, strict=True)))
            expected, clear = largest_share(label, points[inner])
            wrong.append((target.numpy() != expected)[clear].mean())
    assert np.mean(wrong) < 1e-3


@pytest.mark.parametrize("backend", BACKENDS)
def test_a_masked_channel_is_zero_outside_also_in_the_context(make_source, store, backend):
    source = make_source(
        options={"inside_nonzero": [False, True]},
        context=[4, 4, 4],
        patch_size=[8, 8, 8],
        sampling={"foreground_share": 0.0},
        augmentation={
            "backend": backend,
            "arguments": {"noise_p": 1.0, "noise_sigma": [1, 1], "rotation_p": 0, "scaling_p": 0},
        },
    )
    seen = 0
    for batch in source.batches(0):
        for sample, image in zip(batch.samples, batch.images.numpy(), strict=True):
            z, y, x = np.ogrid[:16, :16, :16]
            points = [np.flip(a, i) if i in sample.parameters.mirror else a for i, a in enumerate((z, y, x))]
            at = [p + s - 4 for p, s in zip(points, sample.place.start, strict=True)]
            label = store.cases[sample.place.case].label
            inside = np.ones((16, 16, 16), bool)
            for axis, n in enumerate(label.shape):
                inside &= (at[axis] >= 0) & (at[axis] < n)
            where = np.broadcast_arrays(*(np.clip(a, 0, n - 1) for a, n in zip(at, label.shape, strict=True)))
            outside = ~inside | (label[tuple(where)] < 0)
            assert (image[1][outside] == 0).all() and (image[1][~outside] != 0).mean() > 0.99
            seen += outside.sum()
    assert seen > 1000


@pytest.mark.parametrize("cache_gb", [1.0, 0.0])
@pytest.mark.parametrize("channels", [[1], [1, 0], [0, 1]])
def test_a_network_sees_its_channels_alone(make_source, store, channels, cache_gb):
    options = {"inside_nonzero": [False, True], "cache_gb": cache_gb}
    plain = {"augmentation": {"name": "none"}, "sampling": {"arguments": {"outside": "minimum"}}}
    plain["patch_size"] = [30, 30, 30]
    every = list(make_source(options=options, **plain).batches(0))
    some = make_source(options={**options, "channels": channels}, **plain)
    for batch, part in zip(every, some.batches(0), strict=True):
        assert torch.equal(part.images, batch.images[:, channels]) and torch.equal(part.target, batch.target)
    image, _ = some.cases.arrays("case0")
    assert image.shape == (len(channels), 24, 26, 28)
    assert some.inside_nonzero == tuple([False, True][c] for c in channels)


def test_whole_axes_are_as_long_as_the_next_multiple():
    assert full_size(["whole", 16, "whole"], (18, 20, 32), (4, 8, 8)) == (20, 16, 32)
    assert full_size(["whole", "whole"], (18, 20, 33), (8, 8)) == (1, 24, 40)
    assert full_size([], (18, 20, 33), (4, 8, 8)) == (18, 20, 33)
    assert full_size([8, 9], (18, 20, 33), (4, 8, 8)) == (1, 8, 9)
    assert whole_axes(["whole", 8]) == [False, True, False] and whole_axes([]) == [True] * 3


@pytest.mark.parametrize("sampler", ["foreground_share", "lesion_pixels"])
def test_a_whole_axis_shows_all_of_every_case_in_its_middle(make_source, store, sampler):
    """Cases of 24 to 27 planes make patches of 28 planes, wherever the patch lies in the plane."""
    source = make_source(
        NAMES[:4],
        options={"divisor": (28, 4, 4)},
        patch_size=["whole", 16, 12],
        batch_size=1,
        sampling={"name": sampler, "arguments": {"outside": "minimum"}},
        iterations_per_epoch=20,
        augmentation={"name": "none"},
    )
    for batch in source.batches(0):
        (sample,), case = batch.samples, store.cases[batch.cases[0]]
        assert batch.images.shape == (1, 2, 28, 16, 12) and batch.target.shape == (1, 28, 16, 12)
        n = len(case.label)
        before = (28 - n) // 2
        assert sample.place.start[0] == -before
        for channel, lowest in enumerate(case.image.min(axis=(1, 2, 3))):
            assert (batch.images[0, channel, :before] == lowest).all()
            assert (batch.images[0, channel, before + n :] == lowest).all()
        wide, _ = in_a_wide_world(case, "minimum")
        _, y, x = (a + MARGIN for a in sample.place.start)
        inner = wide[:, MARGIN : MARGIN + n, y : y + 16, x : x + 12]
        np.testing.assert_array_equal(batch.images[0, :, before : before + n], inner)


def test_a_mask_does_not_move_the_patches(make_source, store):
    """Outside a mask the label is -1: places that show anything are drawn in all of the image as before."""
    settings = {"sampling": {"foreground_share": 0.0}, "augmentation": {"name": "none"}}
    before = [make_source(**settings).sample(0, index) for index in range(30)]
    for case in store.cases.values():
        case.label[:, :18] = np.where(case.label[:, :18] > 0, case.label[:, :18], -1)
    assert [make_source(**settings).sample(0, index) for index in range(30)] == before
    batch = next(make_source(**settings).batches(0))
    assert batch.target.min() == 0
