"""The division of the 43 training cases of ISLES 2017 in the DeepMedic study of these data.

Pérez Malla, Valdés Hernández, Rachmadi, Komura, Frontiers in Neuroinformatics 13:33 (2019); the lists are facts of its
first author's repository, CarlosUziel/ischleseg. Of five chunks run i trains on i, i + 1 and i + 2, validates on i + 3
and tests on i + 4.
"""

from __future__ import annotations

from collections.abc import Collection

from autoseg.errors import AutosegError
from autoseg.messages import count_of, some_of

CHUNKS = (
    (1, 13, 16, 20, 27, 36, 39, 42, 48),
    (4, 5, 7, 11, 15, 19, 23, 26, 35),
    (6, 8, 10, 12, 21, 31, 38, 43, 47),
    (14, 18, 28, 30, 32, 33, 40, 44, 45),
    (2, 9, 22, 24, 37, 41, 46),
)
"""Of the folders ``training_N``."""

Parts = tuple[tuple[str, ...], tuple[str, ...], tuple[str, ...]]
"""Cases to train on, to validate on, to test on."""


def study_division(cases: Collection[str]) -> list[Parts]:
    """The five runs of the study.

    Args:
        cases: names of the training cases, which are those of the study.

    Raises:
        AutosegError: they are others.
    """
    chunks = [[f"training_{number}" for number in chunk] for chunk in CHUNKS]
    known = {name for chunk in chunks for name in chunk}
    if set(cases) != known:
        missing, further = sorted(known - set(cases)), sorted(set(cases) - known)
        found = [
            *([f"without {some_of(missing)}"] if missing else []),
            *([f"with {some_of(further)}"] if further else []),
        ]
        raise AutosegError(
            "the cases are not those that the study divided",
            found=f"{count_of(len(cases), 'training case')}, {' and '.join(found)}",
            expected=f"its {len(known)} cases",
            fix="leave --division out; folds are made later, such as by autoseg_plan_and_preprocess --test_part",
        )
    runs = ([chunks[(run + i) % 5] for i in range(5)] for run in range(5))
    return [
        (tuple(sorted([*a, *b, *c])), tuple(sorted(validation)), tuple(sorted(test)))
        for a, b, c, validation, test in runs
    ]
