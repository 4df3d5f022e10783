"""Every registered network at a small size, for sweeps: a new one is covered without a new test.

A network is built with its own defaults, or with the variants listed in ``VARIANTS``. Its row says what its inputs must
be divisible by (one number per axis, which also gives the number of axes), how much context it takes, and whether it
classifies patches of that size, so that its outputs have no axes of space.
"""

from __future__ import annotations

import pytest
import torch

from autoseg import networks

SMALL_3D = {"features_per_stage": [8, 16, 24]}
SMALL_3D |= {"kernel_sizes": [[1, 3, 3], [3, 3, 3], [3, 3, 3]], "strides": [[1, 1, 1], [1, 2, 2], [2, 2, 2]]}
SMALL_2D = {"features_per_stage": [8, 16, 24]}
SMALL_2D |= {"kernel_sizes": [[3, 3]] * 3, "strides": [[1, 1], [2, 2], [2, 2]]}
DEEPMEDIC = {"feature_maps": [4, 5, 6], "shortcuts": [[2, 3]], "common_maps": [8, 8]}
VARIANTS: dict[str, list[dict]] = {
    "deepmedic": [DEEPMEDIC, {**DEEPMEDIC, "factors": [[3, 3, 3], [1, 2, 5]], "shift": 1}],
    "unet": [SMALL_3D, SMALL_2D],
    "unet_resenc": [{**v, "n_blocks_per_stage": [1, 2, 2]} for v in (SMALL_3D, SMALL_2D)],
}
CASES = [
    pytest.param(name, variant, id=f"{name}-{i}")
    for name in networks.REGISTRY.names()
    for i, variant in enumerate(VARIANTS.get(name, [{}]))
]


def make(name: str, variant: dict, channels: int = 1, outputs: int = 2) -> torch.nn.Module:
    torch.manual_seed(0)
    return networks.build(name, in_channels=channels, out_channels=outputs, **variant)


def image(name: str, variant: dict, channels: int = 1, batch: int = 1, about: int = 13) -> torch.Tensor:
    """Random numbers of an odd size where the network allows it; different along every axis, with its context."""
    row = networks.REGISTRY.get(name)
    divisor, context = row.divisor_of(variant), row.context_of(variant)
    edges = [about + 2 * axis for axis in range(len(divisor))]
    size = [-(-edge // d) * d + 2 * c for edge, d, c in zip(edges, divisor, context, strict=True)]
    return torch.rand(batch, channels, *size, generator=torch.Generator().manual_seed(1))


def space(name: str, variant: dict, batch: torch.Tensor) -> tuple[int, ...]:
    """The axes that the output has beside batch and channels."""
    row = networks.REGISTRY.get(name)
    if row.classifies:
        return ()
    return tuple(n - 2 * c for n, c in zip(batch.shape[2:], row.context_of(variant), strict=True))
