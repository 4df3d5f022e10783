"""Augmentation with batchgenerators' numpy functions, for worker processes. torch is not imported here.

Functions of batchgenerators that accept fixed numbers are used as they are: coordinates, rotation, scaling,
interpolation of images and labels, contrast, low resolution. Its noise, blur per axis, gamma and mirroring only
draw their own random numbers, so those four are written out with the numpy and scipy calls that it makes.

Notation: ``image`` is ``[c, z, y, x]`` or ``[c, y, x]``, ``label`` the same without c.
"""

from __future__ import annotations

import functools
from collections.abc import Sequence

import numpy as np

from autoseg.sampling.case_cache import AUGMENTED, of_case
from autoseg.sampling.keys import noise_field
from autoseg.sampling.parameters import Parameters
from autoseg.sampling.patches import Patch

EPSILON = 1e-7


Arrays = tuple[np.ndarray, np.ndarray]


def augment_all(
    patches: Sequence[Patch], inside_nonzero: Sequence[bool], context: Sequence[int]
) -> list[Arrays]:
    """:func:`augment` for each of some patches.

    Raises:
        AutosegError: one could not be augmented; its case is named.
    """
    return [finish(*changed, inside_nonzero, context) for changed in change_all(patches)]


def change_all(patches: Sequence[Patch]) -> list[Arrays]:
    """:func:`change` for each of some patches.

    Raises:
        AutosegError: one could not be augmented; its case is named.
    """
    results = []
    for patch in patches:
        with of_case(patch.case, *AUGMENTED):
            results.append(change(patch))
    return results


def augment(patch: Patch, inside_nonzero: Sequence[bool], context: Sequence[int] = ()) -> Arrays:
    """Apply a patch's parameters; its arrays may be overwritten.

    Args:
        patch: see there.
        inside_nonzero: per channel: 0 wherever the label says outside.
        context: voxels around what is predicted, for each axis of the patch; empty for none.

    Returns:
        Image float32 ``[c, *size]`` and label without negative values, without the context.
    """
    return finish(*change(patch), inside_nonzero, context)


def change(patch: Patch) -> Arrays:
    """Apply a patch's parameters and what moves its voxels. The label keeps its negative values."""
    image, label = patch.image, patch.label
    if patch.is_spatial:
        image, label = _resample(image, label, patch)
    image = change_intensities(image, patch.parameters)
    axes = patch.parameters.mirror
    if axes:
        image, label = np.flip(image, tuple(axis + 1 for axis in axes)).copy(), np.flip(label, axes).copy()
    return np.ascontiguousarray(image), np.ascontiguousarray(label)


def finish(
    image: np.ndarray, label: np.ndarray, inside_nonzero: Sequence[bool], context: Sequence[int]
) -> Arrays:
    """What comes last: see :func:`augment`. The image may be overwritten."""
    for channel, masked in enumerate(inside_nonzero):
        if masked:
            image[channel][label < 0] = 0
    inner = tuple(slice(n, size - n) for n, size in zip(context, label.shape, strict=False))
    return image, np.maximum(label[inner], 0)


def change_intensities(image: np.ndarray, parameters: Parameters) -> np.ndarray:
    """All changes that leave voxels where they are; ``image`` may be overwritten."""
    from batchgenerators.augmentations.color_augmentations import augment_contrast
    from scipy.ndimage import gaussian_filter

    if parameters.noise_sigma is not None:
        image += np.float32(parameters.noise_sigma) * noise_field(parameters.noise_seed, image.shape)
    for channel, sigmas in enumerate(parameters.blur):
        if sigmas is not None:
            image[channel] = gaussian_filter(image[channel], sigmas)
    for channel, factor in enumerate(parameters.brightness):
        image[channel] *= np.float32(1 if factor is None else factor)
    for channel, factor in enumerate(parameters.contrast):
        if factor is not None:
            augment_contrast(image[channel : channel + 1], lambda fixed=factor: fixed, preserve_range=True)
    for channel, share in enumerate(parameters.low_resolution):
        if share is not None:
            image[channel] = low_resolution(image[channel], share, in_plane=parameters.in_plane)
    for channel, exponent in enumerate(parameters.gamma_inverted):
        image[channel] = -gamma(-image[channel], exponent)
    for channel, exponent in enumerate(parameters.gamma):
        image[channel] = gamma(image[channel], exponent)
    return image


def _resample(image: np.ndarray, label: np.ndarray, patch: Patch) -> tuple[np.ndarray, np.ndarray]:
    """The turned and scaled patch, linear; planes stay by themselves where nothing moves across them."""
    if patch.keeps_planes:
        coordinates = _coordinates(patch, slice(1, None))
        shape = (len(image), *patch.size)
        planes = [_interpolate(plane, coordinates) for plane in image.reshape(-1, *image.shape[2:])]
        labels = [_interpolate(plane, coordinates, is_seg=True) for plane in label]
        return np.stack(planes).reshape(shape), np.stack(labels)
    coordinates = _coordinates(patch, slice(None))
    channels = [_interpolate(channel, coordinates) for channel in image]
    return np.stack(channels), _interpolate(label, coordinates, is_seg=True)


def _interpolate(array: np.ndarray, coordinates: np.ndarray, *, is_seg: bool = False) -> np.ndarray:
    from batchgenerators.augmentations.utils import interpolate_img

    return interpolate_img(array, coordinates, order=1, mode="nearest", is_seg=is_seg, seg_tiebreak="lowest")


def _coordinates(patch: Patch, axes: slice) -> np.ndarray:
    """Where each voxel of the patch lies in the cut, ``[d, *size]``, along these axes."""
    size, centre = patch.size[axes], patch.centre[axes]
    steps = _mesh(tuple(size))
    if patch.further is None:
        steps = _moved(patch.parameters, steps.copy())
    else:
        steps = np.tensordot(patch.matrix[axes, axes], steps, 1)
    return steps + np.reshape(centre, (-1, *[1] * len(size)))


def _moved(parameters: Parameters, coordinates: np.ndarray) -> np.ndarray:
    """The shipped turn and scale of coordinates ``[d, *size]``. batchgenerators turns the other way round."""
    from batchgenerators.augmentations.utils import rotate_coords_2d, rotate_coords_3d, scale_coords

    angles = [-angle for angle in parameters.rotation]
    if len(angles) == 3:
        coordinates = rotate_coords_3d(coordinates, *angles)
    elif angles:
        coordinates = rotate_coords_2d(coordinates, *angles)
    if parameters.scale is not None:
        coordinates = scale_coords(coordinates, parameters.scale)
    return coordinates


@functools.lru_cache(maxsize=4)
def _mesh(size: tuple[int, ...]) -> np.ndarray:
    from batchgenerators.augmentations.utils import create_zero_centered_coordinate_mesh

    return create_zero_centered_coordinate_mesh(size)


def low_resolution(volume: np.ndarray, share: float, *, in_plane: bool) -> np.ndarray:
    """Sample ``[*space]`` down to this share of its voxels (nearest) and up again (linear)."""
    from batchgenerators.augmentations.resample_augmentations import augment_linear_downsampling_scipy

    return augment_linear_downsampling_scipy(
        volume[None].copy(),
        zoom_range=(share, share),
        order_downsample=0,
        order_upsample=1,
        ignore_axes=(0,) if in_plane else None,
    )[0]


def gamma(channel: np.ndarray, exponent: float | None) -> np.ndarray:
    """Raise a channel, scaled to 0 to 1, to a power; then give it its mean and standard deviation back."""
    if exponent is None:
        return channel
    low, span = channel.min(), channel.max() - channel.min()
    mean, deviation = channel.mean(dtype=np.float64), channel.std(dtype=np.float64)
    changed = ((channel - low) / max(span, np.float32(EPSILON))) ** np.float32(exponent) * span + low
    scale = deviation / max(changed.std(dtype=np.float64), EPSILON)
    return ((changed - changed.mean(dtype=np.float64)) * scale + mean).astype(np.float32)


def limit_threads() -> None:
    """One thread per worker process: the workers are the parallelism."""
    from threadpoolctl import threadpool_limits

    threadpool_limits(limits=1)
