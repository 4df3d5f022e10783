"""The 48 orders in which a file can store one scan, by nibabel."""

import itertools
from pathlib import Path

import nibabel as nib
import numpy as np
from nibabel import orientations as theirs

ALL = ["".join(s) for order in itertools.permutations(("RL", "AP", "IS")) for s in itertools.product(*order)]


def stored_as(image: nib.Nifti1Image, code: str) -> nib.Nifti1Image:
    """The same scan in another order; no value changes."""
    start = theirs.io_orientation(image.affine)
    return image.as_reoriented(theirs.ornt_transform(start, theirs.axcodes2ornt(code)))


def store_as(path: Path, code: str) -> None:
    """Store a file in another order, in its place."""
    image = nib.load(path)
    image = nib.Nifti1Image(np.asarray(image.dataobj), image.affine)
    nib.save(stored_as(image, code), path)


def code_of(path: Path) -> str:
    """How a file is stored."""
    return "".join(nib.aff2axcodes(nib.load(path).affine))
