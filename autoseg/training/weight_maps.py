"""The weight maps of a fold's training cases, from folders of the raw dataset or from the errors of another model.

They are checked before a training begins and then made once, on the working grid, beside the weights of the fold.
"""

from __future__ import annotations

import shutil
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np

from autoseg import messages
from autoseg.dataset.folds import Fold
from autoseg.dataset.raw_layout import Case, load_raw
from autoseg.errors import AutosegError
from autoseg.files import hash_file, read_json, write_json
from autoseg.messages import count_of
from autoseg.orientation import turn_into
from autoseg.plan import Stage, WeightMaps
from autoseg.preprocessing.case import volume_on_working_grid
from autoseg.sampling.voxel_weights import refuse_bad_weights, write_weights
from autoseg.training.error_maps import ErrorMaps
from autoseg.training.job import FoldJob

MAPS = "sampling_weights"
MADE_BY = "made_by.json"


def maps_folder(job: FoldJob, stage: Stage) -> Path:
    """Where the maps of a stage lie."""
    return job.folder / MAPS / stage.name


def check_weight_maps(job: FoldJob, fold: Fold, *, starts: bool = True) -> None:
    """Every training case has a map that it can be drawn by, or there is what it can be made from.

    Args:
        job: the run.
        fold: its cases.
        starts: whether what the stages start from is there already.

    Raises:
        AutosegError: a map is missing, lies on another grid or has weights that cannot be; a case that no model
            predicted without having seen it.
    """
    for stage, weights in _weighted(job):
        if weights.errors_of is not None:
            ErrorMaps(job, fold, stage, starts=starts).check()
        else:
            for case, folder, path in _files(job, fold.train, weights):
                _read(job, case, folder, path)


def make_weight_maps(job: FoldJob, fold: Fold) -> None:
    """Write the maps of all stages that draw by some; those that are there already stay."""
    for stage, weights in _weighted(job):
        folder, made_by = maps_folder(job, stage), _origin(job, fold, stage, weights)
        record = folder / MADE_BY
        if record.is_file() and read_json(record) == made_by:
            continue
        shutil.rmtree(folder, ignore_errors=True)
        if weights.errors_of is not None:
            for name, made in ErrorMaps(job, fold, stage).maps():
                write_weights(folder, name, made)
        else:
            messages.info(
                f"weight maps of {count_of(len(fold.train), 'training case')} are brought to the working grid"
            )
            for name, made in _from_folders(job, fold, weights):
                write_weights(folder, name, made)
        write_json(record, made_by)


def _weighted(job: FoldJob) -> list[tuple[Stage, WeightMaps]]:
    return [(s, s.sampling.weights) for s in job.plan.recipe.stages if s.sampling.weights is not None]


def _origin(job: FoldJob, fold: Fold, stage: Stage, weights: WeightMaps) -> dict[str, str]:
    """What maps depend on."""
    if weights.errors_of is not None:
        return ErrorMaps(job, fold, stage).origin()
    return {str(path): hash_file(path) for _, _, path in _files(job, fold.train, weights)}


def _files(job: FoldJob, names: Sequence[str], weights: WeightMaps) -> Iterator[tuple[Case, str, Path]]:
    """Of each case and folder the file."""
    raw = load_raw(job.raw)
    wanted = set(names)
    for case in raw.cases:
        if case.name in wanted:
            for folder in dict.fromkeys(weights.folders):
                yield case, folder, raw.folder / folder / f"{case.name}{raw.info.file_ending}"


def _read(job: FoldJob, case: Case, folder: str, path: Path) -> np.ndarray:
    """A map ``[z, y, x]`` in the plan's orientation.

    Raises:
        AutosegError: see :func:`check_weight_maps`.
    """
    from autoseg.dataset.imageio import differences, read_channels, read_geometry

    if not path.is_file():
        raise AutosegError(
            f"case {case.name} has no weight map, which the plan asks for",
            where=str(path.parent),
            found=f"no {path.name}",
            fix="add it, or leave the maps out: --set sampling.weights=null",
        )
    image, own = read_channels([path])
    stored = read_geometry(case.images[0])
    for what, found, expected in differences(stored, own):
        raise AutosegError(
            f"the {what} of the weight map is not that of the image",
            where=str(path),
            found=found,
            expected=expected,
            fix="resample it to that grid",
        )
    refuse_bad_weights(image[0], case.name, path)
    orientation = job.plan.preprocessing.orientation
    return turn_into(orientation, stored).array(image[0]) if orientation else image[0]


def _from_folders(job: FoldJob, fold: Fold, weights: WeightMaps) -> Iterator[tuple[str, np.ndarray]]:
    """Of each case the weights of its voxels: 1 for a kind without a folder."""
    found: dict[str, dict[str, np.ndarray]] = {}
    for case, folder, path in _files(job, fold.train, weights):
        found.setdefault(case.name, {})[folder] = _read(job, case, folder, path)
        if len(found[case.name]) < len(set(weights.folders)):
            continue
        maps, stored = found.pop(case.name), job.prepared.store.read(case.name)
        on_grid = {
            name: np.maximum(volume_on_working_grid(volume, stored.properties, job.plan.preprocessing), 0)
            for name, volume in maps.items()
        }
        label = stored.label[...]
        one = np.ones(label.shape, np.float32)
        kinds = (on_grid.get(kind or "", one) for kind in (weights.foreground, weights.background))
        yield case.name, np.where(label > 0, *kinds)
