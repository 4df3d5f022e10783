"""A part of many cases, for processes and machines that share them: ``3/10`` is the third of ten."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

from autoseg.dataset.raw_layout import Case
from autoseg.errors import AutosegError


@dataclass(frozen=True)
class CasesPart:
    """Every N-th case by sorted name, from the I-th on: N such parts have each case once.

    Attributes:
        number: from 1; nnU-Net's part_id is one less.
        of: how many parts; nnU-Net's num_parts.

    Raises:
        AutosegError: there is no such part.
    """

    number: int
    of: int

    def __post_init__(self) -> None:
        if not 1 <= self.number <= self.of:
            raise AutosegError(
                f"--part {self}: there is no such part",
                expected=f"I/N with I from 1 to N, such as 1/{max(self.of, 1)}",
            )

    @classmethod
    def parse(cls, text: str) -> CasesPart:
        """Of a text such as ``3/10``.

        Raises:
            AutosegError: it is no part.
        """
        found = re.fullmatch(r"(\d{1,9})/(\d{1,9})", text.strip())
        if found is None:
            raise AutosegError(f"--part {text}: this is no part", expected="I/N, such as 3/10")
        return cls(int(found[1]), int(found[2]))

    def __str__(self) -> str:
        return f"{self.number}/{self.of}"

    @property
    def name(self) -> str:
        """As a part of the names of files."""
        return f"part_{self.number}_of_{self.of}"

    def take(self, cases: Sequence[Case]) -> list[Case]:
        """Those of this part."""
        return sorted(cases, key=lambda case: case.name)[self.number - 1 :: self.of]
