"""Networks by name, from plain arguments; one file for each published network.

Notation: ``b`` batch, ``c`` image channels, ``k`` outputs, ``z, y, x`` space (``y, x`` for 2D networks).
A network's row (:class:`autoseg.plugins.parts.NetworkPart`) lies in its file; the trainer of its family lists it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from autoseg.plugins.parts import NetworkPart
from autoseg.plugins.registry import Registry

if TYPE_CHECKING:
    from torch import nn

REGISTRY: Registry[NetworkPart] = Registry("network", "networks")
"""Every network belongs to a family; autoseg has none of its own."""


def build(name: str, *, in_channels: int, out_channels: int, **variant: Any) -> nn.Module:
    """The network ``name``, freshly initialised.

    Raises:
        AutosegError: an unknown name (the nearest names are given) or arguments that do not fit.
    """
    return REGISTRY.build(name, in_channels=in_channels, out_channels=out_channels, **variant)
