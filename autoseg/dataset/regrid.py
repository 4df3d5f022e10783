"""An image on the grid of another: linearly, by the geometry in the headers, without registration."""

from __future__ import annotations

import numpy as np
import SimpleITK as sitk

from autoseg.dataset.image_geometry import Geometry, differences


def put_onto(grid: Geometry, pixels: np.ndarray, geometry: Geometry) -> tuple[np.ndarray, float]:
    """An image at the voxels of a grid; where it lies on it already, within tolerance, as it is.

    What the image does not reach gets its smallest value, which is the background of a magnitude image.

    Args:
        grid: to put it onto.
        pixels: ``[z, y, x]``.
        geometry: of the pixels.

    Returns:
        float32 ``[z, y, x]``, and the share of the grid that the image does not reach.
    """
    if not differences(grid, geometry):
        return pixels.astype(np.float32, copy=False), 0.0
    resampled = _resample(pixels.astype(np.float32), geometry, grid, fill=float(pixels.min()))
    reached = _resample(np.ones(geometry.shape, np.float32), geometry, grid, fill=0)
    return resampled, 1 - float(reached.mean())


def _resample(pixels: np.ndarray, geometry: Geometry, grid: Geometry, *, fill: float) -> np.ndarray:
    """Linear interpolation at the voxels of ``grid``; float32."""
    image = sitk.GetImageFromArray(pixels)
    image.SetSpacing(geometry.spacing_mm[::-1])
    image.SetOrigin(geometry.origin_mm)
    image.SetDirection(geometry.direction)
    resampled = sitk.Resample(
        image,
        grid.shape[::-1],
        sitk.Transform(),
        sitk.sitkLinear,
        grid.origin_mm,
        grid.spacing_mm[::-1],
        grid.direction,
        fill,
        sitk.sitkFloat32,
    )
    return sitk.GetArrayFromImage(resampled)
