"""A raw dataset small enough for tests of whole commands, written with SimpleITK alone."""

import json
from pathlib import Path

import numpy as np
import SimpleITK as sitk

SPACING_ZYX = (2.0, 1.0, 1.0)
NAME = "Dataset001_Small"


def write(
    path: Path, array: np.ndarray, spacing=SPACING_ZYX, direction=None, origin=(5.0, -3.0, 2.0)
) -> None:
    """Write one volume ``[z, y, x]``."""
    image = sitk.GetImageFromArray(array)
    image.SetSpacing(tuple(float(v) for v in spacing[::-1]))
    image.SetOrigin(origin)
    if direction is not None:
        image.SetDirection(direction)
    path.parent.mkdir(parents=True, exist_ok=True)
    sitk.WriteImage(image, str(path))


def case(index: int, shape=(10, 24, 24), channels: int = 1, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """A noisy bright ball in a noisy box: images ``[c, z, y, x]`` and mask ``[z, y, x]``."""
    random = np.random.default_rng((seed, index))
    image = random.normal(100, 10, (channels, *shape)).astype(np.float32)
    centre = [random.uniform(0.3, 0.7) * n for n in shape]
    grid = np.meshgrid(*(np.arange(n) for n in shape), indexing="ij")
    radius = sum(((g - c) * s) ** 2 for g, c, s in zip(grid, centre, SPACING_ZYX, strict=True)) ** 0.5
    mask = (radius < random.uniform(4, 6)).astype(np.uint8)
    image[:, mask > 0] += 60
    return image, mask


def dataset(raw: Path, n: int = 6, channels: int = 1, n_test: int = 2, name: str = NAME) -> Path:
    """A dataset of ``n`` cases with held-out cases in imagesTs and labelsTs."""
    folder = raw / name
    for i in range(n + n_test):
        image, mask = case(i, channels=channels)
        part = "Tr" if i < n else "Ts"
        for c in range(channels):
            write(folder / f"images{part}" / f"case_{i:03}_{c:04}.nii.gz", image[c])
        write(folder / f"labels{part}" / f"case_{i:03}.nii.gz", mask)
    info = {
        "channel_names": {str(c): f"MR{c}" for c in range(channels)},
        "labels": {"background": 0, "lesion": 1},
        "numTraining": n,
        "file_ending": ".nii.gz",
    }
    (folder / "dataset.json").write_text(json.dumps(info))
    return folder


# A network and schedule that train in a second on one core.
TINY = [
    'networks.main.arguments={"n_stages": 2, "features_per_stage": [4, 8], "kernel_sizes": [[3,3,3],[3,3,3]], '
    '"strides": [[1,1,1],[2,2,2]], "n_conv_per_stage": 1, "n_conv_per_stage_decoder": 1, "deep_supervision": true}',
    "stages.0.patch_size=[8, 16, 16]",
    "inference.patch_size=[8, 16, 16]",
    "stages.0.epochs=3",
    "stages.0.iterations_per_epoch=4",
    "validation.cases=1",
]
