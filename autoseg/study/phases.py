"""The study from beginning to end: which phase comes next, and what is decided before it."""

from __future__ import annotations

import math
import shutil
from pathlib import Path
from statistics import median
from typing import Protocol

from autoseg import messages
from autoseg.bundle.found_steps import FILE_NAME as FOUND_STEPS
from autoseg.bundle.found_steps import FoundSteps
from autoseg.comparison.comparison_schema import Comparison
from autoseg.dataset.raw_layout import load_raw
from autoseg.errors import AutosegError, StaleError
from autoseg.files import exclusive, read_model
from autoseg.messages import count_of, duration, some_of
from autoseg.plugins.planner import Budget
from autoseg.preparation.prepared import Prepared
from autoseg.preparation.proposals import find_candidates
from autoseg.preparation.raw_files import changed_cases
from autoseg.study import decisions, leaderboard, planning
from autoseg.study.lengths import shorten, shortest_seconds, to_measure
from autoseg.study.measuring import measure_training, training_seconds
from autoseg.study.state import read_task_record, record_path, settled, spent_seconds, states
from autoseg.study.study_json import (
    FILE_NAME,
    Candidate,
    Choice,
    Contender,
    Length,
    Measure,
    Round,
    Study,
    Task,
    read_study,
)

UNLIMITED_TRIAL = 0.05
"""Without --hours: the first round has so much of the training of a fold as published, of the median family."""
FEWEST_CASES = 2


class Executor(Protocol):
    """Whatever works through the open tasks of a study."""

    def run(self, study: Study) -> None:
        """Until every task is done, failed or left out."""


def run_study(wanted: Study, executor: Executor, *, overwrite: bool = False) -> Study:
    """Begin a study or go on with it, to its end.

    Args:
        wanted: with what the user asks for, without tasks.
        executor: works through the tasks.
        overwrite: forget an earlier study of this dataset.

    Raises:
        AutosegError: another process runs it; it was begun with other settings; the data have changed since; the time
            is too short; no family is left.
    """
    _refuse_few_cases(wanted)
    with exclusive(wanted.folder / ".lock", doing=f"running the study of {wanted.dataset}"):
        with messages.LogFile(wanted.folder / "study.log"):
            study = _begun(wanted, overwrite)
            while True:
                study.write()
                if not settled(states(study)):
                    executor.run(study)
                if not advance(study):
                    break
            study.write()
            leaderboard.write(study)
            return study


def advance(study: Study) -> bool:
    """Decide what can be decided now and add the tasks that follow; whether there are any."""
    steps = (_propose, _measure, _trial, _train, _find_steps, _compare, _finish)
    return any(step(study) for step in steps)


def _refuse_few_cases(study: Study) -> None:
    raw = load_raw(Path(study.folders.raw) / study.dataset)
    if len(raw.cases) < FEWEST_CASES:
        raise AutosegError(
            "one case cannot be divided into folds",
            where=str(raw.folder),
            found=count_of(len(raw.cases), "case"),
            expected=f"at least {FEWEST_CASES}, and dozens for a result that means something",
            fix="add cases; one alone can be trained on by autoseg_train DATASET all",
        )


def _begun(wanted: Study, overwrite: bool) -> Study:
    """The study that is there, or a new one."""
    path = wanted.folder / FILE_NAME
    if overwrite:
        for entry in wanted.folder.iterdir():
            if entry.is_dir():
                shutil.rmtree(entry)
            elif entry.name not in (".lock", "study.log"):
                entry.unlink()
    if not path.exists():
        return wanted.model_copy(deep=True)
    study = read_study(wanted.folder)
    _refuse_changed_data(study)
    changed = _changed_settings(study, wanted)
    if changed:
        raise AutosegError(
            "the study was begun with other settings",
            where=str(path),
            found="; ".join(changed),
            expected="the settings of the start, once something was decided by them",
            fix="leave these options as they were, or begin again with --overwrite",
        )
    messages.info(f"going on with the study in {study.folder}")
    _try_failed_again(study)
    return study.model_copy(update={"settings": wanted.settings, "devices": wanted.devices})


def _try_failed_again(study: Study) -> None:
    """Those that nothing was decided by yet: what they lacked may be there now."""
    found = states(study)
    for task in study.tasks:
        if task.phase == study.tasks[-1].phase and found[task.id] == "failed":
            record_path(study.folder, task).unlink()


def _changed_settings(study: Study, wanted: Study) -> list[str]:
    """What differs and has decided something."""
    decided = {
        "hours": bool(study.rounds or study.winners),
        "families": bool(study.folds),
        "winners": bool(study.winners),
        "options": bool(study.tasks),
    }
    return [
        f"{name} {had} there, {has} now"
        for name, matters in decided.items()
        if matters and (had := getattr(study.settings, name)) != (has := getattr(wanted.settings, name))
    ]


def _refuse_changed_data(study: Study) -> None:
    """Trials and folds of other data would be mixed."""
    if not study.fingerprint_hash:
        return
    prepared = _prepared(study, study.candidates[0].family)
    raw = load_raw(Path(study.folders.raw) / study.dataset)
    names = [case.name for case in prepared.fingerprint.cases]
    there = {case.name for case in raw.cases}
    changed = sorted(set(names) ^ there)
    changed += changed_cases(raw, prepared.fingerprint, prepared.folder, sorted(there & set(names)))
    if prepared.fingerprint.content_hash != study.fingerprint_hash:
        changed = changed or ["the prepared dataset"]
    if changed:
        raise StaleError(
            "the raw data have changed since the study was begun",
            where=str(raw.folder),
            found=f"{count_of(len(changed), 'case')} new, gone or changed: {some_of(changed)}",
            expected="the data that its trainings have seen",
            fix="put the earlier files back, or begin again with --overwrite",
        )


def _prepared(study: Study, family: str) -> Prepared:
    return Prepared(Path(study.folders.preprocessed) / study.dataset, study.plan_of(family))


# ------------------------------------------------------------------------------------------------ who takes part


def _propose(study: Study) -> bool:
    """First the general family is prepared, which measures the data; then the planners are asked."""
    if not study.candidates:
        general = decisions.GENERAL
        study.candidates = [
            Candidate(family=general, plan=_plan_name(study, general), why="the general family")
        ]
        study.tasks = [planning.prepare(study, decisions.GENERAL, decisions.GENERAL)]
        return True
    if study.folds:
        return False
    _refuse_failed(study, study.tasks)
    prepared = _prepared(study, decisions.GENERAL)
    study.fingerprint_hash = prepared.fingerprint.content_hash
    study.folds = _count_folds(prepared)
    found = decisions.proposed(find_candidates(prepared.fingerprint, Budget()), study.settings.families)
    plans = {decisions.GENERAL: study.plan_of(decisions.GENERAL)}
    study.candidates = [
        one.model_copy(update={"plan": plans.get(one.family) or _plan_name(study, one.family)})
        for one in found
    ]
    for one in found:
        messages.info(f"{one.family}, score {one.score:.2f}: {one.why}")
    others = [one.family for one in found if one.family != decisions.GENERAL]
    study.tasks += [planning.prepare(study, family, decisions.GENERAL) for family in others]
    return True


def _plan_name(study: Study, family: str) -> str:
    """That of the family; another where a plan of that name was made in another way."""
    path = Path(study.folders.preprocessed) / study.dataset / family / "plan.json"
    return f"{family}_study" if path.exists() or study.settings.options else family


def _count_folds(prepared: Prepared) -> int:
    """Of splits.json, which is made where there is none."""
    from autoseg.dataset.folds import load_or_make_folds
    from autoseg.dataset.subjects import GROUPS, read_subjects

    names = [case.name for case in prepared.fingerprint.cases]
    folds = load_or_make_folds(prepared.splits_path, names, read_subjects(prepared.folder / GROUPS, names))
    if not folds:
        raise AutosegError("the cases of one subject cannot be divided into folds", where=prepared.dataset)
    said = f"{count_of(len(folds), 'fold')} of {count_of(len(names), 'case')}"
    messages.info(f"{said}; so few cases tell little" if len(names) < 10 else said)
    return len(folds)


def _alive(study: Study, families: list[str], prefix: str) -> list[str]:
    """Those whose task of this kind is done."""
    found = states(study)
    return [family for family in families if found.get(f"{prefix}{family}") == "done"]


def _errors(study: Study, prefix: str) -> dict[str, str]:
    """Family to the error of its task of this kind that failed."""
    found = states(study)
    return {
        task.family: _error(study, task)
        for task in study.tasks
        if task.family and task.id.startswith(prefix) and found[task.id] in ("failed", "left out")
    }


def _error(study: Study, task: Task) -> str:
    record = read_task_record(study.folder, task)
    return " ".join(record.error.split()) if record and record.error else f"{task.id} could not be done"


def _refuse_failed(study: Study, tasks: list[Task]) -> None:
    """What nothing can go on without."""
    found = states(study)
    for task in tasks:
        if found[task.id] == "failed":
            record = read_task_record(study.folder, task)
            raise AutosegError(
                f"the study cannot go on without {task.id}",
                where=str(study.folder / "tasks" / f"{task.id}.log"),
                found=(record.error.removeprefix("error: ") if record else "") or "it failed",
                fix="correct this, and run the same command again",
            )


# -------------------------------------------------------------------------------------------------- what it takes


def _measure(study: Study) -> bool:
    """Two short epochs of every family."""
    families = [one.family for one in study.candidates]
    if any(task.phase == "measure" for task in study.tasks):
        return False
    alive = _alive(study, families, "prepare_")
    lengths = {
        family: Length(settings=to_measure(_prepared(study, family).plan), seconds=0, shortened=[])
        for family in alive
    }
    study.tasks += [planning.measure(study, family, length) for family, length in lengths.items()]
    return True


def _take_measures(study: Study, folder: str, prefix: str, families: list[str]) -> None:
    """From the trainings that ended last, the nearest to those that come."""
    for family in families:
        prepared = _prepared(study, family)
        task = next(one for one in study.tasks if one.id == f"{prefix}{family}")
        record = read_task_record(study.folder, task)
        fold = planning.model_of(study, folder, family) / f"fold_{planning.FOLD}"
        wall = record.seconds / max(1, record.attempts) if record else 0.0
        study.measures[family] = measure_training(fold, prepared.plan, prepared.fingerprint, wall)


def _left(study: Study) -> float:
    """Wall seconds of the time that the user gave."""
    hours = study.settings.hours
    return math.inf if hours is None else max(0.0, hours * 3600 - spent_seconds(study))


# ------------------------------------------------------------------------------------------------------ the trial


def _trial(study: Study) -> bool:
    """The next round, or the comparison that ends one."""
    if study.winners:
        return False
    if not study.measures:
        families = _alive(study, [one.family for one in study.candidates], "measure_")
        if not families:
            _refuse_failed(study, study.tasks)
        _take_measures(study, "measured", "measure_", families)
        _say_published(study)
        _refuse_small(study, families)
        if decisions.n_rounds(len(families)) == 0:
            study.winners = families
            return False
        return _begin_round(study, 1, families)
    one = study.rounds[-1]
    alive = _alive(study, list(one.lengths), f"trial_{one.number}_")
    compare = f"trial_{one.number}_compare"
    if len(alive) > 1 and not any(task.id == compare for task in study.tasks):
        study.tasks.append(planning.compare_trial(study, one.number, alive))
        return True
    kept = _end_round(study, one, alive)
    total = len(study.measures)
    if one.number == decisions.n_rounds(total) or len(kept) == 1:
        study.winners = kept
        return False
    return _begin_round(study, 2, kept)


def _begin_round(study: Study, number: int, families: list[str]) -> bool:
    measures = {family: study.measures[family] for family in families}
    if study.settings.hours is None:
        usual = median(m.published - m.start - m.members * m.predict for m in measures.values())
        seconds = number * UNLIMITED_TRIAL * usual
    else:
        share = decisions.TRIAL_SHARE if number == 1 else _share_left(study)
        seconds = decisions.round_seconds(measures, number, share * _left(study), study.devices)
    seconds = max(seconds, *(shortest_seconds(one) for one in measures.values()))
    lengths = {
        family: shorten(_prepared(study, family).plan, measure, seconds, members=1)
        for family, measure in measures.items()
    }
    study.rounds.append(Round(number=number, fold=planning.FOLD, seconds=seconds, lengths=lengths))
    messages.info(
        f"trial, round {number}: {', '.join(families)}, {duration(seconds)} of training each on fold {planning.FOLD}"
    )
    for family, length in lengths.items():
        if length.shortened:
            messages.info(f"  {family}, shortened for the trial: {'; '.join(length.shortened)}")
    study.tasks += planning.trial(study, study.rounds[-1])
    return True


def _share_left(study: Study) -> float:
    """Of what is left: what the first round has left of the trial's share."""
    hours = study.settings.hours or 0.0
    left = _left(study)
    planned = (1 - decisions.TRIAL_SHARE) * hours * 3600
    return max(0.1, (left - planned) / left) if left else 0.1


def _end_round(study: Study, one: Round, alive: list[str]) -> list[str]:
    """Decide who goes on; the first is the best."""
    number = one.number
    _refuse_failed(study, [task for task in study.tasks if task.id == f"trial_{number}_compare"])
    if not alive:
        _refuse_failed(study, [task for task in study.tasks if task.phase == f"trial {number}"])
    last = number == decisions.n_rounds(len(study.measures))
    keep = study.settings.winners if last else decisions.kept_after(number, len(one.lengths))
    _take_measures(study, f"trial_{number}", f"trial_{number}_", alive)
    comparison = decisions.comparison_of(study.folder / f"trial_{number}" / "comparison")
    seconds = {
        family: training_seconds(
            planning.model_of(study, f"trial_{number}", family) / f"fold_{planning.FOLD}"
        )
        for family in alive
    }
    rows = decisions.standings(
        comparison if len(alive) > 1 else None,
        {family: study.measures[family] for family in one.lengths},
        seconds,
        _errors(study, f"trial_{number}_"),
        keep,
    )
    study.rounds[-1] = decisions.decided_round(one, rows, comparison)
    for line in leaderboard.round_lines(study.rounds[-1]):
        messages.info(line)
    return [row.family for row in rows if row.goes_on]


def _say_published(study: Study) -> None:
    """How long the published recipes would take here, before anything long begins."""
    for family, measure in study.measures.items():
        step = max(stage.seconds for stage in measure.stages)
        messages.info(
            f"{family}: {step:.2g} s for an iteration, {duration(measure.published)} for a fold as published"
        )
    if study.settings.hours is None:
        seconds = _published_seconds(study)
        advice = "; give --hours to have it in less" if seconds > 86400 else ""
        messages.info(
            f"without --hours all is trained as published: about {duration(seconds)} in all{advice}"
        )


def _published_seconds(study: Study) -> float:
    measured = sorted(study.measures.values(), key=lambda one: -one.published)
    n = min(study.settings.winners, len(measured))
    return sum(one.published for one in measured[:n]) * study.folds / study.devices


def _refuse_small(study: Study, families: list[str]) -> None:
    """Before the first training that counts: is there time for one of anything?"""
    if study.settings.hours is None:
        return
    measures = {family: study.measures[family] for family in families}
    n, rounds = len(families), decisions.n_rounds(len(families))
    beside = max(one.start + one.predict for one in measures.values())
    shortest = max(shortest_seconds(one) for one in measures.values())
    waves = math.ceil(n / study.devices) if rounds else 0
    trial = (waves + (math.ceil(n / 2) if rounds == 2 else 0)) * (beside + 2 * shortest)
    folds = _waves(study, 1) * (beside + shortest)
    needed = max(
        trial / decisions.TRIAL_SHARE, (folds + _after(study, 1)) / (1 - decisions.TRIAL_SHARE * bool(rounds))
    )
    words = (
        f"measured so far {duration(spent_seconds(study))}; a command beside its training {duration(beside)}, the "
        f"shortest training {duration(shortest)}, for {count_of(n, 'family', 'families')} "
        f"and {count_of(study.folds, 'fold')}"
    )
    decisions.refuse_small(study.settings.hours, spent_seconds(study) + needed, words)


def _waves(study: Study, winners: int) -> int:
    return math.ceil(winners * study.folds / study.devices)


def _after(study: Study, winners: int) -> float:
    """Wall seconds of what follows the folds: post-processing, comparison, bundle, report."""
    start = min(one.start for one in study.measures.values())
    methods = winners + (2 if winners > 1 else 0)
    return start * (math.ceil(methods / study.devices) + 3)


# ------------------------------------------------------------------------------------------------------ the folds


def _train(study: Study) -> bool:
    """All folds, members and stages of those that went on."""
    if any(task.phase == "folds" for task in study.tasks):
        return False
    if study.settings.hours is not None:
        study.winners = _affordable(study, study.winners)
    for family in study.winners:
        length = _fold_length(study, family)
        study.lengths[family] = length
        what = "; ".join(length.shortened) or "as published"
        messages.info(f"{family}: {count_of(study.folds, 'fold')}, {duration(length.seconds)} each: {what}")
    study.tasks += planning.folds(study)
    return True


def _affordable(study: Study, winners: list[str]) -> list[str]:
    """As many as there is time for, at least one."""
    for n in range(len(winners), 1, -1):
        shortest = max(_fold_budget(study, study.measures[f], n, 1) for f in winners[:n])
        if shortest >= 3 * max(shortest_seconds(study.measures[f]) for f in winners[:n]):
            return winners[:n]
    if len(winners) > 1:
        messages.info(f"there is time for the folds of one family: {winners[0]}")
    return winners[:1]


def _fold_budget(study: Study, measure: Measure, winners: int, members: int) -> float:
    available = decisions.FOLDS_SHARE * _left(study) - _after(study, winners)
    return decisions.fold_seconds(measure, available, _waves(study, winners), members)


def _fold_length(study: Study, family: str) -> Length:
    """As published where there is time; else cut, with fewer members where these would hardly train."""
    plan, measure = _prepared(study, family).plan, study.measures[family]
    if study.settings.hours is None:
        return shorten(plan, measure, math.inf)
    n = len(study.winners)
    members, shortest = plan.recipe.members, shortest_seconds(measure)
    while members > 1 and _fold_budget(study, measure, n, members) < 3 * members * shortest:
        members -= 1
    seconds = _fold_budget(study, measure, n, members)
    return shorten(plan, measure, max(seconds, shortest), members)


# ------------------------------------------------------------------------------------------------------ the end


def _find_steps(study: Study) -> bool:
    """Out-of-fold post-processing of every method that has all of its folds."""
    if any(task.id.startswith("postprocessing_") for task in study.tasks):
        return False
    whole = _whole(study)
    if not whole:
        _refuse_failed(study, [task for task in study.tasks if task.phase == "folds"])
    study.tasks += [planning.find_steps(study, method) for method in planning.methods(study, whole)]
    return True


def _whole(study: Study) -> list[str]:
    found = states(study)
    return [
        family
        for family in study.winners
        if all(found[f"fold_{fold}_{family}"] == "done" for fold in range(study.folds))
    ]


def _compare(study: Study) -> bool:
    """All methods on all cases."""
    alive = [m.name for m in planning.methods(study, _whole(study))]
    alive = _alive(study, alive, "postprocessing_")
    if not alive:
        _refuse_failed(study, [task for task in study.tasks if task.id.startswith("postprocessing_")])
    if len(alive) < 2 or any(task.id == "compare_methods" for task in study.tasks):
        return False
    study.tasks.append(planning.compare_methods(study, alive))
    return True


def _finish(study: Study) -> bool:
    """Choose, and make what remains of it."""
    if study.choice is not None:
        return False
    _refuse_failed(study, [task for task in study.tasks if task.id == "compare_methods"])
    found = states(study)
    comparison = decisions.comparison_of(study.folder / "comparison")
    methods = planning.methods(study, _whole(study))
    alive = [m for m in methods if found[f"postprocessing_{m.name}"] == "done"]
    described = [_described(study, method) for method in alive]
    study.choice = choose(described, comparison)
    failed = [m for m in methods if m not in alive]
    errors = _errors(study, "postprocessing_")
    study.choice.methods += [m.model_copy(update={"why": errors[m.name]}) for m in failed]
    leaderboard.write(study)
    chosen = next(m for m in study.choice.methods if m.name == study.choice.method)
    study.tasks += planning.final(study, chosen)
    return True


def _described(study: Study, method: Contender) -> Contender:
    """With its scores, its post-processing and what it cost."""
    steps = read_model(study.folder / "out_of_fold" / method.name / FOUND_STEPS, FoundSteps)
    seconds = sum(
        training_seconds(planning.model_of(study, "folds", family) / f"fold_{fold}")
        for family in method.families
        for fold in range(study.folds)
    )
    update = {
        "dice": steps.nested["dice"],
        "lesion_f1": steps.nested["lesion_f1"],
        "planned": steps.planned["dice"],
        "seconds": seconds,
        "steps": steps.words,
    }
    return method.model_copy(update=update)


def choose(methods: list[Contender], comparison: Comparison | None) -> Choice:
    """The method that the study ends in, by the rule of the trial's rounds with one that goes on."""
    order = sorted(methods, key=lambda one: (-(one.dice or 0.0), one.seconds or 0.0))
    leader, *others = order
    reasons = {leader.name: "the best mean Dice out of fold" if others else "the only method"}
    equal = [leader]
    for one in others:
        worse = decisions.shown_worse(comparison, one.name, leader.name)
        reasons[one.name] = (
            f"shown to be worse than {leader.name}: {worse}"
            if worse
            else f"no difference from {leader.name} is shown"
        )
        equal += [] if worse else [one]
    chosen = min(equal, key=lambda one: (len(one.families), one.seconds or 0.0))
    if chosen is not leader:
        reasons[chosen.name] += ", and it is cheaper"
        reasons[leader.name] += f", not shown to be better than {chosen.name}, which is cheaper"
    said = decisions.differences_said(comparison) if comparison else []
    return Choice(
        method=chosen.name,
        methods=[one.model_copy(update={"why": reasons[one.name]}) for one in order],
        said=said,
    )
