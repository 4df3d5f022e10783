"""What a converter is: it recognises a public dataset as it is downloaded and describes its cases.

A converter reads names, tables and headers, not pixels, and writes nothing. What it describes is checked and written
by :mod:`autoseg.dataset.raw_writer`, the same way for every format. A third party adds a format with a package of its
own, under the entry point ``autoseg.converters`` (see :mod:`autoseg.plugins`). This module is light, so that the help
of a format needs none of the heavy libraries; a converter keeps its own heavy imports inside its functions.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from autoseg.dataset.conversion import Conversion, LeftOut, MergedMask, SourceCase, Volume

__all__ = ["Conversion", "Converter", "LeftOut", "MergedMask", "SourceCase", "Volume"]


def no_arguments(command: argparse.ArgumentParser) -> None:
    """A format without options of its own."""


@dataclass(frozen=True)
class Converter:
    """A converter plug-in::

        CONVERTER = Converter("mystudy", "DWI of my study", describe, layout="sub-NAME/dwi.nii.gz, msk.nii.gz")

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
