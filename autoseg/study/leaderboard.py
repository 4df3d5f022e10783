"""The study for reading: rounds, methods and the choice, on the terminal, as a table, and for the report."""

from __future__ import annotations

from collections.abc import Sequence

from autoseg.files import csv_text, write_json, write_text
from autoseg.messages import duration
from autoseg.study.state import states
from autoseg.study.study_json import Round, Standing, Study

JSON_NAME, CSV_NAME = "leaderboard.json", "leaderboard.csv"
HEADER = ("method", "Dice", "lesion F1", "training", "where", "what became of it")


def rows(study: Study) -> list[tuple[str, ...]]:
    """One row for every family and ensemble: how far it came, with the scores of its last comparison, best first."""
    found: dict[str, tuple[str, ...]] = {}
    if study.choice:
        for method in study.choice.methods:
            scores = (_number(method.dice), _number(method.lesion_f1), _time(method.seconds))
            chosen = "chosen; " if method.name == study.choice.method else ""
            steps = f"; {method.steps}" if method.steps else ""
            found[method.name] = (
                method.name,
                *scores,
                "all cases, out of fold",
                f"{chosen}{method.why}{steps}",
            )
    for one in reversed(study.rounds):
        for row in one.standings:
            where = f"round {one.number}, fold {one.fold}"
            scores = (_number(row.dice), _number(row.lesion_f1), _time(row.seconds))
            found.setdefault(row.family, (row.family, *scores, where, row.why))
    for family, error in _failed(study).items():
        found.setdefault(family, (family, "-", "-", "-", "-", error))
    return list(found.values())


def _failed(study: Study) -> dict[str, str]:
    """Families of which a task failed, with its error."""
    from autoseg.study.state import read_task_record

    found = {}
    there = states(study)
    for task in study.tasks:
        if task.family and there[task.id] == "failed":
            record = read_task_record(study.folder, task)
            found[task.family] = " ".join((record.error if record else "").split()) or "failed"
    return found


def format_study(study: Study) -> str:
    """The table on a terminal, with what follows from it."""
    lines = [*table(HEADER, rows(study))]
    if study.choice:
        lines += ["", *study.choice.said]
    return "\n".join(lines)


def round_lines(one: Round) -> list[str]:
    """A round for reading: who goes on, and why."""
    head = ("family", "Dice", "lesion F1", "training", "goes on", "why")
    body = [(*_scores(row), "yes" if row.goes_on else "no", row.why) for row in one.standings]
    cases = f"{one.cases} cases" if one.cases != 1 else "1 case"
    title = f"trial, round {one.number}" + (f", {cases} of fold {one.fold}:" if one.cases else ":")
    return [title, *table(head, body), *one.said]


def _scores(row: Standing) -> tuple[str, ...]:
    return row.family, _number(row.dice), _number(row.lesion_f1), _time(row.seconds)


def _number(value: float | None) -> str:
    return "-" if value is None else f"{value:.3f}"


def _time(seconds: float | None) -> str:
    return "-" if seconds is None else duration(seconds)


def table(header: Sequence[str], body: Sequence[Sequence[str]], widest: int = 200) -> list[str]:
    """Columns side by side; the last one is not padded."""
    texts = [[*row[:-1], row[-1][:widest]] for row in (header, *body)]
    widths = [max(len(row[i]) for row in texts) for i in range(len(header) - 1)]
    return [
        "  ".join([*(cell.ljust(width) for cell, width in zip(row, widths, strict=False)), row[-1]]).rstrip()
        for row in texts
    ]


def write(study: Study) -> None:
    """leaderboard.csv for other programs, leaderboard.json for the report."""
    body = rows(study)
    write_text(study.folder / CSV_NAME, csv_text([HEADER, *body]))
    notes = [
        f"{family}, trained in its folds shorter than published: {'; '.join(length.shortened)}."
        for family, length in study.lengths.items()
        if length.shortened
    ]
    for one in study.rounds:
        notes += [
            f"{family}, shortened in round {one.number} of the trial: {'; '.join(length.shortened)}."
            for family, length in one.lengths.items()
            if length.shortened
        ]
    content = {
        "header": list(HEADER),
        "rows": [list(row) for row in body],
        "notes": notes,
        "scored": f"out_of_fold/{study.choice.method}" if study.choice else "",
        "models": study.winners,
    }
    write_json(study.folder / JSON_NAME, content)
