"""Datasets with a dataset.json of the Medical Segmentation Decathlon, whose format nnU-Net v1 took over.

``modality`` and ``labels`` by number, ``training`` with image and label of each case, ``test`` with images.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from autoseg.dataset_conversion import _own_data as own
from autoseg.errors import AutosegError
from autoseg.files import read_json
from autoseg.messages import some_of
from autoseg.plugins.converter import Conversion, LeftOut, SourceCase, Volume

ENDINGS = (".nii.gz", ".nii")


@dataclass(frozen=True)
class ListedTask:
    """What dataset.json says.

    Attributes:
        root: its folder.
        channels: names, in order.
        labels: name to value; the background is called so.
        training: file names of images and masks, relative to the root.
        test: of images.
        notes: name, reference and licence.
    """

    root: Path
    channels: tuple[str, ...]
    labels: dict[str, int | list[int]]
    training: tuple[tuple[str, str], ...]
    test: tuple[str, ...]
    notes: dict[str, str]


def read_task(root: Path) -> ListedTask:
    """Read dataset.json of a task.

    Raises:
        AutosegError: it is missing, or is not of this format.
    """
    content = read_json(root / "dataset.json")
    if not isinstance(content, dict) or not isinstance(content.get("modality"), dict):
        raise AutosegError(
            "is not a dataset.json of the Decathlon or of nnU-Net v1",
            where=str(root / "dataset.json"),
            found=f"entries {some_of(sorted(content), 8)}"
            if isinstance(content, dict)
            else type(content).__name__,
            expected="modality, labels by number, training, test",
            fix="a dataset of nnU-Net v2 needs no conversion: autoseg_plan_and_preprocess reads it",
        )
    try:
        return ListedTask(
            root,
            tuple(str(content["modality"][key]) for key in sorted(content["modality"], key=int)),
            {_label(str(name), int(value)): int(value) for value, name in content["labels"].items()},
            tuple((str(pair["image"]), str(pair["label"])) for pair in content["training"]),
            tuple(str(one["image"] if isinstance(one, dict) else one) for one in content.get("test", [])),
            {
                key: str(content[key])
                for key in ("name", "reference", "licence", "release")
                if content.get(key)
            },
        )
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise AutosegError(
            "is not whole",
            where=str(root / "dataset.json"),
            found=f"{type(error).__name__}: {error}",
            expected='"modality": {"0": "MRI"}, "labels": {"0": "background", "1": "lesion"}, '
            '"training": [{"image": "./imagesTr/a.nii.gz", "label": "./labelsTr/a.nii.gz"}]',
            fix="correct it",
        ) from None


def _label(name: str, value: int) -> str:
    return name if value else "background"


Images = Callable[[Path, int], Sequence[Volume] | str]
"""The volumes of a case by the file that is listed and the number of channels, or why there are none."""


def describe_task(task: ListedTask, images_of: Images) -> Conversion:
    """Describe all cases that dataset.json lists.

    Args:
        task: of :func:`read_task`.
        images_of: what of a listed file the channels are.

    Raises:
        AutosegError: no training case is left.
    """
    cases: list[SourceCase] = []
    left_out: list[LeftOut] = []
    for image, label in (*task.training, *((image, "") for image in task.test)):
        path, name = _found(task.root, image), _name(image)
        found = images_of(path, len(task.channels))
        mask = _found(task.root, label or f"labelsTs/{Path(image).name}")
        if isinstance(found, str):
            left_out.append(LeftOut(name, found))
        elif label and not mask.is_file():
            left_out.append(LeftOut(name, f"no mask: {label} is not there"))
        else:
            cases.append(
                SourceCase(name, tuple(found), Volume(mask) if mask.is_file() else None, test=not label)
            )
    dataset = re.sub(r"^Task\d+_", "", task.root.resolve().name)
    return own.conversion(
        task.root,
        task.channels,
        task.labels,
        cases,
        left_out,
        dataset=own.dataset_name(Path(dataset)),
        notes=task.notes,
    )


def _found(root: Path, listed: str) -> Path:
    """A listed file, unpacked or not."""
    path = root / listed
    if path.is_file() or path.suffix != ".gz":
        return path
    return path.with_suffix("") if path.with_suffix("").is_file() else path


def _name(listed: str) -> str:
    name = Path(listed).name
    return next((name.removesuffix(ending) for ending in ENDINGS if name.endswith(ending)), name)
