"""The converter ``atlas``: chronic stroke on T1, the public releases of ATLAS.

Liew et al., "A large, open source dataset of stroke anatomical brain images and manual lesion segmentations",
Scientific Data 5:180011 (2018): releases 1.1 and 1.2. Liew et al., "A large, curated, open-source stroke neuroimaging
dataset to improve lesion segmentation algorithms", Scientific Data 9:320 (2022): release 2.0. A scan has one folder;
all masks in it belong to the one image in it, and what any of them marks is lesion.
"""

from __future__ import annotations

import argparse
import re
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from autoseg import messages
from autoseg.errors import AutosegError, Fault, FaultsError
from autoseg.messages import count_of, some_of
from autoseg.plugins.converter import Conversion, Converter, MergedMask, SourceCase, Volume

LAYOUT = """release 2.0 (ATLAS_R2.0; native space without _space-...):
  ROOT/Training/R001/sub-r001s001/ses-1/anat/sub-r001s001_ses-1_space-MNI152NLin2009aSym_T1w.nii.gz
  ROOT/Training/R001/sub-r001s001/ses-1/anat/sub-r001s001_ses-1_space-MNI152NLin2009aSym_label-L_desc-T1lesion_mask.nii.gz
  ROOT/Testing/R005/...                                   test cases, without masks
  ROOT/20220425_ATLAS_2.0_MetaData.csv                    the .xlsx of the release, saved as CSV
release 1.2 (ATLAS R 1.2, unpacked standard_MNI.zip or native.zip):
  ROOT/c0001/c0001s0004t01/c0001s0004t01_t1w_stx.nii.gz   native: c0001s0004t01.nii.gz
  ROOT/c0001/c0001s0004t01/c0001s0004t01_LesionSmooth_stx.nii.gz, _LesionSmooth_1_stx.nii.gz, ...
release 1.1 (ATLAS_R1.1):
  ROOT/Site1/031768/t01/031768_t1w_deface_stx.nii.gz
  ROOT/Site1/031768/t01/031768_LesionSmooth_stx.nii.gz, 031768_LesionSmooth_1_stx.nii.gz, ...
ROOT may also be a folder around it. All masks of a scan are merged."""

REFERENCES = {
    "1.1": "Liew et al., Scientific Data 5:180011 (2018), doi:10.1038/sdata.2018.11",
    "1.2": "Liew et al., Scientific Data 5:180011 (2018), doi:10.1038/sdata.2018.11",
    "2.0": "Liew et al., Scientific Data 9:320 (2022), doi:10.1038/s41597-022-01401-7",
}
ENDINGS = (".nii.gz", ".nii")
DEEPEST = 9
"""Folders below ROOT that are looked into."""
TESTING = "testing"

ID_COLUMNS = ("subject id", "atlas 1 2 subject id", "indi subject id", "participant id")
"""Titles of the columns that name a scan or its subject, in the tables of the releases."""
SESSION_COLUMN = "session"
GROUP_COLUMNS = {
    "scanner": ("scanner", "scanner brand", "scanner model", "scanner type", "manufacturer model name"),
    "location": ("primary stroke location",),
    "territory": ("vascular territory", "primary vascular territory"),
}
"""Columns of groups.csv and the titles of their columns in the tables; small letters, signs as spaces."""


@dataclass(frozen=True)
class ScanFolder:
    """What the path of a scan's folder says.

    Attributes:
        release: ``1.1``, ``1.2`` or ``2.0``.
        case: name of the case.
        subject, site: of the scan.
        stem: that the names of all its files begin with.
    """

    release: str
    case: str
    subject: str
    site: str
    stem: str


@dataclass(frozen=True)
class AtlasScan:
    """One scan: where it lies, its image, its masks (of a test case perhaps none), and files without use."""

    place: ScanFolder
    image: Path
    masks: tuple[Path, ...]
    test: bool
    unused: tuple[str, ...] = ()


def add_arguments(command: argparse.ArgumentParser) -> None:
    """The format's own options."""
    command.add_argument(
        "--metadata",
        nargs="+",
        metavar="FILE",
        help="the release's tables of lesions and scanners, saved as CSV, for groups.csv "
        "(default: the CSV files in ROOT and in its folders)",
    )


def describe(root: Path, options: argparse.Namespace) -> Conversion:
    """Describe the scans below ``root``.

    Raises:
        AutosegError: no such folder, no scan with a mask in it, scans of two releases or in two spaces, a table that
            cannot be used.
        FaultsError: folders with several images or with files of other scans; rows of a table that contradict.
    """
    scans = find_scans(root)
    for ending, count in sorted(Counter(e for scan in scans for e in scan.unused).items()):
        messages.warn(f"{ending} is not used; {count_of(count, 'scan has', 'scans have')} it")
    release = scans[0].place.release
    groups = _groups(scans, _metadata(root, options.metadata, scans))
    return Conversion(
        root=root,
        dataset=f"ATLASR{release.replace('.', '')}",
        channel_names=("T1",),
        labels={"background": 0, "lesion": 1},
        cases=tuple(_case(scan, groups[scan.place.case]) for scan in scans),
        notes={"reference": REFERENCES[release], "release": release},
        leave_out_unreadable=True,
    )


def _case(scan: AtlasScan, groups: Mapping[str, str]) -> SourceCase:
    mask = MergedMask(tuple(map(Volume, scan.masks))) if scan.masks else None
    return SourceCase(scan.place.case, (Volume(scan.image),), mask, test=scan.test, groups=groups)


# --------------------------------------------------------------------------------------------- what is there


def find_scans(root: Path) -> list[AtlasScan]:
    """Every scan that can be used, in order of the cases' names; others are warned of, each by name.

    Raises:
        AutosegError: no such folder, no scan, no scan with a mask, several releases or spaces.
        FaultsError: folders with several images or with files of other scans.
    """
    if not root.is_dir():
        raise AutosegError("there is no such folder", where=str(root), fix="check the path")
    places = [(place, folder) for folder in _folders(root) if (place := place_of(folder.absolute()))]
    if not places:
        raise _no_scan(root)
    _refuse_mixture(root, places)
    faults: list[Fault] = []
    left_out: dict[str, list[str]] = defaultdict(list)
    scans = [_scan(root, place, folder, faults, left_out) for place, folder in places]
    if faults:
        raise FaultsError(
            f"{root}: {count_of(len(faults), 'fault')} in {count_of(len(places), 'scan')}", faults
        )
    for reason, cases in sorted(left_out.items()):
        messages.warn(
            f"{count_of(len(cases), 'scan is', 'scans are')} left out, {reason}: {', '.join(sorted(cases))}"
        )
    usable = sorted((scan for scan in scans if scan), key=lambda scan: scan.place.case)
    if not any(not scan.test for scan in usable):
        raise AutosegError(
            "there is no scan with image and mask to train on",
            where=str(root),
            found=count_of(len(places), "folder of a scan", "folders of scans"),
            expected="at least one; in release 2.0 they lie in Training",
            fix="give the folder of the whole release",
        )
    return usable


def place_of(folder: Path) -> ScanFolder | None:
    """What the path of a folder says, if it is that of a scan."""
    *_, third, second, first = ("", "", "", *folder.parts)
    if first == "anat" and second.startswith("ses-") and third.startswith("sub-"):
        case = f"{third}_{second}"
        return ScanFolder("2.0", case, third, folder.parts[-4] if len(folder.parts) > 3 else "", case)
    if named := re.fullmatch(r"((c\d+)s\d+)t\d+", first):
        return ScanFolder("1.2", first, named[1], named[2], first)
    if re.fullmatch(r"t\d+", first) and re.fullmatch(r"\d+", second):
        return ScanFolder("1.1", f"{second}_{first}", second, third, second)
    return None


def _folders(folder: Path, depth: int = 0) -> Iterator[Path]:
    """A folder and all below it; not hidden ones, nor what archives of macOS add."""
    yield folder
    if depth < DEEPEST:
        for entry in sorted(entry for entry in folder.iterdir() if entry.is_dir()):
            if not entry.name.startswith((".", "__MACOSX")):
                yield from _folders(entry, depth + 1)


def _no_scan(root: Path) -> AutosegError:
    return AutosegError(
        "there is no scan in the layout of ATLAS",
        where=str(root),
        found=", ".join(sorted(entry.name for entry in root.iterdir())[:8]) or "an empty folder",
        expected="folders such as Training/R001/sub-r001s001/ses-1/anat, c0001/c0001s0004t01 or Site1/031768/t01",
        fix="unpack the archives, also those within archives, and give the folder that they unpack to",
    )


def _refuse_mixture(root: Path, places: Sequence[tuple[ScanFolder, Path]]) -> None:
    """One release, and each scan once: not in native and in standard space."""
    releases = {place.release: folder for place, folder in places}
    if len(releases) > 1:
        raise AutosegError(
            "there are scans of more than one release",
            where=str(root),
            found=", ".join(
                f"{release}: {_shown(folder, root)}" for release, folder in sorted(releases.items())
            ),
            expected="one release; many scans of the first ones are in the later one again",
            fix="give the folder of one release",
        )
    first: dict[str, Path] = {}
    twice = [(p.case, folder) for p, folder in places if first.setdefault(p.case, folder) != folder]
    if twice:
        case, folder = twice[0]
        raise AutosegError(
            f"{count_of(len(twice), 'scan lies', 'scans lie')} in more than one folder",
            where=str(root),
            found=f"{_shown(first[case], root)} and {_shown(folder, root)}",
            expected="each scan once, in native or in standard space",
            fix="give the folder of one of the two, such as ROOT/standard_MNI",
        )


def _scan(
    root: Path, place: ScanFolder, folder: Path, faults: list[Fault], left_out: dict[str, list[str]]
) -> AtlasScan | None:
    """One scan; None where it is left out or has faults, which are added."""
    files = sorted(f for f in folder.iterdir() if f.name.endswith(ENDINGS) and not f.name.startswith("."))
    masks = tuple(path for path in files if "lesion" in path.name.casefold())
    images = [path for path in files if path not in masks and _is_image(path, place)]
    where = _shown(folder, root)
    test = TESTING in (part.casefold() for part in (root.absolute().name, *folder.relative_to(root).parts))
    for path in (*images, *masks):
        if not re.match(rf"{re.escape(place.stem)}[._]", path.name):
            problem, expected = "its name is not that of its folder", f"{place.stem}_..."
            faults.append(Fault(_shown(path, root), problem, path.name, expected, "put it where it belongs"))
    if len(images) > 1:
        found, fix = (
            ", ".join(path.name for path in images),
            "keep one, of the space that the masks are drawn in",
        )
        faults.append(Fault(where, "more than one image", found, "one image for all masks", fix))
        return None
    if not images or not (masks or test):
        left_out["they have no mask" if images else "they have no image"].append(place.case)
        return None
    unused = tuple(path.name.removeprefix(place.stem) for path in files if path not in (*images, *masks))
    return AtlasScan(place, images[0], masks, test, unused)


def _is_image(path: Path, place: ScanFolder) -> bool:
    """The T1; in release 2.0 it says so, in the others it is what is no mask."""
    name = path.name.partition(".")[0].casefold()
    return name.endswith("_t1w") if place.release == "2.0" else "mask" not in name


def _shown(path: Path, root: Path) -> str:
    """A path as the user knows it: below the root."""
    return path.relative_to(root).as_posix()


# ------------------------------------------------------------------------------------------------- the groups


def _groups(scans: Sequence[AtlasScan], known: Mapping[str, Mapping[str, str]]) -> dict[str, dict[str, str]]:
    """Case to column to value: subject and site, and what the tables know of any scan."""
    columns = [column for column in GROUP_COLUMNS if any(column in values for values in known.values())]
    return {
        scan.place.case: {
            "subject": scan.place.subject,
            "site": scan.place.site,
            **{column: known.get(scan.place.case, {}).get(column, "") for column in columns},
        }
        for scan in scans
    }


def _metadata(
    root: Path, named: Sequence[str] | None, scans: Sequence[AtlasScan]
) -> dict[str, dict[str, str]]:
    """Case to column to value, of the tables that are named, or of those that lie in the root and in its folders.

    Raises:
        AutosegError: a named table cannot be read, or has not the columns.
        FaultsError: two rows say different things of a scan.
    """
    known: dict[str, dict[str, str]] = {}
    beside = [] if named else _files_beside(root)
    for path in map(Path, named or ()):
        _add(known, path, scans)
    for path in (path for path in beside if path.suffix.casefold() == ".csv"):
        try:
            _add(known, path, scans)
        except FaultsError:
            raise
        except AutosegError as error:
            messages.warn(f"{_shown(path, root)} is not used: {error.fault.problem}")
    if known:
        _tell_unknown(known, scans)
    else:
        _tell_no_table([_shown(path, root) for path in beside if path.suffix.casefold() in (".xlsx", ".xls")])
    return known


def _files_beside(root: Path) -> list[Path]:
    """The files in the root and in its folders."""
    folders = [root, *(f for f in sorted(root.iterdir()) if f.is_dir() and not f.name.startswith("."))]
    return [path for folder in folders for path in sorted(folder.iterdir()) if path.is_file()]


def _tell_no_table(sheets: Sequence[str]) -> None:
    there = f"; {some_of(sheets)} cannot be read as it is" if sheets else ""
    messages.warn(
        f"groups.csv will say no location, territory and scanner: there is no CSV with them{there}. Save the release's "
        "tables as CSV in ROOT, or name them with --metadata"
    )


def _tell_unknown(known: Mapping[str, object], scans: Sequence[AtlasScan]) -> None:
    """Of test cases nothing is published."""
    if missing := [s.place.case for s in scans if s.place.case not in known and not s.test]:
        messages.warn(f"the metadata know nothing of {count_of(len(missing), 'scan')}: {some_of(missing)}")


@dataclass(frozen=True)
class MetadataTable:
    """A table of a release.

    Attributes:
        path: of the file.
        rows: with their line numbers.
        ids: indices of the columns that may name a scan, the first counts most.
        session: index of the column of sessions.
        columns: columns of groups.csv, and their index here.
    """

    path: Path
    rows: Sequence[tuple[int, Sequence[str]]]
    ids: Sequence[int]
    session: int | None
    columns: Mapping[str, int]


def _add(known: dict[str, dict[str, str]], path: Path, scans: Sequence[AtlasScan]) -> None:
    """Add what a table says of the scans; an earlier table goes first."""
    for case, values in _values(_read_metadata(path), scans).items():
        known[case] = {**values, **known.get(case, {})}


def _read_metadata(path: Path) -> MetadataTable:
    from autoseg.dataset.text_table import read_table

    header, rows = read_table(path, "table of metadata")
    titles = [re.sub(r"[^a-z0-9]+", " ", title.casefold()).strip() for title in header]
    ids = [titles.index(title) for title in ID_COLUMNS if title in titles]
    columns = {
        column: titles.index(title)
        for column, names in GROUP_COLUMNS.items()
        if (title := next((name for name in names if name in titles), None))
    }
    if not ids or not columns:
        raise AutosegError(
            "has not the columns of a table of ATLAS",
            where=str(path),
            found=", ".join(header),
            expected="Subject ID (or INDI Subject ID and Session), and Primary Stroke Location, Vascular territory or "
            "Scanner Brand",
            fix="name the columns so",
        )
    session = titles.index(SESSION_COLUMN) if SESSION_COLUMN in titles else None
    return MetadataTable(path, rows, ids, session, columns)


def _values(table: MetadataTable, scans: Sequence[AtlasScan]) -> dict[str, dict[str, str]]:
    """Case to column to value, of the cases that the table names.

    Raises:
        AutosegError: it names none.
        FaultsError: two rows say different things of one.
    """
    first: dict[str, tuple[int, dict[str, str]]] = {}
    faults, cases = [], _cases_by_name(scans)
    for line, row in table.rows:
        values = {column: row[i] for column, i in table.columns.items() if row[i]}
        session = "" if table.session is None else row[table.session]
        for case in _cases(cases, [row[i] for i in table.ids], session):
            number, before = first.setdefault(case, (line, values))
            if before != values:
                problem, found = f"says of {case} what line {number} does not", ", ".join(values.values())
                expected, fix = ", ".join(before.values()), "keep one line for each scan"
                faults.append(Fault(f"{table.path.name}, line {line}", problem, found, expected, fix))
    if faults:
        raise FaultsError(f"{table.path}: {count_of(len(faults), 'fault')}", faults[:20])
    if not first:
        found = ", ".join(table.rows[0][1][i] for i in table.ids)
        raise AutosegError(
            "names none of the scans",
            where=str(table.path),
            found=f"{found} in its first row",
            expected=f"such as {scans[0].place.case} or {scans[0].place.subject}",
            fix="give the table of the same release",
        )
    return {case: values for case, (_, values) in first.items()}


def _cases_by_name(scans: Iterable[AtlasScan]) -> dict[str, list[str]]:
    """What a table may call a scan, or the subject of some: the cases that are meant."""
    of: dict[str, list[str]] = defaultdict(list)
    for scan in scans:
        of[scan.place.subject].append(scan.place.case)
        of[scan.place.case] = [scan.place.case]
    return dict(of)


def _cases(of: Mapping[str, list[str]], ids: Iterable[str], session: str) -> list[str]:
    """The cases that a row is about: of its first id that means any. INDI counts subjects without zeros in front."""
    session = session.replace(" ", "")
    for name in ids:
        number = name.removesuffix(".0")
        spelled = [name, f"{int(number):06d}"] if number.isdecimal() else [name]
        for one in spelled:
            if found := of.get(f"{one}_{session}") if session else of.get(one):
                return found
            if session and of.get(one) == [one]:  # the id names the scan itself
                return [one]
    return []


CONVERTER = Converter(
    name="atlas",
    summary="chronic stroke on T1, releases 1.1, 1.2 and 2.0 of ATLAS",
    layout=LAYOUT,
    add_arguments=add_arguments,
    describe=describe,
)
