"""An ensemble of models: a folder that predicts as they do together; and folders of probabilities put together.

``ensemble.json`` names the models, how they are fused on the original grid of each case, and the post-processing that
follows. The models lie beside it as exported zips, so that the folder can be copied anywhere.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np

from autoseg import messages, postprocessing
from autoseg.bundle.found_steps import FILE_NAME as FOUND_STEPS
from autoseg.bundle.found_steps import FoundSteps
from autoseg.bundle.transfer import export_bundle
from autoseg.dataset.dataset_json import DatasetJson
from autoseg.dataset.imageio import read_image, write_mask
from autoseg.errors import AutosegError
from autoseg.evaluation.probabilities import PROBABILITIES_ENDING, read_probabilities
from autoseg.files import (
    ExactModel,
    atomic_path,
    check_writable,
    exclusive,
    hash_file,
    hash_json,
    read_model,
    write_json,
)
from autoseg.inference import prediction_record as records
from autoseg.inference.prediction_record import PredictedCase, PredictionRecord
from autoseg.messages import count_of, some_of
from autoseg.names import Name
from autoseg.plan import PostStep
from autoseg.plugins.parts import Segmentation
from autoseg.study.fuse import FusionName, fuse
from autoseg.version import __version__

FILE_NAME = "ensemble.json"
MEMBERS = "members"
"""Folder of what each model says, beside the masks of all."""


class EnsembleJson(ExactModel):
    """ensemble.json.

    Attributes:
        models: names of the zips beside it.
        sha256: of each.
        fusion: how they become one.
        steps: the post-processing of the fused mask.
        dataset: that they were trained on.
    """

    version: Literal[1] = 1
    dataset: Name
    models: list[Name]
    sha256: list[str]
    fusion: FusionName = "mean_probabilities"
    steps: list[PostStep] = []


def make_ensemble(
    folder: Path,
    models: Sequence[Path],
    fusion: FusionName,
    found: FoundSteps | None,
    *,
    overwrite: bool = False,
) -> EnsembleJson:
    """Put models together in a folder. One model carries the post-processing that was found for it itself.

    Args:
        folder: it is made.
        models: their folders.
        fusion: of several.
        found: post-processing of the ensemble; None for none.
        overwrite: replace an ensemble that is there.

    Raises:
        AutosegError: there is one already; the models do not fit each other; a model is incomplete.
    """
    if (folder / FILE_NAME).exists() and not overwrite:
        raise AutosegError(
            "there is an ensemble already",
            where=str(folder),
            fix="choose another folder, or give --overwrite",
        )
    check_writable(folder)
    (folder / FILE_NAME).unlink(missing_ok=True)
    infos = [read_model(model / "dataset.json", DatasetJson) for model in models]
    _refuse_others(models, infos)
    names = [f"{number}_{model.name}.zip" for number, model in enumerate(models)]
    cards = [
        export_bundle(model, folder / name, None, overwrite=True)
        for model, name in zip(models, names, strict=True)
    ]
    alone = len(models) == 1
    content = EnsembleJson(
        dataset=cards[0].dataset,
        models=names,
        sha256=[hash_file(folder / name) for name in names],
        fusion=fusion,
        steps=[] if found is None or alone else found.steps or [],
    )
    write_json(folder / FILE_NAME, content)
    return content


def _refuse_others(models: Sequence[Path], infos: Sequence[DatasetJson]) -> None:
    for model, info in zip(models, infos, strict=True):
        first = infos[0]
        if (info.labels, info.channel_names) != (first.labels, first.channel_names):
            raise AutosegError(
                "the models do not have the same classes and channels",
                where=str(model),
                found=f"{', '.join(info.labels)}; {', '.join(info.channel_names.values())}",
                expected=f"{', '.join(first.labels)}; {', '.join(first.channel_names.values())}",
                fix="put together models of one dataset",
            )


def read_ensemble(folder: Path) -> EnsembleJson:
    """ensemble.json of a folder, its models held against it.

    Raises:
        AutosegError: it is missing or damaged, or a model was changed.
    """
    content = read_model(folder / FILE_NAME, EnsembleJson, made_by="autoseg_ensemble --make")
    for name, expected in zip(content.models, content.sha256, strict=True):
        path = folder / name
        if not path.is_file() or hash_file(path) != expected:
            raise AutosegError(
                "a model of the ensemble is missing or was changed",
                where=str(path),
                fix="copy the whole folder again",
            )
    return content


# ---------------------------------------------------------------------------------------------- folders of masks


@dataclass(frozen=True)
class FusedFolder:
    """What becomes of folders of probabilities.

    Attributes:
        info: dataset.json.
        fusion, steps: how.
        name: of what made it, for the record.
    """

    info: DatasetJson
    fusion: FusionName
    steps: Sequence[PostStep] = ()
    name: str = "ensemble"


def fuse_folders(
    folders: Sequence[Path],
    out: Path,
    how: FusedFolder,
    *,
    save_probabilities: bool = False,
    overwrite: bool = False,
) -> list[str]:
    """Put together what several models have predicted, case by case, into ``out`` with prediction.json.

    A case that is whole and made of the same files is kept.

    Args:
        folders: each with ``CASE.npz`` and masks, as ``autoseg_predict --save_probabilities`` leaves them.
        out: where the masks go.
        how: see there.
        save_probabilities: also ``CASE.npz``.
        overwrite: replace masks that something else made.

    Returns:
        The cases.

    Raises:
        AutosegError: the folders have no common case, or a file is damaged; masks that would be replaced.
    """
    names = _common(folders)
    check_writable(out)
    with exclusive(out / ".lock", doing="writing an ensemble into this folder"):
        record = _record(out, how, overwrite)
        for name in names:
            _fuse_case(folders, out, how, record, name, save_probabilities)
    return names


def _common(folders: Sequence[Path]) -> list[str]:
    """The cases that all folders have; others are said."""
    there = [
        {p.name.removesuffix(PROBABILITIES_ENDING) for p in f.glob(f"*{PROBABILITIES_ENDING}")}
        for f in folders
    ]
    names = sorted(set.intersection(*there))
    if not names:
        raise AutosegError(
            "the folders have no common case with probabilities",
            where=", ".join(map(str, folders)),
            found="; ".join(count_of(len(one), "file") + f" *{PROBABILITIES_ENDING}" for one in there),
            fix="predict with autoseg_predict --save_probabilities into each",
        )
    if lost := sorted(set.union(*there) - set(names)):
        messages.warn(f"{count_of(len(lost), 'case')} not in every folder and left out: {some_of(lost)}")
    return names


def _record(out: Path, how: FusedFolder, overwrite: bool) -> PredictionRecord:
    before = records.read_record(out)
    if before is None and not overwrite and any(out.glob(f"*{how.info.file_ending}")):
        raise AutosegError(
            "the output folder holds masks that autoseg did not predict",
            where=str(out),
            fix="choose another folder with -o, or give --overwrite",
        )
    identity: dict[str, Any] = {
        "fusion": how.fusion,
        "steps": [step.model_dump(mode="json") for step in how.steps],
    }
    cases = before.cases if before else {}
    return PredictionRecord(autoseg_version=__version__, identity=identity, model=how.name, cases=cases)


def _fuse_case(
    folders: Sequence[Path], out: Path, how: FusedFolder, record: PredictionRecord, name: str, save: bool
) -> None:
    paths = [folder / f"{name}{PROBABILITIES_ENDING}" for folder in folders]
    made_of = hash_json([hash_file(path) for path in paths])
    files = [f"{name}{how.info.file_ending}", *([f"{name}{PROBABILITIES_ENDING}"] if save else [])]
    if _is_current(out, record, name, made_of, files):
        return
    file = read_image(folders[0] / files[0], is_mask=True)
    probabilities, mask = fuse([read_probabilities(path) for path in paths], how.info.label_set, how.fusion)
    case = Segmentation(mask, file.geometry.spacing_mm, probabilities)
    mask = postprocessing.apply(case, how.steps).mask
    if save:
        with atomic_path(out / files[1]) as temporary:
            np.savez_compressed(temporary, probabilities=probabilities.astype(np.float16))
    write_mask(out / files[0], mask, file.geometry, file.forms)
    record.cases[name] = PredictedCase(
        status="done",
        made_by=record.made_by,
        input_sha256=made_of,
        files={one: hash_file(out / one) for one in files},
    )
    records.write_record(out, record)


def _is_current(out: Path, record: PredictionRecord, name: str, made_of: str, files: Sequence[str]) -> bool:
    entry = record.cases.get(name)
    if entry is None or (entry.made_by, entry.input_sha256) != (record.made_by, made_of):
        return False
    return all((out / one).is_file() and hash_file(out / one) == entry.files.get(one) for one in files)


def predict_ensemble(
    source: Path,
    cases: Sequence[Any],
    out: Path,
    options: Mapping[str, Any],
    *,
    save_probabilities: bool = False,
    overwrite: bool = False,
) -> list[str]:
    """Predict cases with every model of an ensemble, then put them together.

    What each model says lies in ``out/members`` until all is done, so that a prediction which was stopped goes on.

    Args:
        source: folder of the ensemble.
        cases: see :func:`autoseg.dataset.images_to_predict.list_images`.
        out: where the masks go.
        options: of :class:`autoseg.inference.predictor.Predictor`.
        save_probabilities, overwrite: as of :func:`fuse_folders`.

    Raises:
        AutosegError: as of those.
        FaultsError: cases that could not be predicted.
    """
    import shutil

    from autoseg.bundle.transfer import opened
    from autoseg.inference.folder import predict_cases
    from autoseg.inference.predictor import Predictor

    content = read_ensemble(source)
    folders = []
    for name in content.models:
        with opened(source / name) as folder:
            alone = len(content.models) == 1
            # the plan's own post-processing looks at one model; that of the ensemble at all
            predictor = Predictor(folder, **options)
            target = out if alone else out / MEMBERS / name.removesuffix(".zip")
            messages.info(f"{name}: {count_of(predictor.n_members, 'network')} on {predictor.device}")
            predict_cases(
                predictor,
                cases,
                target,
                continue_prediction=True,
                save_probabilities=save_probabilities or not alone,
                overwrite=overwrite or not alone,
            )
            folders.append(target)
            info = predictor.model.info
    if len(folders) == 1:
        return [case.name for case in cases]
    how = FusedFolder(info, content.fusion, content.steps, source.resolve().name)
    names = fuse_folders(folders, out, how, save_probabilities=save_probabilities, overwrite=overwrite)
    shutil.rmtree(out / MEMBERS)
    return names


def found_of(path: Path | None) -> FoundSteps | None:
    """postprocessing.json at a path or in a folder; None for None.

    Raises:
        AutosegError: it is missing or damaged.
    """
    if path is None:
        return None
    file = path / FOUND_STEPS if path.is_dir() else path
    return read_model(file, FoundSteps, made_by="autoseg_find_postprocessing")
