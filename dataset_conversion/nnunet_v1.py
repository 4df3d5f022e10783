"""The converter ``nnunet_v1``: a task of nnU-Net v1 (nnUNet_raw_data/TaskNNN_Name)."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path

from autoseg.dataset_conversion._task_json import ENDINGS, describe_task, read_task
from autoseg.messages import some_of
from autoseg.plugins.converter import Conversion, Converter, Volume

LAYOUT = """ROOT/dataset.json                 modality, labels by number, training, test
ROOT/imagesTr/CASE_0000.nii.gz, CASE_0001.nii.gz, ...
ROOT/labelsTr/CASE.nii.gz
ROOT/imagesTs/CASE_0000.nii.gz    test cases, labelsTs where masks are known
Nothing is known of subjects; --subject '(patient\\d+)' takes them from the names of cases."""


def describe(root: Path, options: argparse.Namespace) -> Conversion:
    """Describe the task below ``root``.

    Raises:
        AutosegError: dataset.json is missing or of another format; no training case is left.
    """
    return describe_task(read_task(root), images_of)


def images_of(listed: Path, n_channels: int) -> Sequence[Volume] | str:
    """``CASE_0000.nii.gz`` and so on for the listed ``CASE.nii.gz``; or why the case has none."""
    ending = next((e for e in ENDINGS if listed.name.endswith(e)), ENDINGS[0])
    stem = listed.name.removesuffix(ending)
    numbered = [
        [listed.with_name(f"{stem}_{channel:04d}{one}") for one in ENDINGS] for channel in range(n_channels)
    ]
    found = [next((path for path in paths if path.is_file()), None) for paths in numbered]
    missing = [paths[0].name for paths, path in zip(numbered, found, strict=True) if path is None]
    if missing:
        return f"there is no {some_of(missing)} in {listed.parent.name}"
    return [Volume(path) for path in found if path]


CONVERTER = Converter(
    name="nnunet_v1",
    summary="a task of nnU-Net v1, TaskNNN_Name (datasets of nnU-Net v2 need no conversion)",
    layout=LAYOUT,
    describe=describe,
)
