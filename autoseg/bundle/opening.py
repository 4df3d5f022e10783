"""A model folder, opened: which plan, which folds, which weight files. torch is not needed to read it."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Any

from pydantic import BaseModel

from autoseg import messages, paths
from autoseg.bundle.fitted import FINISH, FITTED, FittedStep, learning_steps, read_fitted
from autoseg.bundle.found_steps import FILE_NAME as FOUND_STEPS
from autoseg.bundle.found_steps import read_found_steps
from autoseg.bundle.layout import (
    BUNDLE_VERSION,
    CARD,
    NORMALISATION,
    PREDICTING_NETWORK,
    MemberFiles,
    WeightsKind,
    expected_members,
)
from autoseg.dataset.dataset_json import DatasetJson
from autoseg.errors import AutosegError, Fault, FaultsError, nearest_names
from autoseg.files import hash_file, hash_json, read_json, read_model, validate
from autoseg.messages import count_of, some_of
from autoseg.plan import PLAN_VERSION, Plan, apply_overrides, hash_plan

PREDICTION = ("members", "inference", "fusion", "postprocessing", "precision")
"""Fields of the recipe that only change how a model predicts; fewer members are the first ones."""
KEEP = "stages.STAGE.keep"
"""The field of stages that does: which of the weights that were written take part."""


def overridden(plan: Plan, overrides: Mapping[str, Any]) -> Plan:
    """The plan of a model with other settings for its prediction; the same object without any.

    Args:
        plan: it is not changed.
        overrides: as of :func:`autoseg.plan.apply_overrides`, for the recipe's fields :data:`PREDICTION`, for ``keep``
            of stages and for the arguments of networks: which of several outputs counts, for example. Weights must fit
            the network still. A list of ``members`` is short for ``inference.members``.

    Raises:
        AutosegError: a path that does not exist, or one that could only change the training.
    """
    if not overrides:
        return plan
    changed = apply_overrides(plan, {_long_members(path, to): to for path, to in overrides.items()})
    if (asked := changed.recipe.members) > (made := plan.recipe.members):
        raise AutosegError(
            "--set members: the training made fewer",
            found=f"members={asked}",
            expected=f"at most {made}",
            fix="choose among those that there are; weights after some epochs of a stage are chosen by "
            + KEEP,
        )
    if (found := _trained(changed)) != (before := _trained(plan)):
        raise AutosegError(
            "these settings cannot be changed for a prediction",
            found=", ".join(sorted(overrides)),
            expected=f"{', '.join(PREDICTION)}, {KEEP}, or networks.NAME.arguments",
            fix="leave them out; changed in the training: "
            + ", ".join(sorted(key for key in before if before[key] != found[key])),
        )
    return changed


def _long_members(path: str, value: Any) -> str:
    """The path by which the plan has the numbers of the members that predict."""
    of_members = path in ("members", "recipe.members") and isinstance(value, list)
    if not value and (of_members or path.removeprefix("recipe.") == "inference.members"):
        raise AutosegError(
            "--set members names no member",
            found="members=[]",
            expected="numbers of members, counted from 0, such as [0,2]; or how many there are, such as 2",
            fix="leave it out for all",
        )
    return "inference.members" if of_members else path


def _trained(plan: Plan) -> dict[str, Any]:
    """What the training of a model followed, without the arguments of its networks."""
    content = plan.model_dump(mode="json", exclude={"overrides", "recipe", "networks", "proposals"})
    left_out: dict[str, Any] = {**dict.fromkeys(PREDICTION, True), "stages": {"__all__": {"keep"}}}
    content |= plan.recipe.model_dump(mode="json", exclude=left_out)
    return {**content, "networks": {key: spec.name for key, spec in plan.networks.items()}}


def read_plan(folder: Path) -> Plan:
    """plan.json of a model.

    Raises:
        AutosegError: it is missing, or of another version.
        FaultsError: it does not fit the schema.
    """
    path = folder / "plan.json"
    if not folder.is_dir():
        raise AutosegError("there is no such model folder", where=str(folder), fix="check the path")
    content = read_json(path, made_by="autoseg_train")
    refuse_other_version(content, "version", PLAN_VERSION, where=str(path), what="plan", earlier=(1,))
    return validate(content, Plan, where=str(path))


def refuse_other_version(
    content: object, key: str, known: int, *, where: str, what: str, earlier: tuple[int, ...] = ()
) -> None:
    """Explain a file that another autoseg wrote, before its schema complains about every entry.

    Raises:
        AutosegError: the version is not the known one.
    """
    found = content.get(key) if isinstance(content, dict) else None
    if found == known or found in earlier:
        return
    newer = isinstance(found, int) and found > known
    raise AutosegError(
        f"the {what} is of another version",
        where=where,
        found=f"version {found}",
        expected=f"version {known}",
        fix="install a newer autoseg" if newer else "use the autoseg that made it, or train the model again",
    )


@dataclass(frozen=True)
class Member:
    """:class:`autoseg.bundle.layout.MemberFiles` of one fold, as paths."""

    main: Path
    companions: Mapping[str, Path]
    fold: str


@dataclass(frozen=True)
class Model:
    """What a prediction is made with.

    Attributes:
        folder: of the model.
        plan, info: plan.json and dataset.json.
        plan_hash: of what plan.json decides; of the whole file where version 1 wrote it.
        overrides: changes to how the plan predicts, see :func:`overridden`; ``plan`` is without them.
        checkpoint: which weights of each stage.
        folds: by name, ``0`` and up, or ``all``.
        members: the networks that predict, in order.
        fitted: for each fold what its post-processing has learned.
        checked: SHA-256 of the files that were held against the card, by name.
    """

    folder: Path
    plan: Plan
    plan_hash: str
    info: DatasetJson
    checkpoint: WeightsKind
    folds: tuple[str, ...]
    members: tuple[Member, ...]
    overrides: Mapping[str, Any]
    fitted: tuple[Mapping[str, FittedStep], ...] = ()
    checked: Mapping[str, str] = field(default_factory=dict)

    @property
    def weights(self) -> tuple[Path, ...]:
        """Every weight file that takes part, each once, in order."""
        files = (path for member in self.members for path in (member.main, *member.companions.values()))
        return tuple(dict.fromkeys(files))

    @cached_property
    def hash(self) -> str:
        """SHA-256 over the plan, the bytes of all weight files, and what was learned after them."""
        names = [path.relative_to(self.folder).as_posix() for path in self.weights]
        files = {name: self.checked.get(name) or hash_file(self.folder / name) for name in names}
        learned = [{name: step.learned for name, step in fold.items()} for fold in self.fitted]
        extra: dict[str, Any] = {"fitted": learned} if any(learned) else {}
        constants = [self.folder / f"fold_{fold}" / NORMALISATION for fold in self.folds]
        if there := [hash_file(path) for path in constants if path.is_file()]:
            extra["normalisation"] = there
        return hash_json({"plan": self.plan_hash, "weights": files, **extra})


def open_model(
    folder: Path,
    folds: Sequence[int | str] | None = None,
    checkpoint: WeightsKind = "final",
    overrides: Mapping[str, Any] | None = None,
    *,
    fitted: bool = True,
) -> Model:
    """Find the weights of a model.

    Args:
        folder: see the module.
        folds: numbers or ``all``; None takes every finished numbered fold, or ``all`` when there is none.
        checkpoint: ``final`` or ``best`` weights of each stage.
        overrides: changes to how the plan predicts, see :func:`overridden`; they go before the post-processing that the
            model carries (:mod:`autoseg.bundle.found_steps`).
        fitted: whether what the post-processing learns must be there; it is not while it learns.

    Raises:
        AutosegError: the folder is no model of this version; a fold or a weight file is missing; overrides that do not
            fit.
        FaultsError: files are not those of the model card, see :func:`refuse_changed`.
    """
    folder = Path(folder)
    overrides = {**read_found_steps(folder), **(overrides or {})}
    plan = read_plan(folder)
    content = read_json(folder / "plan.json")
    plan_hash = hash_json(content) if content["version"] == 1 else hash_plan(plan)
    info = read_model(folder / "dataset.json", DatasetJson)
    changed = overridden(plan, overrides)
    expected = expected_members(changed, checkpoint)
    if not expected:
        raise AutosegError(
            f"no stage of the plan keeps weights of the network '{PREDICTING_NETWORK}'",
            where=str(folder / "plan.json"),
            found=", ".join(f"{s.name}: network {s.network}, keep {s.keep}" for s in plan.recipe.stages),
            fix="set keep of a stage of this network to true",
        )
    names = [name for files in expected for name in (files.main, *files.companions.values())]
    chosen = _given_folds(folder, folds) if folds else _finished_folds(folder, names, checkpoint)
    members = tuple(_in_fold(folder, fold, files) for fold in chosen for files in expected)
    model = Model(folder, plan, plan_hash, info, checkpoint, tuple(chosen), members, overrides)
    missing = [path for path in model.weights if not path.is_file()]
    if missing:
        raise _missing_weights(folder, missing, checkpoint)
    beside = (folder / f"fold_{fold}" / name for fold in chosen for name in (FITTED, NORMALISATION))
    used = [*model.weights, *(path for path in beside if path.is_file())]
    used += [folder / FOUND_STEPS] if (folder / FOUND_STEPS).is_file() else []
    model = replace(model, checked=refuse_changed(folder, used))
    if not fitted:
        return model
    if learning_steps(changed) and expected != expected_members(plan, "final"):
        steps = ", ".join(step.name for step in learning_steps(changed))
        messages.warn(
            f"{steps} of the post-processing learned with other weights than those that predict now"
        )
    return replace(model, fitted=tuple(read_fitted(folder / f"fold_{fold}", changed) for fold in chosen))


class _FilesOnCard(BaseModel):
    """The part of model_card.json that says what the other files are."""

    files: dict[str, str]


def refuse_changed(folder: Path, files: Iterable[Path]) -> dict[str, str]:
    """Hold files of a model's folds against its card.

    A fold that is being trained is not on the card as it is now, so its files are left out. What is on no card is said.

    Args:
        folder: of the model.
        files: weights, and what was learned beside them.

    Returns:
        Name to SHA-256 of the files that are as the card has them.

    Raises:
        AutosegError: the card is of another version.
        FaultsError: files that were changed or damaged.
    """
    finished = [path for path in files if not in_training(folder / path.relative_to(folder).parts[0])]
    card = _files_on_card(folder) if finished else {}
    checked, unknown, faults = {}, [], []
    for path in finished:
        name = path.relative_to(folder).as_posix()
        if name not in card:
            unknown.append(name)
        elif (found := hash_file(path)) == card[name]:
            checked[name] = found
        else:
            faults.append(_changed(path, found, card[name]))
    if faults:
        raise FaultsError(f"the weights of {folder.name} are not those of its {CARD}", faults)
    if unknown:
        why = f"there is no {CARD}" if not card else f"{CARD} does not name them"
        messages.warn(f"{folder.name}: {some_of(unknown, 1)} cannot be checked for damage, because {why}")
    return checked


def in_training(fold: Path) -> bool:
    """Whether a fold was begun here and is not finished; fold.json is the last file of a training."""
    return (fold / "checkpoint").is_dir() and not (fold / "fold.json").exists()


def _files_on_card(folder: Path) -> dict[str, str]:
    """Name to SHA-256, as the card of a model says; empty without a card."""
    path = folder / CARD
    if not path.exists():
        return {}
    content = read_json(path)
    refuse_other_version(content, "bundle_version", BUNDLE_VERSION, where=str(path), what="bundle")
    return validate(content, _FilesOnCard, where=str(path)).files


def _changed(path: Path, found: str, expected: str) -> Fault:
    return Fault(
        str(path),
        "was changed or damaged after the training",
        f"SHA-256 {found[:12]}",
        f"{expected[:12]}, as on the model card",
        "copy or import the model again, or train this fold again with autoseg_train ... --overwrite",
    )


def _in_fold(folder: Path, fold: str, files: MemberFiles) -> Member:
    weights = folder / f"fold_{fold}" / "weights"
    return Member(weights / files.main, {key: weights / name for key, name in files.companions.items()}, fold)


def _folds_there(folder: Path) -> list[str]:
    """Folds that have a folder, numbers first."""
    there = [path.name.removeprefix("fold_") for path in folder.glob("fold_*") if path.is_dir()]
    return sorted(there, key=lambda fold: (not fold.isdecimal(), int(fold) if fold.isdecimal() else 0, fold))


def _given_folds(folder: Path, folds: Sequence[int | str]) -> list[str]:
    there = _folds_there(folder)
    chosen = list(dict.fromkeys(str(fold) for fold in folds))
    for fold in chosen:
        if fold not in there:
            raise AutosegError(
                f"the model has no fold {fold}",
                where=str(folder),
                found=f"folds {', '.join(there) or 'none'}",
                fix=nearest_names(fold, there) if there else "train it first with autoseg_train",
            )
    return chosen


def _finished_folds(folder: Path, names: Sequence[str], checkpoint: WeightsKind) -> list[str]:
    """Every numbered fold whose weights are all there, or ``all``; the others are said."""
    there = _folds_there(folder)
    lacking = {
        fold: [p for name in names if not (p := folder / f"fold_{fold}" / "weights" / name).is_file()]
        for fold in there
    }
    finished = [fold for fold in there if not lacking[fold]]
    numbered = [fold for fold in finished if fold.isdecimal()]
    if not finished:
        missing = next(
            (files for files in lacking.values() if files), [folder / "fold_0" / "weights" / names[0]]
        )
        raise _missing_weights(folder, missing, checkpoint)
    chosen = numbered or finished[:1]
    for fold in there:
        if lacking[fold] and fold.isdecimal():
            messages.warn(f"fold {fold} has no {lacking[fold][0].name} and is left out")
    return chosen


def _missing_weights(folder: Path, missing: Sequence[Path], checkpoint: WeightsKind) -> AutosegError:
    """Why a prediction cannot start."""
    first = missing[0].relative_to(folder).as_posix()
    written = sorted(path.name for path in missing[0].parent.glob("*.safetensors"))
    there = f"; written were {some_of(written, 8)}" if written else ""
    if checkpoint == "best":
        fix = "best weights exist only where the training measured validation cases; use -chk final"
    else:
        finished = (missing[0].parents[1] / "fold.json").exists()  # a finished training is not continued
        fix = "train the fold again with autoseg_train ... --overwrite" if finished else FINISH
        fix += ", or choose other folds with -f"
    return AutosegError(
        "weights are missing",
        where=str(folder),
        found=f"no {first}"
        + (f" and {count_of(len(missing) - 1, 'other')}" if len(missing) > 1 else "")
        + there,
        expected="a fold whose training is finished",
        fix=fix,
    )


def find_model(
    results: Path,
    id_or_name: str | int,
    *,
    trainer: str | None = None,
    plan_name: str | None = None,
    model_name: str | None = None,
) -> Path:
    """The model folder of a dataset; trainer, plan or name choose where there are several.

    Raises:
        AutosegError: none or more than one fits.
    """
    first = f"train a model first: autoseg_train {id_or_name} 0"
    dataset = results / paths.dataset_name(results, id_or_name, first=first)
    there = sorted(path.parent.name for path in dataset.glob("*/plan.json") if path.parent.name[0] != ".")
    parts = {name: name.split("__", 1) for name in there}
    fitting = [
        name
        for name in there
        if (model_name in (None, name))
        and (trainer in (None, parts[name][0]))
        and (plan_name in (None, parts[name][-1]))
    ]
    finished = [name for name in fitting if _has_finished_fold(dataset / name)]
    chosen = finished if finished else fitting
    if len(chosen) == 1:
        if len(fitting) > 1:
            messages.info(f"model {chosen[0]}; left out, as no fold is finished: {_others(fitting, chosen)}")
        return dataset / chosen[0]
    if fitting:
        raise _several_models(dataset, fitting, finished)
    wanted = model_name or f"{trainer or '*'}__{plan_name or '*'}"
    raise AutosegError(
        f"there is no model {wanted}" if there else "the dataset has no model yet",
        where=str(dataset),
        found=", ".join(there) or "no folder with plan.json",
        fix=nearest_names(wanted, there) if there else "train one with autoseg_train",
    )


def _others(names: Sequence[str], chosen: Sequence[str]) -> str:
    return ", ".join(name for name in names if name not in chosen)


def _has_finished_fold(model: Path) -> bool:
    """Whether a fold has weights that were trained to the end, or imported."""
    return any(
        any(fold.glob("weights/*.safetensors")) and not in_training(fold) for fold in model.glob("fold_*")
    )


def _several_models(dataset: Path, names: Sequence[str], finished: Sequence[str]) -> AutosegError:
    """The models to choose from; one that is not finished is marked, and not proposed."""
    marked = [name if name in finished else f"{name} (no fold is finished)" for name in names]
    return AutosegError(
        "the dataset has more than one model",
        where=str(dataset),
        found=", ".join(marked),
        fix=f"choose one, such as -name {finished[0]}"
        if finished
        else f"{FINISH}; then choose one with -name",
    )
