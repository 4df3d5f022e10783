"""Slow changes of brightness across an image, as a surface coil makes them, estimated and divided out.

N4 (Tustison et al. 2010, doi 10.1109/TMI.2010.2046908) as SimpleITK has it, on a coarse copy: a field that changes
slowly is there in full.
"""

from __future__ import annotations

import numpy as np

from autoseg.errors import AutosegError
from autoseg.preprocessing.crop import object_mask

COARSE_EDGE = 50
"""The field is estimated on every n-th voxel of an axis, so that about this many are left."""
ITERATIONS = (50, 50, 50)
"""At most, for each of three resolutions of the field."""


def remove_bias_field(channel: np.ndarray, number: int = 0) -> None:
    """Divide by the bias field in place; its logarithm has no mean in the object
    (:func:`autoseg.preprocessing.crop.object_mask`).

    Images of one value, and those with more than one voxel along less than two axes, stay as they are.

    Args:
        channel: float32 ``[z, y, x]``.
        number: of the channel, for messages.

    Raises:
        AutosegError: values of the object that are not positive: a field multiplies intensities, so these must be as
            measured.
    """
    inside, flat = object_mask(channel), np.squeeze(channel)
    if flat.ndim < 2 or not inside.any():
        return
    lowest = channel[inside].min()
    if lowest <= 0:
        raise AutosegError(
            "the bias field cannot be estimated",
            where=f"channel {number}",
            found=f"intensities down to {lowest:g} in the object",
            expected="positive intensities, as measured",
            fix=f"--set preprocessing.normalisation.{number}.bias_correction=none, or give images that nobody has "
            "shifted or scaled",
        )
    field = _log_field(flat, np.squeeze(inside)).reshape(channel.shape)
    channel /= np.exp(field - field[inside].mean())


def _log_field(values: np.ndarray, inside: np.ndarray) -> np.ndarray:
    """Logarithm of the field at each voxel of a 2D or 3D image."""
    import SimpleITK as sitk

    image = sitk.GetImageFromArray(np.ascontiguousarray(values))
    mask = sitk.GetImageFromArray(np.ascontiguousarray(inside).astype(np.uint8))
    steps = [max(1, round(n / COARSE_EDGE)) for n in image.GetSize()]
    n4 = sitk.N4BiasFieldCorrectionImageFilter()
    n4.SetMaximumNumberOfIterations(ITERATIONS)
    n4.SetNumberOfThreads(1)  # how many there are would show in the last digits
    n4.Execute(sitk.Shrink(image, steps), sitk.Shrink(mask, steps))
    return sitk.GetArrayFromImage(n4.GetLogBiasFieldAsImage(image))
