"""From a raw dataset to a plan and a store: the three steps of ``autoseg_plan_and_preprocess``."""

from __future__ import annotations

import contextlib
import json
import math
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from autoseg import messages
from autoseg.dataset.examine import extract_fingerprint
from autoseg.dataset.fold_lists import read_fold_list
from autoseg.dataset.folds import (
    N_FOLDS,
    PARTS,
    Fold,
    divide_once,
    make_folds,
    read_folds,
    take_given_folds,
    write_folds,
)
from autoseg.dataset.part import CasesPart
from autoseg.dataset.part_lock import exclusive_part
from autoseg.dataset.raw_layout import RawDataset, load_raw
from autoseg.dataset.subjects import GROUPS, read_strata, read_subjects
from autoseg.errors import AutosegError, StaleError
from autoseg.files import read_model, write_bytes, write_json
from autoseg.fingerprint import Fingerprint
from autoseg.messages import count_of, some_of
from autoseg.orientation import described
from autoseg.plan import Plan, apply_overrides, hash_plan
from autoseg.plan.identity import differences
from autoseg.plan.plan_paths import shortened
from autoseg.plugins.planner import Budget
from autoseg.preparation.choice import make_plan
from autoseg.preparation.prepared import Prepared, open_prepared
from autoseg.preparation.quick import Common
from autoseg.preparation.raw_files import FILE_NAME as RAW_FILES
from autoseg.preparation.raw_files import look_at_files

if TYPE_CHECKING:
    from autoseg.preprocessing.fill_store import PreprocessReport

SETTINGS = ("planner", "planner_options", "trainer", "overrides")
"""What the user decides of a plan; all else follows from these and the data."""


MOST_VOXELS = 2**31
"""Of a case on the working grid: 8 GB for each channel."""


def take_fingerprint(raw_folder: Path, folder: Path, processes: int) -> tuple[RawDataset, Fingerprint]:
    """Check every file and measure the dataset; records of unchanged cases are kept.

    Raises:
        FaultsError: with all faults of all cases, or of the folds that came with the raw dataset.
        StaleError: the raw dataset came with folds, and they do not fit its cases or the folds in use.
    """
    raw = load_raw(raw_folder)
    path = folder / "fingerprint.json"
    previous = None
    if path.exists():
        try:
            previous = read_model(path, Fingerprint)
        except AutosegError as error:
            messages.warn(f"the fingerprint of an earlier run is not used: {error.fault.problem}")
    files = look_at_files(raw)  # before they are read: a change in between is noticed
    fingerprint = extract_fingerprint(raw, processes, previous)
    if previous is not None and previous.content_hash != fingerprint.content_hash:
        messages.info(_what_changed(previous, fingerprint))
    names = [case.name for case in fingerprint.cases]
    subjects = read_subjects(raw_folder / GROUPS, names)
    take_given_folds(raw_folder / "splits.json", folder / "splits.json", names, subjects)
    if subjects and (alone := sorted(set(names) - set(subjects))):
        shown = ", ".join(alone[:5]) + (", ..." if len(alone) > 5 else "")
        messages.warn(
            f"{GROUPS} names no subject of {shown}: each counts as a subject of its own ({len(alone)})"
        )
    _keep_groups(raw_folder / GROUPS, folder / GROUPS)
    write_json(folder / "dataset.json", raw.info)
    write_json(path, fingerprint)
    write_json(folder / RAW_FILES, files)
    return raw, fingerprint


def _keep_groups(given: Path, kept: Path) -> None:
    """The groups of the raw dataset beside what is made of it, so that whoever makes folds knows the subjects."""
    if given.exists():
        write_bytes(kept, given.read_bytes())
    else:
        kept.unlink(missing_ok=True)


LESION_VOLUME, THIRDS = "lesion_volume", ("small", "medium", "large")
"""What ``--stratify`` takes beside a column of groups.csv, and the groups that it makes."""


def folds_asked_for(
    raw_folder: Path, wanted: str | None, with_test: bool, strata: Mapping[str, str] | None = None
) -> list[Fold]:
    """The folds that the user asks for, with the cases of a subject together; before any case is read.

    Args:
        raw_folder: of the dataset.
        wanted: how many; proportions of train, validation and test such as ``182/26/31``, for one fold; or a file, see
            :func:`autoseg.dataset.fold_lists.read_fold_list`. None for as many as a training would make.
        with_test: with a third part, where a number is wanted.
        strata: case to its group, where the groups are to be spread evenly over a number of folds.

    Raises:
        AutosegError: the raw dataset has folds of its own; the cases are too few; words that do not go together; as
            of a list.
    """
    raw = load_raw(raw_folder)
    given, names = raw_folder / "splits.json", [case.name for case in raw.cases]
    if given.exists():
        raise AutosegError(
            "the raw dataset has folds of its own",
            where=str(given),
            fix="leave --folds, --test_part and --stratify out, or move this file away",
        )
    subjects = read_subjects(raw_folder / GROUPS, names)
    if wanted is not None and not _is_number(wanted):
        if with_test or strata is not None:
            option = "--test_part" if with_test else "--stratify"
            fix = f"leave {option} out: proportions and lists of folds say themselves what each case does"
            raise AutosegError(f"{option} goes with a number of folds", found=f"--folds {wanted}", fix=fix)
        if shares := _proportions(wanted):
            return [divide_once(names, shares, subjects=subjects)]
        if not Path(wanted).is_file():
            raise AutosegError(
                "--folds is no number, no proportions and no file",
                found=wanted,
                expected="such as 5, 182/26/31 or folds.csv",
                fix="check the path",
            )
        return read_fold_list(Path(wanted), names, subjects)
    folds = make_folds(names, int(wanted or N_FOLDS), with_test=with_test, subjects=subjects, strata=strata)
    if not folds:
        raise AutosegError("one case, or the cases of one subject, cannot be divided", where=raw.name)
    return folds


def strata_asked_for(
    raw_folder: Path, by: str | None, fingerprint: Fingerprint | None = None
) -> dict[str, str] | None:
    """Case to the group that is spread over the folds.

    Args:
        raw_folder: of the dataset.
        by: a column of groups.csv, or :data:`LESION_VOLUME` for thirds of the cases by the volume of their lesions;
            None for no groups.
        fingerprint: of the dataset, which knows the volumes. Before it is there all cases are of one group.

    Raises:
        AutosegError: there is no such column, or nothing in it.
    """
    if by is None:
        return None
    names = sorted(case.name for case in load_raw(raw_folder).cases)
    if by != LESION_VOLUME:
        return read_strata(raw_folder / GROUPS, names, by)
    if fingerprint is None:
        return dict.fromkeys(names, "")
    cases = sorted(fingerprint.cases, key=lambda case: (case.lesions.volume_ml, case.name))
    return {case.name: THIRDS[rank * len(THIRDS) // len(cases)] for rank, case in enumerate(cases)}


def _is_number(text: str) -> bool:
    return re.fullmatch(r"-?\d+", text) is not None


def _proportions(text: str) -> tuple[int, ...]:
    """``182/26/31``, or two numbers; empty for what is a path.

    Raises:
        AutosegError: a part without cases.
    """
    if not re.fullmatch(r"\d+/\d+(/\d+)?", text):
        return ()
    shares = tuple(map(int, text.split("/")))
    if 0 in shares:
        expected = "numbers above 0: train/validation/test, or train/validation"
        raise AutosegError("a part would have no case", found=f"--folds {text}", expected=expected)
    return shares


def use_folds(folder: Path, folds: Sequence[Fold]) -> None:
    """Let trainings use these folds.

    Args:
        folder: of the prepared dataset; its ``splits.json`` is written, never replaced.
        folds: of all its cases.

    Raises:
        StaleError: other folds are in use.
    """
    path = folder / "splits.json"
    if not path.exists():
        write_folds(path, folds)
        messages.info(f"{path.name}: {_sizes(folds)}")
    elif (
        read_folds(path, sorted({n for fold in folds for part in fold.parts.values() for n in part})) != folds
    ):
        with_test = any(fold.test for fold in folds)
        raise StaleError(
            "other folds are in use",
            where=str(path),
            expected=f"{count_of(len(folds), 'fold')}{' with a test part' if with_test else ''}",
            fix="delete the file to have them; models that were trained on the folds in use can then not be continued",
        )


def _sizes(folds: Sequence[Fold]) -> str:
    """How many folds, and how many cases do what in them."""
    said = []
    for part, does in PARTS.items():
        sizes = sorted({len(fold.parts[part]) for fold in folds if part in fold.parts})
        said += [f"{' or '.join(map(str, sizes))} cases {does}"] if sizes else []
    return f"{count_of(len(folds), 'fold')}; " + ", ".join(said)


def _what_changed(before: Fingerprint, after: Fingerprint) -> str:
    """One line on which cases are new, gone or changed."""
    old = {case.name: case.content_hash for case in before.cases}
    new = {case.name: case.content_hash for case in after.cases}
    kinds = {
        "new": sorted(set(new) - set(old)),
        "gone": sorted(set(old) - set(new)),
        "changed": sorted(name for name in set(old) & set(new) if old[name] != new[name]),
    }
    parts = [
        f"{len(names)} {kind} ({', '.join(names[:3])}{', ...' if len(names) > 3 else ''})"
        for kind, names in kinds.items()
        if names
    ]
    return "the dataset has changed: " + ("; ".join(parts) or "dataset.json")


def decide(
    fingerprint: Fingerprint,
    folder: Path,
    *,
    planner: str,
    plan_name: str | None,
    budget: Budget,
    overrides: dict[str, Any],
    keep: bool,
    check: Callable[[Plan], None] = lambda plan: None,
) -> tuple[str, Plan]:
    """Make the plan, or take the one that is there; nothing is written.

    Args:
        keep: use ``folder/plan_name/plan.json`` as it is (with ``overrides``); without a name that of the planner,
            or the only one.
        check: refuses a plan that cannot be trained, before it is written.

    Returns:
        The name of the plan, and the plan.

    Raises:
        AutosegError: unknown planner, unknown path or value in ``overrides``, no plan to keep, or one that does not
            fit the dataset any more.
    """
    if keep:
        wanted = plan_name or (None if planner == "auto" else planner)
        name = open_prepared(folder.parent, folder.name, wanted).plan_name
        plan = _kept(folder / name / "plan.json", fingerprint)
        plan = apply_overrides(plan, overrides) if overrides else plan
    else:
        plan = make_plan(fingerprint, planner, budget, overrides)
        name = plan_name or plan.planner
        _refuse_other_orientation(plan, fingerprint)
    _warn_of_mixture(plan, fingerprint)
    _refuse_other_dataset(plan, fingerprint, folder / name / "plan.json")
    _refuse_endless_grid(plan, fingerprint)
    check(plan)
    return name, plan


@contextlib.contextmanager
def written(
    plan: Plan, folder: Path, name: str, *, replace: bool, part: CasesPart | None = None
) -> Iterator[Prepared]:
    """Write a plan; for the length of the block nobody else replaces it or fills its store.

    Args:
        plan: it is written.
        folder: of the prepared dataset.
        name: of the plan.
        replace: a plan that other settings made, and with it the store.
        part: of the cases, which the caller will make; the plan must be there, and others may make other parts.

    Raises:
        AutosegError: another process prepares by this plan; a plan that would be replaced. Nothing is written then.
    """
    prepared = Prepared(folder, name)
    doing = f"preparing {prepared.dataset} with the plan '{name}'"
    with exclusive_part(prepared.plan_path.parent, part, doing=doing):
        if prepared.fingerprint.content_hash != plan.fingerprint_hash:
            raise StaleError(
                "the dataset was examined again by another process meanwhile",
                where=str(folder),
                fix="run the command again",
            )
        if part is not None:
            _refuse_another_plan(prepared.plan_path, plan)
            yield prepared
            return
        if not replace:
            refuse_other_settings(prepared, plan, prepared.fingerprint)
        plan = _with_reasons_there(prepared.plan_path, plan)
        if prepared.plan_path.exists() and not _is_same(prepared.plan_path, plan):
            messages.info(f"the plan '{name}' is replaced")
        write_json(prepared.plan_path, plan)
        yield prepared


def _with_reasons_there(path: Path, plan: Plan) -> Plan:
    """A plan with the reasons of the one that is there, where they are all that differs.

    A later autoseg may give a reason in other words. That is no other plan: trainings by it go on.
    """
    try:
        before = read_model(path, Plan)
    except AutosegError:  # none, or one that is replaced
        return plan
    told = {"reasons", "proposals"}
    same = before.model_dump(exclude=told) == plan.model_dump(exclude=told)
    return plan.model_copy(update={"reasons": before.reasons}) if same else plan


def _refuse_another_plan(path: Path, plan: Plan) -> None:
    """Parts do not replace the plan that others work by."""
    if not path.exists() or not _is_same(path, plan):
        raise AutosegError(
            "parts are preprocessed by the plan that is there",
            where=str(path),
            found="another plan" if path.exists() else "none",
            fix="write the plan first, with --no_pp and without --part; then give --keep_plan --part I/N alone",
        )


def refuse_other_settings(prepared: Prepared, plan: Plan, fingerprint: Fingerprint) -> None:
    """A plan that cases were prepared by is replaced only when the user asks; other data are no other settings.

    Raises:
        AutosegError: the plan that is there was made with other settings.
    """
    path = prepared.plan_path
    if not path.exists():
        return
    try:
        before = _turned_alike(read_model(path, Plan), fingerprint)
    except AutosegError as error:
        raise AutosegError(
            f"the plan '{prepared.plan_name}' is there and cannot be used",
            where=str(path),
            found=str(error),
            expected="a plan that was made here, or edited by hand without a fault",
            fix="correct it and keep it with --keep_plan, or replace it with --overwrite",
        ) from None
    if not prepared.store.names() or _is_same(path, plan):
        return
    others = [name for name in SETTINGS if getattr(before, name) != getattr(plan, name)]
    if before.fingerprint_hash == plan.fingerprint_hash:
        ours, theirs = (
            one.model_dump(mode="json", exclude={"reasons", "proposals"}) for one in (plan, before)
        )
        others = others or differences(theirs, ours)
    if others:
        raise AutosegError(
            f"the plan '{prepared.plan_name}' is there, made with other settings",
            where=str(path),
            found="different: "
            + some_of([text for name in others for text in _shown(name, before, plan)], 6),
            expected="the plan that the cases are prepared by",
            fix="repeat the options that it was made with, or keep it with --keep_plan; for the new one give a name "
            "of its own with -p, or replace the one that is there with --overwrite",
        )


def _shown(name: str, before: Plan, plan: Plan) -> list[str]:
    """A setting with its values; of options those that differ, as ``--set`` names them."""
    if name not in SETTINGS:
        return [name]
    there, here = getattr(before, name), getattr(plan, name)
    if not isinstance(there, dict):
        return [f"{name} ({there or 'none'} there, {here or 'none'} now)"]
    prefix, default = "", {}
    if name == "planner_options":  # those of every planner are recorded only where they are not as usual
        prefix, default = "planner.", Common().model_dump(mode="json")
    there, here = default | there, default | here
    keys = [
        key
        for key in sorted({*there, *here})
        if key not in there or key not in here or there[key] != here[key]
    ]
    return [f"{prefix}{key} ({_value(there, key)} there, {_value(here, key)} now)" for key in keys]


def _value(options: dict[str, Any], key: str) -> str:
    """An option for reading, no longer than a line."""
    value = options.get(key, "not given")
    return shortened(value if isinstance(value, str) else json.dumps(value))


def _turned_alike(before: Plan, fingerprint: Fingerprint) -> Plan:
    """A plan of an earlier autoseg with an orientation, where it prepared all cases as it would have with one."""
    settings, alike = (
        before.preprocessing,
        list(fingerprint.summary.orientations) == [fingerprint.orientation],
    )
    if settings.orientation is not None or "preprocessing.orientation" in before.overrides or not alike:
        return before
    named = settings.model_copy(update={"orientation": fingerprint.orientation})
    return before.model_copy(update={"preprocessing": named})


def _refuse_other_orientation(plan: Plan, fingerprint: Fingerprint) -> None:
    """Axes, spacing and patch of a plan belong to the orientation in which the facts were measured."""
    path, measured = "preprocessing.orientation", fingerprint.orientation
    if path in plan.overrides and plan.preprocessing.orientation not in (None, measured):
        raise AutosegError(
            f"--set {path}: the plan's axes are those of another orientation",
            found=str(plan.preprocessing.orientation),
            expected=f"{measured}, that of most cases, or null, which leaves each case as it is stored",
            fix="leave it out; store the cases in the orientation that you want",
        )


def _warn_of_mixture(plan: Plan, fingerprint: Fingerprint) -> None:
    """A plan without orientation, of an earlier autoseg or as the user wants it, takes cases as they are stored."""
    if plan.preprocessing.orientation is None and len(fingerprint.summary.orientations) > 1:
        stored = described({case.name: case.orientation for case in fingerprint.cases})
        messages.warn(
            f"the plan takes cases as they are stored, and they are stored in different orientations: {stored}; its "
            "axes are not the same in all of them. Plan again for one that turns them"
        )


def _is_same(path: Path, plan: Plan) -> bool:
    """Whether a plan.json decides the same; one that cannot be read does not."""
    try:
        return hash_plan(read_model(path, Plan)) == hash_plan(plan)
    except AutosegError:
        return False


def _kept(path: Path, fingerprint: Fingerprint) -> Plan:
    """A plan that stays although the cases may have changed; channels and classes must be those of the dataset."""
    plan = read_model(path, Plan)
    _refuse_other_dataset(plan, fingerprint, path)
    return plan.model_copy(update={"fingerprint_hash": fingerprint.content_hash})


def _refuse_other_dataset(plan: Plan, fingerprint: Fingerprint, path: Path) -> None:
    for what in ("channel_names", "labels", "regions_class_order"):
        planned, there = getattr(plan, what), getattr(fingerprint, what)
        if planned != there:
            raise StaleError(
                f"the plan was made for other {what.replace('_', ' ')}",
                where=str(path),
                found=str(planned),
                expected=f"{there}, as in dataset.json",
                fix="plan again without --keep_plan, and without --set for these",
            )


def _refuse_endless_grid(plan: Plan, fingerprint: Fingerprint) -> None:
    """A mistyped spacing would fill disk and memory."""
    spacing, axes = plan.preprocessing.spacing_mm, plan.preprocessing.transpose
    for case in fingerprint.cases:
        sizes = [
            case.shape[axis] * case.spacing_mm[axis] / (wanted or case.spacing_mm[axis])
            for wanted, axis in zip(spacing, axes, strict=True)
        ]
        if (voxels := math.prod(sizes)) > MOST_VOXELS:
            raise AutosegError(
                "the working grid is too fine",
                where="preprocessing.spacing_mm",
                found=f"{list(spacing)}: {voxels:.1e} voxels for case {case.name}",
                expected=f"up to {MOST_VOXELS:.1e} voxels",
                fix="choose a larger spacing, in millimetres, or correct that in the header of the case",
            )


def preprocess(
    raw: RawDataset, prepared: Prepared, processes: int, part: CasesPart | None = None
) -> PreprocessReport:
    """Bring the store up to date with the raw data and the plan; within :func:`written`."""
    from autoseg.preprocessing.fill_store import preprocess_dataset

    store = prepared.plan_path.parent / "store"
    return preprocess_dataset(raw, prepared.fingerprint, prepared.plan, store, processes, part)
