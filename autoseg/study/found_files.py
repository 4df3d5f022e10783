"""From out-of-fold predictions to postprocessing.json, and to the masks that nested cross-validation made."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from autoseg.bundle.card import write_model_card
from autoseg.bundle.found_steps import FILE_NAME, FoundSteps
from autoseg.bundle.opening import read_plan
from autoseg.dataset.imageio import write_mask
from autoseg.dataset.raw_layout import load_raw, truth_folder
from autoseg.errors import AutosegError
from autoseg.evaluation.score_masks import evaluate_folder
from autoseg.files import check_writable, exclusive, write_json
from autoseg.study.out_of_fold import collect
from autoseg.study.steps_search import Search, apply_chain, found_steps


def find_and_write(
    models: Sequence[Path],
    raw: Path,
    *,
    fusion: str,
    metric: str = "dice",
    out: Path | None = None,
    processes: int = 1,
    overwrite: bool = False,
) -> FoundSteps:
    """Search, and keep what was found: one model carries it from then on.

    Args:
        models: folders of models; several are an ensemble.
        raw: the root of raw data.
        fusion: of several.
        metric: that decides.
        out: folder for the masks of nested cross-validation, their scores and postprocessing.json; None writes none.
        processes: at most.
        overwrite: replace masks that are there.

    Raises:
        AutosegError: as of :func:`autoseg.study.out_of_fold.collect`; a folder with other files.
    """
    predictions = collect(models, raw, fusion)
    if out is not None:
        _refuse_full(out, overwrite)
    search = Search(predictions, metric, processes)
    chain, of_parts, parts = search.run()
    plans = [read_plan(model) for model in models]
    planned = plans[0].recipe.postprocessing if len(models) == 1 else []
    found = found_steps(search, chain, of_parts, parts, planned)
    if len(models) == 1:
        with exclusive(models[0] / ".lock", doing=f"writing into {models[0].name}", wait=True):
            write_json(models[0] / FILE_NAME, found)
            write_model_card(models[0])
    if out is not None:
        for case in predictions.cases:
            arrays = predictions.read(case)
            mask = apply_chain(arrays, of_parts[parts[case.name]])
            path = out / f"{case.name}{predictions.info.file_ending}"
            write_mask(path, mask, arrays.geometry, arrays.forms)
        write_json(out / "dataset.json", predictions.info)
        write_json(out / FILE_NAME, found)
        truths = truth_folder(load_raw(raw / plans[0].dataset))
        evaluate_folder(out, truths, predictions.info, cases=list(parts)).write(out)
    return found


def _refuse_full(out: Path, overwrite: bool) -> None:
    if not overwrite and out.is_dir() and any(out.iterdir()):
        raise AutosegError(
            "the folder is not empty", where=str(out), fix="choose another with -o, or give --overwrite"
        )
    check_writable(out)
