"""The folder of ``autoseg_threshold``: threshold.json and the masks that it names, and no others among them."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from autoseg.comparison.best_threshold import BestThreshold
from autoseg.dataset.dataset_json import FILE_ENDINGS
from autoseg.errors import AutosegError
from autoseg.evaluation.output_folder import check_output
from autoseg.files import read_json, write_json
from autoseg.messages import count_of, some_of

JSON_NAME = "threshold.json"


def check_folder_of_masks(
    folder: Path, images: str, names: Iterable[str], settings: Mapping[str, Any], *, overwrite: bool
) -> None:
    """Refuse a folder with results of other images or settings, or with masks that something else made.

    Args:
        folder: where the masks go.
        images: the folder of images, as it will be recorded.
        names: of the files of masks that will be written.
        settings: see :func:`autoseg.evaluation.output_folder.recorded`.
        overwrite: results of other images or settings are replaced, and masks of the same names that something else
            made; masks of other cases that something else made are refused all the same, or they would be mixed.

    Raises:
        AutosegError: it is refused, or cannot be written to.
    """
    check_output(
        folder / JSON_NAME,
        [images],
        lambda content: [content["images"]],
        settings=settings,
        overwrite=overwrite,
    )
    foreign = sorted(_masks_in(folder) - set(_own_masks(folder)) - (set(names) if overwrite else set()))
    if foreign:
        raise AutosegError(
            "the output folder holds masks that autoseg_threshold did not make",
            where=str(folder),
            found=f"{count_of(len(foreign), 'file')}: {some_of(foreign, 3)}",
            expected=f"an empty folder, or one with {JSON_NAME} and the masks that it names",
            fix="choose another folder with -o" + ("" if overwrite else ", or replace them with --overwrite"),
        )


def begin_folder(
    folder: Path, found: BestThreshold, images: str, names: Sequence[str], settings: Mapping[str, Any]
) -> None:
    """Remove the masks of an earlier run that this one does not make, and write threshold.json.

    Args:
        folder: see :func:`check_folder_of_masks`, as the other arguments.
        found: what the masks are made by.

    Raises:
        AutosegError: it cannot be written to.
    """
    for name in set(_own_masks(folder)) - set(names):
        (folder / name).unlink(missing_ok=True)
    record = {**asdict(found), "images": images, "settings": dict(settings), "masks": list(names)}
    write_json(folder / JSON_NAME, record)


def _masks_in(folder: Path) -> set[str]:
    return (
        {path.name for path in folder.iterdir() if path.name.endswith(FILE_ENDINGS)}
        if folder.is_dir()
        else set()
    )


def _own_masks(folder: Path) -> list[str]:
    """Those that an earlier threshold.json names; none where it cannot be read."""
    try:
        named = read_json(folder / JSON_NAME)["masks"]
        return [name for name in named if isinstance(name, str) and Path(name).name == name]
    except (AutosegError, KeyError, TypeError):
        return []
