"""Predictions as BIDS derivatives: mask and probabilities of the lesions, with sidecars that say what they lie on.

``sub-01/ses-1/anat/sub-01_ses-1_space-orig_label-L_mask.nii.gz``: the entities that all channels of the case share,
``space-orig`` where they name no space, and L, the label of lesions. Several classes also have a ``dseg``.
"""

from __future__ import annotations

import os
import re
from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from autoseg.dataset.imageio import write_image, write_mask
from autoseg.dataset.raw_layout import Case
from autoseg.errors import AutosegError, Fault, FaultsError
from autoseg.files import read_json, write_json, write_text
from autoseg.inference import prediction_record as records
from autoseg.inference.output_layout import FinishedCase, FurtherFile, OutputLayout
from autoseg.labels import LabelSet
from autoseg.messages import count_of
from autoseg.version import __version__

BIDS_VERSION = "1.10.0"
DESCRIPTION = "dataset_description.json"
SOURCE = "source"
"""Name of the link to what was given, in BIDS URIs."""
ORDER = (
    *(
        "sub",
        "ses",
        "sample",
        "task",
        "acq",
        "ce",
        "trc",
        "stain",
        "rec",
        "dir",
        "run",
        "mod",
        "echo",
        "flip",
        "inv",
    ),
    *(
        "mt",
        "part",
        "proc",
        "hemi",
        "space",
        "split",
        "recording",
        "chunk",
        "seg",
        "res",
        "den",
        "label",
        "desc",
    ),
)
"""Of the entities in a name."""
DATATYPES = ("anat", "dwi", "perf")
DROPPED = ("desc", "label", "part", "echo", "inv", "flip")
"""Entities of scans that say nothing of a mask."""


def bids_layout(cases: Sequence[Case], given: Path, labels: LabelSet, model: str) -> OutputLayout:
    """The layout of derivatives.

    Args:
        cases: to be predicted; those of other sources are called after their letters and digits.
        given: the folder or file that the scans come from.
        labels: of the model.
        model: its name, for ``GeneratedBy``.

    Raises:
        FaultsError: two cases would have the same name.
    """
    stems = {case.name: _stem(case) for case in cases if case.fault is None}
    _refuse_same(stems)

    def begin(folder: Path) -> None:
        _begin(folder, given, model)

    return OutputLayout(
        mask=lambda case: f"{_stem(case)}_label-L_mask.nii.gz",
        further=lambda case: _further(case, labels, given),
        begin=begin,
        probabilities=True,
        values=lambda mask: labels.foreground(mask).astype(np.uint8),
    )


def _stem(case: Case) -> str:
    """Folder and name of the files of a case, without label and suffix."""
    entities = dict(case.origin.entities) if case.origin else {}
    if "sub" not in entities:
        entities = {"sub": re.sub("[^a-zA-Z0-9]", "", case.name) or "case"}
    entities.setdefault("space", "orig")
    kept = [key for key in ORDER if key in entities and key not in DROPPED]
    folders = [f"{key}-{entities[key]}" for key in ("sub", "ses") if key in entities]
    datatype = case.images[0].parent.name if case.images else ""
    name = "_".join(f"{key}-{entities[key]}" for key in kept)
    return "/".join([*folders, datatype if datatype in DATATYPES else "anat", name])


def _refuse_same(stems: dict[str, str]) -> None:
    by_stem: dict[str, list[str]] = defaultdict(list)
    for name, stem in stems.items():
        by_stem[stem].append(name)
    faults = [
        Fault(
            ", ".join(names),
            "would have the same BIDS name",
            stem,
            "one name for each case",
            "rename one of them",
        )
        for stem, names in by_stem.items()
        if len(names) > 1
    ]
    if faults:
        raise FaultsError(f"--bids: {count_of(len(faults), 'name')} for several cases", faults)


def _begin(folder: Path, given: Path, model: str) -> None:
    """What BIDS asks of a dataset of derivatives.

    Raises:
        AutosegError: the folder holds another dataset.
    """
    path = folder / DESCRIPTION
    if path.exists():
        content = read_json(path)
        made_by = content.get("GeneratedBy") if isinstance(content, dict) else None
        if not (
            isinstance(made_by, list)
            and any(isinstance(p, dict) and p.get("Name") == "autoseg" for p in made_by)
        ):
            raise AutosegError(
                "the output folder is a BIDS dataset that autoseg did not make",
                where=str(path),
                expected="a folder of its own, such as derivatives/autoseg",
                fix="choose another folder with -o",
            )
    source = given if given.is_dir() else given.parent
    link = Path(os.path.relpath(source.resolve(), folder.resolve())).as_posix()
    description = {
        "Name": "Lesions segmented by autoseg",
        "BIDSVersion": BIDS_VERSION,
        "DatasetType": "derivative",
        "GeneratedBy": [{"Name": "autoseg", "Version": __version__, "Description": f"model {model}"}],
        "SourceDatasets": [{"URL": link}],
        "DatasetLinks": {SOURCE: link},
    }
    write_json(path, description)
    _write_new(folder / ".bidsignore", f"{records.FILE_NAME}\n.lock\n*.npz\n")
    _write_new(
        folder / "README.md",
        f"Lesions that the model {model} of autoseg {__version__} found, and their probabilities.\n"
        f"{records.FILE_NAME} says for each case what it was made from. Not for clinical use.\n",
    )


def _write_new(path: Path, text: str) -> None:
    """A file that people may change, unless it is there."""
    if not path.exists():
        write_text(path, text)


def _further(case: Case, labels: LabelSet, given: Path) -> list[FurtherFile]:
    """Sidecars and probabilities; with several classes also a map of the classes."""
    stem = _stem(case)
    sidecar = _sidecar(case, given)

    def probabilities(path: Path, finished: FinishedCase) -> None:
        write_image(path, _of_lesion(finished, labels), finished.geometry, finished.forms)

    def classes(path: Path, finished: FinishedCase) -> None:
        write_mask(path, finished.mask, finished.geometry, finished.forms)

    def table(path: Path, finished: FinishedCase) -> None:
        rows = [f"{values[0]}\t{name}" for name, values in zip(labels.names, labels.values, strict=True)]
        write_text(path, "\n".join(["index\tname", *rows]) + "\n")

    files = [
        FurtherFile(
            f"{stem}_label-L_mask.json", lambda path, _: write_json(path, sidecar | {"Type": "Lesion"})
        ),
        FurtherFile(f"{stem}_label-L_probseg.nii.gz", probabilities),
        FurtherFile(f"{stem}_label-L_probseg.json", lambda path, _: write_json(path, sidecar)),
    ]
    if len(labels.names) > 1:
        files += [
            FurtherFile(f"{stem}_dseg.nii.gz", classes),
            FurtherFile(f"{stem}_dseg.json", lambda path, _: write_json(path, sidecar)),
            FurtherFile(f"{stem}_dseg.tsv", table),
        ]
    return files


def _of_lesion(finished: FinishedCase, labels: LabelSet) -> np.ndarray:
    """The probability that a voxel is of any class; of regions the largest, as they lie within each other."""
    scores = finished.probabilities
    if scores is None:
        raise ValueError("the layout asks for probabilities")
    return scores.max(0) if labels.has_regions else 1 - scores[0]


def _sidecar(case: Case, given: Path) -> dict[str, object]:
    root = given if given.is_dir() else given.parent
    sources = [_uri(path, root) for path in case.images]
    return {"Sources": sources, "SpatialReference": sources[0]}


def _uri(path: Path, root: Path) -> str:
    """The BIDS URI of a file that was given."""
    resolved, base = path.resolve(), root.resolve()
    return f"bids:{SOURCE}:{Path(os.path.relpath(resolved, base)).as_posix()}"
