"""One scored case as it is drawn: image, truth and prediction, read from their files and turned alike."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from autoseg.dataset.imageio import as_labels, differences, read_image
from autoseg.dataset.raw_layout import listed_cases
from autoseg.errors import AutosegError
from autoseg.evaluation.case_files import file_of, true_mask
from autoseg.evaluation.summary import CaseScores, Summary
from autoseg.labels import LabelSet
from autoseg.report.planes import View

TRUTH, PREDICTION = "#E69F00", "#56B4E9"
"""Orange and sky blue of Okabe and Ito, which the colour-blind tell apart."""


@dataclass(frozen=True)
class Picture:
    """A case as it is drawn.

    Attributes:
        case: its scores.
        image: ``[n, rows, columns]``: slices, turned.
        truth, prediction: class to boolean mask on the same grid.
        view: which way they were turned, with spacing, sides and the name of the plane.
        channel: what the image is, such as ``T2``.
        preset: that the scores are of.
    """

    case: CaseScores
    image: np.ndarray
    truth: dict[str, np.ndarray]
    prediction: dict[str, np.ndarray]
    view: View
    channel: str
    preset: str = ""

    @property
    def any_truth(self) -> np.ndarray:
        """All classes of the truth together."""
        return np.logical_or.reduce(list(self.truth.values()))

    @property
    def any_prediction(self) -> np.ndarray:
        """All classes of the prediction together."""
        return np.logical_or.reduce(list(self.prediction.values()))

    def to_patient(self, volume: np.ndarray) -> np.ndarray:
        """``[slices, rows, columns]`` of the picture as ``[x, y, z]``, to the patient's left, back and top."""
        if self.view.plane == "axial":
            return volume.transpose(2, 1, 0)
        if self.view.plane == "coronal":
            return volume.transpose(2, 0, 1)[:, :, ::-1]
        return volume.transpose(0, 2, 1)[:, :, ::-1]

    @property
    def patient_spacing_mm(self) -> tuple[float, float, float]:
        """Along the axes of :meth:`to_patient`."""
        s, r, c = self.view.spacing_mm
        return {"axial": (c, r, s), "coronal": (c, s, r), "sagittal": (s, c, r)}[self.view.plane]


def head_extent(bright: np.ndarray, axis: int) -> slice:
    """Where the head lies along an axis, also where noise fills the air around it; empty without a head.

    Args:
        bright: boolean volume, true where it is brighter than air mostly is.
        axis: of the volume.
    """
    counts = np.count_nonzero(bright, axis=tuple(i for i in range(3) if i != axis))
    where = np.flatnonzero(counts > 0.02 * counts.max())
    return slice(int(where[0]), int(where[-1]) + 1) if len(where) else slice(0, 0)


def channel_name(channel: int, names: Mapping[str, str]) -> str:
    """The channel as dataset.json calls it (number to name), or ``channel 1`` without a name."""
    return names.get(str(channel)) or f"channel {channel}"


def find_image(images: Path, name: str, channel: int) -> Path | None:
    """One channel of a case, in a folder of images or a raw dataset that lists its files; None without one."""
    listed = listed_cases(images).get(name)
    if listed is not None and channel < len(listed.images):
        return listed.images[channel]
    return file_of(images, f"{name}_{channel:04d}")


def read_picture(
    summary: Summary, case: CaseScores, images: Path, channel: int, channel_names: Mapping[str, str]
) -> Picture:
    """Read and turn what is drawn of one case.

    Args:
        summary: with the folders of the masks.
        case: one of its cases.
        images: folder of ``CASE_0000.nii.gz``.
        channel: of the image.
        channel_names: number to name, as in dataset.json; may be empty.

    Raises:
        AutosegError: a file is missing or damaged, or the image lies on another grid.
    """
    paths = (
        find_image(images, case.name, channel),
        file_of(Path(summary.predictions), case.name),
        true_mask(Path(summary.truths), case.name),
    )
    if paths[0] is None:
        expected = f"{images / case.name}_{channel:04d}.nii.gz or another format"
        raise AutosegError("the image is missing", where=case.name, expected=expected)
    if paths[1] is None or paths[2] is None:
        raise AutosegError("a mask has vanished since it was scored", where=case.name)
    image, prediction, truth = (read_image(path) for path in paths if path)
    for what, found, expected in differences(truth.geometry, image.geometry):
        raise AutosegError(
            f"the image's {what} is not that of the truth", where=case.name, found=found, expected=expected
        )
    labels = LabelSet.from_labels(summary.labels)
    masks = {"truth": as_labels(truth.pixels, where=case.name)}
    masks["prediction"] = as_labels(prediction.pixels, where=case.name)
    if labels.ignore is not None:
        masks = {name: np.where(masks["truth"] == labels.ignore, 0, mask) for name, mask in masks.items()}
    view = View.of(truth.geometry)
    turned = {name: labels.masks(view.turn(mask)) for name, mask in masks.items()}
    return Picture(
        case=case,
        image=view.turn(image.pixels),
        truth=turned["truth"],
        prediction=turned["prediction"],
        view=view,
        channel=channel_name(channel, channel_names),
        preset=summary.preset.name,
    )
