"""Transforms as rows: by hand, those of a family, the share that is augmented at all, and what they never change."""

import json
from collections import Counter

import numpy as np
import pytest
import sweep
import torch
from scipy import stats

from autoseg import plan
from autoseg.errors import AutosegError
from autoseg.plugins.parts import PatchShape, Place, TransformPart
from autoseg.plugins.trainer import Trainer
from autoseg.sampling import batchgenerators_backend, patches, torch_backend, transforms
from autoseg.sampling.keys import Purpose, generator
from autoseg.sampling.loader import BatchSource
from autoseg.sampling.parameters import Parameters
from autoseg.sampling.sample import Sample
from autoseg.sampling.transforms import Transforms, check_augmentation

NAMES = ("case0", "case1", "case2", "case3", "empty")
BACKENDS = ["torch", "batchgenerators"]
SQUARE = [[1, 2, 3], [4, 5, 6], [7, 8, 9]]
# For each transform: arguments, what is drawn, the last axes of the image, the same afterwards.
CASES = {
    "quarter_turns": [
        ({}, {"turns": 1}, SQUARE, [[3, 6, 9], [2, 5, 8], [1, 4, 7]]),
        ({}, {"turns": 2}, SQUARE, [[9, 8, 7], [6, 5, 4], [3, 2, 1]]),
        ({}, {"turns": 3}, SQUARE, [[7, 4, 1], [8, 5, 2], [9, 6, 3]]),
        ({}, {"turns": 1}, [[1, 2], [3, 4]], [[2, 4], [1, 3]]),
        ({}, {"turns": 1}, [[1, 2, 3]], [[0, 2, 0]]),  # it shows what is above and below, beyond the image
    ],
    "flip": [
        ({"axis": 2}, {"axis": 2}, SQUARE, [[3, 2, 1], [6, 5, 4], [9, 8, 7]]),
        ({"axis": 1}, {"axis": 1}, SQUARE, [[7, 8, 9], [4, 5, 6], [1, 2, 3]]),
        ({"axis": 0}, {"axis": 0}, [[[1, 2]], [[3, 4]]], [[[3, 4]], [[1, 2]]]),
    ],
    "slice_factor": [
        ({}, {"factors": (0.5, 2.0)}, [[[1, 2]], [[3, 4]]], [[[0.5, 1]], [[6, 8]]]),
        (  # two channels of two planes; where the first is 3 and the second -2, the files are 0
            {"about": "raw_zero"},
            {"factors": (0.5, 2.0), "about": (3.0, -2.0)},
            [[[[3, 5]], [[3, 4]]], [[[-2, 2]], [[4, -2]]]],
            [[[[3, 4]], [[3, 5]]], [[[-2, 0]], [[10, -2]]]],
        ),
    ],
    "rescale": [
        ({}, {"factor": 0.5}, SQUARE, [[0, 0, 0], [0, 5, 0], [0, 0, 0]]),  # beyond the image it is 0
        ({}, {"factor": 0.5}, [[[1, 2, 3, 4, 5]], [[6, 7, 8, 9, 1]]], [[[0, 1, 3, 5, 0]], [[0, 6, 8, 1, 0]]]),
        ({}, {"factor": 1.0}, SQUARE, SQUARE),
    ],
    "missing_channels": [
        (
            {},
            {"channels": (1,), "values": (-3.0,)},
            [[[[1, 2]]], [[[3, 4]]]],
            [[[[1, 2]]], [[[-3, -3]]]],
        ),
    ],
    "channel_shift_scale": [
        (
            {},
            {"shift": (1.0, -1.0), "scale": (2.0, 0.5)},
            [[[[1, 2]]], [[[3, 4]]]],
            [[[[4, 6]]], [[[1, 1.5]]]],
        ),
    ],
}
WHERE = "CASES of tests/sampling/test_transforms.py"


def with_all_axes(array):
    return np.array(array, np.float32)[(np.newaxis,) * (4 - np.ndim(array))]


def changed(rows, drawn, image, label, backend="torch", parameters=None, size=None, start=(0, 0, 0)):
    """A patch with these numbers on the CPU; label -1 is background."""
    size = tuple(size or image.shape[1:])
    full = (1,) * (3 - len(size)) + size
    sample = Sample(0, 0, Place("a", False, None, start, full), parameters or Parameters(), tuple(drawn))
    further = rows.affine(sample.transforms, len(size))
    patch = patches.cut_patch(sample, image, label, dims=len(size), further=further)
    if backend == "torch":
        images, labels = torch_backend.change_alike([patch])
        pair = images[0], labels[0]
    else:
        pair = tuple(map(torch.from_numpy, batchgenerators_backend.change(patch)))
    image, label = rows.apply(*pair, sample.transforms)
    return image.numpy(), np.maximum(label.numpy(), 0)


def named(*specs, trainer=None):
    return Transforms([plan.Named.model_validate(spec) for spec in specs], trainer)


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("name", sorted(row.name for row in transforms.REGISTRY.rows().values()))
def test_every_transform_by_hand(name, backend):
    """The label is the image where voxels move to voxels, and stays where only their values change."""
    for arguments, numbers, before, after in sweep.hand_worked(CASES, name, WHERE):
        rows = named({"name": name, "arguments": arguments})
        image, expected = with_all_axes(before), with_all_axes(after)
        label = image[0].astype(np.int16)
        found, target = changed(rows, [numbers], image.copy(), label, backend)
        np.testing.assert_allclose(found, expected, atol=1e-6)
        moves = transforms.check(plan.Named(name=name, arguments=arguments)).affine is not None
        np.testing.assert_array_equal(target, expected[0] if moves else label)


def test_no_case_is_left_over():
    sweep.refuse_leftovers(CASES, transforms.REGISTRY.names(), WHERE)


def draws(name, shape, n=2000, **arguments):
    row = transforms.check(plan.Named(name=name, arguments=arguments))
    return [
        row.draw(generator(Purpose.TRANSFORM, (7, 0, i, 0)), PatchShape(*shape), **arguments)
        for i in range(n)
    ]


def test_what_the_shipped_ones_draw():
    turns = Counter(drawn["turns"] if drawn else 0 for drawn in draws("quarter_turns", (1, (4, 8, 8))))
    assert stats.chisquare([turns[k] for k in range(4)]).pvalue > 0.01
    flips = draws("flip", (1, (4, 8, 8)), axis=1, p=0.25)
    assert {drawn["axis"] for drawn in flips if drawn} == {1}
    assert abs(np.mean([drawn is not None for drawn in flips]) - 0.25) < 4 * np.sqrt(0.25 * 0.75 / 2000)
    of_plane = draws("flip", (1, (8, 8)), 50, axis=1)
    assert [drawn["axis"] for drawn in of_plane if drawn][:1] == [0]
    assert set(draws("flip", (1, (8, 8)), 50, axis=0)) == {None}
    factors = np.array([drawn["factors"] for drawn in draws("slice_factor", (3, (5, 8, 8)))])
    assert factors.shape == (2000, 5) and stats.kstest(factors.ravel(), "uniform", (0.8, 0.4)).pvalue > 0.01
    assert len(draws("slice_factor", (3, (8, 8)), 1)[0]["factors"]) == 1
    drawn = draws("channel_shift_scale", (3, (4, 8, 8)), shift_deviation=0.5, scale_deviation=0.1)
    shift, scale = (np.array([numbers[name] for numbers in drawn]) for name in ("shift", "scale"))
    assert shift.shape == scale.shape == (2000, 3)
    assert stats.kstest(shift.ravel() / 0.5, "norm").pvalue > 0.01
    assert stats.kstest((scale.ravel() - 1) / 0.1, "norm").pvalue > 0.01

    factors = [drawn["factor"] for drawn in draws("rescale", (1, (4, 8, 8)))]
    assert stats.kstest(factors, "uniform", (0.5, 0.7)).pvalue > 0.01


def test_missing_channels_are_independent_and_one_always_stays():
    shape = (3, (4, 8, 8), (-1.0, 0.0, 2.5))
    drawn = draws("missing_channels", shape, p=0.3)
    missing = [numbers["channels"] if numbers else () for numbers in drawn]
    assert all(
        numbers is None or np.array_equal(numbers["values"], np.array(shape[2])[numbers["channels"]])
        for numbers in drawn
    )
    expected = 0.3 - 0.3**3 / 3  # where all three would be missing each stays in a third of the cases
    for channel in range(3):
        found = np.mean([channel in channels for channels in missing])
        assert abs(found - expected) < 4 * np.sqrt(expected * (1 - expected) / 2000)
    always = draws("missing_channels", shape, 300, p=1.0)
    stays = Counter(next(iter({0, 1, 2} - {*numbers["channels"]})) for numbers in always)
    assert set(stays) == {0, 1, 2} and min(stays.values()) > 60
    assert set(draws("missing_channels", (3, (8, 8)), 50, p=0.0)) == {None}
    assert set(draws("missing_channels", (1, (8, 8)), 50, p=1.0)) == {None}


def test_a_factor_about_the_raw_zero_is_one_on_raw_intensities():
    """Of a fold's mean 40 and spread 25: normalising what was multiplied is multiplying what was normalised."""
    raw = np.random.default_rng(0).uniform(0, 90, (1, 3, 4, 5)).astype(np.float32)
    row = transforms.REGISTRY.get("slice_factor")
    shape = PatchShape(1, (3, 4, 5), raw_zero=(-40 / 25,))
    numbers = row.draw(np.random.default_rng(1), shape, about="raw_zero")
    found, _ = row.apply(torch.tensor((raw - 40) / 25), torch.zeros(3, 4, 5), numbers)
    expected = (raw * numbers["factors"][:, None, None] - 40) / 25
    np.testing.assert_allclose(found, expected, atol=1e-5)
    plain = row.draw(np.random.default_rng(1), shape)
    assert np.array_equal(plain["factors"], numbers["factors"]) and "about" not in plain


@pytest.mark.parametrize("backend", BACKENDS)
def test_rescaling_shows_a_ramp_steeper_or_flatter(backend):
    z, y, x = np.indices((3, 30, 30)).astype(np.float32)
    ramp, rows = (100 * z + 3 * y + x)[None], named({"name": "rescale"})
    for factor in (0.5, 1.2):
        found, _ = changed(
            rows,
            [{"factor": factor}],
            ramp,
            np.zeros((3, 30, 30), np.int8),
            backend,
            None,
            (2, 6, 7),
            (1, 12, 11),
        )
        steps = [(np.arange(n) - (n - 1) / 2) / factor for n in (6, 7)]
        plane = 3 * (14.5 + steps[0][:, None]) + 14 + steps[1]
        np.testing.assert_allclose(found[0], [plane + 100, plane + 200], atol=1e-3)


def noise(size=(6, 12, 12), seed=0):
    r = np.random.default_rng(seed)
    return r.standard_normal((2, *size)).astype(np.float32), r.integers(-1, 3, size).astype(np.int8)


@pytest.mark.parametrize("backend", BACKENDS)
def test_quarter_turns_and_flips_are_exact_and_in_the_order_of_the_plan(backend):
    image, label = noise()
    rows = named(
        {"name": "quarter_turns"},
        {"name": "flip", "arguments": {"axis": 2}},
        {"name": "flip", "arguments": {"axis": 0}},
    )
    drawn = [{"turns": 1}, {"axis": 2}, {"axis": 0}]
    found, target = changed(rows, drawn, image.copy(), label, backend)
    np.testing.assert_array_equal(found, np.rot90(image, 1, (2, 3))[:, ::-1, :, ::-1])
    np.testing.assert_array_equal(target, np.maximum(np.rot90(label, 1, (1, 2))[::-1, :, ::-1], 0))


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("size", [(4, 6), (3, 4, 6), (3, 4, 7)])
def test_a_turned_oblong_patch_shows_its_surroundings(backend, size):
    """Of a ramp, which any interpolation shows exactly, also where the voxels come to lie between voxels."""
    z, y, x = np.indices((5, 20, 20)).astype(np.float32)
    ramp = (100 * z + 3 * y + x)[None]
    rows = named({"name": "quarter_turns"})
    start = (1, 8, 7)
    found, _ = changed(rows, [{"turns": 1}], ramp, np.zeros((5, 20, 20), np.int8), backend, None, size, start)
    steps = [np.arange(n) - (n - 1) / 2 for n in size[-2:]]
    middle = [a + (n - 1) / 2 for a, n in zip(start[1:], size[-2:], strict=True)]
    expected = 3 * (middle[0] + steps[1][None]) + middle[1] - steps[0][:, None]
    expected = expected + 100 * np.arange(1, 1 + size[0])[:, None, None] if len(size) == 3 else expected + 100
    np.testing.assert_allclose(found[0], expected, atol=1e-3)


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("in_plane", [False, True])
def test_a_flip_of_a_turned_patch_is_its_mirror_image(backend, in_plane):
    image, label = noise((20, 20, 20))
    angles = (0.4,) if in_plane else (0.4, -0.2, 0.3)
    drawn = Parameters(rotation=angles, scale=1.2, in_plane=in_plane)
    where = {"size": (6, 9, 10), "start": (7, 5, 5), "parameters": drawn, "backend": backend}
    rows = named({"name": "flip", "arguments": {"axis": 1}}, {"name": "flip", "arguments": {"axis": 0}})
    plain, target = changed(rows, [None, None], image, label, **where)
    found, flipped = changed(rows, [{"axis": 1}, {"axis": 0}], image, label, **where)
    np.testing.assert_allclose(found, plain[:, ::-1, ::-1], atol=1e-4)
    assert (flipped != target[::-1, ::-1]).mean() < 2e-3


def shrink(rng, shape, low=0.5, high=1.2):
    return {"factor": rng.uniform(low, high)}


def shrunk(numbers, axes):
    return np.diag([1.0] * (axes - 2) + [1 / numbers["factor"]] * 2)


def invert(rng, shape):
    return {"channel": int(rng.integers(shape.channels))} if rng.random() < 0.5 else None


def inverted(image, label, numbers):
    image[numbers["channel"]] = -image[numbers["channel"]]
    return image, label.clamp(max=1)


THEIRS = Trainer(
    "theirs",
    "a family",
    transforms=(
        TransformPart("rescale", shrink, affine=shrunk),
        TransformPart("invert", invert, apply=inverted),
        TransformPart("flip", lambda rng, shape: {"axis": 0}, affine=transforms.flipped),
        TransformPart(
            "crop", lambda rng, shape: {}, apply=lambda image, label, numbers: (image[:, 1:], label)
        ),
        TransformPart("object", lambda rng, shape: {"what": object()}, apply=inverted),
    ),
)


def test_a_family_brings_transforms_of_its_own_and_they_go_first():
    rows = named({"name": "rescale"}, {"name": "invert"}, {"name": "flip"}, trainer=THEIRS)
    image, label = noise((2, 40, 40))
    label[:] = 2
    image[:] = np.arange(40)  # along x
    found, target = changed(
        rows, [{"factor": 0.5}, {"channel": 1}, None], image.copy(), label, size=(2, 9, 9), start=(0, 15, 15)
    )
    np.testing.assert_allclose(found[0, 0, 0], 19 + 2.0 * np.arange(-4, 5), atol=1e-4)
    np.testing.assert_allclose(found[1, 1, 5], -19 - 2.0 * np.arange(-4, 5), atol=1e-4)
    assert (target == 1).all()
    assert rows.draw_moves((1, 2, 3), PatchShape(2, (2, 9, 9)))[2] == {"axis": 0}


@pytest.fixture
def make_source(store, make_stage):
    sources = []

    def make(augmentation, options=(), **stage):
        settings = {"inside_nonzero": [False, True], "label_values": [1, 2], "cache_gb": 1.0}
        settings |= {"raw_zero": [-1.5, 0.5], **dict(options)}
        stage = make_stage(augmentation=augmentation, **stage)
        source = BatchSource(store, NAMES, stage, (7, 0), "cpu", trainer=THEIRS, **settings)
        sources.append(source)
        return source

    yield make
    for source in sources:
        source.close()


ALL = [
    {"name": "quarter_turns"},
    {"name": "rescale", "arguments": {"low": 0.8}},
    {"name": "invert"},
    {"name": "slice_factor", "arguments": {"about": "raw_zero"}},
    {"name": "missing_channels"},
    {"name": "channel_shift_scale"},
]


def same(first, second):
    return (
        first.samples == second.samples
        and torch.equal(first.images, second.images)
        and torch.equal(first.target, second.target)
    )


@pytest.mark.parametrize("backend", BACKENDS)
def test_workers_ranks_resuming_and_replay_change_nothing(make_source, backend):
    """With transforms, a share, a context and a part of the channels."""
    augmentation = {"backend": backend, "share": 0.5, "transforms": ALL, "arguments": {"rotation_p": 0.5}}

    def make(**options):
        stage = {"context": [1, 2, 3], "patch_size": [6, 10, 12], "iterations_per_epoch": 6, "batch_size": 4}
        return make_source(augmentation, {"channels": [1], **options}, **stage)

    whole = list(make().batches(1))
    assert all(batch.images.shape == (4, 1, 8, 14, 18) for batch in whole)
    assert all(batch.target.shape == (4, 6, 10, 12) and batch.target.min() == 0 for batch in whole)
    assert all(map(same, whole[4:], make().batches(1, start_iteration=4)))
    assert all(map(same, whole, make(workers=2).batches(1)))
    assert all(map(same, whole, make(cache_gb=0).batches(1)))
    parts = [list(make(rank=rank, world_size=2).batches(1)) for rank in range(2)]
    for batch, even, odd in zip(whole, *parts, strict=True):
        assert torch.equal(batch.images[0::2], even.images) and torch.equal(batch.target[1::2], odd.target)
        assert batch.samples[1::2] == odd.samples
    source = make()
    for i, sample in enumerate(whole[0].samples):
        image, target = source.replay(Sample.from_dict(json.loads(json.dumps(sample.to_dict()))))
        assert torch.equal(image, whole[0].images[i]) and torch.equal(target, whole[0].target[i])
    drawn = [sample.transforms for batch in whole for sample in batch.samples]
    assert {numbers is None for numbers, *_ in drawn} == {True, False}
    assert {len(numbers["factors"]) for *_, numbers, _, _ in drawn if numbers} == {8}


def test_transforms_know_the_raw_zero_of_the_channels_that_the_network_sees(make_source):
    augmentation = {
        "name": "none",
        "transforms": [{"name": "slice_factor", "arguments": {"about": "raw_zero"}}],
    }
    about = [
        make_source(augmentation, options).sample(0, 0).transforms[0]["about"]
        for options in ({}, {"channels": [1]}, {"channels": [1, 0]}, {"raw_zero": ()})
    ]
    assert about == [(-1.5, 0.5), (0.5,), (0.5, -1.5), (0.0, 0.0)]


def test_every_position_of_the_list_has_a_stream_of_its_own(make_source):
    twice = make_source({"name": "none", "transforms": [{"name": "rescale"}, {"name": "rescale"}]})
    once = make_source({"name": "none", "transforms": [{"name": "rescale"}]})
    for index in range(10):
        first, second = twice.sample(0, index).transforms
        assert first != second and once.sample(0, index).transforms == (first,)


def test_transforms_leave_the_other_streams_alone(make_source):
    intensities = [{"name": "slice_factor"}, {"name": "channel_shift_scale"}]
    plain, more = make_source({}), make_source({"transforms": intensities})
    for index in range(20):
        one, other = plain.sample(2, index), more.sample(2, index)
        assert (one.place, one.parameters) == (other.place, other.parameters)


def test_a_share_of_the_samples_is_augmented_and_the_others_are_not_at_all(make_source):
    always, half = make_source({"transforms": ALL}), make_source({"share": 0.5, "transforms": ALL})
    none = make_source({"name": "none"})
    augmented = 0
    for index in range(400):
        found = half.sample(0, index)
        if found.transforms[3] is not None:
            augmented += 1
            assert found == always.sample(0, index)
        else:
            assert found.parameters == Parameters() and found.transforms == (None,) * len(ALL)
            assert found.place == none.sample(0, index).place
    assert abs(augmented / 400 - 0.5) < 4 * np.sqrt(0.25 / 400)
    never = make_source({"share": 0.0, "transforms": ALL}, iterations_per_epoch=2)
    for batch, plain in zip(
        never.batches(0), make_source({"name": "none"}, iterations_per_epoch=2).batches(0), strict=True
    ):
        assert torch.equal(batch.images, plain.images) and torch.equal(batch.target, plain.target)


def test_a_turned_patch_still_shows_its_voxel(make_source, store):
    moves = [{"name": "quarter_turns"}, {"name": "flip"}, {"name": "rescale", "arguments": {"high": 1.9}}]
    source = make_source(
        {"name": "none", "transforms": moves},
        sampling={"foreground_share": 1.0},
        patch_size=[6, 12, 8],
        iterations_per_epoch=20,
    )
    for batch in source.batches(0):
        for sample, target in zip(batch.samples, batch.target, strict=True):
            if sample.place.voxel is not None:
                assert store.cases[sample.place.case].label[sample.place.voxel] in target


def test_a_2d_network_has_transforms_too(make_source):
    augmentation = {"name": "none", "transforms": [*ALL, {"name": "flip"}], "backend": "torch"}
    source = make_source(augmentation, patch_size=[12, 10], context=[2, 1])
    for batch in source.batches(0):
        assert batch.images.shape == (2, 2, 16, 12) and batch.target.shape == (2, 12, 10)
        assert all(len(sample.transforms[3]["factors"]) == 1 for sample in batch.samples)


def test_batches_on_cuda(make_source, store, make_stage, cuda):
    augmentation = {"name": "none", "backend": "torch", "share": 0.7, "transforms": ALL}
    stage = {"context": [1, 2, 3], "patch_size": [6, 10, 12]}
    on_cpu = make_source(augmentation, **stage)
    settings = {"inside_nonzero": [False, True], "label_values": [1, 2], "cache_gb": 1.0, "trainer": THEIRS}
    settings["raw_zero"] = [-1.5, 0.5]
    source = BatchSource(
        store, NAMES, make_stage(augmentation=augmentation, **stage), (7, 0), cuda, **settings
    )
    for batch, other in zip(source.batches(0), on_cpu.batches(0), strict=True):
        assert batch.samples == other.samples and batch.images.device.type == "cuda"
        torch.testing.assert_close(batch.images.cpu(), other.images, atol=1e-3, rtol=0)
        assert (batch.target.cpu() != other.target).float().mean() < 1e-3
    source.close()


def refusal(make_stage, spec):
    with pytest.raises(AutosegError) as error:
        check_augmentation(make_stage(augmentation={"transforms": [spec]}), 2, THEIRS)
    return str(error.value)


def test_what_cannot_work_is_refused_before_the_training(make_stage):
    assert "there is no transform 'quarter_turn'" in refusal(make_stage, {"name": "quarter_turn"})
    unknown = refusal(make_stage, {"name": "slice_factor", "arguments": {"lo": 1}})
    assert "arguments do not fit the transform 'slice_factor'" in unknown and "'lo'" in unknown
    for name, arguments, words in [
        ("slice_factor", {"low": 2, "high": 1}, "low must not be above high, found 2 and 1"),
        ("missing_channels", {"p": 1.5}, "p from 0 to 1, found 1.5"),
        ("channel_shift_scale", {"scale_deviation": -1}, "must not be negative, found 0.05 and -1"),
        ("rescale", {"low": "small"}, "small"),
    ]:
        text = refusal(make_stage, {"name": name, "arguments": arguments})
        assert f"the transform '{name}' cannot work with its arguments" in text and words in text
    assert "the transform 'crop' changes the size of a patch" in refusal(make_stage, {"name": "crop"})
    assert "drew what cannot be written down" in refusal(make_stage, {"name": "object"})
    with pytest.raises(AutosegError, match="low is above 0 and not above high, found 0 and 1.2"):
        transforms.check(plan.Named(name="rescale", arguments={"low": 0}))
    with pytest.raises(AutosegError, match=r"do not fit the transform 'slice_factor'[\s\S]*raw_zero"):
        transforms.check(plan.Named(name="slice_factor", arguments={"about": "mean"}))
    with pytest.raises(AutosegError, match="axis is 0, 1 or 2 and p from 0 to 1, found axis 3"):
        transforms.check(plan.Named(name="flip", arguments={"axis": 3}))
    check_augmentation(make_stage(augmentation={"transforms": ALL}), 2, THEIRS)
    check_augmentation(make_stage(augmentation={"transforms": ALL}, patch_size=[], batch_size=1), 2, THEIRS)


def test_a_row_moves_voxels_or_changes_them():
    for both in ({}, {"affine": shrunk, "apply": inverted}):
        with pytest.raises(ValueError, match="'x' needs affine or apply, one of them"):
            TransformPart("x", invert, **both)
