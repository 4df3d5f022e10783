"""prediction.json: what in a folder of predictions is whole, and what it was made from.

While several processes predict parts of the cases, each writes ``prediction.part_I_of_N.json``; who reads gets all.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, SerializerFunctionWrapHandler, model_serializer

from autoseg.dataset.part import CasesPart
from autoseg.dataset.raw_layout import Case
from autoseg.dataset.text_header import hash_image
from autoseg.errors import AutosegError
from autoseg.files import hash_file, hash_json, read_model, write_error, write_json
from autoseg.names import Name, NameWithin
from autoseg.preprocessing.unexpected import UnexpectedRange

FILE_NAME = "prediction.json"
PART_FILES = "prediction.part_*.json"


class PredictedCase(BaseModel):
    """One case.

    Attributes:
        status: of a ``failed`` case ``problem`` says why; its files are those of an earlier prediction.
        made_by: hash of the model and options, see :attr:`PredictionRecord.identity`.
        input_sha256: over the bytes of the images, in the order of the channels, and of the plan's mask.
        files: name to SHA-256 of the files that belong to the case.
        unexpected: channels whose intensities are not what the plan was made for, and what was done; not there if none.
        sources: channel to the file or series that it was taken from; not there in earlier files.
    """

    model_config = ConfigDict(extra="forbid")

    status: Literal["done", "failed"]
    made_by: str
    input_sha256: str
    files: dict[NameWithin, str] = {}
    seconds: float | None = None
    problem: str = ""
    unexpected: list[UnexpectedRange] = []
    sources: dict[str, str] = {}

    @model_serializer(mode="wrap")
    def _without_unused(self, handler: SerializerFunctionWrapHandler) -> dict[str, Any]:
        unused = {"unexpected", "sources"}
        return {key: value for key, value in handler(self).items() if key not in unused or value}


class PredictionRecord(BaseModel):
    """The whole folder.

    Attributes:
        identity: the model, by its hash, and the options of the latest run.
        model: its name, ``TRAINER__PLAN``; empty in files of an earlier autoseg, like the next two.
        planner: the family of its plan.
        quick: whether the plan was made for trying out.
        weights: files of the model that took part in the latest run, by their names within it.
        run: when the latest run was started, on which device, and with which versions of what.
    """

    model_config = ConfigDict(extra="forbid")

    version: Literal[1] = 1
    autoseg_version: str
    identity: dict[str, Any]
    model: str = ""
    planner: str = ""
    quick: bool = False
    weights: list[str] = []
    run: dict[str, str] = {}
    cases: dict[Name, PredictedCase] = {}

    @property
    def made_by(self) -> str:
        """Hash of the identity."""
        return hash_json(self.identity)


def input_hash(case: Case, mask: Path | None = None) -> str:
    """Of the bytes of a case's images, and of the file that says what of it counts."""
    return hash_json([hash_image(path) for path in (*case.images, *((mask,) if mask is not None else ()))])


def read_record(folder: Path) -> PredictionRecord | None:
    """The record of an output folder with those of its parts, None when it has none.

    Raises:
        AutosegError: it is damaged.
    """
    parts = [_read(path) for path in sorted(folder.glob(PART_FILES))]  # they may go into the whole any time
    found = [one for one in (_read(folder / FILE_NAME), *parts) if one is not None]
    if len(found) < 2:
        return found[0] if found else None
    latest = max(found, key=lambda one: one.run.get("started", ""))
    return latest.model_copy(
        update={"cases": {name: case for one in found for name, case in one.cases.items()}}
    )


def _read(path: Path) -> PredictionRecord | None:
    if not path.exists():
        return None
    try:
        return read_model(path, PredictionRecord, made_by="autoseg_predict ... --overwrite")
    except AutosegError:
        if not path.exists():
            return None
        raise


def has_record(folder: Path) -> bool:
    """Whether anything was predicted into a folder."""
    return (folder / FILE_NAME).exists() or any(folder.glob(PART_FILES))


def read_part(folder: Path, part: CasesPart) -> PredictionRecord | None:
    """The record of one part alone.

    Raises:
        AutosegError: it is damaged.
    """
    return _read(_path(folder, part))


def write_record(folder: Path, record: PredictionRecord, part: CasesPart | None = None) -> None:
    """Write the record, or that of a part, atomically."""
    write_json(_path(folder, part), record)


def _path(folder: Path, part: CasesPart | None) -> Path:
    return folder / (FILE_NAME if part is None else f"prediction.{part.name}.json")


def gather_parts(folder: Path) -> None:
    """Put the records of parts into prediction.json. Nobody else may be writing; damaged ones stay as they are."""
    parts = list(folder.glob(PART_FILES))
    try:
        record = read_record(folder) if parts else None
    except AutosegError:  # said by who needs them
        return
    if record is not None:
        write_record(folder, record)
        forget_parts(folder)


def forget_parts(folder: Path) -> None:
    """Remove the records of parts."""
    for path in folder.glob(PART_FILES):
        path.unlink(missing_ok=True)


def why_of_another(folder: Path, record: PredictionRecord, name: str) -> str | None:
    """What made the files of a case, if it was not the model and the options of this run; None otherwise.

    Args:
        folder: of the predictions.
        record: of the folder, with this run's identity.
        name: of the case.
    """
    entry = record.cases.get(name)
    there = [file for file in entry.files if (folder / file).exists()] if entry else []
    if entry is None or not there:
        return None
    if entry.made_by != record.made_by:
        return "was made by another model or with other options"
    return "was changed after the prediction" if _was_changed(folder, entry) else None


def _was_changed(folder: Path, entry: PredictedCase) -> bool:
    """Whether the mask is another one than on record; the rest is of the same prediction, and by nobody's hand."""
    mask = next(iter(entry.files), None)
    return mask is not None and (folder / mask).exists() and hash_file(folder / mask) != entry.files[mask]


def remove_superseded(folder: Path, record: PredictionRecord, name: str, needed: Sequence[str]) -> None:
    """Remove the files on record for a case that its new prediction does not have.

    Args:
        folder: of the predictions.
        record: of the folder, with the case's earlier prediction.
        name: of the case.
        needed: names of the files that the new prediction has.

    Raises:
        AutosegError: the folder cannot be written to.
    """
    entry = record.cases.get(name)
    for file in set(entry.files) - set(needed) if entry else ():
        try:
            (folder / file).unlink(missing_ok=True)
        except OSError as error:
            raise write_error(folder / file, error) from error


def left_of_failed(folder: Path, record: PredictionRecord, name: str) -> dict[str, str]:
    """The earlier files of a case that stay when it fails, with their hashes on record.

    A mask that another model or other options made goes, unless somebody has corrected it: it would be taken for one
    of this run's.

    Args:
        folder: of the predictions.
        record: of the folder, with this run's identity and the case's earlier prediction.
        name: of the case.

    Raises:
        AutosegError: the folder cannot be written to.
    """
    entry = record.cases.get(name)
    if entry is None:
        return {}
    if entry.made_by != record.made_by and not _was_changed(folder, entry):
        remove_superseded(folder, record, name, ())
    return {file: digest for file, digest in entry.files.items() if (folder / file).exists()}


def why_not_current(
    folder: Path, record: PredictionRecord, case: Case, needed: Sequence[str], mask: Path | None = None
) -> str | None:
    """Why the prediction of a case cannot be trusted; None when it can, an empty text when there is none.

    Args:
        folder: of the predictions.
        record: of the folder, with this run's identity.
        case: with its images.
        needed: names of the files that it must have.
        mask: the file that says what of the case counts.
    """
    entry = record.cases.get(case.name)
    there = [name for name in needed if (folder / name).exists()]
    if entry is None:
        return "its files are not on record" if there else ""
    if entry.status == "failed":
        return ""
    if entry.made_by != record.made_by:
        return "it was made by another model or with other options"
    missing = [name for name in needed if name not in entry.files or name not in there]
    if missing:
        return f"{missing[0]} is missing"
    damaged = [name for name in needed if hash_file(folder / name) != entry.files[name]]
    if damaged:
        return f"{damaged[0]} is damaged or was changed"
    return None if input_hash(case, mask) == entry.input_sha256 else "its image has changed"
