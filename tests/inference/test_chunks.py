"""A volume in chunks: with a halo as wide as the network sees they equal one pass, also at the ends of the volume."""

import dataclasses
import runpy
from pathlib import Path

import numpy as np
import pytest
import torch
from pydantic import ValidationError
from torch import nn

from autoseg import networks
from autoseg.errors import AutosegError
from autoseg.inference.tiling import extent, make_tiling, predict_logits
from autoseg.plan import Inference
from autoseg.plugins.parts import NetworkInput


class Padded(nn.Module):
    """Two 3x3x3 convolutions that pad themselves, with biases: zeros around the image would be seen, and 2 voxels."""

    def __init__(self, dims=3):
        super().__init__()
        torch.manual_seed(0)
        kind = {2: nn.Conv2d, 3: nn.Conv3d}[dims]
        self.layers = nn.Sequential(kind(2, 4, 3, padding=1), nn.Tanh(), kind(4, 3, 3, padding=1))
        self.seen = []

    def forward(self, x):
        self.seen.append(tuple(x.shape[2:]))
        return self.layers(x)


def image(shape=(11, 9, 8)):
    return torch.randn(2, *shape, generator=torch.Generator().manual_seed(1))


def predicted(network, x, **words):
    return predict_logits(network, x, Inference(mirror_axes=(), **words), 3, "cpu", mirror=False)


@pytest.mark.parametrize("patch", [[1, "whole", "whole"], [4, "whole", "whole"], [10, "whole", "whole"]])
@pytest.mark.parametrize("batch_size", [1, 3])
def test_chunks_with_the_whole_halo_equal_one_pass(patch, batch_size):
    network, x = Padded(), image()
    expected = predicted(network, x, patch_size=[])
    found = predicted(network, x, patch_size=patch, tiles="chunks", halo=[2, 0, 0], batch_size=batch_size)
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-6)
    short = predicted(network, x, patch_size=patch, tiles="chunks", halo=[1, 0, 0])
    assert (short - expected).abs().max() > 1e-2


def test_every_axis_may_be_cut():
    network, x = Padded(), image()
    found = predicted(network, x, patch_size=[4, 3, 5], tiles="chunks", halo=[2, 2, 2], batch_size=2)
    torch.testing.assert_close(found, predicted(network, x, patch_size=[]), rtol=0, atol=1e-6)


def test_planes_may_be_cut():
    network, x = Padded(dims=2), image()
    whole, cut = Inference(patch_size=[], mirror_axes=()), {"patch_size": [4, 5], "halo": [2, 2]}
    takes = NetworkInput(divisor=(1, 1))
    expected, found = (
        predict_logits(network, x, words, 3, "cpu", mirror=False, takes=takes)
        for words in (whole, Inference(mirror_axes=(), tiles="chunks", **cut))
    )
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-6)


def test_mirrored_chunks_are_mirrored_with_their_halo():
    """The halo of the first chunk lies behind it alone; turned around, before it."""
    network, x = Padded(), image()
    words = [{"patch_size": []}, {"patch_size": [4, "whole", "whole"], "tiles": "chunks", "halo": [2, 0, 0]}]
    expected, found = (predict_logits(network, x, Inference(**w), 3, "cpu", mirror=True) for w in words)
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-6)


def test_without_a_halo_chunks_lie_side_by_side_and_the_last_is_shorter():
    network, x = Padded(), image()
    found = predicted(network, x, patch_size=[4, "whole", "whole"], tiles="chunks")
    assert network.seen == [(4, 9, 8), (4, 9, 8), (3, 9, 8)]
    parts = [predicted(network, part, patch_size=[]) for part in x.split(4, dim=1)]
    assert torch.equal(found, torch.cat(parts, 1))


def test_a_volume_that_is_thinner_than_a_chunk_is_seen_as_it_is():
    network, x = Padded(), image((3, 9, 8))
    found = predicted(network, x, patch_size=[31, "whole", "whole"], tiles="chunks", halo=[20, 0, 0])
    assert network.seen == [(3, 9, 8)]
    assert torch.equal(found, predicted(network, x, patch_size=[]))


def test_the_chunks_of_the_paper():
    """Brain SegNet on BRATS: 155 planes in five parts of 31; with a halo of 20 they see 51, 71, 71, 71, 51."""
    plain = make_tiling((155, 240, 240), Inference(patch_size=[31, "whole", "whole"], tiles="chunks"))
    assert [tile[0].start for tile in plain] == [0, 31, 62, 93, 124] and plain.seen_voxels == 155 * 240**2
    wide = dataclasses.replace(plain, halo=(20, 0, 0))
    assert [extent(wide.seen(tile))[0] for tile in wide] == [51, 71, 71, 71, 51]
    other = make_tiling((64, 8, 8), Inference(patch_size=[31, "whole", "whole"], tiles="chunks"))
    assert [extent(tile)[0] for tile in other] == [31, 31, 2]


class Strided(nn.Module):
    """Halves the planes and doubles them again; what it sees depends on where a step begins."""

    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.down = nn.Conv3d(2, 3, 3, stride=(1, 2, 2), padding=1)

    def forward(self, x):
        return nn.functional.interpolate(self.down(x), scale_factor=(1.0, 2.0, 2.0))


def test_chunks_keep_the_steps_of_the_network():
    network, x, takes = Strided(), image((5, 9, 8)), NetworkInput(divisor=(1, 2, 2))

    def of(**words):
        settings = Inference(mirror_axes=(), **words)
        return predict_logits(network, x, settings, 3, "cpu", mirror=False, takes=takes)

    found = of(patch_size=["whole", 4, 2], tiles="chunks", halo=[0, 2, 2])
    torch.testing.assert_close(found, of(patch_size=[]), rtol=0, atol=1e-6)
    for words in ({"patch_size": ["whole", 3, 2]}, {"patch_size": ["whole", 4, 2], "halo": [0, 1, 2]}):
        with pytest.raises(AutosegError, match=r"(?s)do not fit the steps of the network.*\[1, 2, 2\]"):
            of(tiles="chunks", **words)


def test_what_cannot_be_is_refused():
    with pytest.raises(ValidationError, match="a halo is that of tiles 'chunks'"):
        Inference(patch_size=[4, 4, 4], halo=[1, 1, 1])
    with pytest.raises(ValidationError, match="one number for each axis of the patch"):
        Inference(patch_size=[4, 4, 4], tiles="chunks", halo=[1])
    with pytest.raises(ValidationError, match="tiles 'chunks' needs a patch_size"):
        Inference(patch_size=[], tiles="chunks")


@pytest.fixture(scope="module")
def brainsegnet():
    """Brain SegNet, narrow: what it sees does not depend on the width. Its statistics are those of some data."""
    torch.manual_seed(0)
    network = networks.build("brainsegnet", in_channels=2, out_channels=3, width=6, refine_width=12)
    with torch.no_grad():
        network.train()(2 * torch.randn(4, 2, 6, 32, 32) + 1)
    return network.eval()


def test_brain_segnet_in_chunks_equals_one_pass(brainsegnet):
    """The verified seam of 62 planes of 16 x 16 in two parts: none with a halo of 20, hardly any with 10; without one
    the planes up to 20 from it differ, and those that differ most lie at it."""
    x = image((62, 16, 16))
    cut = {"patch_size": [31, "whole", "whole"], "tiles": "chunks"}
    expected = predicted(brainsegnet, x, patch_size=[])

    def differences(**words):
        return (predicted(brainsegnet, x, **cut, **words) - expected).abs().amax((0, 2, 3))

    exact, near, plain = (differences(halo=[n, 0, 0]) for n in (20, 10, 0))
    assert exact.max() < 1e-5 * expected.abs().max() and near.max() < 1e-3 * plain.max()
    seam = plain > 1e-5 * expected.abs().max()
    assert seam[[30, 31]].all() and not seam[:11].any() and not seam[51:].any()
    assert plain.argmax() in (30, 31)
    assert torch.equal(differences(), plain)


@pytest.mark.parametrize(("planes", "size"), [(5, (41, 13, 18)), (16, (16, 8, 24)), (1, (3, 9, 9))])
def test_brain_segnet_in_chunks_at_the_ends_and_on_odd_sizes(brainsegnet, planes, size):
    x = image(size)
    found = predicted(
        brainsegnet, x, patch_size=[planes, "whole", "whole"], tiles="chunks", halo=[20, 0, 0], batch_size=2
    )
    expected = predicted(brainsegnet, x, patch_size=[])
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-5 * float(expected.abs().max()))


def test_flush_tiles_are_of_one_size_and_the_later_counts():
    """11 voxels in tiles of 4: the last starts at 7 and covers voxel 7 anew."""
    tiling = make_tiling((11, 9, 8), Inference(patch_size=[4, 9, 8], tiles="flush"))
    assert tiling.starts == ([0, 4, 7], [0], [0])
    assert make_tiling((3, 9, 8), Inference(patch_size=[4, 9, 8], tiles="flush")).starts[0] == [0]
    network, x = Padded(), image()
    found = predicted(network, x, patch_size=[4, "whole", "whole"], tiles="flush")
    with torch.no_grad():
        parts = [network(x[None, :, start : start + 4])[0] for start in (0, 4, 7)]
    expected = torch.cat([parts[0], parts[1][:, :3], parts[2]], 1)
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-6)


def test_the_difference_of_two_predictions_by_hand():
    """Of four voxels one is of another class, two are lesion in either; the last is background in both."""
    path = Path(__file__).parents[2] / "benchmarks" / "probability_difference.py"
    difference = runpy.run_path(str(path))["difference"]
    one, other = (
        np.array([[1 - p for p in row], row], np.float16)
        for row in ([0.75, 0.25, 0.5, 0], [1, 0.75, 0.25, 0])
    )
    assert difference(one, other) == (1, 2, 0.5, pytest.approx(1 / 3, abs=1e-4))
