"""Networks by name, from plain arguments.

Notation: ``b`` batch, ``c`` image channels, ``k`` outputs, ``z, y, x`` space (``y, x`` for 2D networks).
Every network maps ``[b, c, z, y, x]`` to logits ``[b, k, z, y, x]``; in training mode it may return a list
of such outputs, the first of which counts: coarser ones follow (deep supervision), or auxiliary ones of its own loss.

A network may say as attributes that the sizes of its input must be multiples of ``divisor`` (a number per axis; two of
them mark a 2D network), and that it ``classifies``: it takes patches of exactly ``divisor`` and says one thing of
each, ``[b, c, y, x]`` to logits ``[b, k]``. Such a network cannot be the one that predicts a mask.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from autoseg.registry import Registry

if TYPE_CHECKING:
    from torch import nn

REGISTRY = Registry("network")


def build(name: str, *, in_channels: int, out_channels: int, **variant: Any) -> nn.Module:
    """The network ``name``, freshly initialised.

    Raises:
        AutosegError: an unknown name (the nearest names are given) or arguments that do not fit.
    """
    return REGISTRY.build(name, in_channels=in_channels, out_channels=out_channels, **variant)


def names() -> list[str]:
    """All registered networks."""
    return REGISTRY.names()


from autoseg.networks import edd_muscle as _edd_muscle  # noqa: E402, F401
from autoseg.networks import edd_muscle_baselines as _edd_muscle_baselines  # noqa: E402, F401
from autoseg.networks import ratlesnet as _ratlesnet  # noqa: E402, F401
from autoseg.networks import ratlesnetv2 as _ratlesnetv2  # noqa: E402, F401
from autoseg.networks import unet as _unet  # noqa: E402, F401  (registers its networks)
from autoseg.networks import unet3d as _unet3d  # noqa: E402, F401
from autoseg.networks import voxresnet as _voxresnet  # noqa: E402, F401
