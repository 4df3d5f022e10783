"""What happens to one patch: drawn here, as plain numbers, and applied elsewhere.

:class:`NnunetAugmentation` holds nnU-Net's transforms with their probabilities and ranges (nnU-Net 2.8.1,
``nnUNetTrainer.get_training_transforms``, read as a fact) and draws :class:`Parameters` for one sample. The
backends (:mod:`autoseg.sampling.torch_backend`, :mod:`autoseg.sampling.batchgenerators_backend`) apply them.
Parameters are JSON-able: what was done to a patch can be written down and repeated.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Protocol

import numpy as np
from pydantic import Field, model_validator

from autoseg import files, plan
from autoseg.errors import AutosegError, nearest_names

DEGREE = math.pi / 180
ANISOTROPIC = (
    3.0  # a patch this many times wider than deep is turned in its planes only (nnU-Net's "dummy 2D")
)

PerChannel = tuple[float | None, ...]
"""One number for each channel, None for a channel that stays as it is; empty when the transform is off."""


@dataclass(frozen=True)
class Parameters:
    """All random choices for one patch, in the order in which they are applied.

    Attributes:
        rotation: angles in radians about the axes z, y, x of a 3D patch; one angle when the patch is turned in
            its planes; empty for none.
        scale: a step of one voxel in the patch is this many voxels in the image (above 1 objects shrink);
            None for no change.
        in_plane: a 3D patch that is turned and scaled plane by plane.
        noise_sigma: standard deviation of the added noise, None for none; the field follows from ``noise_seed``.
        blur: per channel the standard deviation in voxels for each axis, or None.
        brightness: factor per channel.
        contrast: factor per channel, about the channel's mean; the range of values is kept.
        low_resolution: per channel the share of voxels that is kept along each axis (not along z when
            ``in_plane``), or None.
        gamma_inverted, gamma: exponent per channel, on the negated and on the plain image; mean and standard
            deviation are kept.
        mirror: axes of the patch that are reversed.
    """

    rotation: tuple[float, ...] = ()
    scale: float | None = None
    in_plane: bool = False
    noise_sigma: float | None = None
    noise_seed: int = 0
    blur: tuple[tuple[float, ...] | None, ...] = ()
    brightness: PerChannel = ()
    contrast: PerChannel = ()
    low_resolution: PerChannel = ()
    gamma_inverted: PerChannel = ()
    gamma: PerChannel = ()
    mirror: tuple[int, ...] = ()

    @property
    def is_spatial(self) -> bool:
        """Whether voxels are interpolated."""
        return bool(self.rotation) or self.scale is not None

    @property
    def changes_intensities(self) -> bool:
        """Whether values change where they are."""
        per_channel = (
            self.blur,
            self.brightness,
            self.contrast,
            self.low_resolution,
            self.gamma_inverted,
            self.gamma,
        )
        return self.noise_sigma is not None or any(per_channel)

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON-able data."""
        return asdict(self)

    @classmethod
    def from_dict(cls, content: dict[str, Any]) -> Parameters:
        """The opposite of :meth:`to_dict`, also after a way through JSON."""
        return cls(**{name: tuples(value) for name, value in content.items()})


def tuples(value: Any) -> Any:
    """Lists, at any depth, as tuples: JSON does not know the difference, a frozen dataclass does."""
    if isinstance(value, dict):
        return {name: tuples(item) for name, item in value.items()}
    return tuple(tuples(item) for item in value) if isinstance(value, (list, tuple)) else value


class DrawsParameters(Protocol):
    """Anything that draws parameters for one sample."""

    def draw(self, rng: np.random.Generator, channels: int) -> Parameters:
        """The parameters of one sample with this many image channels."""
        ...


Range = tuple[float, float]


class NnunetAugmentation(plan.Strict):
    """nnU-Net's transforms. ``..._p`` are probabilities per sample, ``..._channel_p`` per channel of that sample.

    Every field can be set by ``Augmentation.arguments`` of the plan.

    Attributes:
        rotation_degrees: None follows the shape of the patch: 3D +-30 about each axis; in planes +-180; 2D
            +-180, or +-15 if one side is more than 1.5 times the other.
        scaling_range: the same factor for all axes.
        noise_sigma: range of the standard deviation (nnU-Net calls it a variance and uses it as this).
        blur_sigma: in voxels, for each axis and channel its own.
        brightness_range, contrast_range, gamma_range: below and above 1 are equally likely.
        in_plane: None turns and scales 3D patches plane by plane when the longest side is more than 3 times
            the first.
    """

    rotation_p: float = Field(0.2, ge=0, le=1)
    rotation_degrees: Range | None = None
    scaling_p: float = Field(0.2, ge=0, le=1)
    scaling_range: Range = (0.7, 1.4)
    noise_p: float = Field(0.1, ge=0, le=1)
    noise_sigma: Range = (0.0, 0.1)
    blur_p: float = Field(0.2, ge=0, le=1)
    blur_sigma: Range = (0.5, 1.0)
    blur_channel_p: float = Field(0.5, ge=0, le=1)
    brightness_p: float = Field(0.15, ge=0, le=1)
    brightness_range: Range = (0.75, 1.25)
    contrast_p: float = Field(0.15, ge=0, le=1)
    contrast_range: Range = (0.75, 1.25)
    low_resolution_p: float = Field(0.25, ge=0, le=1)
    low_resolution_scale: Range = (0.5, 1.0)
    low_resolution_channel_p: float = Field(0.5, ge=0, le=1)
    gamma_inverted_p: float = Field(0.1, ge=0, le=1)
    gamma_p: float = Field(0.3, ge=0, le=1)
    gamma_range: Range = (0.7, 1.5)
    mirror_p: float = Field(0.5, ge=0, le=1)
    in_plane: bool | None = None
    patch_size: tuple[int, ...] = Field(min_length=2, max_length=3)
    mirror_axes: tuple[int, ...] = ()

    @model_validator(mode="after")
    def _ranges_are_possible(self) -> NnunetAugmentation:
        for name, value in self:
            if name.endswith(("_range", "_scale", "_sigma", "_degrees")) and value is not None:
                if value[0] > value[1]:
                    raise ValueError(f"{name} must go from the smaller to the larger number, found {value}")
                if name.endswith(("_range", "_scale")) and value[0] <= 0:
                    raise ValueError(f"{name} must be above 0, found {value}")
                if name.endswith("_sigma") and value[0] < 0:
                    raise ValueError(f"{name} must not be negative, found {value}")
        if self.low_resolution_scale[1] > 1:
            raise ValueError(f"low_resolution_scale must not be above 1, found {self.low_resolution_scale}")
        return self

    @property
    def turns_in_plane(self) -> bool:
        """Whether patches are turned and scaled plane by plane."""
        if len(self.patch_size) == 2:
            return False
        return (
            max(self.patch_size) / self.patch_size[0] > ANISOTROPIC
            if self.in_plane is None
            else self.in_plane
        )

    @property
    def rotation_range(self) -> Range:
        """In radians."""
        degrees = self.rotation_degrees
        if degrees is None and len(self.patch_size) == 2:
            degrees = (-15, 15) if max(self.patch_size) / min(self.patch_size) > 1.5 else (-180, 180)
        elif degrees is None:
            degrees = (-180, 180) if self.turns_in_plane else (-30, 30)
        return degrees[0] * DEGREE, degrees[1] * DEGREE

    def draw(self, rng: np.random.Generator, channels: int) -> Parameters:
        """The parameters of one sample with this many image channels."""
        dims, in_plane = len(self.patch_size), self.turns_in_plane
        angles = 3 if dims == 3 and not in_plane else 1
        everywhere = range(channels)
        return Parameters(
            rotation=_uniform(rng, self.rotation_range, angles) if rng.random() < self.rotation_p else (),
            scale=float(rng.uniform(*self.scaling_range)) if rng.random() < self.scaling_p else None,
            in_plane=in_plane,
            noise_sigma=float(rng.uniform(*self.noise_sigma)) if rng.random() < self.noise_p else None,
            noise_seed=int(rng.integers(2**32)),
            blur=tuple(
                _uniform(rng, self.blur_sigma, dims) if rng.random() < self.blur_channel_p else None
                for _ in (everywhere if rng.random() < self.blur_p else ())
            ),
            brightness=_factors(rng, self.brightness_p, self.brightness_range, channels),
            contrast=_factors(rng, self.contrast_p, self.contrast_range, channels),
            low_resolution=tuple(
                float(rng.uniform(*self.low_resolution_scale))
                if rng.random() < self.low_resolution_channel_p
                else None
                for _ in (everywhere if rng.random() < self.low_resolution_p else ())
            ),
            gamma_inverted=_factors(rng, self.gamma_inverted_p, self.gamma_range, channels),
            gamma=_factors(rng, self.gamma_p, self.gamma_range, channels),
            mirror=tuple(axis for axis in self.mirror_axes if rng.random() < self.mirror_p),
        )


class NoAugmentation:
    """Patches as they are."""

    def draw(self, rng: np.random.Generator, channels: int) -> Parameters:
        """Always the same: nothing."""
        return Parameters()


def _uniform(rng: np.random.Generator, bounds: Range, n: int) -> tuple[float, ...]:
    return tuple(float(value) for value in rng.uniform(*bounds, n))


def _factors(rng: np.random.Generator, p: float, bounds: Range, channels: int) -> tuple[float, ...]:
    """One factor for each channel; below and above 1 are equally likely, however wide the two sides are."""
    if rng.random() >= p:
        return ()
    low, high = bounds
    factors = []
    for _ in range(channels):
        below = rng.random() < 0.5 and low < 1
        factors.append(
            float(rng.uniform(low, min(1, high)) if below else rng.uniform(max(low, 1), max(high, 1)))
        )
    return tuple(factors)


def _nnunet(
    patch_size: Sequence[int], mirror_axes: Sequence[int], arguments: dict[str, Any]
) -> DrawsParameters:
    known = set(NnunetAugmentation.model_fields) - {"patch_size", "mirror_axes"}
    _refuse_unknown("nnunet", arguments, known)
    content = {**arguments, "patch_size": tuple(patch_size), "mirror_axes": tuple(mirror_axes)}
    return files.validate(content, NnunetAugmentation, where="augmentation.arguments")


def _none(
    patch_size: Sequence[int], mirror_axes: Sequence[int], arguments: dict[str, Any]
) -> DrawsParameters:
    _refuse_unknown("none", arguments, set())
    return NoAugmentation()


def _refuse_unknown(augmentation: str, arguments: dict[str, Any], known: set[str]) -> None:
    """Settings that an augmentation does not have, with the nearest known ones."""
    for name in arguments:
        if name not in known:
            raise AutosegError(
                f"the augmentation '{augmentation}' has no setting '{name}'",
                where="augmentation.arguments",
                found=f"{name} = {arguments[name]!r}",
                expected="a probability or range of nnU-Net's transforms (docs/augmentation.md)"
                if known
                else "none at all",
                fix=nearest_names(name, known)
                if known
                else "set augmentation.name=nnunet, which has settings",
            )


AUGMENTATIONS: dict[str, Callable[..., DrawsParameters]] = {"nnunet": _nnunet, "none": _none}
"""Shipped lists of transforms. What else a family does to its patches are transforms of their own, which follow."""


def build(spec: plan.Augmentation, patch_size: Sequence[int]) -> DrawsParameters:
    """The augmentation that a stage's plan names.

    ``mirror_axes`` of the plan are working axes z, y, x, also for a 2D network, whose patches have no axis z:
    1 and 2 mirror their axes 0 and 1.

    Raises:
        AutosegError: an unknown augmentation or setting; the nearest names are given.
        FaultsError: values that do not fit.
    """
    first = 3 - len(patch_size)
    axes = [axis - first for axis in sorted(set(spec.mirror_axes)) if first <= axis < 3]
    if spec.name not in AUGMENTATIONS:
        raise AutosegError(
            f"there is no augmentation '{spec.name}'", fix=nearest_names(spec.name, AUGMENTATIONS)
        )
    return AUGMENTATIONS[spec.name](patch_size, axes, spec.arguments)
