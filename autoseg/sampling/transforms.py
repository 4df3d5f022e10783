"""Random changes beside those of the shipped list, one row each: autoseg's own and those that families bring.

A transform draws plain numbers for one sample, from a stream that is named by the sample and by its position in the
plan's list. What they do is done elsewhere: a turn or flip enters the one interpolation of the patch, all else
changes the patch that was cut.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor

from autoseg import plan
from autoseg.errors import AutosegError
from autoseg.plugins.parts import Numbers, PatchShape, TransformPart
from autoseg.plugins.registry import Registry, refuse_misfits
from autoseg.plugins.trainer import Trainer
from autoseg.sampling import parameters
from autoseg.sampling.keys import Purpose, generator

# the patch shows at (y, x) what lies at (x, -y): numpy's rot90 by 1
QUARTER = np.array([[0.0, 1.0], [-1.0, 0.0]])

TRIED = 16  # voxels of each axis of the patch on which transforms are tried out

Drawn = tuple[Numbers | None, ...]
"""One entry for each transform of a stage; None where it does nothing."""


def draw_quarter_turns(rng: np.random.Generator, shape: PatchShape) -> Numbers | None:
    """0 to 3 quarter turns in the planes, each as likely: as :func:`numpy.rot90` from y to x."""
    turns = int(rng.integers(4))
    return {"turns": turns} if turns else None


def quarter_turned(numbers: Numbers, axes: int) -> np.ndarray:
    """The matrix of :func:`draw_quarter_turns`."""
    matrix = np.eye(axes)
    matrix[-2:, -2:] = np.linalg.matrix_power(QUARTER, numbers["turns"])
    return matrix


def draw_flip(rng: np.random.Generator, shape: PatchShape, axis: int, p: float = 0.5) -> Numbers | None:
    """One working axis (0, 1, 2 for z, y, x, also for a 2D network) backwards, with probability ``p``."""
    of_patch = axis - (3 - len(shape.size))
    return {"axis": of_patch} if rng.random() < p and of_patch >= 0 else None


def flipped(numbers: Numbers, axes: int) -> np.ndarray:
    """The matrix of :func:`draw_flip`."""
    matrix = np.eye(axes)
    matrix[numbers["axis"], numbers["axis"]] = -1
    return matrix


def check_flip(axis: int, p: float = 0.5) -> None:
    """Refuse an axis or a probability that there is not."""
    if axis not in (0, 1, 2) or not 0 <= p <= 1:
        raise ValueError(f"axis is 0, 1 or 2 and p from 0 to 1, found axis {axis} and p {p}")


def draw_rescale(rng: np.random.Generator, shape: PatchShape, low: float = 0.5, high: float = 1.2) -> Numbers:
    """How many times as large things become in the planes, in both directions alike (Brain SegNet)."""
    return {"factor": rng.uniform(low, high)}


def rescaled(numbers: Numbers, axes: int) -> np.ndarray:
    """The matrix of :func:`draw_rescale`."""
    matrix = np.eye(axes)
    matrix[-2:, -2:] /= numbers["factor"]
    return matrix


def check_rescale(low: float = 0.5, high: float = 1.2) -> None:
    """Refuse an empty range, and factors that leave nothing."""
    if not 0 < low <= high:
        raise ValueError(f"low is above 0 and not above high, found {low} and {high}")


def draw_slice_factors(
    rng: np.random.Generator,
    shape: PatchShape,
    low: float = 0.8,
    high: float = 1.2,
    about: Literal["zero", "raw_zero"] = "zero",
) -> Numbers:
    """One factor for each plane of the first axis, the same for all channels (Brain SegNet).

    About ``zero`` it multiplies what the network sees; about ``raw_zero`` the intensities before the normalisation,
    as far as that is the same for all cases.
    """
    planes = shape.size[0] if len(shape.size) == 3 else 1
    factors = {"factors": rng.uniform(low, high, planes)}
    return factors if about == "zero" else {**factors, "about": raw_zero_of(shape)}


def scale_slices(image: Tensor, label: Tensor, numbers: Numbers) -> tuple[Tensor, Tensor]:
    """Multiply by the numbers of :func:`draw_slice_factors`, each channel about what was 0 in its files."""
    factors = image.new_tensor(numbers["factors"])
    factors = factors.view(1, -1, 1, 1) if image.ndim == 4 else factors
    if "about" not in numbers:
        return image.mul_(factors), label
    about = _by_channel(numbers["about"], image)
    return image.sub_(about).mul_(factors).add_(about), label


def check_slice_factors(
    low: float = 0.8, high: float = 1.2, about: Literal["zero", "raw_zero"] = "zero"
) -> None:
    """Refuse an empty range."""
    if low > high:
        raise ValueError(f"low must not be above high, found {low} and {high}")


def draw_shift_and_scale(
    rng: np.random.Generator, shape: PatchShape, shift_deviation: float = 0.05, scale_deviation: float = 0.01
) -> Numbers:
    """For each channel a shift around 0 and a scale around 1, normally distributed (DeepMedic)."""
    return {
        "shift": rng.normal(0, shift_deviation, shape.channels),
        "scale": rng.normal(1, scale_deviation, shape.channels),
    }


def shift_and_scale(image: Tensor, label: Tensor, numbers: Numbers) -> tuple[Tensor, Tensor]:
    """``(image + shift) * scale`` with the numbers of :func:`draw_shift_and_scale`."""
    shift, scale = (_by_channel(numbers[name], image) for name in ("shift", "scale"))
    return image.add_(shift).mul_(scale), label


def check_shift_and_scale(shift_deviation: float = 0.05, scale_deviation: float = 0.01) -> None:
    """Refuse negative deviations."""
    if shift_deviation < 0 or scale_deviation < 0:
        raise ValueError(f"deviations must not be negative, found {shift_deviation} and {scale_deviation}")


def draw_missing(rng: np.random.Generator, shape: PatchShape, p: float = 0.1) -> Numbers | None:
    """Each channel is missing with probability ``p``, but never all of them: one of those, drawn as well, stays."""
    missing = rng.random(shape.channels) < p
    stays = rng.integers(shape.channels)
    if missing.all():
        missing[stays] = False
    channels = np.flatnonzero(missing)
    if not len(channels):
        return None
    return {"channels": channels, "values": np.array(raw_zero_of(shape))[channels]}


def make_missing(image: Tensor, label: Tensor, numbers: Numbers) -> tuple[Tensor, Tensor]:
    """Fill the channels of :func:`draw_missing` with what a file of zeros would have there."""
    channels = list(numbers["channels"])
    image[channels] = _by_channel(numbers["values"], image).expand_as(image[channels])
    return image, label


def check_missing(p: float = 0.1) -> None:
    """Refuse what is no probability."""
    if not 0 <= p <= 1:
        raise ValueError(f"p from 0 to 1, found {p}")


def raw_zero_of(shape: PatchShape) -> tuple[float, ...]:
    """For each channel what the 0 of its files has become."""
    return shape.raw_zero or (0.0,) * shape.channels


def _by_channel(values: Sequence[float], image: Tensor) -> Tensor:
    """One number for each channel, as it broadcasts over ``[c, *size]``."""
    return image.new_tensor(values).view(-1, *[1] * (image.ndim - 1))


REGISTRY = Registry(
    "transform",
    "transforms",
    (
        TransformPart(
            "quarter_turns",
            draw_quarter_turns,
            affine=quarter_turned,
            summary="a turn by 0, 90, 180 or 270 degrees in the planes",
        ),
        TransformPart(
            "flip", draw_flip, affine=flipped, check=check_flip, summary="one working axis backwards"
        ),
        TransformPart(
            "rescale",
            draw_rescale,
            affine=rescaled,
            check=check_rescale,
            summary="larger or smaller in the planes",
        ),
        TransformPart(
            "missing_channels",
            draw_missing,
            apply=make_missing,
            check=check_missing,
            summary="some channels as if their files held zeros",
        ),
        TransformPart(
            "slice_factor",
            draw_slice_factors,
            apply=scale_slices,
            check=check_slice_factors,
            summary="one intensity factor for each plane",
        ),
        TransformPart(
            "channel_shift_scale",
            draw_shift_and_scale,
            apply=shift_and_scale,
            check=check_shift_and_scale,
            summary="(image + shift) * scale, for each channel its own",
        ),
    ),
)


def check(spec: plan.Named, trainer: Trainer | None = None) -> TransformPart:
    """The row that the plan names, whose arguments fit.

    Raises:
        AutosegError: an unknown transform, or arguments that it does not have or cannot work with.
    """
    part = REGISTRY.get(spec.name, trainer)
    refuse_misfits(f"the transform '{spec.name}'", part.draw, None, None, **spec.arguments)
    with _explained(spec.name):
        part.check(**spec.arguments)
    return part


def check_augmentation(stage: plan.Stage, channels: int, trainer: Trainer | None = None) -> None:
    """Build all that a stage does to its patches, and try the transforms out on a small empty patch.

    Args:
        channels: of the image that the network sees.

    Raises:
        AutosegError: unknown names, arguments that do not fit.
    """
    size = tuple(1 if n == "whole" else n for n in stage.patch_size) or (1, 1, 1)
    parameters.build(stage.augmentation, size)
    shape = PatchShape(channels, tuple(min(n, TRIED) for n in size))
    Transforms(stage.augmentation.transforms, trainer).try_out(shape)


@contextlib.contextmanager
def _explained(transform: str) -> Iterator[None]:
    try:
        yield
    except AutosegError:
        raise
    except Exception as error:
        raise AutosegError(
            f"the transform '{transform}' cannot work with its arguments",
            where="augmentation.transforms",
            found=f"{type(error).__name__}: {error}",
            fix="correct the arguments in the plan",
        ) from error


class Transforms:
    """The transforms that follow the shipped ones in a stage, in the order of the plan.

    Args:
        specs: names and arguments.
        trainer: brings rows of its own.

    Attributes:
        change_cut_patches: whether any of them does more than to move voxels.

    Raises:
        AutosegError: see :func:`check`.
    """

    def __init__(self, specs: Sequence[plan.Named], trainer: Trainer | None = None) -> None:
        self._rows = [(check(spec, trainer), spec.arguments) for spec in specs]
        self.change_cut_patches = any(part.apply is not None for part, _ in self._rows)

    @property
    def nothing(self) -> Drawn:
        """What is drawn for a sample that stays as it is."""
        return (None,) * len(self._rows)

    def draw_moves(self, key: Sequence[int], shape: PatchShape) -> Drawn:
        """The numbers of those that move voxels, which say where a patch can be cut; None for the others.

        Args:
            key: of the sample.
            shape: see :class:`autoseg.plugins.parts.PatchShape`.
        """
        return tuple(
            None if part.affine is None else self._draw(position, key, shape)
            for position, (part, _) in enumerate(self._rows)
        )

    def draw_rest(self, key: Sequence[int], shape: PatchShape, moves: Drawn) -> Drawn:
        """The numbers of all of them: ``moves``, and now also those of the others."""
        return tuple(
            drawn if part.apply is None else self._draw(position, key, shape)
            for position, ((part, _), drawn) in enumerate(zip(self._rows, moves, strict=True))
        )

    def _draw(self, position: int, key: Sequence[int], shape: PatchShape) -> Numbers | None:
        part, arguments = self._rows[position]
        drawn = part.draw(generator(Purpose.TRANSFORM, (*key, position)), shape, **arguments)
        return None if drawn is None else {name: _plain(value, part.name) for name, value in drawn.items()}

    def affine(self, drawn: Drawn, axes: int) -> np.ndarray | None:
        """How they move a patch with so many axes, ``[axes, axes]`` from patch to image; None for not at all."""
        total = None
        for (part, _), numbers in zip(self._rows, drawn, strict=True):
            if part.affine is not None and numbers is not None:
                matrix = np.asarray(part.affine(numbers, axes), float)
                total = matrix if total is None else total @ matrix
        return total

    def try_out(self, shape: PatchShape) -> None:
        """Draw and apply each of them once.

        Raises:
            AutosegError: one that cannot work with its arguments.
        """
        for position, (part, _) in enumerate(self._rows):
            with _explained(part.name):
                numbers = self._draw(position, (0,), shape)
                alone = tuple(numbers if other == position else None for other in range(len(self._rows)))
                self.affine(alone, len(shape.size))
                image, label = torch.zeros(shape.channels, *shape.size), torch.zeros(shape.size).short()
                self.apply(image, label, alone)

    @torch.no_grad()
    def apply(self, image: Tensor, label: Tensor, drawn: Drawn) -> tuple[Tensor, Tensor]:
        """Change a cut patch ``[c, *size]`` and its label ``[*size]``, which may be overwritten.

        Raises:
            AutosegError: a transform that changes a size.
        """
        for (part, _), numbers in zip(self._rows, drawn, strict=True):
            if part.apply is None or numbers is None:
                continue
            shapes = image.shape, label.shape
            with torch.autocast(image.device.type, enabled=False):
                image, label = part.apply(image, label, numbers)
            if (image.shape, label.shape) != shapes:
                raise AutosegError(
                    f"the transform '{part.name}' changes the size of a patch",
                    found=f"image {tuple(image.shape)}, label {tuple(label.shape)}",
                    expected=f"image {tuple(shapes[0])}, label {tuple(shapes[1])}",
                    fix="report this to those who wrote the transform",
                )
        return image, label


def is_augmented(share: float, key: Sequence[int]) -> bool:
    """Whether the sample with this key belongs to the share that is augmented at all."""
    return share >= 1 or bool(generator(Purpose.SHARE, key).random() < share)


def _plain(value: Any, transform: str) -> Any:
    """A drawn value as JSON gives it back, lists as tuples."""
    if isinstance(value, (np.ndarray, np.generic)):
        value = value.tolist()
    if isinstance(value, (list, tuple)):
        return tuple(_plain(item, transform) for item in value)
    if value is None or isinstance(value, (bool, int, float, str)):
        return value
    raise AutosegError(
        f"the transform '{transform}' drew what cannot be written down",
        found=type(value).__name__,
        expected="numbers, text, and lists of them",
        fix="report this to those who wrote the transform",
    )
