"""What the converters of people's own data share: channels and classes by options, files and DICOM series alike."""

from __future__ import annotations

import argparse
import re
from collections.abc import Mapping, Sequence
from pathlib import Path

from autoseg import messages
from autoseg.cli.common import parse_pairs
from autoseg.errors import AutosegError
from autoseg.files import readable
from autoseg.messages import count_of, some_of
from autoseg.names import is_name
from autoseg.plugins.converter import Conversion, LeftOut, MergedMask, SourceCase, Volume

LESION = {"background": 0, "lesion": 1}


def add_labels(command: argparse.ArgumentParser) -> None:
    """The option that names the classes of masks."""
    command.add_argument(
        "--labels",
        nargs="+",
        default=[],
        metavar="NAME=VALUE",
        help="classes of the masks, such as edema=1 tumour=2 (default: every value above 0 is lesion)",
    )


def labels_of(options: argparse.Namespace) -> dict[str, int]:
    """The classes that the user named, with the background; those of lesions where none is named.

    Raises:
        AutosegError: a value that is no whole number above 0.
    """
    named = parse_pairs("--labels", options.labels)
    for name, value in named.items():
        if not value.isdecimal() or int(value) < 1:
            fix = "count the classes from 1; 0 is the background"
            raise AutosegError(
                "a class has no whole number above 0", where=f"--labels {name}={value}", fix=fix
            )
    return {"background": 0, **{name: int(value) for name, value in named.items()}} if named else dict(LESION)


def mask_of(volumes: Sequence[Volume], options: argparse.Namespace) -> Volume | MergedMask:
    """A mask as it is where its classes are named, else as lesion wherever one of its files is above 0."""
    return volumes[0] if options.labels else MergedMask(tuple(volumes))


def say_merged(options: argparse.Namespace) -> None:
    """Say that values of masks are put together, which a reader may not expect."""
    if not options.labels:
        messages.info("masks: every value above 0 is lesion; --labels names classes that are to stay apart")


def volume_of(path: Path, *, resample: bool = False) -> Volume:
    """A file, or a folder of one DICOM series.

    Raises:
        AutosegError: a folder with none or several series.
    """
    if not path.is_dir():
        return Volume(path, resample=resample)
    from autoseg.scans.dicom_cases import find_studies

    stacks = [stack for study in find_studies(path) for stack in study.stacks]
    if len(stacks) != 1:
        raise AutosegError(
            f"holds {count_of(len(stacks), 'DICOM series', 'DICOM series')}",
            where=readable(path),
            found=some_of([stack.label for stack in stacks]),
            expected="one series",
            fix="name the folder of one series",
        )
    return Volume(stacks[0].slices[0].path, resample=resample, series=stacks[0])


def dataset_name(path: Path) -> str:
    """A name for a dataset after a folder or file."""
    words = re.findall(r"[A-Za-z0-9]+", path.resolve().name.partition(".")[0])
    name = "".join(word[0].upper() + word[1:] for word in words)
    return name if is_name(name) else "Mine"


def conversion(
    root: Path,
    channels: Sequence[str],
    labels: Mapping[str, int | list[int]],
    cases: Sequence[SourceCase],
    left_out: Sequence[LeftOut],
    *,
    dataset: str = "",
    notes: Mapping[str, str] | None = None,
) -> Conversion:
    """A described dataset; what was left out is said.

    Raises:
        AutosegError: no training case is left.
    """
    for one in left_out:
        messages.warn(f"{one.name} is left out: {one.why}")
    if not any(not case.test for case in cases):
        raise AutosegError(
            "there is no training case",
            where=readable(root),
            found=some_of([f"{one.name}: {one.why}" for one in left_out], 8) or "nothing",
            expected="images with a mask",
            fix="see what was left out, and why",
        )
    return Conversion(
        root=root,
        dataset=dataset or dataset_name(root),
        channel_names=tuple(channels),
        labels=labels,
        cases=tuple(cases),
        left_out=tuple(left_out),
        notes=notes or {},
        leave_out_unreadable=True,
    )
