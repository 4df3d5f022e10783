"""The tasks of a study, phase by phase: commands of autoseg with what they read and leave."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from autoseg.bundle.found_steps import FILE_NAME as FOUND_STEPS
from autoseg.comparison.comparison_schema import JSON_NAME as COMPARISON
from autoseg.dataset.raw_layout import load_raw, truth_folder
from autoseg.evaluation.summary import JSON_NAME as SUMMARY
from autoseg.study.lengths import words_of
from autoseg.study.study_json import Contender, Length, Needs, Phase, Round, Study, Task

FOLD = 0
"""Of the trial."""
COMMAND_SECONDS = 15.0
"""Of a command that trains nothing, before any was measured."""
METRICS = ("dice", "lesion_f1")
"""By which families are compared, the deciding one first."""
FUSIONS = {"ensemble_mean": "mean_probabilities", "ensemble_votes": "majority"}


def prepare(study: Study, family: str, first: str) -> Task:
    """Plan and preprocess for a family; the first one also checks and measures the raw data."""
    plan = study.plan_of(family)
    folder = Path(study.folders.preprocessed) / study.dataset
    command = ["autoseg_plan_and_preprocess", "-d", study.dataset, "-pl", family, "-p", plan]
    command += ["-np", "{processes}", *_roots(study, "raw", "preprocessed")]
    command += ["--set", *study.settings.options] if study.settings.options else []
    return Task(
        id=f"prepare_{family}",
        phase="prepare",
        family=family,
        command=command,
        inputs=[] if family == first else [str(folder / study.plan_of(first) / "plan.json")],
        outputs=[str(folder / plan / "plan.json")],
        needs=Needs(seconds=COMMAND_SECONDS),
    )


def measure(study: Study, family: str, length: Length) -> Task:
    """A training of two short epochs."""
    task = _training(study, family, FOLD, "measure", "measured", length, f"measure_{family}")
    return task.model_copy(update={"needs": Needs(gpu=True, seconds=4 * COMMAND_SECONDS)})


def trial(study: Study, one: Round) -> list[Task]:
    """The same device time for each family, and a comparison of those that did not fail."""
    phase, folder = _phase(one.number), f"trial_{one.number}"
    return [
        _training(study, family, FOLD, phase, folder, length, f"{folder}_{family}")
        for family, length in one.lengths.items()
    ]


def compare_trial(study: Study, number: int, families: Iterable[str]) -> Task:
    """The families of a round on the same validation cases."""
    folder = f"trial_{number}"
    validations = {f: _model(study, folder, f) / f"fold_{FOLD}" / "validation" for f in families}
    out = study.folder / folder / "comparison"
    return _comparison(study, f"{folder}_compare", _phase(number), validations, out, list(METRICS))


def folds(study: Study) -> list[Task]:
    """All folds of those that went on, with their probabilities."""
    return [
        _training(
            study, family, fold, "folds", "folds", study.lengths[family], f"fold_{fold}_{family}", keep=True
        )
        for fold in range(study.folds)
        for family in study.winners
    ]


def methods(study: Study, families: Iterable[str]) -> list[Contender]:
    """The families, and ensembles of all of them where there are several."""
    names = list(families)
    alone = [Contender(name=name, families=[name]) for name in names]
    together = [Contender(name=n, families=names, fusion=f) for n, f in FUSIONS.items() if len(names) > 1]
    return [*alone, *together]


def find_steps(study: Study, method: Contender) -> Task:
    """Post-processing by nested cross-validation on the out-of-fold probabilities of a method."""
    models = [_model(study, "folds", family) for family in method.families]
    out = study.folder / "out_of_fold" / method.name
    command = ["autoseg_find_postprocessing", "-m", *map(str, models), "-o", str(out), "--overwrite"]
    command += ["--fusion", method.fusion] if method.fusion else []
    command += ["-np", "{processes}", *_roots(study, "raw")]
    return Task(
        id=f"postprocessing_{method.name}",
        phase="out of fold",
        family=method.name,
        command=command,
        inputs=[str(m / f"fold_{fold}" / "fold.json") for m in models for fold in range(study.folds)],
        outputs=[str(out / FOUND_STEPS), str(out / SUMMARY)],
        needs=Needs(seconds=2 * COMMAND_SECONDS),
    )


def compare_methods(study: Study, names: Iterable[str]) -> Task:
    """All methods on all cases, out of fold."""
    folders = {name: study.folder / "out_of_fold" / name for name in names}
    out = study.folder / "comparison"
    return _comparison(study, "compare_methods", "out of fold", folders, out, [])


def final(study: Study, method: Contender) -> list[Task]:
    """One folder that predicts, and the report."""
    models = [str(_model(study, "folds", family)) for family in method.families]
    found = study.folder / "out_of_fold" / method.name / FOUND_STEPS
    out = study.folder / "final"
    bundle = Task(
        id="final_bundle",
        phase="final",
        command=[
            *("autoseg_ensemble", "--make", str(out), "-m", *models, "--postprocessing", str(found)),
            *(["--fusion", method.fusion] if method.fusion else []),
            "--overwrite",
        ],
        inputs=[str(found)],
        outputs=[str(out / "ensemble.json")],
        needs=Needs(seconds=COMMAND_SECONDS),
    )
    report = Task(
        id="report",
        phase="final",
        command=["autoseg_report", str(study.folder)],
        inputs=[str(out / "ensemble.json")],
        outputs=[str(study.folder / "report.html")],
        needs=Needs(seconds=COMMAND_SECONDS),
    )
    return [bundle, report]


# --------------------------------------------------------------------------------------------------------- parts


def _phase(number: int) -> Phase:
    return "trial 1" if number == 1 else "trial 2"


def _model(study: Study, folder: str, family: str) -> Path:
    """The model of a family in one of the study's own roots of results."""
    return study.folder / folder / study.dataset / family


def model_of(study: Study, folder: str, family: str) -> Path:
    """The model of a family: in ``measured``, ``trial_1``, ``trial_2`` or ``folds``."""
    return _model(study, folder, family)


def _training(
    study: Study,
    family: str,
    fold: int,
    phase: Phase,
    folder: str,
    length: Length,
    name: str,
    *,
    keep: bool = False,
) -> Task:
    """A fold of a family; it is begun or goes on, whichever it needs."""
    command = ["autoseg_train", study.dataset, str(fold), "-p", study.plan_of(family), "-name", family]
    command += ["--go_on", "-device", "{device}", *(["--save_probabilities"] if keep else [])]
    command += [*_roots(study, "raw", "preprocessed"), "--results", str(study.folder / folder)]
    command += ["--set", *words_of(length.settings)] if length.settings else []
    prepared = Path(study.folders.preprocessed) / study.dataset / study.plan_of(family) / "plan.json"
    measured = study.measures.get(family)
    beside = measured.start + measured.predict if measured else COMMAND_SECONDS
    return Task(
        id=name,
        phase=phase,
        family=family,
        command=command,
        inputs=[str(prepared)],
        outputs=[str(_model(study, folder, family) / f"fold_{fold}" / "fold.json")],
        needs=Needs(gpu=True, seconds=length.seconds + beside),
    )


def _comparison(
    study: Study, name: str, phase: Phase, folders: dict[str, Path], out: Path, metrics: list[str]
) -> Task:
    truths = truth_folder(load_raw(Path(study.folders.raw) / study.dataset))
    command = ["autoseg_compare", *map(str, folders.values()), "-g", str(truths), "-o", str(out)]
    command += ["--names", *folders, *(["--metrics", *metrics] if metrics else [])]
    command += ["-np", "{processes}", "--overwrite"]
    ends = "fold.json" if phase != "out of fold" else SUMMARY
    inputs = [str((f.parent if ends == "fold.json" else f) / ends) for f in folders.values()]
    return Task(
        id=name,
        phase=phase,
        command=command,
        inputs=inputs,
        outputs=[str(out / COMPARISON)],
        needs=Needs(seconds=COMMAND_SECONDS),
    )


def _roots(study: Study, *kinds: str) -> list[str]:
    return [word for kind in kinds for word in (f"--{kind}", str(getattr(study.folders, kind)))]
