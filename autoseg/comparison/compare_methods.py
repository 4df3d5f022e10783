"""Compare methods: several folders of predictions, scored against the same truths by the same preset."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import numpy as np

from autoseg import messages
from autoseg.comparison.comparison_schema import (
    Comparison,
    Difference,
    LevelComparison,
    StratumComparison,
    Test,
)
from autoseg.comparison.method_table import pooled_dice
from autoseg.comparison.methods import CommonCases, common_cases, find_methods
from autoseg.comparison.notes import TESTS, family, notes
from autoseg.comparison.ranking import (
    ALPHA,
    INTERVAL,
    TRUTH,
    MetricScores,
    against_one,
    compare_metric,
    corrected_levels,
)
from autoseg.dataset.dataset_json import DatasetJson
from autoseg.errors import AutosegError, nearest_names
from autoseg.evaluation import statistics
from autoseg.evaluation.metric_choice import MetricChoice
from autoseg.evaluation.metrics.metric import GROUPS, Better, Metric
from autoseg.evaluation.metrics.surface import nsd
from autoseg.evaluation.presets import PRESETS, Preset, find_preset
from autoseg.evaluation.score_masks import Regions, evaluate_folder
from autoseg.evaluation.summary import Stratum, Summary
from autoseg.version import __version__

STRATIFIED_FROM = 12
"""Cases from which on the methods are also compared on quartiles of the size of the truth."""
MOST_MAIN = 4
"""More metrics than this have no sentences and no place in the figure; the tables hold all."""
DEFAULT_STRATA = ("voxels_truth=q4",)


# ---------------------------------------------------------------------------------------------------------- metrics


def compared_metrics(choice: MetricChoice, names: Sequence[str] = ()) -> dict[str, Metric]:
    """The metrics to compare.

    Args:
        choice: the preset, less what was left out, plus further tolerances of the surface Dice.
        names: in the order in which they are shown; by default those of the preset's table of which some values are
            better than others, and the further surface Dice.

    Raises:
        AutosegError: a metric is unknown, is not in the preset, or no value of it is better than another.
    """
    known = {metric.name: metric for metric in choice.metrics}
    directed = [name for name, metric in known.items() if metric.better is not None]
    preset = choice.full_preset
    if not names:
        further = (nsd(tolerance).name for tolerance in choice.nsd_mm)
        names = [name for name in dict.fromkeys((*preset.table, *further)) if name in directed] or directed
    chosen: dict[str, Metric] = {}
    for name in names:
        if name not in known:
            raise _unknown_metric(name, preset)
        if known[name].better is None:
            raise AutosegError(
                f"{name} cannot be compared, because no value of it is better than another",
                where="--metrics",
                found=known[name].definition,
                expected=f"one of {', '.join(directed)}",
            )
        chosen[name] = known[name]
    return chosen


def not_compared(choice: MetricChoice, chosen: Mapping[str, Metric]) -> list[str]:
    """What a preset computes and a comparison by default leaves out, in a sentence for each reason."""
    others = [metric for metric in choice.full_preset.metrics if metric.name not in chosen]
    computed = {metric.name for metric in choice.metrics}
    reasons = {
        "only described, because no value is better than another": [m for m in others if m.better is None],
        "left out by --without": [m for m in others if m.better and m.name not in computed],
        "not compared unless --metrics names them": [m for m in others if m.better and m.name in computed],
    }
    return [f"{why}: {', '.join(m.name for m in some)}" for why, some in reasons.items() if some]


def _unknown_metric(name: str, preset: Preset) -> AutosegError:
    elsewhere = [p.name for p in PRESETS.values() if any(metric.name == name for metric in p.metrics)]
    if preset.name in elsewhere:
        return AutosegError(
            f"{name} was left out", where="--metrics", fix="do not name its group in --without"
        )
    if elsewhere:
        return AutosegError(
            f"{name} is not a metric of the preset {preset.name}",
            where="--metrics",
            found=f"it is one of the preset {' and of '.join(elsewhere)}",
            expected=", ".join(metric.name for metric in preset.metrics if metric.better is not None),
            fix=f"add --preset {elsewhere[0]}, or choose another metric",
        )
    everywhere = {metric.name for p in PRESETS.values() for metric in p.metrics}
    return AutosegError(f"there is no metric {name}", where="--metrics", fix=nearest_names(name, everywhere))


def main_metrics(chosen: Mapping[str, Metric], *, given: bool) -> list[str]:
    """The metrics of the sentences and the figure: those that the user named, or the first and one distance."""
    names = list(chosen)
    if given:
        return names[:MOST_MAIN]
    return names[:1] + [name for name in names[1:] if chosen[name].group in ("distance", "surface")][:1]


# ------------------------------------------------------------------------------------------------------- comparison


def compare_folders(
    folders: Sequence[Path | str],
    truths: Path | str,
    info: DatasetJson | None = None,
    *,
    preset: str = "autoseg",
    metrics: Sequence[str] = (),
    names: Sequence[str] = (),
    test: Test = "permutation",
    without: Sequence[str] = (),
    nsd_mm: Sequence[float] = (),
    groups: Path | str | None = None,
    strata: Sequence[str] = (),
    regions: Regions | None = None,
    mask: Path | str | None = None,
    mask_channel: int | None = None,
    processes: int = 1,
    ready: Callable[[], None] | None = None,
) -> Comparison:
    """Score several folders of predictions and compare them, case by case. Nothing is written.

    Args:
        folders: of predictions, at least two.
        truths: folder of the true masks.
        info: dataset.json; without it every value that is found in the masks is a class.
        preset: that all are scored by.
        metrics: to compare, see :func:`compared_metrics`.
        names: of the methods; by default from the folders.
        test: whose p-values are corrected and decide.
        without, nsd_mm, groups, regions, mask, mask_channel: as of
            :func:`autoseg.evaluation.score_masks.evaluate_folder`.
        strata: the same; by default those of the preset, or quartiles of the size of the truth from 12 cases on.
        processes: at most so many.
        ready: called once arguments and folders fit, before any mask is read: what else should be checked then, such as
            where the results go.

    Raises:
        AutosegError: folders, names, metrics or strata do not fit; see :func:`find_methods`, :func:`common_cases`,
            :func:`compared_metrics` and :func:`compare`.
        FaultsError: with all faults of all cases of a method.
    """
    truths, said = Path(truths), messages.warning_counts()
    choice = MetricChoice(preset, tuple(without), tuple(nsd_mm))
    chosen = compared_metrics(choice, metrics)
    cases = common_cases(find_methods(folders, truths, names), truths)
    if not strata and not choice.full_preset.strata and len(cases.names) >= STRATIFIED_FROM:
        strata = DEFAULT_STRATA
    summaries = {}
    for method in cases.methods:
        messages.info(f"scoring {method.name}: {method.folder}")
        summaries[method.name] = evaluate_folder(
            method.folder,
            truths,
            info,
            preset=preset,
            without=[g for g in GROUPS if all(m.group != g for m in chosen.values())],
            nsd_mm=nsd_mm,
            groups=groups,
            strata=strata,
            regions=regions,
            mask=mask,
            mask_channel=mask_channel,
            cases=cases.names,
            processes=processes,
            ready=ready,
        )
        ready = None  # once is enough
    found = compare(summaries, cases, chosen, main_metrics(chosen, given=bool(metrics)), test)
    left_out = [] if metrics else not_compared(choice, chosen)
    return found.model_copy(
        update={"warnings": messages.warnings_since(said), "notes": [*found.notes, *left_out]}
    )


def compare(
    summaries: Mapping[str, Summary],
    cases: CommonCases,
    chosen: Mapping[str, Metric],
    main: Sequence[str],
    test: Test = "permutation",
) -> Comparison:
    """Compare methods whose scores are known.

    Args:
        summaries: method to its scores, all of the same cases, truths and preset.
        cases: that they are of.
        chosen: metrics to compare.
        main: metrics of the sentences and the figure.
        test: whose p-values are corrected and decide.

    Raises:
        AutosegError: the methods have different classes or different strata.
    """
    _check_classes(summaries)
    one = next(iter(summaries.values()))
    better = {name: metric.better or "higher" for name, metric in chosen.items()}
    scores = {name: _scores(summaries, name) for name in chosen}
    preset = find_preset(one.preset.name)
    results = {m: compare_metric(scores[m], better[m], test, preset) for m in chosen}
    for name in chosen:
        for label, pairs in _against_truth(one, name, scores[name], better[name], test).items():
            results[name][label] = results[name][label].model_copy(update={"against_truth": pairs})
    return Comparison(
        autoseg_version=__version__,
        truths=one.truths,
        preset=one.preset,
        labels=one.labels,
        labels_from=one.labels_from,
        methods=list(cases.methods),
        cases=[case.name for case in one.cases],
        left_out=dict(cases.left_out),
        main=list(main),
        test=test,
        alpha=ALPHA,
        interval=statistics.describe_interval(INTERVAL),
        correction=family(len(summaries), len(one.classes), test),
        tests=TESTS,
        notes=notes(results, better, len(one.cases), test),
        metrics={name: one.metrics[name] for name in chosen},
        classes={label: {m: results[m][label] for m in chosen} for label in one.classes},
        micro_dice={label: pooled_dice(summaries, label, preset.resamples) for label in one.classes},
        strata=[
            _stratum([s.strata[i] for s in summaries.values()], cases.names, scores, better, test)
            for i in range(len(one.strata))
        ],
        scores={
            label: {m: {method: _listed(v) for method, v in scores[m][label].items()} for m in chosen}
            for label in one.classes
        },
        truth_volumes_ml={label: _volumes(one, label, "truth") for label in one.classes},
        volumes_ml={
            label: {method: _volumes(s, label, "prediction") for method, s in summaries.items()}
            for label in one.classes
        },
    )


def _volumes(summary: Summary, label: str, of: str) -> list[float]:
    """In ml, one for each case; every choice of metrics has them."""
    return np.array([case.classes[label][f"volume_{of}_ml"] for case in summary.cases], float).tolist()


def _check_classes(summaries: Mapping[str, Summary]) -> None:
    classes = {method: list(summary.classes) for method, summary in summaries.items()}
    if len({frozenset(found) for found in classes.values()}) > 1:
        raise AutosegError(
            "the methods do not have the same classes",
            found="; ".join(f"{method}: {', '.join(found)}" for method, found in classes.items()),
            expected="the same label values in the masks of all methods",
            fix="give the dataset.json that names the classes (-djfile)",
        )


def _scores(summaries: Mapping[str, Summary], metric: str) -> dict[str, dict[str, np.ndarray]]:
    """Class to method to ``[n cases]``; None becomes ``nan``."""
    return {
        label: {
            method: np.array([case.classes[label][metric] for case in summary.cases], float)
            for method, summary in summaries.items()
        }
        for label in next(iter(summaries.values())).classes
    }


def _against_truth(
    one: Summary, name: str, scores: MetricScores, better: Better, test: Test
) -> dict[str, list[Difference]]:
    """Class to each method minus the truth; empty where the truth has no such value by itself.

    ``compactness_prediction`` is compared with ``compactness_truth``.
    """
    twin = f"{name.removesuffix('_prediction')}_truth"
    if twin not in one.metrics or not name.endswith("_prediction"):
        return {}
    truths = {
        label: np.array([case.classes[label][twin] for case in one.cases], float) for label in one.classes
    }
    return against_one(scores, truths, TRUTH, better, test)


def _listed(values: np.ndarray) -> list[float | None]:
    return [None if np.isnan(value) else float(value) for value in values]


def _stratum(
    of_methods: Sequence[Stratum],
    cases: Sequence[str],
    scores: Mapping[str, MetricScores],
    better: Mapping[str, Better],
    test: Test,
) -> StratumComparison:
    """The comparison on each level of a stratum, which must be the same for every method."""
    stratum, *others = of_methods
    levels = _members(stratum)
    if any(_members(other) != levels for other in others):
        raise AutosegError(
            f"{stratum.name} splits the cases of each method in another way",
            where="--strata",
            expected="a quantity of the truth, such as voxels_truth, or a column of --groups",
            fix="choose another quantity",
        )
    place = {case: i for i, case in enumerate(cases)}
    indices = {
        label: [np.array([place[case] for case in members], int) for members in of_class.values()]
        for label, of_class in levels.items()
    }
    results = {m: corrected_levels(scores[m], indices, better[m], test) for m in better}
    return StratumComparison(
        name=stratum.name,
        rule=stratum.rule,
        classes={
            label: [
                LevelComparison(name=name, cases=members, metrics={m: results[m][label][i] for m in better})
                for i, (name, members) in enumerate(of_class.items())
            ]
            for label, of_class in levels.items()
        },
    )


def _members(stratum: Stratum) -> dict[str, dict[str, list[str]]]:
    """Class to level to its cases."""
    return {
        label: {level.name: sorted(level.cases) for level in levels}
        for label, levels in stratum.classes.items()
    }
