"""The sliding window against whole-image truths."""

import itertools
import math

import numpy as np
import pytest
import torch
from torch import nn

from autoseg import messages
from autoseg.errors import AutosegError
from autoseg.inference import tiling
from autoseg.inference.tiling import make_tiling, mirrorings, predict_logits, tile_starts, window
from autoseg.plan import Inference
from autoseg.plugins.parts import NetworkInput


def settings(patch, **changes):
    return Inference(patch_size=patch, **changes)


def image(c=2, shape=(9, 20, 17)):
    return torch.randn((c, *shape), generator=torch.Generator().manual_seed(1))


class Constant(nn.Module):
    def forward(self, x):
        return torch.full((x.shape[0], 3, *x.shape[2:]), 1.7)


@pytest.mark.parametrize("size", [5, 8, 9, 16, 17, 31, 100])
@pytest.mark.parametrize("step", [0.25, 0.5, 1.0])
def test_tiles_cover_the_axis_with_steps_no_larger_than_asked(size, step):
    patch = 5
    starts = tile_starts(size, patch, step)
    covered = {i for start in starts for i in range(start, start + patch)}
    assert covered == set(range(size))
    gaps = np.diff(starts)
    assert all(gaps <= math.ceil(patch * step)) and (len(gaps) == 0 or gaps.max() - gaps.min() <= 1)


def test_number_of_tiles_of_the_published_example():
    # peers.md section 5: 189x233x197 with 128^3 takes 18 tiles
    assert len(make_tiling((189, 233, 197), settings([128, 128, 128]))) == 2 * 3 * 3


def test_window_is_a_symmetric_gaussian_with_an_eighth_of_the_patch():
    weights = window(65, gaussian=True)
    assert weights.max() == 1 and np.array_equal(weights, weights[::-1])
    assert weights[32 + 8] / weights[32] == pytest.approx(math.exp(-0.5 * (8 / (65 / 8)) ** 2), rel=1e-6)
    assert weights.min() == np.float32(tiling.WINDOW_FLOOR)
    assert np.array_equal(window(4, gaussian=False), np.ones(4, np.float32))


@pytest.mark.parametrize("patch", [[8, 8, 8], [16, 16, 16], [3, 20, 17], []])
@pytest.mark.parametrize("gaussian", [True, False])
@pytest.mark.parametrize("batch_size", [1, 3])
def test_a_pointwise_network_gives_the_whole_image_result(patch, gaussian, batch_size):
    network, x = nn.Conv3d(2, 3, 1), image()
    result = predict_logits(
        network, x, settings(patch, gaussian=gaussian, batch_size=batch_size), 3, "cpu", mirror=True
    )
    expected = network(x[None])[0]
    assert result.dtype == torch.float32 and result.device.type == "cpu" and not result.is_inference()
    torch.testing.assert_close(result, expected.detach(), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("patch", [[8, 8], [32, 5], [20, 17]])
def test_a_pointwise_2d_network_sees_planes(patch):
    network, x = nn.Conv2d(2, 3, 1), image()
    result = predict_logits(network, x, settings(patch, batch_size=4), 3, "cpu", mirror=True)
    expected = torch.stack([network(x[:, z][None])[0] for z in range(x.shape[1])], 1)
    torch.testing.assert_close(result, expected.detach(), rtol=1e-5, atol=1e-5)


def test_a_constant_network_gives_a_constant():
    result = predict_logits(Constant(), image(), settings([4, 8, 8], step=0.3), 3, "cpu", mirror=True)
    torch.testing.assert_close(result, torch.full((3, 9, 20, 17), 1.7), rtol=1e-5, atol=0)


def test_tiles_are_averaged_by_their_windows():
    """Two tiles whose network returns the tile's own first voxel: every sum can be worked out by hand."""

    class First(nn.Module):
        def forward(self, x):
            return x[:, :, :1, :1, :1].expand(x.shape).clone()

    x = torch.arange(6.0).view(1, 6, 1, 1)
    result = predict_logits(First(), x, settings([4, 1, 1]), 1, "cpu", mirror=False)[0, :, 0, 0]
    w = window(4, gaussian=True)
    expected = [0, 0, 2 * w[0] / (w[0] + w[2]), 2 * w[1] / (w[1] + w[3]), 2, 2]
    np.testing.assert_allclose(result.numpy(), expected, rtol=1e-6)


def test_mirroring_changes_nothing_for_a_symmetric_network():
    network = nn.Conv3d(2, 2, 3, padding=1)
    with torch.no_grad():
        kernel = network.weight
        for axes in mirrorings((0, 1, 2), planes=False)[1:]:
            kernel = kernel + network.weight.flip([a + 2 for a in axes])
        network.weight.copy_(kernel / 8)
    plain, mirrored = (
        predict_logits(network, image(), settings([8, 8, 8]), 2, "cpu", mirror=m) for m in (False, True)
    )
    torch.testing.assert_close(plain, mirrored, rtol=1e-4, atol=1e-5)


def test_mirroring_is_the_mean_over_all_combinations():
    network, x = nn.Conv3d(2, 2, 3, padding=1), image(shape=(4, 4, 4))
    result = predict_logits(network, x, settings([4, 4, 4], mirror_axes=(0, 2)), 2, "cpu", mirror=True)
    every = [[], [1], [3], [1, 3]]
    expected = sum(network(x.flip(dims)[None])[0].flip(dims) for dims in every) / 4
    torch.testing.assert_close(result, expected.detach(), rtol=1e-4, atol=1e-5)


def test_mirrorings_of_a_2d_network_leave_the_plane_axis_alone():
    assert mirrorings((0, 1, 2), planes=True) == [(), (1,), (2,), (1, 2)]
    assert len(mirrorings((0, 1, 2), planes=False)) == 8


def test_whole_image_is_padded_to_what_the_network_divides_by():
    class Halving(nn.Module):
        def forward(self, x):
            assert x.shape[3] % 4 == 0 and x.shape[4] % 4 == 0
            return x

    x = image()
    takes = NetworkInput(divisor=(1, 4, 4))
    assert torch.equal(predict_logits(Halving(), x, settings([]), 2, "cpu", mirror=False, takes=takes), x)

    class Halving2d(nn.Module):
        def forward(self, x):
            assert x.ndim == 4 and x.shape[2] % 4 == 0
            return x

    takes = NetworkInput(divisor=(4, 4))
    assert torch.equal(predict_logits(Halving2d(), x, settings([]), 2, "cpu", mirror=False, takes=takes), x)


def test_every_mode_is_restored_also_after_an_error():
    network = nn.Sequential(nn.Conv3d(2, 2, 1), nn.BatchNorm3d(2))
    network.train()
    network[1].eval()  # frozen by the training
    predict_logits(network, image(), settings([8, 8, 8]), 2, "cpu", mirror=False)
    assert network.training and network[0].training and not network[1].training
    with pytest.raises(AutosegError, match="does not return logits on the grid"):
        predict_logits(network, image(), settings([8, 8, 8]), 5, "cpu", mirror=False)
    assert network.training and not network[1].training


def test_what_a_network_switches_with_its_mode_comes_back():
    class Deep(nn.Module):
        deep = True

        def train(self, mode=True):
            self.deep = mode
            return super().train(mode)

        def forward(self, x):
            return [x, x] if self.deep else x

    network = Deep()
    predict_logits(network, image(), settings([8, 8, 8]), 2, "cpu", mirror=False)
    assert network.deep and network.training


def test_progress_is_told():
    calls = []
    predict_logits(
        Constant(),
        image(),
        settings([8, 8, 8], batch_size=7),
        3,
        "cpu",
        False,
        progress=lambda *a: calls.append(a),
    )
    total = len(make_tiling((9, 20, 17), settings([8, 8, 8])))
    assert calls[-1] == (total, total) and calls[0] == (7, total)


def test_only_a_real_lack_of_memory_moves_the_sums_to_the_cpu(monkeypatch):
    calls = itertools.count()
    real = tiling._TileRun.on

    def short_of_memory(self, x, store):
        if next(calls) == 0:
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 3 GiB")
        return real(self, x, store)

    monkeypatch.setattr(tiling._TileRun, "on", short_of_memory)
    messages.forget_warnings()
    network, x = nn.Conv3d(2, 3, 1), image()
    result = predict_logits(network, x, settings([8, 8, 8]), 3, "cpu", mirror=False)
    torch.testing.assert_close(result, network(x[None])[0].detach(), rtol=1e-5, atol=1e-5)
    assert any("out of memory for a case of 9x20x17 voxels" in w for w in messages.warning_counts())

    def broken(self, x, store):
        raise RuntimeError("something else")

    monkeypatch.setattr(tiling._TileRun, "on", broken)
    with pytest.raises(RuntimeError, match="something else"):
        predict_logits(network, x, settings([8, 8, 8]), 3, "cpu", mirror=False)


def test_memory_that_is_short_even_for_tiles_is_explained(monkeypatch):
    def never(self, x, store):
        raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 3 GiB")

    monkeypatch.setattr(tiling._TileRun, "on", never)
    with pytest.raises(AutosegError, match=r"(?s)one batch of tiles.*2 tiles of 8x8x8.*inference.batch_size"):
        predict_logits(nn.Conv3d(2, 3, 1), image(), settings([8, 8, 8], batch_size=2), 3, "cpu", mirror=False)


@pytest.mark.gpu
def test_cuda_equals_cpu(cuda):
    network, x = nn.Conv3d(2, 3, 3, padding=1), image()
    expected = predict_logits(network, x, settings([8, 8, 8]), 3, "cpu", mirror=True)
    result = predict_logits(network.to(cuda), x, settings([8, 8, 8], batch_size=4), 3, cuda, mirror=True)
    torch.testing.assert_close(result, expected, rtol=3e-2, atol=3e-2)


def test_a_patch_with_more_axes_than_the_network_is_refused():
    with pytest.raises(AutosegError, match="2 numbers, one for each axis of the network"):
        make_tiling((8, 8, 8), Inference(patch_size=[4, 4, 4]), (1, 1))
