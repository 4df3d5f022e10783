"""The part of each case inside which voxels are counted, such as the brain: a mask of its own, or a channel that is 0
outside. Distances, volumes and lesions stay those of the whole masks.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from autoseg.dataset.imageio import ImageFile, read_image
from autoseg.dataset.raw_layout import listed_cases
from autoseg.dataset.turning import laid_onto
from autoseg.errors import AutosegError, Fault, FaultsError
from autoseg.evaluation.case_files import file_of


@dataclass(frozen=True)
class CountMasks:
    """Where they lie.

    Attributes:
        folder: with a mask ``CASE`` + file ending each, or images.
        channel: of the images, whose voxels that are not 0 count; None for masks.
    """

    folder: Path
    channel: int | None = None

    @property
    def words(self) -> str:
        """For reading."""
        what = (
            "the masks"
            if self.channel is None
            else f"the voxels of channel {self.channel:04d} that are not 0"
        )
        return f"{what} in {self.folder}"

    def find(self, names: Iterable[str]) -> dict[str, Path]:
        """Case name to its file.

        Raises:
            AutosegError: the folder is missing.
            FaultsError: with all cases that have none.
        """
        if not self.folder.is_dir():
            raise AutosegError(
                "the folder of masks inside which voxels count is missing",
                where=str(self.folder),
                fix="check the path",
            )
        listed = listed_cases(self.folder)
        found, faults = {}, []
        for name in names:
            stem = name if self.channel is None else f"{name}_{self.channel:04d}"
            path = file_of(self.folder, stem)
            if path is None and self.channel is not None and name in listed:
                path = dict(enumerate(listed[name].images)).get(self.channel)
            if path is None or not path.is_file():
                expected = f"{stem}.nii.gz or another ending in {self.folder}"
                faults.append(
                    Fault(name, "no mask inside which voxels count", "no such file", expected, "add it")
                )
            else:
                found[name] = path
        if faults:
            raise FaultsError("the masks inside which voxels count are not complete", faults)
        return found


def count_masks(folder: Path | str | None, channel: int | None) -> CountMasks | None:
    """As ``--mask`` and ``--mask_channel`` say; None without them.

    Raises:
        AutosegError: a channel without a folder of images, or below 0.
    """
    if folder is not None and (channel is None or channel >= 0):
        return CountMasks(Path(folder), channel)
    if channel is None:
        return None
    raise AutosegError(
        "the channel inside which voxels count does not fit",
        found=f"--mask_channel {channel}" + (" without --mask" if folder is None else ""),
        expected="its number, from 0 on, and the folder of the images",
        fix="give --mask IMAGES --mask_channel N, or --mask with a folder of masks",
    )


def read_inside(name: str, path: Path, truth: ImageFile) -> np.ndarray:
    """bool ``[z, y, x]`` as the file of the truth stores its voxels: where voxels count.

    Raises:
        FaultsError: another grid than the truth's, or nothing inside.
    """
    file = read_image(path)
    laid, unlike = laid_onto(file.pixels, file.geometry, truth.geometry)
    fix = "give masks on the grid of the true masks"
    faults = [
        Fault(
            name,
            f"the {what} of the mask inside which voxels count is not that of the truth",
            found,
            wanted,
            fix,
        )
        for what, found, wanted in unlike
    ]
    if faults:
        raise FaultsError("the grids differ", faults)
    inside = np.nan_to_num(laid) != 0
    if not inside.any():
        fault = Fault(
            name, "nothing lies inside the mask in which voxels count", f"only 0 in {path}", "the brain"
        )
        raise FaultsError("an empty mask", [fault])
    return inside
