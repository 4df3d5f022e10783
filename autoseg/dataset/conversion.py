"""A download, described: what a converter says about a public dataset, before any of it is read or written.

This module is light, because the help of a format needs none of the heavy libraries.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:
    from autoseg.dataset.folds import Fold
    from autoseg.dataset.raw_layout import Readable


@dataclass(frozen=True)
class Volume:
    """One 3D volume on disk.

    Attributes:
        path: of the file.
        index: which volume of a NIfTI file with four axes, counted from 0. None: the file holds one volume, and more
            are a fault; where such files are usual, the converter offers the option ``--channel``.
        resample: of images: put it onto the grid of the case's first channel that is not resampled, linearly and by
            the geometry in the headers. A file that lies on that grid is copied all the same.
        series: what the volume is made from where it is no image file, such as a DICOM series; ``path`` is then the
            first of its files.
        over_time: of images: one volume is made of all volumes of a NIfTI file, voxel by voxel: their mean, or the
            largest or least value; float32. Without ``index``.
    """

    path: Path
    index: int | None = None
    resample: bool = False
    over_time: Literal["mean", "max", "min"] | None = None
    series: Readable | None = None


@dataclass(frozen=True)
class MergedMask:
    """A mask of one class that comes in several files, or with other values than 0 and 1.

    It is written as 1 where the largest value of the volumes is above 0.

    Attributes:
        volumes: at least one, each on the grid of the images.
    """

    volumes: tuple[Volume, ...]


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
    mask: Volume | MergedMask | None
    lesion_free: bool = False
    test: bool = False
    groups: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class LeftOut:
    """What of a download does not become a case: its name, and why."""

    name: str
    why: str


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
        leave_out_unreadable: a case of which a file cannot be read is left out with a warning that says why, instead of
            being a fault. For sources without folds.
        left_out: what was found and is no case, for ``conversion.csv``.
    """

    root: Path
    dataset: str
    channel_names: tuple[str, ...]
    labels: Mapping[str, int | list[int]]
    cases: tuple[SourceCase, ...]
    folds: tuple[Fold, ...] = ()
    regions_class_order: tuple[int, ...] | None = None
    notes: Mapping[str, str] = field(default_factory=dict)
    leave_out_unreadable: bool = False
    left_out: tuple[LeftOut, ...] = ()
