"""The converter ``brats2015``: the training and test cases of BRATS 2015, as the repository SMIR gave them out.

Menze et al., "The Multimodal Brain Tumor Image Segmentation Benchmark (BRATS)", IEEE Transactions on Medical Imaging
34:1993-2024 (2015): glioma of high and low grade with FLAIR, T1, T1c and T2 on one grid, without skull, and a mask of
four sub-regions. The masks of the test cases are not public. Several scans of one patient stay together in folds.
"""

from __future__ import annotations

import argparse
import re
from pathlib import Path

from autoseg.dataset_conversion._smir import MASK, SmirCase, find_cases, read_cases
from autoseg.plugins.converter import Conversion, Converter, SourceCase, Volume

LAYOUT = """the folders of the training archive, and of the test archive where it is there:
  ROOT/HGG/brats_2013_pat0001_1/VSD.Brain.XX.O.MR_Flair.54512/VSD.Brain.XX.O.MR_Flair.54512.mha
       and the same of MR_T1, MR_T1c, MR_T2; OT, the mask (VSD.Brain_3more.XX.O.OT.54517): 0 background,
       1 necrosis, 2 oedema, 3 non-enhancing, 4 enhancing
  ROOT/LGG/brats_tcia_pat101_0001/...
  ROOT/HGG_LGG/...  test cases, without OT
ROOT may also be the folder around BRATS2015_Training and the test folder."""

REFERENCE = (
    "Menze et al., IEEE Transactions on Medical Imaging 34:1993-2024 (2015), doi:10.1109/TMI.2014.2377694"
)
CASES = r"brats_(2013|tcia)_pat\d+_\d+"
SEQUENCES = {"FLAIR": "Flair", "T1": "T1", "T1c": "T1c", "T2": "T2"}
"""Channel to sequence."""
LABELS = {"background": 0, "necrosis": 1, "oedema": 2, "non_enhancing": 3, "enhancing": 4}
TEST = "HGG_LGG"
"""The folder of cases whose grade is not said."""
ENDING = ".mha"


def describe(root: Path, options: argparse.Namespace) -> Conversion:
    """Describe the cases below ``root``.

    Raises:
        AutosegError: no such folder, no case in it.
        FaultsError: cases that are incomplete, all of them.
    """
    folders = find_cases(root, CASES, depth=3)
    tests = [folder for folder in folders if folder.parent.name == TEST]
    cases = read_cases(root, folders, list(SEQUENCES.values()), ENDING, unmasked=tests)
    return Conversion(
        root=root,
        dataset="BRATS2015",
        channel_names=tuple(SEQUENCES),
        labels=LABELS,
        cases=tuple(_case(case) for case in cases),
        notes={"reference": REFERENCE},
    )


def _case(case: SmirCase) -> SourceCase:
    mask, grade = case.files.get(MASK), case.folder.parent.name
    groups = {
        "subject": case.folder.name.rpartition("_")[0],
        "grade": grade if grade != TEST else "",
        "source": re.split("_", case.folder.name)[1],
    }
    images = tuple(Volume(case.files[sequence]) for sequence in SEQUENCES.values())
    return SourceCase(
        case.folder.name, images, Volume(mask) if mask else None, test=grade == TEST, groups=groups
    )


CONVERTER = Converter(
    name="brats2015",
    summary="glioma with four sub-regions on FLAIR, T1, T1c, T2 of BRATS 2015 (SMIR)",
    layout=LAYOUT,
    describe=describe,
)
