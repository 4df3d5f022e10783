"""What is particular to the networks that RatLesNetv2 was compared with."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from autoseg import networks
from autoseg.errors import AutosegError
from autoseg.labels import LabelSet
from autoseg.networks import ratlesnet, unet3d, voxresnet
from autoseg.training import losses


def test_the_first_of_equal_voxels_is_kept_by_pooling():
    """Index order is z, y, x; an odd edge has a smaller window."""
    x = torch.ones(1, 1, 3, 4, 2)
    pooled, indices = ratlesnet._pooled(x)
    assert pooled.shape == (1, 1, 2, 2, 1)
    assert indices.flatten().tolist() == [0, 4, 16, 20]
    unpooled = ratlesnet._unpooled(2 * pooled, indices, x)
    assert unpooled.shape == (1, 2, 3, 4, 2)
    assert unpooled[0, 0].flatten().nonzero().flatten().tolist() == [0, 4, 16, 20]
    assert torch.equal(unpooled[:, 1:], x)


# the authors' output paddings for 18 x 256 x 256
@pytest.mark.parametrize(
    ("stride", "padding"), [(1, (0, 0, 0)), (2, (1, 1, 1)), (4, (1, 3, 3)), (8, (1, 7, 7))]
)
def test_output_padding_is_the_published_one(stride, padding):
    assert voxresnet.output_padding((18, 256, 256), stride) == padding


@pytest.mark.parametrize("kernel", ["published", "double_stride"])
@pytest.mark.parametrize("size", [(1, 9, 16), (2, 8, 15), (11, 45, 38), (18, 17, 10)])
def test_voxresnet_fits_every_size(kernel, size):
    with torch.device("meta"):
        network = networks.build("voxresnet", in_channels=1, out_channels=2, upsampling_kernel=kernel)
        assert network(torch.zeros(1, 1, *size)).shape == (1, 2, *size)


def signal(kernel: str, i: int, size: tuple[int, int, int]) -> torch.Tensor:
    """How many coarse voxels of resolution i each output voxel hears, times some factor."""
    network = networks.build("voxresnet", in_channels=1, out_channels=1, width=1, upsampling_kernel=kernel)
    layer = network.get_submodule(f"transposed{i + 1}")
    nn.init.ones_(layer.weight)
    nn.init.zeros_(layer.bias)
    stride = voxresnet.STRIDES[i]
    coarse = torch.ones(1, layer.in_channels, *(-(-n // stride) for n in size))
    return voxresnet.upsampled(layer, coarse, size)


def test_gaps_of_the_published_upsampling_and_their_mend():
    size = (18, 256, 256)
    for i, share in ((2, 0.43), (3, 0.061)):
        heard = (signal("published", i, size) != 0).float().mean().item()
        assert heard == pytest.approx(share, abs=0.005)
        assert (signal("double_stride", i, size) != 0).all()


@pytest.mark.parametrize("kernel", ["published", "double_stride"])
def test_a_coarse_voxel_lies_where_its_convolution_looked(kernel):
    layer = networks.build(
        "voxresnet", in_channels=1, out_channels=1, width=1, upsampling_kernel=kernel
    ).transposed3
    nn.init.ones_(layer.weight)
    nn.init.zeros_(layer.bias)
    coarse = torch.zeros(1, 2, 4, 4, 4)
    coarse[..., 2] = 1
    where = voxresnet.upsampled(layer, coarse, (13, 13, 13))[0, 0, 4, 4].nonzero().flatten().tolist()
    assert where == ([7, 8, 9] if kernel == "published" else list(range(5, 13)))


def test_auxiliary_outputs_are_of_full_size_and_sum_to_the_first():
    network = networks.build("voxresnet", in_channels=1, out_channels=2, width=4, auxiliary_outputs=True)
    x = torch.rand(1, 1, 5, 18, 12)
    main, *auxiliary = network.train()(x)
    assert len(auxiliary) == 4 and all(a.shape == main.shape for a in auxiliary)
    assert torch.allclose(sum(auxiliary), main, atol=1e-5)
    assert isinstance(network.eval()(x), torch.Tensor)


def test_unknown_upsampling_is_explained():
    with pytest.raises(AutosegError, match=r"upsampling_kernel 'big'[\s\S]*published or double_stride"):
        networks.build("voxresnet", in_channels=1, out_channels=2, upsampling_kernel="big")


def test_upconvolution_looks_at_its_voxel_and_the_next():
    up = unet3d.UpConvolution(1)
    nn.init.ones_(up.conv.weight)
    nn.init.zeros_(up.conv.bias)
    x = torch.arange(27.0).view(1, 1, 3, 3, 3)
    out = up(x, x)
    assert out.shape == x.shape
    assert out[0, 0, 0, 0, 0] == x[0, 0, :2, :2, :2].sum()
    assert out[0, 0, 2, 2, 2] == x[0, 0, 2, 2, 2]


def test_unet_joins_the_skip_first():
    up = unet3d.UpConvolution(1)
    skip = torch.rand(1, 2, 3, 4, 5)
    assert torch.equal(unet3d._joined(up, torch.rand(1, 1, 2, 2, 3), skip)[:, :2], skip)


LABELS = LabelSet.from_labels({"background": 0, "lesion": 1})


def test_loss_with_auxiliary_outputs():
    outputs = [torch.randn(2, 2, 3, 4, 5) for _ in range(3)]
    target = torch.randint(0, 2, (2, 3, 4, 5))
    entropy = losses.build("ratlesnetv2", labels=LABELS, dice_weight=0)
    both = losses.build("ratlesnetv2", labels=LABELS)
    auxiliary = 0.001 * (entropy(outputs[1], target) + entropy(outputs[2], target))
    assert entropy(outputs, target).item() == pytest.approx((entropy(outputs[0], target) + auxiliary).item())
    assert both(outputs, target).item() == pytest.approx((both(outputs[0], target) + auxiliary).item())


def test_loss_leaves_out_ignored_voxels_and_knows_several_classes():
    labels = LabelSet.from_labels({"background": 0, "core": 1, "rim": 2, "ignore": 3})
    loss = losses.build("ratlesnetv2", labels=labels)
    logits, target = torch.randn(1, 3, 4, 5, 6), torch.randint(0, 3, (1, 4, 5, 6))
    ignored = target.clone()
    ignored[:, 2:] = 3
    other = logits.clone()
    other[:, :, 2:] += torch.randn(2, 5, 6)
    part = loss(logits[:, :, :2], target[:, :2])
    assert loss(logits, ignored).item() == pytest.approx(part.item(), rel=1e-5)
    assert loss(other, ignored).item() == pytest.approx(part.item(), rel=1e-5)


def test_loss_is_computed_in_float32_for_half_precision():
    logits, target = torch.randn(1, 2, 4, 4, 4).bfloat16(), torch.randint(0, 2, (1, 4, 4, 4))
    loss = losses.build("ratlesnetv2", labels=LABELS)
    assert torch.equal(loss(logits, target), loss(logits.float(), target))


def test_loss_refuses_what_it_cannot_do():
    regions = LabelSet.from_labels({"background": 0, "whole": [1, 2], "core": [2]}, [1, 2])
    with pytest.raises(AutosegError, match=r"needs classes that exclude each other[\s\S]*dice_ce"):
        losses.build("ratlesnetv2", labels=regions)
    with pytest.raises(AutosegError, match=r"dice_classes 'lesion'[\s\S]*all or foreground"):
        losses.build("ratlesnetv2", labels=LABELS, dice_classes="lesion")
