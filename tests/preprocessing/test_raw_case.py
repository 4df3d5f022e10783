"""The files of a case lie on one grid, or are refused with what differs."""

from __future__ import annotations

from pathlib import Path

import nibabel as nib
import numpy as np
import pytest

from autoseg.errors import FaultsError
from autoseg.plan import Normalisation, Preprocessing
from autoseg.preprocessing.raw_case import read_raw_case

AFFINE = np.diag([0.5, 0.5, 2.0, 1.0])
AFFINE[:3, 3] = -1, -2, 3  # RAS of NIfTI: 1, 2, 3 in LPS


def _save(path: Path, dtype: type, affine: np.ndarray = AFFINE, shape: tuple[int, ...] = (6, 5, 4)) -> Path:
    nib.save(nib.Nifti1Image(np.arange(np.prod(shape)).reshape(shape).astype(dtype) % 2, affine), path)
    return path


def test_a_true_mask_on_another_grid_is_refused_with_what_differs(tmp_path: Path) -> None:
    image = _save(tmp_path / "a_0000.nii", np.float32)
    plan = Preprocessing(spacing_mm=(None, None, None), normalisation=[Normalisation()])
    good = read_raw_case("a", [image], plan, label=_save(tmp_path / "good.nii", np.uint8))
    assert good.label is not None and good.label.shape == (4, 5, 6)
    moved = AFFINE.copy()
    moved[2, 3] = 7.0
    for name, other, what, found, expected in (
        ("moved", {"affine": moved}, "origin", "1 2 7 mm", "1 2 3 mm"),
        ("short", {"shape": (6, 5, 3)}, "shape", "3 x 5 x 6 (z, y, x)", "4 x 5 x 6 (z, y, x)"),
    ):
        with pytest.raises(FaultsError) as caught:
            read_raw_case("a", [image], plan, label=_save(tmp_path / f"{name}.nii", np.uint8, **other))
        (fault,) = caught.value.faults
        assert (
            fault.where.endswith(f"{name}.nii") and fault.problem == f"its {what} is not that of a_0000.nii"
        )
        assert (fault.found, fault.expected) == (found, expected) and fault.fix
