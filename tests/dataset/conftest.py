"""Small raw datasets on disk, whole or with one thing wrong."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
import SimpleITK as sitk

SHAPE, SPACING_XYZ = (6, 10, 12), (0.5, 0.5, 2.0)


@dataclass
class Raw:
    """A raw dataset folder that a test may damage."""

    folder: Path
    ending: str = ".nii.gz"

    def image(self, case: str, channel: int = 0) -> Path:
        return self.folder / "imagesTr" / f"{case}_{channel:04d}{self.ending}"

    def mask(self, case: str) -> Path:
        return self.folder / "labelsTr" / f"{case}{self.ending}"

    def info(self, **changes: object) -> None:
        path = self.folder / "dataset.json"
        content = json.loads(path.read_text()) | changes
        path.write_text(json.dumps({key: value for key, value in content.items() if value is not None}))

    def put(self, path: Path, array: np.ndarray, **geometry: object) -> None:
        write(path, array, **geometry)

    def state(self) -> dict[str, bytes]:
        """Every file's content, to show that nothing was written."""
        files = (entry for entry in self.folder.rglob("*") if entry.is_file())
        return {str(entry.relative_to(self.folder)): entry.read_bytes() for entry in files}


def write(path: Path, array: np.ndarray, spacing=SPACING_XYZ, origin=(0.0, 0.0, 0.0), direction=None) -> None:
    image = sitk.GetImageFromArray(array)
    image.SetSpacing(spacing)
    image.SetOrigin(origin)
    if direction is not None:
        image.SetDirection(np.ravel(direction).tolist())
    sitk.WriteImage(image, str(path))


def pixels(seed: int, shape: tuple[int, ...] = SHAPE) -> np.ndarray:
    """A brain of noise with a zero border of one voxel in y and x."""
    image = np.zeros(shape, np.float32)
    inner = image[:, 1:-1, 1:-1]
    inner[...] = np.random.default_rng(seed).normal(100, 10, inner.shape)
    return image


@pytest.fixture
def make_raw(tmp_path: Path) -> Callable[..., Raw]:
    """Writes a dataset without faults: cases a, b, c, ..., each with a lesion of 2 x 3 x 4 voxels."""

    def make(n_cases: int = 3, n_channels: int = 2, ending: str = ".nii.gz") -> Raw:
        raw = Raw(tmp_path / "Dataset001_Test", ending)
        for part in ("imagesTr", "labelsTr"):
            (raw.folder / part).mkdir(parents=True)
        for i, case in enumerate("abcdefghij"[:n_cases]):
            for channel in range(n_channels):
                write(raw.image(case, channel), pixels(100 * i + channel))
            mask = np.zeros(SHAPE, np.uint8)
            mask[1:3, 2:5, 3:7] = 1
            write(raw.mask(case), mask)
        content = {
            "channel_names": {str(i): name for i, name in enumerate(["FLAIR", "T1", "T2"][:n_channels])},
            "labels": {"background": 0, "lesion": 1},
            "numTraining": n_cases,
            "file_ending": ending,
        }
        (raw.folder / "dataset.json").write_text(json.dumps(content))
        return raw

    return make
