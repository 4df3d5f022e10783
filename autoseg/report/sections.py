"""The sections of a report, in the order of the page. A section that cannot be made says why."""

from __future__ import annotations

import platform
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from autoseg import messages
from autoseg.comparison import comparison_text
from autoseg.comparison.comparison_schema import Comparison, Difference, StratumComparison
from autoseg.evaluation.statistics import FEW_CASES, median_interval
from autoseg.evaluation.summary import ClassSummary, Mean, Summary, defined
from autoseg.evaluation.summary_text import interval_text, quartiles_of_led, table_metrics
from autoseg.evaluation.text import alike, spoken, titled
from autoseg.fingerprint import Quantiles
from autoseg.inference.prediction_record import PredictionRecord
from autoseg.messages import count_of, some_of
from autoseg.plan import hash_plan, is_hash_of
from autoseg.plan.table import decisions
from autoseg.report import bland_altman, charts, method_charts, score_tables
from autoseg.report.blocks import (
    Absent,
    Block,
    CaseCards,
    Cell,
    Commands,
    Figure,
    Pictures,
    Points,
    Section,
    Table,
    Text,
    Tile,
    by_class,
    heads,
    numbers,
)
from autoseg.report.case_cards import Drawn, ShownCase
from autoseg.report.collect import LOG, Material, Training
from autoseg.version import __version__

MOST_TILES = 3
"""Of a single class."""
PACKAGES = ("numpy", "scipy", "SimpleITK", "connected-components-3d", "matplotlib", "nilearn")
EVALUATE = "autoseg_evaluate"

Made = Section | Absent | None
"""None: such a folder has no such section."""


# ------------------------------------------------------------------------------------------------------- the headline


def tiles(summary: Summary) -> tuple[Tile, ...]:
    """The main result of each class: the first metric of the preset's table, missed cases and false alarms.

    A single class leaves room for further metrics of which some values are better than others.
    """
    first, *others = table_metrics(summary)
    made = [_tile(label, first, entry, summary, counts=True) for label, entry in summary.classes.items()]
    if len(made) == 1:
        ((label, entry),) = summary.classes.items()
        graded = [metric for metric in others if summary.metrics[metric].better]
        made += [_tile(label, metric, entry, summary, counts=False) for metric in graded[: MOST_TILES - 1]]
    return tuple(made)


def _tile(label: str, metric: str, entry: ClassSummary, summary: Summary, *, counts: bool) -> Tile:
    """One metric of one class; ``counts``: with the cases that were missed or falsely found."""
    unit, mean = summary.metrics[metric].unit, entry.all[metric]
    value, what, lines = _headline(summary, label, metric, mean)
    present = entry.truth_present[metric]
    if entry.empty_truth and present.n < mean.n:
        lines.append(f"mean {interval_text(present, unit)} in the {count_of(present.n, 'case')} with truth")
    if counts:
        lines.append(
            f"missed: {entry.missed} of {count_of(entry.cases - entry.empty_truth, 'case')} with truth"
        )
    if counts and entry.empty_truth:
        lines.append(
            f"false alarms: {entry.false_alarms} of {count_of(entry.empty_truth, 'case')} without truth"
        )
    return Tile(label, value, f"{what} {titled(metric, unit)}", tuple(lines))


def _headline(summary: Summary, label: str, metric: str, mean: Mean) -> tuple[str, str, list[str]]:
    """Value, what it is, and lines about it: the mean, or the median where few cases lead the mean."""
    unit = summary.metrics[metric].unit
    n = f"n = {mean.n}" + (f" ({mean.undefined} undefined)" if mean.undefined else "")
    middle = quartiles_of_led(summary, label, metric)
    if middle is None:
        value, low, high = alike(unit, mean.mean, mean.low, mean.high)
        interval = f"95 % interval {low} to {high}, " if mean.low is not None else ""
        return value, "mean", [interval + n]
    values = [score for case in summary.cases if (score := case.classes[label][metric]) is not None]
    low_median, high_median = (defined(end) for end in median_interval(values))
    value, low, high, *quartiles = alike(unit, mean.median, low_median, high_median, *middle)
    interval = f"95 % interval {low} to {high}, " if low_median is not None else "too few for an interval, "
    led = (
        f"few cases lead the mean, {interval_text(mean, unit)}: it lies outside the middle half of the cases"
    )
    return value, "median", [interval + n, f"{led}, {' to '.join(quartiles)}"]


# ---------------------------------------------------------------------------------------------------- data and plan


def data_and_plan(material: Material) -> Made:
    """What the dataset is, and every decision of the plan with its reason."""
    blocks: list[Block] = []
    facts = _data_facts(material)
    if facts:
        rows = tuple((Cell(name, head=True), Cell(text)) for name, text in facts)
        blocks.append(Table("Dataset", heads("", ""), rows))
    if material.plan is not None:
        blocks += [_plan_table(title, rows) for title, rows in decisions(material.plan)]
    elif facts:
        blocks.append(
            Text(
                ("There is no plan with these files: a model's folder has one, masks have none.",), muted=True
            )
        )
    if not blocks:
        return (
            None
            if _only_compared(material)
            else Absent(
                "Dataset and plan", "there is neither a plan.json nor a dataset.json with these files"
            )
        )
    return Section("data", "Dataset and plan", tuple(blocks))


def _data_facts(material: Material) -> list[tuple[str, str]]:
    info, fingerprint = material.info, material.fingerprint
    facts = []
    if info is not None:
        labels = (
            f"{name} ({'+'.join(map(str, v)) if isinstance(v, list) else v})"
            for name, v in info.labels.items()
        )
        facts += [("channels", ", ".join(info.channel_names.values())), ("labels", ", ".join(labels))]
        more = info.model_extra or {}
        facts += [(key, str(more[key])) for key in ("licence", "license") if key in more]
    if fingerprint is not None:
        of = fingerprint.summary
        facts += [
            ("cases", f"{of.n_cases}, {round(of.empty_share * of.n_cases)} of them without foreground"),
            ("size (z, y, x)", " x ".join(_range(q, "voxels") for q in of.shape)),
            ("spacing (z, y, x), mm", " x ".join(_range(q, "mm") for q in of.spacing_mm)),
            (
                "orientation",
                ", ".join(f"{name} ({count_of(n, 'case')})" for name, n in of.orientations.items()),
            ),
            ("lesions per case", _quantiles(of.lesions_per_case)),
            ("volume of a lesion, ml", _quantiles(of.lesion_volume_ml, "ml")),
            ("lesion volume per case, ml", _quantiles(of.load_per_case_ml, "ml")),
        ]
    return facts


def _range(q: Quantiles, unit: str) -> str:
    if q.min is None or q.median is None or q.max is None:
        return "-"
    middle, low, high = (f"{v:.4g}" for v in (q.median, q.min, q.max))
    return middle if low == high else f"{middle} ({low} to {high})"


def _quantiles(q: Quantiles, unit: str = "") -> str:
    """``unit``: empty for counts."""
    if q.median is None:
        return "-"
    values = (q.median, q.q25, q.q75, q.min, q.max)
    median, q25, q75, low, high = alike(unit, *values) if unit else [f"{v:.4g}" for v in values]
    return f"median {median}, quartiles {q25} to {q75}, range {low} to {high}"


def _plan_table(title: str, rows: Sequence[tuple]) -> Table:
    """A part of the plan; lines without label continue the value above them."""
    made: list[list[str]] = []
    for row, why in rows:
        if row.label or not made:
            made.append([row.label, row.value, why])
        else:
            made[-1][1] += f"\n{row.value}"
    cells = tuple((Cell(label, head=True), Cell(value), Cell(why)) for label, value, why in made)
    return Table(f"Plan: {title.lower()}", heads("decision", "value", "why"), cells, folded=True)


def _only_compared(material: Material) -> bool:
    """Whether the folder is one of autoseg_compare, which has none of the other sections."""
    return not (material.plan or material.trainings or material.scored)


# -------------------------------------------------------------------------------------------------------- training


def training(material: Material) -> Made:
    """Curves and the facts of each fold's training."""
    if not material.trainings:
        return (
            None
            if _only_compared(material)
            else Absent(
                "Training curves",
                f"there is no {LOG}: these masks were not made by a training that lies here",
            )
        )
    made = (charts.training_curves(material.trainings), charts.fold_curves(material.trainings))
    blocks: list[Block] = [Figure(chart) for chart in made if chart]
    blocks.append(_training_table(material.trainings))
    if learned := [line for one in material.trainings for line in _learned(one)]:
        blocks.append(Points(tuple(learned)))
    return Section("training", "Training", tuple(blocks))


def _learned(one: Training) -> Iterator[str]:
    """What the post-processing of a fold has learned, a line for each step."""
    for name, step in one.record.get("learned", {}).items():
        numbers_learned = ", ".join(f"{key} {value:g}" for key, value in step["learned"].items())
        cases = count_of(len(step["cases"]), f"{step['fit'].replace('_', ' ')} case")
        yield f"{one.name}: {name} learned {numbers_learned} from {cases}."


def _training_table(trainings: Sequence[Training]) -> Table:
    rows = []
    for one in trainings:
        record, seconds = one.record, sum(entry.get("seconds", 0) for entry in one.log)
        rows.append(
            (
                Cell(one.name, head=True),
                *numbers(
                    [
                        str(len(one.log)),
                        _count(record.get("train_cases")),
                        _count(record.get("validation_cases")),
                        messages.duration(record.get("seconds") or seconds) if seconds or record else "-",
                    ]
                ),
                Cell(str(record.get("device", "-"))),
                Cell("finished" if record else "not finished"),
            )
        )
    header = heads("fold", "#epochs", "#training cases", "#validation cases", "#time", "device", "state")
    return Table("Folds", header, tuple(rows))


def _count(names: Sequence[str] | None) -> str:
    return "-" if names is None else str(len(names))


# ------------------------------------------------------------------------------------------------------ the scores

NOT_SCORED = f"there is no summary.json: run {EVALUATE}, or finish the training of a fold"


def scores(material: Material) -> Made:
    """Means with intervals, whole cases, all cases as one, folds, strata, every case, definitions."""
    summary = material.summary
    if summary is None:
        return None if _only_compared(material) else Absent("Scores", NOT_SCORED)
    preset = summary.preset
    blocks: list[Block] = [
        Text((f"{_sentence(preset.words)} Intervals: {summary.interval}.",)),
        *([Points(tuple(preset.notes))] if preset.notes else []),
        score_tables.main_scores(summary),
        score_tables.cohort(summary),
    ]
    if len(material.scored) > 1:
        blocks.append(score_tables.folds(material, summary))
    for one in summary.strata:
        blocks.append(score_tables.strata(one, summary))
        blocks += [score_tables.group_tests(one, summary)] if one.tests else []
    blocks += [Text((f"Tests: {summary.group_tests}.",), muted=True)] if summary.group_tests else []
    blocks += [score_tables.all_scores(summary, label) for label in summary.classes]
    blocks += [score_tables.cases(material, summary), score_tables.definitions(summary)]
    return Section("scores", "Scores", tuple(blocks))


def _sentence(words: str) -> str:
    return f"{words[0].upper()}{words[1:]}."


def distributions(material: Material) -> Made:
    """The cases behind the means, for each class and each stratum."""
    summary = material.summary
    if summary is None:
        return None
    made = [charts.distributions(summary)]
    made += [charts.stratum(one, summary, i + 1) for i, one in enumerate(summary.strata)]
    return Section("distributions", "Distributions", tuple(Figure(chart) for chart in made))


def volumes(material: Material, sign: bland_altman.Sign) -> Made:
    """Bland-Altman."""
    title, draw = "Agreement of volumes", partial(bland_altman.agreement, sign=sign)
    return _charted(material, "agreement", title, draw, "limits of agreement need two cases")


def against_volume(material: Material) -> Made:
    """Dice against volume."""
    return _charted(
        material,
        "volume",
        "Dice against volume",
        charts.dice_against_volume,
        "no case has truth of any class",
    )


def _charted(
    material: Material, name: str, title: str, draw: Callable[[Summary], charts.Chart | None], why: str
) -> Made:
    if material.summary is None:
        return None
    chart = draw(material.summary)
    return Section(name, title, (Figure(chart),)) if chart else Absent(title, why)


def precision_recall(material: Material) -> Made:
    """Precision-recall curves."""
    if material.summary is None:
        return None
    chart = charts.precision_recall_curves(material.scored)
    if chart is None:
        return Absent(
            "Precision and recall",
            "there is no thresholds.csv, because there were no probabilities: predict with --save_probabilities, then "
            f"run {EVALUATE} again",
        )
    lacking = [name for name, one in material.scored.items() if not one.counts]
    note = [Text((f"Without probabilities: {', '.join(lacking)}.",), muted=True)] if lacking else []
    return Section("precision_recall", "Precision and recall", (Figure(chart), *note))


def shown_cases(material: Material, shown: Sequence[ShownCase], wanted: int, problems: Sequence[str]) -> Made:
    """Montages and viewers."""
    if material.summary is None:
        return None
    if shown:
        return Section("cases", "Cases", (CaseCards(tuple(shown)),))
    why = "; ".join(problems) if wanted else "no cases were asked for (--cases 0)"
    return Absent("Cases", why)


# -------------------------------------------------------------------------------------------------------- comparison


def leaderboard(material: Material) -> Made:
    """Every family and ensemble of a study: how far it came, and why."""
    board = material.leaderboard
    if board is None:
        return None
    rows = tuple((Cell(row[0], head=True), *map(Cell, row[1:])) for row in board.rows)
    blocks: list[Block] = [Table("", heads(*board.header), rows)]
    blocks += [Points(tuple(board.notes))] if board.notes else []
    return Section("leaderboard", "Leaderboard", tuple(blocks))


def comparison(material: Material) -> Made:
    """What autoseg_compare found."""
    found = material.comparison
    if found is None:
        return None
    preset = found.preset
    blocks: list[Block] = [
        Points(tuple(comparison_text.sentences(found))),
        *([Points(tuple(found.notes), warning=True)] if found.notes else []),
        Figure(method_charts.differences(found)),
        _ranking(found),
        _differences(found),
        *(_stratum_differences(one, found) for one in found.strata),
        Text(
            (
                _sentence(preset.words),
                f"Intervals: {found.interval}. Correction: {found.correction}. Where an interval leaves out 0 and no "
                "difference is shown, p decides.",
                "All metrics, tests and levels: comparison.csv; the scores of every case: comparison_cases.csv.",
            ),
            muted=True,
        ),
    ]
    return Section("comparison", "Comparison of methods", tuple(blocks))


def method_means(material: Material) -> Made:
    """Means of all methods, by level."""
    if material.comparison is None:
        return None
    made = method_charts.means_by_level(material.comparison)
    return Section("method_means", "Means of the methods", tuple(Figure(chart) for chart in made))


def method_volumes(material: Material, sign: bland_altman.Sign) -> Made:
    """Bland-Altman of all methods, by level."""
    if material.comparison is None:
        return None
    title, found = "Agreement of volumes of the methods", bland_altman.of_methods(material.comparison, sign)
    if not found:
        return Absent(
            title, "the comparison is of an earlier autoseg, or of one case: run autoseg_compare again"
        )
    return Section("method_agreement", title, tuple(Figure(chart) for chart in found))


def grouped_cases(material: Material, groups: Sequence[tuple[str, Drawn]]) -> Made:
    """A case of each group, with the masks of all methods."""
    return Section("grouped_cases", "Cases of the groups", (Pictures(tuple(groups)),)) if groups else None


def compared_cases(
    material: Material, compared: Sequence[tuple[str, Drawn]], wanted: int, problems: Sequence[str]
) -> Made:
    """The masks of all methods beside each other."""
    if material.comparison is None:
        return None
    if not compared:
        why = "; ".join(problems) if wanted else "no cases were asked for (--cases 0)"
        return Absent("Compared cases", why)
    blocks: list[Block] = [Pictures(tuple(compared))]
    blocks += [Points(tuple(problems), warning=True)] if problems else []
    return Section("compared_cases", "Compared cases", tuple(blocks))


def _ranking(found: Comparison) -> Table:
    in_words = set(found.main) & set(found.preset.in_words)
    rows = []
    for label, results in found.classes.items():
        for metric in found.main:
            row = found.metrics[metric]
            for one in results[metric].ranking:
                middle, low, high, sd = alike(row.unit, one.mean, one.low, one.high, one.sd)
                interval = "" if one.low is None else f" [{low}, {high}]"
                texts = [middle + interval, sd, str(results[metric].n)]
                word = [score_tables.word(one.mean if metric in in_words else None)] if in_words else []
                names = (Cell(label, head=True), score_tables.metric_cell(metric, row), Cell(one.method))
                rows.append((*names, *numbers(texts), *word))
    header = heads("class", "metric", "method", "#mean [95 % interval]", "#SD", "#n")
    header += heads("in words") if in_words else ()
    caption = "Means where the metric is defined for every method, the best first"
    return by_class(caption, header, rows, names=2)


def _differences(found: Comparison) -> Table:
    rows = []
    for label, results in found.classes.items():
        for metric in found.main:
            row = found.metrics[metric]
            for pair in results[metric].pairs:
                cells = _difference_cells(pair, row.unit)
                rows.append((Cell(label, head=True), score_tables.metric_cell(metric, row), *cells))
    return by_class("Differences", heads("class", "metric", *DIFFERENCE_COLUMNS), rows, names=2)


DIFFERENCE_COLUMNS = (
    "methods",
    "#difference [95 % interval]",
    "#p (Holm)",
    "#better / same / worse",
    "#n",
    "better",
)


def _difference_cells(pair: Difference, unit: str) -> tuple[Cell, ...]:
    texts = [
        comparison_text.difference_text(pair, unit),
        comparison_text.p_text(pair.p_holm),
        f"{pair.wins} / {pair.ties} / {pair.losses}",
        str(pair.n),
    ]
    return Cell(f"{pair.first} − {pair.second}"), *numbers(texts), Cell(pair.better or "not shown")


def _stratum_differences(stratum: StratumComparison, found: Comparison) -> Table:
    """The first main metric, level by level."""
    metric = found.main[0]
    rows = [
        (
            Cell(label, head=True),
            Cell(level.name, head=True),
            *_difference_cells(pair, found.metrics[metric].unit),
        )
        for label, levels in stratum.classes.items()
        for level in levels
        for pair in level.metrics[metric]
    ]
    caption = f"{spoken(metric)} by {stratum.rule}, exploratory"
    return by_class(caption, heads("class", "level", *DIFFERENCE_COLUMNS), rows, names=2, folded=True)


# ---------------------------------------------------------------------------------------------- warnings, provenance


def warnings(material: Material, problems: Sequence[str]) -> Section | Absent:
    """What a reader must know before believing the numbers."""
    items = [*problems]
    summary = material.summary
    if summary is not None:
        items += summary.warnings
        items += _named(
            summary.ignored,
            ("prediction without truth was not scored", "predictions without truth were not scored"),
        )
        items += _named(
            summary.unpredicted,
            ("truth without prediction was left out", "truths without prediction were left out"),
        )
        few = [label for label, entry in summary.classes.items() if entry.cases < FEW_CASES]
        if few and len(summary.cases) > 1:
            items.append(
                f"Intervals of fewer than {FEW_CASES} cases are usually too narrow; here n = {len(summary.cases)}."
            )
    if material.pool and material.pool.left_out:
        items.append(f"Strata that not all folds have are left out: {', '.join(material.pool.left_out)}.")
    items += _unfinished(material)
    if material.comparison:
        items += material.comparison.warnings
    unique = tuple(dict.fromkeys(items))
    if not unique:
        return Absent("Warnings", "there are none")
    return Section("warnings", "Warnings", (Points(unique, warning=True),))


def _named(names: Sequence[str], what: tuple[str, str], most: int = 8) -> list[str]:
    if not names:
        return []
    return [f"{count_of(len(names), *what)}: {some_of(names, most)}."]


def _unfinished(material: Material) -> list[str]:
    """Folds without a result, folds that were trained by another plan, a plan that is for trying out only."""
    items = []
    if material.quick:
        names = dict.fromkeys(one.model for one in material.predicted_by if one.quick and one.model)
        of = f" of {', '.join(names)}" if names else ""
        items.append(
            f"The plan{of} is a quick one, for trying out: these scores do not tell how good the method is."
        )
    scored = set(material.scored)
    if "" not in scored:
        lacking = [t.name for t in material.trainings if t.name not in scored and t.fold != "all"]
        if lacking:
            items.append(f"Not scored yet, because the training is not finished: {', '.join(lacking)}.")
        if any(t.fold == "all" for t in material.trainings):
            items.append("The fold 'all' was trained on every case and has no validation of its own.")
    if material.plan is not None:
        other = [
            t.name
            for t in material.trainings
            if "plan_hash" in t.record and not is_hash_of(t.record["plan_hash"], material.plan)
        ]
        if other:
            items.append(f"Trained with another plan than plan.json: {', '.join(other)}.")
    return items


def provenance(material: Material, command: str) -> Section:
    """Commands, versions and hashes."""
    commands = [str(one.record["command"]) for one in material.trainings if one.record.get("command")]
    commands += [one.summary.command for one in material.scored.values() if one.summary.command]
    commands += [material.comparison.command] if material.comparison and material.comparison.command else []
    commands += [command] if command else []
    blocks: list[Block] = []
    if commands:
        blocks += [Text(("Commands, as they were typed:",)), Commands(tuple(dict.fromkeys(commands)))]
    facts = [*_versions(material), *_places(material), *_hashes(material)]
    rows = tuple((Cell(name, head=True), Cell(text)) for name, text in facts)
    blocks.append(Table("Versions, folders and hashes", heads("", ""), rows))
    return Section("provenance", "How it was made", tuple(blocks))


def _versions(material: Material) -> list[tuple[str, str]]:
    facts = [("autoseg, this report", __version__)]
    scored = {one.summary.autoseg_version for one in material.scored.values()}
    scored |= {material.comparison.autoseg_version} if material.comparison else set()
    if scored:
        facts.append(("autoseg, scores", ", ".join(sorted(scored))))
    for key, title in (("autoseg_version", "autoseg, training"), ("torch_version", "torch, training")):
        found = sorted({str(t.record[key]) for t in material.trainings if key in t.record})
        facts += [(title, ", ".join(found))] if found else []
    facts.append(("Python", f"{platform.python_version()} on {platform.system()} {platform.machine()}"))
    facts.append(("packages", ", ".join(f"{name} {_installed(name)}" for name in PACKAGES)))
    return facts


def _installed(name: str) -> str:
    try:
        return version(name)
    except PackageNotFoundError:
        return "not installed"


def _places(material: Material) -> list[tuple[str, str]]:
    """The folders; what lies in the reported one is named from there."""
    here, compared, scored = material.folder.resolve(), material.comparison, material.scored.values()
    named = [("predictions", s.summary.predictions) for s in scored]
    named += [(method.name, method.folder) for method in compared.methods] if compared else []
    named += [("truths", s.summary.truths) for s in scored]
    named += [("truths", compared.truths)] if compared else []
    named += [("images", str(s.images)) for s in scored if s.images]
    facts: dict[str, dict[str, None]] = {"reported folder": {str(here): None}}
    for name, place in named:
        facts.setdefault(name, {})[_from(here, place)] = None
    return [(name, ", ".join(places)) for name, places in facts.items()]


def _from(here: Path, place: str) -> str:
    """A place as seen from a folder when it lies there, else as it was given."""
    whole = Path(place).resolve()
    if whole == here:
        return "the reported folder"
    return str(whole.relative_to(here)) if whole.is_relative_to(here) else place


def _hashes(material: Material) -> list[tuple[str, str]]:
    facts = []
    if material.plan is not None:
        facts += [
            ("plan", hash_plan(material.plan)),
            ("fingerprint of the data", material.plan.fingerprint_hash),
        ]
        facts.append(("seed", str(material.plan.seed)))
    for one in material.scored.values():
        if one.prediction is not None:
            identity = one.prediction.identity
            options = ", ".join(
                f"{key} {_plain(value)}" for key, value in identity.items() if key not in ("model", "dataset")
            )
            name = f"model, {one.name}" if one.name else "model"
            named = "".join(f"{text}; " for text in _model_words(one.prediction))
            facts.append((name, f"{named}{identity.get('model', 'unknown')} ({options})"))
    if material.summary is not None:
        facts.append(("masks", "SHA-256 of every scored file: cases.csv beside this report"))
    return facts


def _model_words(record: PredictionRecord) -> Iterator[str]:
    """Name of the model, its family, and that its plan is a quick one, as far as the record says."""
    if record.model:
        yield record.model
    if record.planner:
        yield f"family {record.planner}"
    if record.quick:
        yield "quick plan, for trying out"


def _plain(value: object) -> str:
    """A recorded option in words."""
    if isinstance(value, (list, tuple)):
        return " ".join(map(str, value)) or "none"
    if isinstance(value, bool):
        return "yes" if value else "no"
    return str(value)
