"""The converter ``decathlon``: a task of the Medical Segmentation Decathlon.

Antonelli et al., Nature Communications 13:4128 (2022).
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path

from autoseg.dataset_conversion._task_json import describe_task, read_task
from autoseg.plugins.converter import Conversion, Converter, Volume

LAYOUT = """ROOT/dataset.json            modality, labels by number, training, test
ROOT/imagesTr/BRATS_001.nii.gz   all channels in one file, along its fourth axis
ROOT/labelsTr/BRATS_001.nii.gz
ROOT/imagesTs/BRATS_485.nii.gz   test cases, whose masks are not published
ROOT is the folder that the archive unpacks to, such as Task01_BrainTumour. All classes are kept."""


def describe(root: Path, options: argparse.Namespace) -> Conversion:
    """Describe the task below ``root``.

    Raises:
        AutosegError: dataset.json is missing or of another format; no training case is left.
    """
    return describe_task(read_task(root), images_of)


def images_of(listed: Path, n_channels: int) -> Sequence[Volume] | str:
    """The volumes of one file, or why there are none."""
    if not listed.is_file():
        return f"there is no {listed.name} in {listed.parent.name}"
    if n_channels == 1:
        return [Volume(listed)]
    return [Volume(listed, index=channel) for channel in range(n_channels)]


CONVERTER = Converter(
    name="decathlon",
    summary="a task of the Medical Segmentation Decathlon, TaskNN_Name",
    layout=LAYOUT,
    describe=describe,
)
