"""The simplest method to compare with: one threshold on the intensities of one channel, the best on the training cases.

It sees what the networks of a plan see: cases that are preprocessed by that plan. A method that is no better than this
has learned nothing but brightness.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np

from autoseg import messages
from autoseg.dataset.dataset_json import DatasetJson
from autoseg.dataset.imageio import read_forms, write_mask
from autoseg.dataset.raw_layout import Case
from autoseg.errors import AutosegError
from autoseg.labels import OUTSIDE, LabelSet
from autoseg.messages import count_of
from autoseg.plan import Plan
from autoseg.postprocessing.threshold import count_above
from autoseg.preparation.prepared import Prepared
from autoseg.preprocessing.case import Preprocessed, preprocess_case
from autoseg.preprocessing.mask import mask_beside_images
from autoseg.preprocessing.raw_case import read_raw_case
from autoseg.preprocessing.restore import logits_to_mask

TRIED = 2000
"""Thresholds that are tried, evenly many lesion voxels of the training cases between two of them."""

Side = Literal["above", "below"]


@dataclass(frozen=True)
class BestThreshold:
    """One threshold for all cases.

    Attributes:
        channel: whose intensities, as the plan's preprocessing leaves them.
        side: lesion is strictly ``above`` the threshold or strictly ``below`` it.
        threshold: on that scale.
        dice: its mean over the training cases that have a lesion, on the working grid.
    """

    channel: str
    side: Side
    threshold: float
    dice: float


def best_threshold(cases: Sequence[tuple[np.ndarray, np.ndarray]], channel: str) -> BestThreshold:
    """The threshold and side with the highest mean Dice over the cases that have a lesion.

    Whatever finds a single voxel in a scan without lesion has Dice 0 there, so that such scans would only ask for more.

    Args:
        cases: intensities of the voxels that count, and whether each is lesion, two arrays ``[n]`` each.
        channel: their name.

    Raises:
        AutosegError: no case has a lesion.
    """
    with_lesion = [(values, truth) for values, truth in cases if truth.any()]
    if not with_lesion:
        raise AutosegError(
            "no threshold can be learned",
            found=f"no lesion in {count_of(len(cases), 'training case')}",
            expected="at least one training case with a lesion",
        )
    lesion = np.concatenate([values[truth] for values, truth in with_lesion])
    found = []
    for side, sign in (("above", 1), ("below", -1)):
        # between two lesion voxels a lower threshold adds nothing but false voxels
        tried = np.unique(np.quantile(sign * lesion, np.linspace(0, 1, TRIED), method="lower"))
        tried = np.nextafter(tried, -np.inf, dtype=tried.dtype)
        dice = np.mean([_dice(sign * values, truth, tried) for values, truth in with_lesion], axis=0)
        best = int(dice.argmax())
        found.append(BestThreshold(channel, side, sign * float(tried[best]), float(dice[best])))  # type: ignore[arg-type]
    return max(found, key=lambda one: one.dice)


def _dice(values: np.ndarray, truth: np.ndarray, tried: np.ndarray) -> np.ndarray:
    """Of one case at each threshold, ascending: ``[m]``."""
    return 2 * count_above(values[truth], tried) / (count_above(values, tried) + int(truth.sum()))


# ---------------------------------------------------------------------------------------------- on a prepared dataset


def learn_threshold(prepared: Prepared, train: Iterable[str], channel: str | None = None) -> BestThreshold:
    """The best threshold on preprocessed training cases.

    Args:
        prepared: the dataset, preprocessed by one of its plans.
        train: names of the training cases.
        channel: None tries each and takes the best.

    Raises:
        AutosegError: several classes, another channel, no lesion.
    """
    plan, train = prepared.plan, list(train)
    _value(plan.label_set)
    names = plan.channel_names
    if channel is not None and channel not in names:
        raise AutosegError(
            f"there is no channel {channel}", where=prepared.dataset, expected=" or ".join(names)
        )
    return max(
        (
            best_threshold([_voxels(prepared, name, names.index(one)) for name in train], one)
            for one in ([channel] if channel is not None else names)
        ),
        key=lambda one: one.dice,
    )


def _voxels(prepared: Prepared, name: str, channel: int) -> tuple[np.ndarray, np.ndarray]:
    """Intensities of a training case and whether each voxel is lesion; what does not count is left out."""
    labels = prepared.plan.label_set
    stored = prepared.store.read(name)
    label, image = stored.label[...], np.asarray(stored.image[channel], np.float32)
    counts = np.ones(label.shape, bool) if labels.ignore is None else label != labels.ignore
    if prepared.plan.preprocessing.mask is not None:
        counts &= label != OUTSIDE
    return image[counts], label[counts] == _value(labels)


def _value(labels: LabelSet) -> int:
    """Of the one class.

    Raises:
        AutosegError: there are others.
    """
    if labels.has_regions or len(labels.values) != 1:
        raise AutosegError(
            "a threshold tells lesion from background",
            found=f"the classes {', '.join(labels.names)}",
            expected="one class beside the background, and no regions",
            fix="merge the labels",
        )
    return labels.values[0][0]


def segment(case: Preprocessed, plan: Plan, found: BestThreshold) -> np.ndarray:
    """The mask ``[z, y, x]`` of a preprocessed case on its own grid, in the plan's orientation, uint8."""
    image = np.asarray(case.image[plan.channel_names.index(found.channel)], np.float32)
    over = (image - np.float32(found.threshold)) * (1 if found.side == "above" else -1)
    logits = np.stack([np.zeros_like(over), over])
    return logits_to_mask(logits, case.properties, plan.preprocessing, plan.label_set, case.inside)


def mask_name(case: Case, info: DatasetJson) -> str:
    """Of the file with the mask of a case."""
    return f"{case.name}{info.file_ending}"


def write_masks(
    cases: Sequence[Case], plan: Plan, info: DatasetJson, found: BestThreshold, folder: Path
) -> list[Path]:
    """Segment cases from their files into ``folder``.

    Raises:
        AutosegError: an image is damaged or does not fit.
    """
    written: list[Path] = []
    role = plan.preprocessing.mask
    for case in cases:
        mask = mask_beside_images(case, role) if role is not None else None
        raw = read_raw_case(case.name, case.images, plan.preprocessing, mask=mask)
        made = preprocess_case(
            case.name,
            raw.image,
            raw.geometry,
            plan.preprocessing,
            channel_names=plan.channel_names,
            mask=raw.mask,
        )
        path = folder / mask_name(case, info)
        write_mask(
            path, raw.turn.back.array(segment(made, plan, found)), raw.stored, read_forms(case.images[0])
        )
        messages.info(f"{case.name} ({len(written) + 1} of {len(cases)})")
        written.append(path)
    return written
