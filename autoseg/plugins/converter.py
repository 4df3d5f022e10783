"""What a converter is: it recognises a public dataset as it is downloaded and describes its cases.

A converter reads names, tables and headers, not pixels, and writes nothing. What it describes is checked and written
by :mod:`autoseg.dataset.raw_writer`, the same way for every format. A third party adds a format with a package of its
own, under the entry point ``autoseg.converters`` (see :mod:`autoseg.plugins`). This module is light, so that the help
of a format needs none of the heavy libraries; a converter keeps its own heavy imports inside its functions.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from autoseg.dataset.folds import Fold


@dataclass(frozen=True)
class Volume:
    """One 3D volume on disk.

    Attributes:
        path: of the file.
        index: which volume of a NIfTI file with four axes, counted from 0. None: the file holds one volume, and more
            are a fault; where such files are usual, the converter offers the option ``--channel``.
        resample: of images: put it onto the grid of the case's first channel that is not resampled, linearly and by
            the geometry in the headers. A file that lies on that grid is copied all the same.
    """

    path: Path
    index: int | None = None
    resample: bool = False


@dataclass(frozen=True)
class SourceCase:
    """One case as it lies in the download.

    Attributes:
        name: in the raw dataset; letters, digits and ``_ . + -``, unique.
        images: one volume for each channel, in order, all on one grid but for those to be resampled.
        mask: on the same grid; None only for a case that is declared lesion-free, or for a test case whose mask was
            not published.
        lesion_free: declared to have no lesion (a sham, a control). Without a mask an empty one is written; a mask
            that is not empty is a fault.
        test: goes to imagesTs and labelsTs instead of imagesTr and labelsTr.
        groups: column to value in groups.csv, such as study and time-point; the same columns for all cases. Cases with
            one value in the column ``subject`` stay together when folds are made.
    """

    name: str
    images: tuple[Volume, ...]
    mask: Volume | None
    lesion_free: bool = False
    test: bool = False
    groups: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Conversion:
    """A whole download, described.

    Attributes:
        root: of the download; files are named relative to it in messages.
        dataset: name of the raw dataset where the user gives only a number (``DatasetNNN_`` goes before it).
        channel_names, labels, regions_class_order: as of dataset.json; channels in order.
        cases: training and test cases.
        folds: of the training cases, each in at least one fold, with a third part ``test`` where the source has one;
            empty leaves them to the training.
        notes: further entries of dataset.json, such as licence and reference.
    """

    root: Path
    dataset: str
    channel_names: tuple[str, ...]
    labels: Mapping[str, int | list[int]]
    cases: tuple[SourceCase, ...]
    folds: tuple[Fold, ...] = ()
    regions_class_order: tuple[int, ...] | None = None
    notes: Mapping[str, str] = field(default_factory=dict)


def no_arguments(command: argparse.ArgumentParser) -> None:
    """A format without options of its own."""


@dataclass(frozen=True)
class Converter:
    """A converter plug-in.

    Attributes:
        name: as of the entry point.
        summary: one line for lists and help.
        describe: ``(root, options)`` to the described cases; options are the parsed arguments of the command. It
            refuses (AutosegError, FaultsError) every folder and file that it does not recognise.
        layout: what the root looks like, for the help; lines of text.
        add_arguments: adds the format's own options to the command's.
    """

    name: str
    summary: str
    describe: Callable[[Path, argparse.Namespace], Conversion]
    layout: str = ""
    add_arguments: Callable[[argparse.ArgumentParser], None] = no_arguments
