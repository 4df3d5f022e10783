"""Which files belong to which case: predicted masks, true ones, and probabilities beside the predictions."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from autoseg import messages
from autoseg.dataset.dataset_json import FILE_ENDINGS, DatasetJson, read_dataset_json
from autoseg.dataset.raw_layout import listed_cases
from autoseg.errors import AutosegError, Fault, FaultsError
from autoseg.inference.prediction_record import read_record
from autoseg.messages import count_of, some_of


@dataclass(frozen=True)
class CaseFiles:
    """The two files of a case."""

    name: str
    prediction: Path
    truth: Path


def find_dataset_json(
    predictions: Path | str, truths: Path | str, given: Path | str | None = None
) -> DatasetJson | None:
    """The given dataset.json, else the one beside the folder of truths, in it, or with the predictions, else None."""
    if given:
        return read_dataset_json(Path(given))
    truths = Path(truths).resolve()
    for folder in (truths.parent, truths, Path(predictions)):
        if (folder / "dataset.json").is_file():
            messages.info(f"labels from {folder / 'dataset.json'}")
            return read_dataset_json(folder / "dataset.json")
    return None


def find_cases(
    predictions: Path, truths: Path, cases: Iterable[str] | None = None, *, chill: bool = False
) -> tuple[list[CaseFiles], list[str], list[str]]:
    """The cases to score, predictions without truth, and truths without prediction that are left out.

    Raises:
        AutosegError: a folder is missing or holds no mask, or both are the same.
        FaultsError: files are missing, or a case has two.
    """
    if predictions.resolve() == truths.resolve():
        raise AutosegError(
            "predictions and truths are the same folder", where=str(truths), fix="give -p and -g two folders"
        )
    predicted, true = masks_in(predictions, "predicted masks"), true_masks(truths)
    names = sorted(true if cases is None else set(cases))
    unpredicted = [name for name in names if name not in predicted] if chill else []
    kept = [name for name in names if name not in unpredicted]
    faults = []
    for name in kept:
        for found, what, folder in ((predicted, "prediction", predictions), (true, "truth", truths)):
            faults += _file_faults(name, found.get(name, []), what, folder)
    if faults or not kept:
        missing = faults or [Fault(name, "no prediction", expected=str(predictions)) for name in names]
        raise FaultsError(_missing_title(missing, predicted, names), missing)
    ignored = sorted(set(predicted) - set(names)) if cases is None else []
    if ignored:
        messages.warn(f"{count_of(len(ignored), 'prediction')} without truth not scored: {some_of(ignored)}")
    if unpredicted:
        messages.warn(
            f"{count_of(len(unpredicted), 'truth')} without prediction left out: {some_of(unpredicted)}"
        )
    if failed := _failed(predictions, kept):
        messages.warn(
            f"{count_of(len(failed), 'mask')} of an earlier prediction scored, as predicting the case again failed: "
            f"{some_of(failed)}"
        )
    return [CaseFiles(name, predicted[name][0], true[name][0]) for name in kept], ignored, unpredicted


def _failed(predictions: Path, names: Iterable[str]) -> list[str]:
    """The cases that could not be predicted, by the record of the folder; none where it has no whole record."""
    try:
        record = read_record(predictions)
    except AutosegError:  # masks are scored without it
        return []
    cases = record.cases if record is not None else {}
    return [name for name in names if name in cases and cases[name].status == "failed"]


def _file_faults(name: str, files: Sequence[Path], what: str, folder: Path) -> list[Fault]:
    there = [file for file in files if file.is_file()]
    if len(there) == 1:
        return []
    expected = str(files[0]) if files else f"{name}{{{','.join(FILE_ENDINGS)}}} in {folder}"
    if not there:
        fix = (
            "predict it, or leave such cases out with --chill"
            if what == "prediction"
            else "add its mask to the truths"
        )
        return [Fault(name, f"the {what} is missing", "no such file", expected, fix)]
    found = " and ".join(file.name for file in there)
    return [Fault(name, f"the {what} is there twice", found, "one file", "remove the one that is outdated")]


def _missing_title(faults: Sequence[Fault], predicted: Mapping[str, object], names: Sequence[str]) -> str:
    title = f"{count_of(len(faults), 'file')} missing or doubled"
    if not set(predicted) & set(names):
        title += f"; no prediction has the name of a case (found {some_of(sorted(predicted))})"
    return title


def true_masks(truths: Path) -> dict[str, list[Path]]:
    """Case name to its true masks: the files of a folder, or those that a raw dataset lists in dataset.json.

    Of listed ones some may be missing; :func:`find_cases` says which.

    Raises:
        AutosegError: the folder is missing or holds no mask.
    """
    listed = {name: [case.mask] for name, case in listed_cases(truths).items() if case.mask is not None}
    # a copy of dataset.json among masks lists files that are elsewhere
    there = any(mask.is_file() for masks in listed.values() for mask in masks)
    return listed if there else masks_in(truths, "true masks")


def true_mask(truths: Path, name: str) -> Path | None:
    """The true mask of one case, as :func:`true_masks` finds it; None without one."""
    listed = listed_cases(truths).get(name)
    if listed is not None and listed.mask is not None and listed.mask.is_file():
        return listed.mask
    return file_of(truths, name)


def file_of(folder: Path, stem: str) -> Path | None:
    """A mask or an image by its name without ending; None without one."""
    paths = (folder / f"{stem}{ending}" for ending in FILE_ENDINGS)
    return next((path for path in paths if path.is_file()), None)


def masks_in(folder: Path, what: str) -> dict[str, list[Path]]:
    """Case name to its files in one of the formats that autoseg reads.

    Args:
        folder: that is listed.
        what: is in it, for the messages, such as ``predicted masks``.

    Raises:
        AutosegError: the folder is missing or holds no mask.
    """
    if not folder.is_dir():
        raise AutosegError(f"the folder of {what} is missing", where=str(folder), fix="check the path")
    masks: dict[str, list[Path]] = {}
    for entry in sorted(folder.iterdir()):
        ending = next((e for e in FILE_ENDINGS if entry.name.endswith(e)), None)
        if ending and entry.is_file() and not entry.name.startswith("."):
            masks.setdefault(entry.name.removesuffix(ending), []).append(entry)
    if not masks:
        others = sorted(entry.name for entry in folder.iterdir())
        raise AutosegError(
            f"the folder of {what} holds no mask",
            where=str(folder),
            found=some_of(others) if others else "an empty folder",
            expected=f"files that end in {', '.join(FILE_ENDINGS)}",
            fix="check the path; probabilities (.npz) are not scored",
        )
    return masks
