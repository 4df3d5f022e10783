"""Channels in another order than in the training: by the spread of their intensities, made up and of shared scans."""

import itertools
import json
from types import SimpleNamespace

import numpy as np
import pytest
import SimpleITK as sitk

from autoseg.dataset.channel_order import SeenChannels
from autoseg.fingerprint import Intensities

NAMES = ("T1", "FLAIR", "Tmax")


def scan(seed: int) -> np.ndarray:
    """Three channels: bright with few dark voxels, middling, and a map that is nearly 0 in most voxels."""
    random = np.random.default_rng(seed)
    shape, scale = (4, 30, 30), random.uniform(0.8, 1.25)
    t1 = 1000 * scale * random.beta(6, 2, shape)
    flair = 400 * scale * random.beta(4, 4, shape)
    return np.stack([t1, flair, 12 * random.beta(0.5, 6, shape)]).astype(np.float32)


def record(image: np.ndarray):
    """What a fingerprint says of a case, measured anew."""
    brain = []
    for channel in image.astype(np.float64):
        low, median, high = np.percentile(channel, (0.5, 50, 99.5))
        brain.append(
            Intensities(
                n_voxels=channel.size,
                mean=channel.mean(),
                std=channel.std(),
                median=median,
                min=channel.min(),
                max=channel.max(),
                percentile_00_5=low,
                percentile_99_5=high,
            )
        )
    return SimpleNamespace(brain=brain)


SEEN = SeenChannels.of_cases([record(scan(seed)) for seed in range(8)], NAMES)


@pytest.mark.parametrize("seed", range(100, 120))
def test_each_swap_is_named_and_the_right_order_is_not(seed):
    image = scan(seed)
    assert SEEN.swapped(image) == ""
    for a, b in itertools.combinations(range(3), 2):
        order = [0, 1, 2]
        order[a], order[b] = b, a
        assert SEEN.swapped(image[order]).startswith(f"{NAMES[a]} and {NAMES[b]} ")


def test_the_distances_are_standard_deviations():
    """Of five quantities one differs, by 50 spreads of 0.02: 50 / sqrt(5) SD each, and none in the right order."""
    names, mean = ("a", "b"), np.zeros((2, 5))
    mean[1, 4] = 1.0
    seen = SeenChannels(names, mean, np.full((2, 5), 0.02))
    far = 1.0 / 0.02 / 5**0.5
    image = np.zeros((2, 1, 1, 3), np.float32)
    rows = [tuple(mean[1]), tuple(mean[0])]
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr("autoseg.dataset.channel_order._of_image", lambda _: rows)
        assert (
            seen.swapped(image)
            == f"a and b {far:.1f} SD from the training cases, and 0.0 in each other's places"
        )
        rows.reverse()
        assert seen.swapped(image) == ""


def test_nothing_is_said_of_few_cases_of_one_channel_and_of_missing_ones():
    few = SeenChannels.of_cases([record(scan(seed)) for seed in range(4)], NAMES)
    alone = SeenChannels.of_cases(
        [SimpleNamespace(brain=record(scan(s)).brain[:1]) for s in range(8)], ("T1",)
    )
    image = scan(50)[[1, 0, 2]]
    assert few.swapped(image) == alone.swapped(image[:1]) == ""
    image[0] = 0
    assert SEEN.swapped(image) == "" and SEEN.swapped(np.zeros_like(image)) == ""


def test_scans_in_another_unit_are_no_swap():
    assert SEEN.swapped(10 * scan(60)) == "" and SEEN.swapped(scan(61) / 255) == ""


def test_perfusion_scans_give_no_false_alarm(shared):
    """Each of 12 shared cases is held against the 11 others: in order nothing is said, and swapped channels are named;
    9 of 180 swaps are of channels that look alike."""
    folder, n_named = shared / "data/Dataset013_ISLESPerfusion", 0
    if not folder.is_dir():
        pytest.skip(f"{folder.name} not found")
    names = list(json.loads((folder / "dataset.json").read_text())["channel_names"].values())
    images = []
    for label in sorted((folder / "labelsTr").iterdir()):
        case = label.name.removesuffix(".nii.gz")
        paths = [str(folder / "imagesTr" / f"{case}_{i:04}.nii.gz") for i in range(len(names))]
        images.append(np.stack([sitk.GetArrayFromImage(sitk.ReadImage(p)) for p in paths]).astype(np.float32))
    records = [record(image[:, image.any(axis=0)]) for image in images]
    for k, image in enumerate(images):
        seen = SeenChannels.of_cases(records[:k] + records[k + 1 :], names)
        assert seen.swapped(image) == ""
        for a, b in itertools.combinations(range(len(names)), 2):
            order = list(range(len(names)))
            order[a], order[b] = b, a
            said = seen.swapped(image[order])
            assert not said or said.startswith(f"{names[a]} and {names[b]} ")
            n_named += bool(said)
    assert len(images) == 12 and n_named > 160
