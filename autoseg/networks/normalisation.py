"""Another normalisation in a network that was published with batch normalisation."""

from __future__ import annotations

from typing import TypeVar

import torch
from torch import nn

from autoseg.errors import AutosegError, nearest_names

KINDS = ("batch", "instance")
Network = TypeVar("Network", bound=nn.Module)


class InstanceNorm3d(nn.InstanceNorm3d):
    """PyTorch's, also for feature maps of a single voxel: these have no deviation, so only the shift is left."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """``[b, c, z, y, x]``, as it came."""
        if x.shape[2:].numel() == 1:
            return self.bias.view(1, -1, 1, 1, 1).expand_as(x).to(x.dtype, copy=True)
        return super().forward(x)


def with_normalisation(network: Network, kind: str) -> Network:
    """The network itself, with each of its batch normalisations replaced as ``kind`` says.

    With one image in a batch, batch normalisation normalises each image by itself in training but by running averages
    in prediction. Where images differ much, by augmentation or by nature, the averages fit none of them. "instance"
    normalises each image by itself in both, with a learned scale and shift for each feature map, and has no averages.

    Args:
        kind: "batch" leaves the network as it is; "instance".

    Raises:
        AutosegError: another kind.
    """
    if kind not in KINDS:
        raise AutosegError(
            f"there is no normalisation '{kind}' for {type(network).__name__}",
            expected=" or ".join(KINDS),
            fix=nearest_names(kind, KINDS),
        )
    if kind == "instance":
        _replace(network)
    return network


def _replace(module: nn.Module) -> None:
    for name, child in module.named_children():
        if isinstance(child, nn.BatchNorm3d):
            setattr(module, name, InstanceNorm3d(child.num_features, eps=child.eps, affine=True))
        else:
            _replace(child)
