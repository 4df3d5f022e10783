"""Networks that see more than they predict: tiles against one pass over the padded volume; one tile in the centre."""

import numpy as np
import pytest
import torch
from torch import nn

from autoseg.inference.tiling import OUTSIDE_LOGIT, make_tiling, predict_logits
from autoseg.plan import Inference
from autoseg.plugins.parts import NetworkInput


class Valid(nn.Module):
    """Two valid convolutions: it predicts two voxels less on each side than it sees, three along x."""

    def __init__(self, dims=3, channels=2):
        super().__init__()
        torch.manual_seed(0)
        kind, kernels = (nn.Conv3d, [(3, 3, 3), (3, 3, 5)]) if dims == 3 else (nn.Conv2d, [(3, 3), (3, 5)])
        self.layers = nn.Sequential(kind(channels, 4, kernels[0]), nn.Tanh(), kind(4, 3, kernels[1]))

    def forward(self, x):
        return self.layers(x)


def image(channels=2, shape=(9, 14, 11)):
    return torch.randn(channels, *shape, generator=torch.Generator().manual_seed(1))


def in_one_pass(network, x):
    """The oracle: zeros around the volume, every voxel predicted at once."""
    with torch.no_grad():
        padded = nn.functional.pad(x, (3, 3, 2, 2, 2, 2))
        return network(padded[None])[0]


@pytest.mark.parametrize("gaussian", [True, False])
@pytest.mark.parametrize(
    ("patch", "step"), [([4, 5, 6], 0.5), ([4, 5, 6], 1.0), ([9, 14, 11], 0.5), ([12, 4, 20], 0.5), ([], 0.5)]
)
def test_tiles_with_context_equal_one_pass_over_the_padded_volume(patch, step, gaussian):
    network, x = Valid(), image()
    settings = Inference(patch_size=patch, context=[2, 2, 3], step=step, gaussian=gaussian, mirror_axes=())
    found = predict_logits(network, x, settings, 3, "cpu", mirror=False)
    torch.testing.assert_close(found, in_one_pass(network, x), atol=1e-5, rtol=1e-5)


def test_planes_with_context_equal_one_pass():
    network, x = Valid(dims=2), image()
    settings = Inference(patch_size=[5, 6], context=[2, 3], mirror_axes=())
    found = predict_logits(network, x, settings, 3, "cpu", mirror=False)
    with torch.no_grad():
        padded = nn.functional.pad(x, (3, 3, 2, 2))
        expected = torch.stack([network(plane[None])[0] for plane in padded.unbind(1)], 1)
    torch.testing.assert_close(found, expected, atol=1e-5, rtol=1e-5)


def test_a_network_sees_only_its_channels_in_its_order():
    network, x = Valid(), image(channels=4)
    settings = Inference(patch_size=[4, 5, 6], context=[2, 2, 3], mirror_axes=())
    takes = NetworkInput(channels=(3, 1))
    found = predict_logits(network, x, settings, 3, "cpu", mirror=False, takes=takes)
    torch.testing.assert_close(found, in_one_pass(network, x[[3, 1]]), atol=1e-5, rtol=1e-5)


class Same(nn.Module):
    """Logits that are the image."""

    def forward(self, x):
        return x


def test_one_tile_in_the_centre_and_background_around_it():
    """The crop of ATLAS: 189 x 233 x 197 voxels in z, y, x, of which 168 x 172 x 144 from (10, 30, 26) on."""
    tiling = make_tiling((189, 233, 197), Inference(patch_size=[168, 172, 144], tiles="centre"))
    assert tiling.starts == ([10], [30], [26])
    x = image(channels=2, shape=(7, 9, 4))
    settings = Inference(patch_size=[4, 4, 6], tiles="centre", mirror_axes=())
    found = predict_logits(Same(), x, settings, 2, "cpu", mirror=False)
    inside = (slice(None), slice(1, 5), slice(2, 6), slice(0, 4))  # (7-4)//2 = 1, (9-4)//2 = 2, x is padded
    assert torch.equal(found[inside], x[inside])
    outside = torch.ones(x.shape[1:], dtype=torch.bool)
    outside[inside[1:]] = False
    assert (found[0, outside] == OUTSIDE_LOGIT).all() and (found[1, outside] == -OUTSIDE_LOGIT).all()
    regions = predict_logits(Same(), x, settings, 2, "cpu", mirror=False, regions=True)
    assert (regions[:, outside] == -OUTSIDE_LOGIT).all()


def test_a_whole_axis_is_one_tile_padded_to_the_divisor():
    tiling = make_tiling((31, 100, 101), Inference(patch_size=[7, "whole", "whole"]), divisor=(1, 8, 8))
    assert tiling.patch == (7, 104, 104) and tiling.starts[1:] == ([0], [0]) and len(tiling.starts[0]) > 4
    assert tiling.before == (0, 2, 1)
    x = image(channels=2, shape=(5, 9, 4))
    found = predict_logits(
        Same(), x, Inference(patch_size=[2, "whole", 4]), 2, "cpu", mirror=True, takes=NetworkInput((1, 4, 1))
    )
    np.testing.assert_allclose(found.numpy(), x.numpy(), atol=1e-6)
