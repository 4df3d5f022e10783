"""The converter ``isles2017``: the cases of the ISLES 2017 challenge, as the repository SMIR gave them out.

Winzeck et al., "ISLES 2016 and 2017: Benchmarking ischemic stroke lesion outcome prediction based on multispectral
MRI", Frontiers in Neurology 9:679 (2018): 43 training and 32 test cases with the maps ADC, MTT, rCBF, rCBV, Tmax and
TTP, the perfusion series that they come from, and the lesion of the follow-up. The masks of the test cases are not
public.
"""

from __future__ import annotations

import argparse
import csv
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from autoseg.dataset_conversion._isles2017_division import study_division
from autoseg.dataset_conversion._isles2017_subtypes import SUBTYPES
from autoseg.dataset_conversion._smir import MASK, SmirCase, find_cases, read_cases
from autoseg.errors import AutosegError
from autoseg.messages import info, some_of
from autoseg.plugins.converter import Conversion, Converter, SourceCase, Volume

if TYPE_CHECKING:
    from autoseg.dataset.folds import Fold

LAYOUT = """the folders of both archives, in ROOT or each on its own:
  ROOT/ISLES2017_Training/training_1/VSD.Brain.XX.O.MR_ADC.128020/VSD.Brain.XX.O.MR_ADC.128020.nii
       and the same of MR_MTT, MR_rCBF, MR_rCBV, MR_Tmax, MR_TTP; MR_4DPWI (for --pwi); OT, the mask: 0, 1
  ROOT/ISLES2017_Testing/test_1/...  without OT
some cases begin with SMIR instead of VSD."""

REFERENCE = "Winzeck et al., Frontiers in Neurology 9:679 (2018), doi:10.3389/fneur.2018.00679"
CASES = r"(training|test)_\d+"
MAPS = ("ADC", "MTT", "rCBF", "rCBV", "Tmax", "TTP")
SERIES = "4DPWI"
OVER_TIME: tuple[Literal["mean", "max", "min"], ...] = ("mean", "max", "min")
ENDING = ".nii"


def add_arguments(command: argparse.ArgumentParser) -> None:
    """The format's own options."""
    command.add_argument(
        "--channels",
        nargs="+",
        choices=MAPS,
        default=list(MAPS),
        metavar="MAP",
        help=f"of {', '.join(MAPS)}, in the order of the dataset's channels (default: all)",
    )
    command.add_argument(
        "--pwi",
        action="store_true",
        help="three more channels from the 4D perfusion series: its mean, largest and least value over time (PWI_mean, "
        "PWI_max, PWI_min)",
    )
    command.add_argument(
        "--table",
        metavar="FILE",
        help="CSV whose first column names the cases (training_1); its other columns go into groups.csv",
    )
    command.add_argument(
        "--division",
        choices=["deepmedic"],
        help="write the five runs of the DeepMedic study (Perez Malla et al. 2019) into splits.json: each trains on "
        "three fifths of the cases, validates on one and tests on one",
    )


def describe(root: Path, options: argparse.Namespace) -> Conversion:
    """Describe the cases below ``root``.

    Raises:
        AutosegError: no such folder, no case in it; a table that cannot be read; a channel that is named twice.
        FaultsError: cases that are incomplete, all of them.
    """
    channels = options.channels
    if len(set(channels)) < len(channels):
        raise AutosegError("--channels names a channel twice", found=" ".join(channels), fix="name each once")
    folders = find_cases(root, CASES, depth=1)
    tests = [folder for folder in folders if folder.name.startswith("test")]
    wanted = [*channels, *([SERIES] if options.pwi else [])]
    cases = read_cases(root, folders, wanted, ENDING, unmasked=tests)
    groups = _groups([case.folder.name for case in cases], options.table and Path(options.table))
    notes = {"reference": REFERENCE}
    if options.pwi:
        notes["pwi"] = "mean, largest and least value of the 4D perfusion series over time"
        info(f"channels PWI_mean, PWI_max, PWI_min: {notes['pwi']}")
    return Conversion(
        root=root,
        dataset="ISLES2017",
        channel_names=(*channels, *(f"PWI_{how}" for how in OVER_TIME if options.pwi)),
        labels={"background": 0, "lesion": 1},
        cases=tuple(_case(case, channels, options.pwi, groups[case.folder.name]) for case in cases),
        folds=_folds([case.folder.name for case in cases if case.folder not in tests], options.division),
        notes=notes,
    )


def _folds(names: Sequence[str], division: str | None) -> tuple[Fold, ...]:
    """Those that were asked for; none otherwise."""
    from autoseg.dataset.folds import Fold

    return tuple(Fold(a, b, c) for a, b, c in study_division(names)) if division else ()


def _case(case: SmirCase, channels: Sequence[str], pwi: bool, groups: Mapping[str, str]) -> SourceCase:
    """One case; the series lies on the grid of the maps, or is put onto it."""
    images = [Volume(case.files[channel]) for channel in channels]
    if pwi:
        images += [Volume(case.files[SERIES], resample=True, over_time=how) for how in OVER_TIME]
    mask = case.files.get(MASK)
    test = case.folder.name.startswith("test")
    return SourceCase(
        case.folder.name, tuple(images), Volume(mask) if mask else None, test=test, groups=groups
    )


def _groups(names: Sequence[str], table: Path | None) -> dict[str, dict[str, str]]:
    """Case to column to value: the published subtype, and what the user's table says."""
    rows = _read_table(table, names) if table else {}
    columns = list(dict.fromkeys(column for row in rows.values() for column in row))
    return {
        name: {"subtype": SUBTYPES.get(name, ""), **{c: rows.get(name, {}).get(c, "") for c in columns}}
        for name in names
    }


def _read_table(path: Path, names: Sequence[str]) -> dict[str, dict[str, str]]:
    """The user's table by case.

    Raises:
        AutosegError: it cannot be read, or names none of the cases.
    """
    try:
        first, *rows = csv.reader(path.read_text(encoding="utf-8-sig").splitlines())
    except (OSError, UnicodeDecodeError, ValueError, csv.Error) as error:
        raise AutosegError(
            "the table cannot be read",
            where=str(path),
            found=str(error),
            expected="a CSV file with a line of titles",
            fix="save it as CSV (UTF-8)",
        ) from error
    known = {row[0].strip(): row[1:] for row in rows if row}
    found = {name: known[name] for name in names if name in known}
    if not found:
        raise AutosegError(
            "the table names none of the cases in its first column",
            where=str(path),
            found=some_of(list(known)) or "no lines",
            expected=some_of(list(names)),
            fix="put the names of the cases' folders into the first column",
        )
    titles = [title.strip() for title in first[1:]]
    return {n: dict(zip(titles, (v.strip() for v in row), strict=False)) for n, row in found.items()}


CONVERTER = Converter(
    name="isles2017",
    summary="stroke perfusion and diffusion maps of ISLES 2017 (SMIR), with the 4D series as an option",
    layout=LAYOUT,
    add_arguments=add_arguments,
    describe=describe,
)
