"""What the transforms do: against independent truths, and the two backends against each other.

Tolerances between the backends: 1e-3 of an image whose standard deviation is about 1 (float32 against float64 in
batchgenerators), labels equal but for 1 voxel in 1000 (near ties of the vote).
"""

from dataclasses import fields

import numpy as np
import pytest
import sweep
import torch
from scipy import ndimage

from autoseg import plan
from autoseg.plugins.parts import Place
from autoseg.sampling import batchgenerators_backend, parameters, patches, torch_backend
from autoseg.sampling.keys import Purpose, generator, noise_field
from autoseg.sampling.parameters import Parameters
from autoseg.sampling.sample import Sample

SIZE = (20, 22, 24)
BACKENDS = ["torch", "batchgenerators"]


def volume(size=SIZE, seed=0):
    """Two smooth channels with standard deviation 1, labels -1, 0, 1, 3."""
    rng = np.random.default_rng(seed)
    image = np.stack([ndimage.gaussian_filter(rng.standard_normal(size), 1) for _ in range(2)])
    image /= image.std(axis=(1, 2, 3), keepdims=True)
    label = np.digitize(image[0], [0.8, 1.6]).astype(np.int16)
    label[label == 2] = 3
    label[..., :3] = -1
    return image.astype(np.float32), label


def apply(backend, drawn, image, label, size=None, start=None, inside_nonzero=(False, False)):
    size = tuple(size or image.shape[1:])
    full = (1,) * (3 - len(size)) + size
    sample = Sample(0, 0, Place("a", False, None, start or (0, 0, 0), full), drawn)
    patch = patches.cut_patch(sample, image, label, dims=len(size))
    if backend == "torch":
        result = torch_backend.augment(patch, inside_nonzero)
        return result[0].numpy(), result[1].numpy()
    return batchgenerators_backend.augment(patch, inside_nonzero)


@pytest.fixture(params=BACKENDS)
def backend(request):
    return request.param


def test_nothing_drawn_is_bit_exact(backend):
    image, label = volume()
    found, target = apply(backend, Parameters(), image, label)
    np.testing.assert_array_equal(found, image)
    np.testing.assert_array_equal(target, np.maximum(label, 0))


def test_mirroring_is_a_flip(backend):
    image, label = volume()
    found, target = apply(backend, Parameters(mirror=(0, 2)), image, label)
    np.testing.assert_array_equal(found, image[:, ::-1, :, ::-1])
    np.testing.assert_array_equal(target, np.maximum(label, 0)[::-1, :, ::-1])


def test_an_axis_of_one_voxel_can_be_mirrored(backend):
    image, label = volume((1, 9, 9))
    found, _ = apply(backend, Parameters(mirror=(0, 1)), image, label)
    np.testing.assert_array_equal(torch.from_numpy(found), image[:, :, ::-1])


@pytest.mark.parametrize(("axis", "plane"), [(0, (1, 2)), (1, (2, 0)), (2, (0, 1))])
def test_a_quarter_turn_is_rot90(backend, axis, plane):
    image, label = volume((16, 16, 16))
    angles = tuple(np.pi / 2 if a == axis else 0.0 for a in range(3))
    found, target = apply(backend, Parameters(rotation=angles), image, label)
    turned = np.rot90(image, k=-1, axes=[a + 1 for a in plane])
    other = np.rot90(image, k=1, axes=[a + 1 for a in plane])
    right = turned if np.abs(found - turned).max() < 1e-4 else other
    np.testing.assert_allclose(found, right, atol=1e-4)
    k = -1 if right is turned else 1
    np.testing.assert_array_equal(target, np.maximum(np.rot90(label, k=k, axes=plane), 0))


def test_both_backends_turn_the_same_way_in_2d():
    image, label = volume((1, 17, 17))
    drawn = Parameters(rotation=(np.pi / 2,))
    results = [apply(b, drawn, image, label, size=(17, 17)) for b in BACKENDS]
    np.testing.assert_allclose(results[0][0], results[1][0], atol=1e-4)
    assert np.abs(results[0][0] - image[:, 0]).max() > 0.5


def test_scale_two_shows_every_other_voxel(backend):
    image, label = volume((21, 21, 21))
    found, target = apply(backend, Parameters(scale=2.0), image, label, size=(5, 5, 5), start=(8, 8, 8))
    np.testing.assert_allclose(found, image[:, 6:15:2, 6:15:2, 6:15:2], atol=1e-4)
    np.testing.assert_array_equal(target, np.maximum(label, 0)[6:15:2, 6:15:2, 6:15:2])


def test_beyond_the_image_is_zero_and_background(backend):
    image, label = np.ones((2, 9, 9, 9), np.float32), np.ones((9, 9, 9), np.int16)
    found, target = apply(backend, Parameters(scale=3.0), image, label)
    inside = np.zeros((9, 9, 9), bool)
    inside[3:6, 3:6, 3:6] = True
    assert (found[:, inside] > 0.99).all() and (np.abs(found[:, ~inside]) < 1e-4).all()
    np.testing.assert_array_equal(target == 1, inside)


@pytest.mark.parametrize("size", [(17, 19), (5, 17, 19)])
def test_in_plane_changes_never_mix_planes(backend, size):
    planes = size[0] if len(size) == 3 else 1
    image = np.broadcast_to(np.arange(1.0, planes + 1)[:, None, None], (2, planes, 19, 21)).astype(np.float32)
    label = image[0].astype(np.int16)
    drawn = Parameters(rotation=(0.7,), scale=0.8, in_plane=len(size) == 3)
    found, target = apply(backend, drawn, image, label, size=size, start=(0, 1, 1))
    found, target = found.reshape(2, planes, 17, 19), target.reshape(planes, 17, 19)
    for z in range(planes):
        inner = (slice(6, 11), slice(6, 13))
        np.testing.assert_allclose(found[(slice(None), z, *inner)], z + 1, atol=1e-5)
        assert set(np.unique(target[z])) <= {0, z + 1}


def test_labels_stay_in_the_known_set(backend):
    image, label = volume()
    for i in range(5):
        drawn = Parameters(rotation=(0.3 * i, 0.2, -0.1), scale=0.8 + 0.1 * i)
        assert set(np.unique(apply(backend, drawn, image, label)[1])) <= {0, 1, 3}


def test_the_vote_is_for_the_largest_share():
    """Three labels meet: the winner need not reach one half."""
    image, label = volume((15, 15, 15))
    drawn = Parameters(rotation=(0.4, 0.3, -0.2), scale=1.1)
    found = apply("torch", drawn, image, label)[1]
    shares = {}
    for value in np.unique(label):
        indicator = (label == value).astype(np.float32)[None]
        shares[value] = apply("torch", drawn, np.repeat(indicator, 2, 0), label)[0][0]
    shares[-1] = 1 - sum(share for value, share in shares.items() if value != -1)
    values, stack = np.array(list(shares)), np.stack(list(shares.values()))
    clear = np.diff(np.sort(stack, axis=0)[-2:], axis=0)[0] > 1e-4
    expected = np.maximum(values[stack.argmax(axis=0)], 0)
    np.testing.assert_array_equal(found[clear], expected[clear])


def test_backends_agree_on_many_label_values():
    image, _ = volume()
    label = np.digitize(image[0], np.linspace(-2, 2, 15)).astype(np.int16) - 1
    results = [apply(b, Parameters(rotation=(0.4, 0.1, 0.2), scale=1.2), image, label) for b in BACKENDS]
    assert len(np.unique(label)) > 2 * torch_backend.TOGETHER
    assert_agree(*results)


def test_a_channel_is_zero_outside_its_mask(backend):
    image, label = volume()
    drawn = Parameters(noise_sigma=0.1, noise_seed=3, gamma=(0.8, 1.2), mirror=(2,))
    found, _ = apply(backend, drawn, image, label, inside_nonzero=(False, True))
    assert (found[1][..., -3:] == 0).all() and (found[1][..., :-3] != 0).mean() > 0.99
    assert (found[0][..., -3:] != 0).mean() > 0.99


def test_noise_is_the_field_of_its_seed(backend):
    image, label = volume()
    found, _ = apply(backend, Parameters(noise_sigma=0.07, noise_seed=11), image, label)
    np.testing.assert_allclose(found - image, 0.07 * noise_field(11, image.shape), atol=1e-6)


def test_blur_is_scipys(backend):
    image, label = volume((8, 9, 3))
    found, _ = apply(backend, Parameters(blur=(None, (0.5, 0.9, 1.0))), image, label)
    np.testing.assert_array_equal(found[0], image[0])
    np.testing.assert_allclose(found[1], ndimage.gaussian_filter(image[1], (0.5, 0.9, 1.0)), atol=1e-5)


def test_contrast_stretches_about_the_mean_and_keeps_the_range(backend):
    image, label = volume()
    found, _ = apply(backend, Parameters(contrast=(1.2, 0.8)), image, label)
    for channel, factor in ((0, 1.2), (1, 0.8)):
        x, mean = image[channel], image[channel].mean()
        np.testing.assert_allclose(
            found[channel], np.clip((x - mean) * factor + mean, x.min(), x.max()), atol=1e-5
        )


@pytest.mark.parametrize("inverted", [False, True])
def test_gamma_keeps_mean_and_deviation_and_the_order_of_values(backend, inverted):
    image, label = volume()
    values = (0.7, 1.5)
    drawn = Parameters(gamma_inverted=values) if inverted else Parameters(gamma=values)
    found, _ = apply(backend, drawn, image, label)
    np.testing.assert_allclose(found.mean(axis=(1, 2, 3)), image.mean(axis=(1, 2, 3)), atol=1e-5)
    np.testing.assert_allclose(found.std(axis=(1, 2, 3)), image.std(axis=(1, 2, 3)), rtol=1e-4)
    order = np.argsort(image[0].ravel())
    assert (np.diff(found[0].ravel()[order]) > -1e-6).all()
    sign = -1 if inverted else 1
    x = sign * image[0]
    raised = ((x - x.min()) / np.ptp(x)) ** 0.7
    assert np.corrcoef(sign * found[0].ravel(), raised.ravel())[0, 1] > 0.999999


def test_constant_channels_stay_finite(backend):
    image, label = np.full((2, 8, 8, 8), 3.0, np.float32), np.zeros((8, 8, 8), np.int16)
    drawn = Parameters(contrast=(1.2, 0.8), gamma=(0.7, 1.4), gamma_inverted=(1.3, 0.8))
    np.testing.assert_allclose(apply(backend, drawn, image, label)[0], 3.0, atol=1e-4)


def test_low_resolution_halves_and_doubles(backend):
    ramp = np.broadcast_to(np.arange(8, dtype=np.float32), (2, 8, 8, 8)).copy()
    label = np.zeros((8, 8, 8), np.int16)
    found, _ = apply(backend, Parameters(low_resolution=(0.5, None)), ramp, label)
    np.testing.assert_array_equal(found[1], ramp[1])
    kept = np.array([1, 3, 5, 7], np.float32)
    doubled = ndimage.zoom(kept, 2, order=1, mode="nearest", grid_mode=True)
    np.testing.assert_allclose(found[0], np.broadcast_to(doubled, (8, 8, 8)), atol=1e-5)


def test_low_resolution_in_plane_keeps_z(backend):
    steps = np.broadcast_to(np.arange(6, dtype=np.float32)[:, None, None], (2, 6, 20, 20)).copy()
    label = np.zeros((6, 20, 20), np.int16)
    drawn = Parameters(low_resolution=(0.5, 0.6), in_plane=True)
    np.testing.assert_allclose(apply(backend, drawn, steps, label)[0], steps, atol=1e-5)


LINE = [0, 1, 2, 5]  # mean 2
SQUARE = [[1, 2, 3], [4, 5, 6], [7, 8, 9]]
TURNED = [[7, 4, 1], [8, 5, 2], [9, 6, 3]]  # to the right of the middle, 90 degrees show what is above it
BELL = np.exp([-8.0, -2.0, 0.0, -2.0, -8.0])  # exp(-x^2 / (2 * 0.5^2)); it ends after four deviations
STEEP, LESS = np.array([-5, -2, 7]) / 6, np.sqrt(12 / 13)
ALONG_X = Parameters(scale=2.0, in_plane=True)
# For each of Parameters' fields: what is drawn, the image [c, z, y, x] or the last of its axes, the same afterwards.
TRANSFORMS = {
    "rotation": [
        (Parameters(rotation=(np.pi / 2, 0.0, 0.0)), SQUARE, TURNED),
        (Parameters(rotation=(np.pi, 0.0, 0.0)), SQUARE, np.flip(SQUARE)),
    ],
    "scale": [
        (Parameters(scale=2.0), [9, 1, 3, 7, 9], [0, 9, 3, 9, 0]),  # places -2, 0, 2, 4, 6
        (Parameters(scale=0.5), [9, 1, 3, 7, 9], [1, 2, 3, 5, 7]),  # places 1, 1.5, 2, 2.5, 3
    ],
    "in_plane": [  # z stays: without it, the outer ones of these three slices would be 0
        (ALONG_X, [[[1, 2, 3]], [[4, 5, 6]], [[7, 8, 9]]], [[[0, 2, 0]], [[0, 5, 0]], [[0, 8, 0]]]),
    ],
    "noise_sigma": [(Parameters(noise_sigma=0.5), LINE, LINE + 0.5 * noise_field(0, (1, 1, 1, 4)))],
    "noise_seed": [
        (Parameters(noise_sigma=2.0, noise_seed=3), LINE, LINE + 2 * noise_field(3, (1, 1, 1, 4))),
        (Parameters(noise_seed=3), LINE, LINE),
    ],
    "blur": [(Parameters(blur=((0.0, 0.0, 0.5),)), [0, 0, 1, 0, 0], BELL / BELL.sum())],
    "brightness": [(Parameters(brightness=(1.5,)), LINE, [0, 1.5, 3, 7.5])],
    "contrast": [
        (Parameters(contrast=(0.5,)), LINE, [1, 1.5, 2, 3.5]),
        (Parameters(contrast=(2.0,)), LINE, [0, 0, 2, 5]),  # -2 and 8 are beyond the range
    ],
    "low_resolution": [  # the second and the last voxel stay; between them lie a quarter and three quarters
        (Parameters(low_resolution=(0.5,), in_plane=True), [[4, 4, 0, 8]] * 2, [[4, 5, 7, 8]] * 2),
    ],
    # 0, 1, 2 become 0, 1/2, 2 with mean 5/6 and variance 13/18; mean 1 and variance 2/3 are given back
    "gamma": [(Parameters(gamma=(2.0,)), [0, 1, 2], 1 + STEEP * LESS)],
    "gamma_inverted": [(Parameters(gamma_inverted=(2.0,)), [0, 1, 2], 1 - STEEP[::-1] * LESS)],
    "mirror": [
        (Parameters(mirror=(2,)), SQUARE, [[3, 2, 1], [6, 5, 4], [9, 8, 7]]),
        (Parameters(mirror=(1,)), SQUARE, [[7, 8, 9], [4, 5, 6], [1, 2, 3]]),
        (Parameters(mirror=(0, 2)), [[[1, 2]], [[3, 4]]], [[[4, 3]], [[2, 1]]]),
    ],
}


def with_all_axes(array):
    return np.array(array, np.float32)[(np.newaxis,) * (4 - np.ndim(array))]


@pytest.mark.parametrize("name", [field.name for field in fields(Parameters)])
def test_every_transform_by_hand(name, backend):
    """The label is the image where voxels move to voxels, and stays where only their values change."""
    for drawn, before, after in sweep.hand_worked(
        TRANSFORMS, name, "TRANSFORMS of tests/sampling/test_backends.py"
    ):
        image, expected = with_all_axes(before), with_all_axes(after)
        label = image[0].astype(np.int16)
        found, target = apply(backend, drawn, image.copy(), label, inside_nonzero=(False,))
        np.testing.assert_allclose(found, expected, atol=1e-4, err_msg=f"{drawn}")
        if drawn.changes_intensities:
            np.testing.assert_array_equal(target, label)
        elif drawn.scale != 0.5:
            np.testing.assert_array_equal(target, expected[0])


def test_no_transform_is_left_over():
    sweep.refuse_leftovers(TRANSFORMS, [field.name for field in fields(Parameters)], "TRANSFORMS")


ALONE = {
    "rotation": Parameters(rotation=(0.4, -0.3, 0.2)),
    "scale down": Parameters(scale=1.35),
    "scale up": Parameters(scale=0.72),
    "in plane": Parameters(rotation=(2.0,), scale=1.2, in_plane=True),
    "noise": Parameters(noise_sigma=0.05, noise_seed=1),
    "blur": Parameters(blur=((0.5, 0.7, 1.0), None)),
    "brightness": Parameters(brightness=(0.8, 1.2)),
    "contrast": Parameters(contrast=(0.8, 1.2)),
    "low resolution": Parameters(low_resolution=(0.5, 0.83)),
    "low resolution in plane": Parameters(low_resolution=(0.77, None), in_plane=True),
    "gamma inverted": Parameters(gamma_inverted=(0.75, 1.4)),
    "gamma": Parameters(gamma=(0.75, 1.4)),
    "mirror": Parameters(mirror=(1, 2)),
}


def assert_agree(first, second):
    np.testing.assert_allclose(first[0], second[0], atol=1e-3)
    assert (first[1] != second[1]).mean() <= 1e-3


@pytest.mark.parametrize("name", ALONE)
def test_backends_agree_on_each_transform(name):
    image, label = volume()
    results = [apply(b, ALONE[name], image, label, (16, 18, 20), (2, 2, 2), (False, True)) for b in BACKENDS]
    assert_agree(*results)


@pytest.mark.parametrize("size", [(16, 18, 20), (5, 18, 20), (18, 20)])
def test_backends_agree_on_all_transforms_together(size):
    certain = {name: 1.0 for name in parameters.NnunetAugmentation.model_fields if name.endswith("_p")}
    augmentation = parameters.build(plan.Augmentation(arguments=certain), size)
    image, label = volume()
    for i in range(4):
        drawn = augmentation.draw(generator(Purpose.AUGMENTATION, (i,)), 2)
        start = (3, 2, 2)
        results = [apply(b, drawn, image, label, size, start, (False, True)) for b in BACKENDS]
        assert results[0][0].shape == (2, *size) and results[0][0].dtype == np.float32
        assert_agree(*results)


def test_torch_results_do_not_depend_on_the_number_of_parts():
    image, label = volume()
    threads = torch.get_num_threads()
    try:
        results = []
        for n in (1, 2):
            torch.set_num_threads(n)
            results.append(apply("torch", ALONE["rotation"], image, label))
    finally:
        torch.set_num_threads(threads)
    np.testing.assert_array_equal(results[0][0], results[1][0])


def test_cuda_agrees_with_the_cpu(cuda):
    image, label = volume()
    for name, drawn in ALONE.items():
        if name == "noise":
            continue
        sample = Sample(0, 0, Place("a", False, None, (2, 2, 2), (16, 18, 20)), drawn)
        results = []
        for device in ("cpu", cuda):
            patch = patches.cut_patch(sample, image, label, dims=3)
            found, target = torch_backend.augment(patch, (False, True), device)
            results.append((found.cpu().numpy(), target.cpu().numpy()))
        assert_agree(*results)
