"""``-o x.nii.gz``: one case into a file of the user's choice. torch is not needed to refuse what cannot be."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator, Sequence
from pathlib import Path

from autoseg.dataset.dataset_json import FILE_ENDINGS
from autoseg.dataset.part import CasesPart
from autoseg.dataset.raw_layout import Case
from autoseg.errors import AutosegError
from autoseg.files import half_made_folder, read_model, readable, write_error, write_json
from autoseg.inference import prediction_record as records


def output_file(
    output: Path,
    cases: Sequence[Case],
    *,
    continue_prediction: bool = False,
    overwrite: bool = False,
    part: CasesPart | None = None,
) -> Path | None:
    """The mask file that the user names; None where ``output`` is a folder.

    Args:
        output: a file if its name has the ending of an image and no folder is called so.
        cases: to be predicted.
        continue_prediction, overwrite, part: as of :func:`autoseg.inference.folder.predict_cases`.

    Raises:
        AutosegError: there are several cases; the file is there, or is an image of the case; it is to be continued.
    """
    if _ending(output) is None or output.is_dir():
        return None
    if part is not None:
        raise _refused(output, "one file has no parts", f"--part {part}", "give a folder with -o")
    if len(cases) != 1:
        raise _refused(output, "the output is one file", f"{len(cases)} cases", "give a folder with -o")
    if continue_prediction:
        fix = "give a folder with -o, or leave --continue_prediction out"
        raise _refused(output, "one file is not continued", "--continue_prediction", fix)
    if output.resolve() in [path.resolve() for path in cases[0].images]:
        raise _refused(output, "the output is the image itself", readable(output.name), "choose another name")
    if output.exists() and not overwrite:
        fix = "choose another name, or replace it with --overwrite"
        raise _refused(output, "the output file is there already", readable(output.name), fix)
    return output


def _ending(path: Path) -> str | None:
    return next((ending for ending in FILE_ENDINGS if path.name.endswith(ending)), None)


def _refused(path: Path, problem: str, found: str, fix: str) -> AutosegError:
    return AutosegError(problem, where=readable(path), found=found, fix=fix)


@contextlib.contextmanager
def folder_for(file: Path, case: Case) -> Iterator[tuple[Path, str]]:
    """A folder beside a file to predict a case into, and the ending of the file.

    When the block ends without an error, the mask becomes the file, further files of the case are called like it, and
    the record becomes ``x.prediction.json``.

    Args:
        file: what :func:`output_file` returned.
        case: the only one.

    Raises:
        AutosegError: the folder of the file cannot be written to.
    """
    ending = _ending(file) or FILE_ENDINGS[0]
    with half_made_folder(file) as folder:
        yield folder, ending
        try:
            _move(folder, case, file, ending)
        except OSError as error:
            raise write_error(file, error) from error


def _move(folder: Path, case: Case, file: Path, ending: str) -> None:
    """The files of a predicted case to their names, the mask last."""
    record = records.read_record(folder)
    entry = record.cases[case.name] if record else None
    if record is None or entry is None:
        return
    stem = file.name.removesuffix(ending)
    names = {name: stem + name.removeprefix(case.name) for name in entry.files}
    entry.files = {names[name]: digest for name, digest in entry.files.items()}
    path = file.with_name(f"{stem}.{records.FILE_NAME}")
    _remove_superseded(path, list(entry.files))
    write_json(path, record)
    for name in reversed(names):
        os.replace(folder / name, file.with_name(names[name]))


def _remove_superseded(path: Path, needed: Sequence[str]) -> None:
    """Remove what stood beside an earlier mask, by its record at ``path``, and is not made anew."""
    if not path.exists():
        return
    try:
        earlier = read_model(path, records.PredictionRecord)
    except AutosegError:  # the user wants all replaced
        return
    for name, entry in earlier.cases.items():
        masks = list(entry.files)[:1]  # x.nii beside x.nii.gz was not asked for
        records.remove_superseded(path.parent, earlier, name, [*needed, *masks])
