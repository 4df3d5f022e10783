"""Options of the commands that score masks: which metrics, of what, and on which parts of the cases."""

from __future__ import annotations

import argparse
import shlex
import sys
from collections.abc import Sequence
from typing import Any

from autoseg.errors import AutosegError

# Copies of names that live beside numpy, so that --help need not import it; a test holds them against the originals.
PRESETS = (
    "autoseg",
    "full",
    "isles22",
    "isles24",
    "atlas2",
    "isles2017",
    "brats",
    "ratlesnetv2",
    "edd_muscle",
    "brainsegnet",
    "deepmedic",
    "resunet",
)
GROUPS = ("overlap", "volume", "lesion", "distance", "surface", "shape")


def add_overwrite(command: argparse.ArgumentParser) -> None:
    """Add ``--overwrite``."""
    command.add_argument(
        "--overwrite",
        action="store_true",
        help="replace results of other folders or settings; those of the same are always made anew",
    )


def add_scoring(command: argparse.ArgumentParser) -> None:
    """Add ``--preset``, ``--regions``, ``--mask``, ``--without``, ``--nsd_mm``, ``--groups`` and ``--strata``."""
    command.add_argument(
        "--preset",
        default="autoseg",
        metavar="NAME",
        help="whose metrics and definitions (default: autoseg): " + ", ".join(PRESETS),
    )
    command.add_argument(
        "--regions",
        nargs="+",
        action="extend",
        default=[],
        metavar="NAME=VALUES",
        help="score regions in place of the classes, such as whole=1,2,3,4 core=1,3,4",
    )
    command.add_argument(
        "--mask",
        metavar="FOLDER",
        help="count voxels (tp, fp, fn, tn) inside these masks alone, one of the brain for each case",
    )
    command.add_argument(
        "--mask_channel",
        type=int,
        metavar="N",
        help="--mask is a folder of images: inside is where this channel is not 0",
    )
    command.add_argument(
        "--without",
        nargs="+",
        action="extend",
        default=[],
        metavar="GROUP",
        help="leave out groups of metrics: " + ", ".join(GROUPS),
    )
    command.add_argument(
        "--nsd_mm",
        nargs="+",
        action="extend",
        default=[],
        type=float,
        metavar="MM",
        help="add the normalised surface Dice at these tolerances",
    )
    command.add_argument(
        "--groups",
        metavar="CSV",
        help="split the cases by each column of a table with a column 'case' (stage, scanner, ...)",
    )
    command.add_argument(
        "--strata",
        nargs="+",
        action="extend",
        default=[],
        metavar="METRIC=RULE",
        help="split the cases by a metric: voxels_truth=q4 (quartiles), volume_truth_ml=1,10 (thresholds)",
    )


def scoring_options(arguments: argparse.Namespace) -> dict[str, Any]:
    """The options as arguments of :func:`autoseg.evaluation.score_masks.evaluate_folder`.

    Raises:
        AutosegError: a region without values.
    """
    return {
        "preset": arguments.preset,
        "regions": parse_regions(arguments.regions) or None,
        "mask": arguments.mask,
        "mask_channel": arguments.mask_channel,
        "without": arguments.without,
        "nsd_mm": arguments.nsd_mm,
        "groups": arguments.groups,
        "strata": arguments.strata,
    }


def parse_regions(texts: Sequence[str]) -> dict[str, tuple[int, ...]]:
    """``["whole=1,2"]`` as ``{"whole": (1, 2)}``.

    Raises:
        AutosegError: no name, no values, values that are not whole numbers above 0, or a name that comes twice.
    """
    regions: dict[str, tuple[int, ...]] = {}
    for text in texts:
        name, _, values = text.partition("=")
        parts = [part.strip() for part in values.split(",")]
        fits = all(part.isdecimal() and int(part) > 0 for part in parts)
        if not fits or name in ("", "background", "ignore") or name in regions:
            raise AutosegError(
                "this is not a region" if name not in regions else "a region is given twice",
                where=f"--regions {text}",
                expected="NAME=VALUE,VALUE,... with label values above 0, such as core=1,3,4",
                fix="name each region once, with the label values that it merges",
            )
        regions[name] = tuple(dict.fromkeys(int(part) for part in parts))
    return regions


def typed(program: str, argv: Sequence[str] | None) -> str:
    """The command as it was typed, for the record.

    Args:
        program: its name.
        argv: as given to ``main``; None takes those of the process.
    """
    return shlex.join([program, *(sys.argv[1:] if argv is None else argv)])
