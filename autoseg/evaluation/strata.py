"""Cases split into levels: by a quantity of each case, such as the lesion size, or by a column of a groups file.

A level is a name that says which cases it holds, and their indices. Levels share no case; empty ones are left out.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

import numpy as np
from numpy.typing import ArrayLike

from autoseg import messages
from autoseg.dataset.text_table import read_table
from autoseg.errors import AutosegError, Fault, FaultsError, nearest_names

LevelCases = tuple[str, np.ndarray]
"""Name, and the indices of the cases, ascending."""

NO_LESION, UNDEFINED, NOT_GIVEN = "no lesion", "undefined", "not given"
MOST_NUMBERS = 6
"""A numeric column with more different values than this is cut into quartiles."""

_QUANTILE_WORDS = {2: "halves", 3: "thirds", 4: "quartiles", 5: "fifths", 10: "tenths"}


# ----------------------------------------------------------------------------------------------------------- rules


@dataclass(frozen=True)
class StrataRule:
    """How cases are split by a quantity.

    Attributes:
        metric: the quantity, one of the metrics of each case.
        quantiles: number of groups of about equal size; 0 when there are thresholds.
        thresholds: ascending; a case on a threshold belongs to the level above it.
    """

    metric: str
    quantiles: int = 0
    thresholds: tuple[float, ...] = ()

    @property
    def words(self) -> str:
        """For reading: ``quartiles of voxels_truth``."""
        if self.quantiles:
            return f"{_QUANTILE_WORDS.get(self.quantiles, f'{self.quantiles} quantiles')} of {self.metric}"
        numbers = ", ".join(f"{t:g}" for t in self.thresholds)
        return f"{self.metric} cut at {numbers}"


MOST_GROUPS = 100


def parse_rule(text: str, known: Iterable[str] = ()) -> StrataRule:
    """Read a rule such as ``voxels_truth=q4`` (four quantile groups) or ``volume_truth_ml=1,10`` (three ranges).

    Args:
        text: as given to ``--strata``.
        known: names of the quantities that there are; empty accepts any.

    Raises:
        AutosegError: it is no such rule, or the quantity is not known.
    """
    metric, _, cut = (part.strip() for part in text.partition("="))
    if not metric or not cut:
        raise _bad_rule(text, text or "nothing")
    known = tuple(known)
    if known and metric not in known:
        raise AutosegError(
            "there is no such quantity",
            where=f"strata {text}",
            found=metric,
            fix=nearest_names(metric, known),
        )
    if re.fullmatch(r"[qQ]\d+", cut):
        if len(cut) > 4 or not 2 <= int(cut[1:]) <= MOST_GROUPS:
            raise _bad_rule(text, f"{cut[1:20]} group{'s' * (cut[1:] != '1')}")
        return StrataRule(metric, quantiles=int(cut[1:]))
    try:
        thresholds = tuple(float(part) for part in cut.split(","))
    except ValueError:
        raise _bad_rule(text, cut) from None
    if not np.all(np.isfinite(thresholds)) or any(a >= b for a, b in pairwise(thresholds)):
        raise _bad_rule(text, f"{cut}, which does not ascend")
    return StrataRule(metric, thresholds=thresholds)


def _bad_rule(text: str, found: str) -> AutosegError:
    return AutosegError(
        "is not a rule for strata",
        where=f"strata {text}",
        found=found,
        expected=f"QUANTITY=qN with 2 to {MOST_GROUPS} groups, or QUANTITY=NUMBER,NUMBER,... in ascending order",
        fix="write for example voxels_truth=q4 or volume_truth_ml=1,10",
    )


# ---------------------------------------------------------------------------------------------------------- levels


def levels(
    values: ArrayLike, rule: StrataRule, *, no_lesion: np.ndarray | None = None, unit: str | None = None
) -> list[LevelCases]:
    """Split cases by a quantity.

    Quantile groups are cut at the linear percentiles of numpy, [low, high) with the last one closed, so that 31
    different sizes give quartiles of 8, 7, 8 and 8 cases (as Tomita et al. 2020, 3D-ResU-Net). Equal values stay
    together, so many ties leave fewer groups.

    Args:
        values: one for each case; ``nan`` is undefined.
        rule: quantiles or thresholds.
        no_lesion: boolean, cases with an empty truth. They form a level of their own and do not move the quantiles;
            None treats them like others.
        unit: of the values, for the names; None takes it from the name of the metric.

    Returns:
        Levels from low to high, after ``no lesion`` and before ``undefined`` where there are such cases.
    """
    values = np.asarray(values, float).ravel()
    apart = np.zeros(len(values), bool) if no_lesion is None else np.asarray(no_lesion, bool)
    undefined = np.isnan(values) & ~apart
    used = np.flatnonzero(~apart & ~undefined)
    unit = unit_of(rule.metric) if unit is None else "" if unit == "1" else unit
    cut = _quantile_levels if rule.quantiles else _threshold_levels
    found = [(NO_LESION, np.flatnonzero(apart))]
    found += [(name, used[indices]) for name, indices in cut(values[used], rule, unit)]
    found.append((UNDEFINED, np.flatnonzero(undefined)))
    return [(name, indices) for name, indices in found if len(indices)]


def unit_of(metric: str) -> str:
    """The unit that the name of a metric tells; empty for a ratio, a number or an unknown one."""
    if metric.startswith(("voxels_", "lesion_size_")):
        return "voxels"
    ending = metric.rpartition("_")[2]
    return ending if ending in ("ml", "mm") else ""


def _quantile_levels(values: np.ndarray, rule: StrataRule, unit: str) -> list[LevelCases]:
    if not len(values):
        return []
    cuts = np.percentile(values, np.arange(1, rule.quantiles) * 100 / rule.quantiles)
    places = np.searchsorted(cuts, values, side="right")
    groups = [np.flatnonzero(places == place) for place in range(rule.quantiles)]
    groups = [group for group in groups if len(group)]
    ends = [(float(values[group].min()), float(values[group].max())) for group in groups]
    return list(zip(_range_names(ends, unit), groups, strict=True))


def _threshold_levels(values: np.ndarray, rule: StrataRule, unit: str) -> list[LevelCases]:
    cuts = rule.thresholds
    places = np.searchsorted(cuts, values, side="right")
    names = [f"under {_quantity(f'{cuts[0]:g}', unit)}"]
    names += [f"{a:g} to {_quantity(f'{b:g}', unit)}" for a, b in pairwise(cuts)]
    names.append(f"{_quantity(f'{cuts[-1]:g}', unit)} and more")
    return [(name, np.flatnonzero(places == place)) for place, name in enumerate(names)]


def _range_names(ends: Sequence[tuple[float, float]], unit: str) -> list[str]:
    """The smallest and the largest value of each level, with as many digits as it takes to tell levels apart."""
    for digits in range(3, 16):
        texts = [(_number(low, digits), _number(high, digits)) for low, high in ends]
        if all(texts[i][1] != texts[i + 1][0] for i in range(len(texts) - 1)):
            break
    return [
        _quantity(low, unit) if low == high else f"{low} to {_quantity(high, unit)}" for low, high in texts
    ]


def _number(value: float, digits: int) -> str:
    """A number for reading: whole ones in full, others with ``digits`` digits, never with an exponent when large."""
    if value.is_integer() or abs(value) >= 10**digits:
        return f"{value:.0f}"
    return f"{value:.{digits}g}"


def _quantity(number: str, unit: str) -> str:
    unit = "voxel" if (number, unit) == ("1", "voxels") else unit
    return f"{number} {unit}" if unit else number


# ------------------------------------------------------------------------------------------------------ groups file


@dataclass(frozen=True)
class Groups:
    """What a groups file says about the scored cases.

    Attributes:
        source: name of the file.
        columns: those that cases are split by, in the order of the file.
        of: scored case to column to value, as written; an empty text is not given. Cases not in the file are absent.
        missing: scored cases that are not in the file.
        unknown: names in the file that were not scored.
    """

    source: str
    columns: list[str]
    of: dict[str, dict[str, str]]
    missing: list[str]
    unknown: list[str]


def read_groups(path: Path | str, cases: Sequence[str]) -> Groups:
    """Read a table with a row for each case and a column for each way to split them.

    The columns are set apart by commas, semicolons or tabs. The names of cases stand in the column ``case`` or, without
    one, in the first; they may end like the files (``.nii.gz``). It warns of scored cases that are not in the table
    and of columns that are no groups.

    Args:
        path: the file.
        cases: names of the scored cases.

    Raises:
        AutosegError: the file is missing, empty, no text table, without a column to split by, or of other cases.
        FaultsError: a line has too many cells, or a case has two lines that differ.
    """
    path = Path(path)
    header, rows = read_table(path, "groups file")
    at = next((i for i, name in enumerate(header) if name.casefold() == "case"), 0)
    columns = [(i, name) for i, name in enumerate(header) if i != at]
    if not columns:
        raise AutosegError(
            "there is no column to split the cases by",
            where=str(path),
            found=f"only the column {header[at]}",
            expected="a column for the cases and at least one more, such as scanner",
        )
    known = set(cases)
    matched = [(line, _case(row[at], known), row) for line, row in rows]
    if not any(case in known for _, case, _ in matched):
        raise _no_match(path, header, at, [row for _, row in rows], cases)
    of = _values_of_cases(path, matched, columns, known)
    missing = [case for case in cases if case not in of]
    unknown = list(dict.fromkeys(case for _, case, _ in matched if case not in known))
    _tell(path.name, missing, unknown, len(cases))
    usable = [
        name for _, name in columns if _splits(path.name, name, [values[name] for values in of.values()])
    ]
    return Groups(path.name, usable, of, missing, unknown)


def column_levels(groups: Groups, column: str, cases: Sequence[str]) -> tuple[str, list[LevelCases]]:
    """Split cases by a column; numbers with more than :data:`MOST_NUMBERS` different values by quartiles of it.

    Args:
        groups: of :func:`read_groups`.
        column: one of ``groups.columns``.
        cases: in the order that the indices refer to.

    Returns:
        The rule for reading, and the levels: numbers ascending, texts by name (``D3`` before ``D14``),
        ``not given`` last.
    """
    values = [groups.of.get(case, {}).get(column, "") for case in cases]
    different = {value for value in values if value}
    numbers = _numbers(different)
    if numbers and len(set(numbers.values())) > MOST_NUMBERS:
        quantity = np.array([numbers.get(value, np.nan) for value in values])
        found = levels(quantity, StrataRule(column, quantiles=4))
        found = [(NOT_GIVEN if name == UNDEFINED else name, indices) for name, indices in found]
        return f"quartiles of the numbers in column {column} of {groups.source}", found
    order = sorted(different, key=lambda value: (numbers.get(value, 0.0), _natural(value), value))
    found = [(name, np.array([i for i, v in enumerate(values) if v == name])) for name in order]
    rest = np.array([i for i, value in enumerate(values) if not value], int)
    return f"column {column} of {groups.source}", found + ([(NOT_GIVEN, rest)] if len(rest) else [])


def _natural(text: str) -> list[tuple[str, int]]:
    """For sorting: the numbers inside a text count as numbers."""
    parts = re.findall(r"([^0-9]*)([0-9]*)", text.casefold())
    return [(word, int(digits or -1)) for word, digits in parts]


def _case(name: str, known: set[str]) -> str:
    """The case that a cell names, with or without the ending of its file; the cell itself when none is known."""
    shorter = name
    while shorter not in known and "." in shorter:
        shorter = shorter.rpartition(".")[0]
    return shorter if shorter in known else name


def _no_match(
    path: Path, header: Sequence[str], at: int, rows: Sequence[Sequence[str]], cases: Sequence[str]
) -> AutosegError:
    known = set(cases)
    matches = [sum(_case(row[i], known) in known for row in rows) for i in range(len(header))]
    best = int(np.argmax(matches))
    fix = "write the names of the cases into the column case"
    if matches[best]:
        fix = f"column {header[best]} holds {matches[best]} of the cases: rename it to case"
    return AutosegError(
        "no line is of a scored case",
        where=f"{path}, column {header[at]}",
        found=_some([row[at] for row in rows]),
        expected=f"names such as {_some(cases)}",
        fix=fix,
    )


def _values_of_cases(
    path: Path,
    matched: Sequence[tuple[int, str, list[str]]],
    columns: Sequence[tuple[int, str]],
    known: set[str],
) -> dict[str, dict[str, str]]:
    """Scored case to column to value.

    Raises:
        FaultsError: a case has two lines that differ.
    """
    of: dict[str, dict[str, str]] = {}
    first_line: dict[str, int] = {}
    faults = []
    for number, case, row in matched:
        if case not in known:
            continue
        values = {name: row[i] for i, name in columns}
        differing = [name for name in values if of.setdefault(case, values)[name] != values[name]]
        first = first_line.setdefault(case, number)
        faults += [
            Fault(
                case,
                f"{name} differs between two lines",
                f"{of[case][name] or 'nothing'} in line {first}, {values[name] or 'nothing'} in line {number}",
                fix="keep one line for each case",
            )
            for name in differing
        ]
    if faults:
        raise FaultsError(f"{path}: cases with two lines", faults)
    return of


def _tell(name: str, missing: Sequence[str], unknown: Sequence[str], n_cases: int) -> None:
    if missing:
        messages.warn(
            f"not in {name}: {_some(missing)} ({len(missing)} of {n_cases} scored cases; level '{NOT_GIVEN}')"
        )
    if unknown:
        messages.info(f"{name}: not scored and passed over: {_some(unknown)} ({len(unknown)})")


def _splits(source: str, column: str, values: Sequence[str]) -> bool:
    """Whether a column splits the cases into groups; warns of one that does not, or whose levels look like typos."""
    given = [value for value in values if value]
    different = set(given)
    if not _numbers(different) and len(different) > max(MOST_NUMBERS, len(given) / 2):
        messages.warn(
            f"{source}: column {column} has {len(different)} different texts for {len(given)} cases "
            "and is left out: it makes no groups"
        )
        return False
    if not different:
        messages.warn(f"{source}: column {column} is empty for all scored cases and is left out")
        return False
    alike: dict[str, list[str]] = {}
    for value in sorted(different):
        alike.setdefault(value.casefold(), []).append(value)
    for values_alike in alike.values():
        if len(values_alike) > 1:
            messages.warn(
                f"{source}: column {column}: {' and '.join(values_alike)} differ only in capitals and are two levels"
            )
    return True


def _numbers(texts: Iterable[str]) -> dict[str, float]:
    """Text to number, with decimal point or comma; empty when one of them is none, or is a code such as 007."""
    numbers = {}
    for text in texts:
        try:
            number = float(text.replace(",", "."))
        except ValueError:
            return {}
        if not math.isfinite(number) or re.match(r"-?0\d", text):
            return {}
        numbers[text] = number
    return numbers


def _some(names: Sequence[str], limit: int = 5) -> str:
    shown = ", ".join(name or "an empty cell" for name in names[:limit])
    return shown + (", ..." if len(names) > limit else "")
