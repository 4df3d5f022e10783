"""What trainings that ended took: seconds of a step, of the prediction, and of what lies around them."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from autoseg.errors import AutosegError
from autoseg.files import read_json
from autoseg.fingerprint import Fingerprint
from autoseg.inference.prediction_record import read_record
from autoseg.plan import Plan, Stage
from autoseg.study.lengths import has_whole_passes
from autoseg.study.study_json import Measure, StageTime
from autoseg.training.curves import read_log


def measure_training(fold: Path, plan: Plan, fingerprint: Fingerprint, wall: float) -> Measure:
    """The steps of every stage, by what a finished fold wrote down.

    Args:
        fold: its folder.
        plan: as published, of which the fold trained a part.
        fingerprint: of the data, for the length of a pass over all lesion pixels.
        wall: seconds of its command from beginning to end.

    Raises:
        AutosegError: a stage was not trained.
    """
    log, record = read_log(fold / "log.jsonl"), read_json(fold / "fold.json")
    trained = set(record["train_cases"])
    lesion = sum(c.lesions.volume_voxels for c in fingerprint.cases if c.name in trained)
    stages = [_stage(stage, log, lesion, fold) for stage in plan.recipe.stages]
    predicted = read_record(fold / "validation")
    predict = sum(case.seconds or 0.0 for case in predicted.cases.values()) if predicted else 0.0
    members = 1 + max(entry["member"] for entry in log)
    steps = training_seconds(fold)
    return Measure(
        stages=stages,
        members=plan.recipe.members,
        start=max(1.0, wall - steps - predict),
        predict=predict / members,
    )


def training_seconds(fold: Path) -> float:
    """Of all iterations of a fold."""
    return sum(entry["seconds"] for entry in read_log(fold / "log.jsonl"))


def _stage(stage: Stage, log: Sequence[dict[str, Any]], lesion_voxels: int, fold: Path) -> StageTime:
    entries = [entry for entry in log if entry["stage"] == stage.name]
    warm = [entry for entry in entries if entry["epoch"]] or entries  # the first epoch sets up the network
    if not warm:
        raise AutosegError(f"stage {stage.name} was not trained", where=str(fold))
    seconds = sum(entry["seconds"] for entry in warm) / sum(entry["iterations"] for entry in warm)
    if stage.iterations_per_epoch is not None:
        iterations = stage.iterations_per_epoch
    elif has_whole_passes(stage):
        iterations = int(warm[-1]["iterations"])
    else:
        iterations = max(1, math.ceil(lesion_voxels / stage.batch_size))
    return StageTime(name=stage.name, epochs=stage.epochs, iterations=iterations, seconds=seconds)
