"""What is drawn, held against nnU-Net's table of probabilities and ranges."""

import json
import math
from dataclasses import replace

import numpy as np
import pytest
import sweep

from autoseg import plan
from autoseg.errors import AutosegError, FaultsError
from autoseg.sampling import parameters
from autoseg.sampling.keys import Purpose, generator, noise_field
from autoseg.sampling.parameters import Parameters

DRAWS = 4000


def build(patch_size, **changes):
    return parameters.build(plan.Augmentation(**changes), patch_size)


def draw(augmentation, n=DRAWS, channels=2):
    return [augmentation.draw(generator(Purpose.AUGMENTATION, (7, 0, i)), channels) for i in range(n)]


@pytest.fixture(scope="module")
def drawn():
    return draw(build([64, 64, 64]))


def assert_frequency(hits, p):
    hits = list(hits)
    sigma = math.sqrt(p * (1 - p) / len(hits))
    assert abs(np.mean(hits) - p) < 4 * sigma, f"{np.mean(hits):.4f} instead of {p}"


@pytest.mark.parametrize(
    ("is_on", "p"),
    [
        (lambda d: d.rotation != (), 0.2),
        (lambda d: d.scale is not None, 0.2),
        (lambda d: d.is_spatial, 1 - 0.8 * 0.8),
        (lambda d: d.noise_sigma is not None, 0.1),
        (lambda d: d.blur != (), 0.2),
        (lambda d: d.brightness != (), 0.15),
        (lambda d: d.contrast != (), 0.15),
        (lambda d: d.low_resolution != (), 0.25),
        (lambda d: d.gamma_inverted != (), 0.1),
        (lambda d: d.gamma != (), 0.3),
        (lambda d: 0 in d.mirror, 0.5),
        (lambda d: 1 in d.mirror, 0.5),
        (lambda d: 2 in d.mirror, 0.5),
        (lambda d: d.mirror == (0, 1, 2), 0.125),
    ],
)
def test_probabilities_are_nnunets(drawn, is_on, p):
    assert_frequency([is_on(d) for d in drawn], p)


@pytest.mark.parametrize("name", ["blur", "low_resolution"])
def test_half_of_the_channels_are_blurred_or_sampled_down(drawn, name):
    channels = [value is not None for d in drawn for value in getattr(d, name)]
    assert_frequency(channels, 0.5)


@pytest.mark.parametrize(
    ("name", "low", "high"),
    [
        ("brightness", 0.75, 1.25),
        ("contrast", 0.75, 1.25),
        ("gamma", 0.7, 1.5),
        ("gamma_inverted", 0.7, 1.5),
    ],
)
def test_factors_fill_their_range_and_are_as_often_below_as_above_one(drawn, name, low, high):
    values = np.array([value for d in drawn for value in getattr(d, name)])
    assert low <= values.min() < low + 0.05 and high - 0.05 < values.max() <= high
    assert_frequency(values < 1, 0.5)


def test_every_channel_has_its_own_factor(drawn):
    assert all(len(set(d.gamma)) == 2 for d in drawn if d.gamma)


@pytest.mark.parametrize(
    ("values", "low", "high"),
    [
        (lambda d: [d.scale] if d.scale else [], 0.7, 1.4),
        (lambda d: [d.noise_sigma] if d.noise_sigma is not None else [], 0, 0.1),
        (lambda d: [s for channel in d.blur if channel for s in channel], 0.5, 1),
        (lambda d: [s for s in d.low_resolution if s is not None], 0.5, 1),
        (lambda d: d.rotation, -math.pi / 6, math.pi / 6),
    ],
)
def test_ranges_are_uniform(drawn, values, low, high):
    found = np.array([v for d in drawn for v in values(d)])
    assert found.min() >= low and found.max() <= high
    sigma = (high - low) / math.sqrt(12 * len(found))
    assert abs(found.mean() - (low + high) / 2) < 4 * sigma


@pytest.mark.parametrize(
    ("patch_size", "angles", "degrees", "in_plane"),
    [
        ([64, 64, 64], 3, 30, False),
        ([22, 64, 64], 3, 30, False),
        ([16, 64, 64], 1, 180, True),
        ([64, 64], 1, 180, False),
        ([64, 128], 1, 15, False),
    ],
)
def test_rotation_follows_the_shape_of_the_patch(patch_size, angles, degrees, in_plane):
    turned = [d for d in draw(build(patch_size), 2000) if d.rotation]
    assert {len(d.rotation) for d in turned} == {angles}
    assert {d.in_plane for d in turned} == {in_plane}
    widest = math.degrees(max(abs(a) for d in turned for a in d.rotation))
    assert 0.95 * degrees < widest <= degrees


def test_mirroring_keeps_to_the_axes_of_the_plan():
    assert {d.mirror for d in draw(build([8, 8, 8], mirror_axes=(2,)), 100)} == {(), (2,)}
    assert {d.mirror for d in draw(build([8, 8, 8], mirror_axes=()), 50)} == {()}


def test_a_2d_patch_takes_the_working_axes_y_and_x():
    assert {a for d in draw(build([8, 8]), 100) for a in d.mirror} == {0, 1}
    assert {a for d in draw(build([8, 8], mirror_axes=(2,)), 100) for a in d.mirror} == {1}


def test_arguments_change_probabilities_and_ranges():
    changed = build([8, 8, 8], arguments={"rotation_p": 1, "rotation_degrees": [-5, 5], "gamma_p": 0})
    found = draw(changed, 200)
    assert all(d.rotation and max(map(abs, d.rotation)) <= math.radians(5) and not d.gamma for d in found)


def test_an_unknown_argument_is_refused_with_the_nearest_name():
    with pytest.raises(AutosegError, match=r"no setting 'rotaton_p'(.|\n)*rotaton_p = 0.5(.|\n)*rotation_p"):
        build([8, 8, 8], arguments={"rotaton_p": 0.5})


@pytest.mark.parametrize(
    ("name", "value", "message"),
    [
        ("gamma_p", 1.5, "less than or equal to 1"),
        ("gamma_p", "often", "valid number"),
        ("scaling_range", [1.4, 0.7], "from the smaller to the larger"),
        ("scaling_range", [0, 1], "above 0"),
        ("noise_sigma", [-1, 1], "must not be negative"),
        ("low_resolution_scale", [0.5, 2], "must not be above 1"),
    ],
)
def test_an_impossible_value_is_refused(name, value, message):
    with pytest.raises(FaultsError, match=message):
        build([8, 8, 8], arguments={name: value})


def test_an_unknown_augmentation_is_refused_with_the_nearest_name():
    with pytest.raises(AutosegError, match=r"no augmentation 'nnuet'(.|\n)*nnunet"):
        build([8, 8, 8], name="nnuet")


# For each augmentation: arguments that leave nothing to chance, what is drawn for a patch of 3 sides, two channels.
CASES = {
    "none": ({}, Parameters()),
    "nnunet": (
        {
            **{f"{name}_p": 1 for name in ("rotation", "scaling", "noise", "blur", "blur_channel", "mirror")},
            **{f"{name}_p": 1 for name in ("brightness", "contrast", "low_resolution")},
            **{f"{name}_p": 1 for name in ("low_resolution_channel", "gamma", "gamma_inverted")},
            "rotation_degrees": [45, 45],
            "scaling_range": [1.25, 1.25],
            "noise_sigma": [0.5, 0.5],
            "blur_sigma": [0.75, 0.75],
            "brightness_range": [1.5, 1.5],
            "contrast_range": [2, 2],
            "low_resolution_scale": [0.25, 0.25],
            "gamma_range": [3, 3],
            "in_plane": False,
        },
        Parameters(
            rotation=(math.pi / 4,) * 3,
            scale=1.25,
            noise_sigma=0.5,
            blur=((0.75,) * 3,) * 2,
            brightness=(1.5, 1.5),
            contrast=(2, 2),
            low_resolution=(0.25, 0.25),
            gamma_inverted=(3, 3),
            gamma=(3, 3),
            mirror=(0, 1, 2),
        ),
    ),
}
WHERE = "CASES of tests/sampling/test_parameters.py"


@pytest.mark.parametrize("name", sorted(parameters.AUGMENTATIONS))
def test_every_augmentation_by_hand(name):
    arguments, expected = sweep.hand_worked(CASES, name, WHERE)
    for drawn in draw(build([8, 8, 8], name=name, arguments=arguments), 5):
        assert replace(drawn, noise_seed=0) == expected


def test_no_case_is_left_over():
    sweep.refuse_leftovers(CASES, sorted(parameters.AUGMENTATIONS), WHERE)


def test_none_changes_nothing():
    assert draw(build([8, 8, 8], name="none"), 20) == [Parameters()] * 20


def test_parameters_survive_json(drawn):
    for d in drawn[:200]:
        assert Parameters.from_dict(json.loads(json.dumps(d.to_dict()))) == d


def test_streams_differ_by_purpose_and_by_every_part_of_the_key():
    keys = [(1, 0, 0), (0, 1, 0), (0, 0, 1), (0, 0, 0)]
    first = {(p, k): generator(p, k).integers(2**60) for p in Purpose for k in keys}
    assert len(set(first.values())) == len(first)
    assert generator(Purpose.CROP, (3, 4, 5)).integers(2**60) == generator(Purpose.CROP, (3, 4, 5)).integers(
        2**60
    )


def test_the_noise_field_is_standard_normal():
    field = noise_field(5, (40, 40, 40))
    assert field.dtype == np.float32
    assert abs(field.mean()) < 4 / 40**1.5 and abs(field.std() - 1) < 0.02
