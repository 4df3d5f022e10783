"""What kind of data these are: sizes, slices, contrasts, lesions, shading and counts, worked out once for planners."""

from __future__ import annotations

import itertools
import statistics
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from typing import Literal

from autoseg.evidence.contrasts import LESIONS, Lesions, contrast_of
from autoseg.fingerprint import CaseAppearance, Fingerprint
from autoseg.messages import millilitres

RODENT_MM = 60
"""A field of view of at most this is a rodent's; the published one is 30 mm."""
HEAD_MM = (150, 300)
"""The longest edge of a scan of a human head."""
SMALLEST_MM = 10
"""No head of a mouse has a smaller field of view."""
WIDEST_SLICES_MM = 8
"""Slices of people are hardly further apart."""
ALIKE = 0.9
"""Rank correlation from which two channels show the same contrast."""
CLEAR = 0.3
"""Lesions differ clearly when their median is so many standard deviations of the head away from its median."""
MOST = 0.75
"""Of the cases with lesions that must agree before lesions are called bright or dark."""


NameSays = Literal["it", "other", "silent", "several"]
"""What names say of a dataset that should have one channel of one contrast: it; another one; nothing; or there are
several channels."""


@dataclass(frozen=True)
class Evidence:
    """A fingerprint, asked the questions that planners have.

    Args:
        fingerprint: of the dataset. What an earlier autoseg did not measure is unknown, not wrong.
    """

    fingerprint: Fingerprint

    # -------------------------------------------------------------------------------------------- sizes and slices

    @cached_property
    def extent_mm(self) -> float:
        """The longest edge of the median field of view."""
        return max(entry.median or 0.0 for entry in self.fingerprint.summary.extent_mm)

    @cached_property
    def slice_extent_mm(self) -> float:
        """The longer edge of the median slice."""
        _, *plane = self.fingerprint.summary.slices_first
        return max(self.fingerprint.summary.extent_mm[axis].median or 0.0 for axis in plane)

    @cached_property
    def object_mm(self) -> float | None:
        """The longest edge of the median head without the air around it; None where it was not measured."""
        found = [max(a.object_extent_mm) for a in self._appearances if a.object_extent_mm is not None]
        return statistics.median(found) if found else None

    @cached_property
    def object_share(self) -> float | None:
        """Of the median image that is no air."""
        found = [a.object_share for a in self._appearances]
        return statistics.median(found) if found else None

    @property
    def is_rodent(self) -> bool:
        """Whether the field of view is that of a rodent's head."""
        return self.extent_mm <= RODENT_MM

    @property
    def is_human_head(self) -> bool:
        """Whether the field of view is that of a human head."""
        return HEAD_MM[0] <= self.extent_mm <= HEAD_MM[1]

    @cached_property
    def slice_mm(self) -> float:
        """Distance of the slices in the median case."""
        across = self.fingerprint.summary.slices_first[0]
        return self.fingerprint.summary.spacing_mm[across].median or 1.0

    @cached_property
    def slice_ratio(self) -> float:
        """How many times as far apart slices are as the pixels of a slice."""
        _, *plane = self.fingerprint.summary.slices_first
        return self.slice_mm / max(self.fingerprint.summary.spacing_mm[axis].median or 1.0 for axis in plane)

    @cached_property
    def anisotropy(self) -> float:
        """The largest spacing over the smallest."""
        spacing = [entry.median or 1.0 for entry in self.fingerprint.summary.spacing_mm]
        return max(spacing) / min(spacing)

    @cached_property
    def n_slices(self) -> float:
        """Of the median case."""
        return self.fingerprint.summary.shape[self.fingerprint.summary.slices_first[0]].median or 1.0

    @cached_property
    def single_slices(self) -> bool:
        """Whether each image is one slice."""
        return self.fingerprint.summary.shape[self.fingerprint.summary.slices_first[0]].max == 1

    # ---------------------------------------------------------------------------------------------------- channels

    @property
    def channels(self) -> list[str]:
        """As they are called."""
        return self.fingerprint.channel_names

    @cached_property
    def contrasts(self) -> list[str]:
        """Of each channel by its name, empty where the name does not say it."""
        return [contrast_of(name) for name in self.channels]

    @property
    def names_are_silent(self) -> bool:
        """Whether no name says a contrast."""
        return not any(self.contrasts)

    def only_channel(self, kind: str) -> NameSays:
        """Whether there is one channel, and its name says this contrast."""
        if len(self.channels) > 1:
            return "several"
        said = self.contrasts[0]
        return "it" if said == kind else "other" if said else "silent"

    def lesions_as_in(self, kind: str) -> bool:
        """Whether lesions of the first channel may be those of this contrast; False where they look otherwise."""
        return self.lesions[0] in (None, LESIONS.get(kind, self.lesions[0]))

    def doubts_of_name(self, kind: str) -> tuple[str, ...]:
        """Why one channel may show this contrast although its name does not say so; for data that else fit."""
        says, name = self.only_channel(kind), self.channels[0]
        if says == "silent":
            return (f"the channel's name, {name}, does not say which contrast it is; {kind} by all else",)
        if says == "other" and self.lesions[0] == LESIONS.get(kind):
            return (f"but for the channel's name, {name}, the images may as well be {kind}",)
        return ()

    @cached_property
    def lesions(self) -> list[Lesions | None]:
        """What lesions are in each channel, as it looks; None where cases differ, or do not show it."""
        return [self._lesions_in(channel) for channel in range(len(self.channels))]

    def _lesions_in(self, channel: int) -> Lesions | None:
        found = [a.channels[channel].lesion_contrast for a in self._appearances]
        known = [value for value in found if value is not None]
        if not known or abs(statistics.median(known)) < CLEAR:
            return None
        bright = sum(value > 0 for value in known) / len(known)
        return "bright" if bright >= MOST else "dark" if bright <= 1 - MOST else None

    @cached_property
    def correlations(self) -> dict[tuple[int, int], float]:
        """Median rank correlation of each pair of channels."""
        pairs = list(itertools.combinations(range(len(self.channels)), 2))
        rows = [a.correlations for a in self._appearances if len(a.correlations) == len(pairs)]
        return (
            {pair: statistics.median(row[i] for row in rows) for i, pair in enumerate(pairs)} if rows else {}
        )

    @property
    def one_contrast(self) -> bool:
        """Whether several channels all show the same."""
        return bool(self.correlations) and min(self.correlations.values()) >= ALIKE

    @property
    def looks_like_maps(self) -> bool:
        """Whether three channels or more, no two alike, show lesions bright in some and dark in others, as maps do."""
        unlike = bool(self.correlations) and max(self.correlations.values()) < ALIKE
        return len(self.channels) > 2 and unlike and {"bright", "dark"} <= set(self.lesions)

    @cached_property
    def shading(self) -> list[float | None]:
        """Of each channel in the median case, see :func:`autoseg.dataset.appearance.shading`."""
        found = []
        for channel in range(len(self.channels)):
            known = [a.channels[channel].shading for a in self._appearances]
            values = [value for value in known if value is not None]
            found.append(statistics.median(values) if len(values) == len(known) and values else None)
        return found

    # --------------------------------------------------------------------------------------------- labels and cases

    @cached_property
    def classes(self) -> list[str]:
        """Names of what is segmented."""
        return [name for name in self.fingerprint.labels if name not in ("background", "ignore")]

    @property
    def has_regions(self) -> bool:
        """Whether classes overlap."""
        return any(isinstance(value, list) for value in self.fingerprint.labels.values())

    @property
    def n_cases(self) -> int:
        """All of them."""
        return len(self.fingerprint.cases)

    @cached_property
    def n_with_lesions(self) -> int:
        """Cases that have one."""
        return sum(case.lesions.n_components > 0 for case in self.fingerprint.cases)

    @property
    def _appearances(self) -> list[CaseAppearance]:
        return [case.appearance for case in self.fingerprint.cases if case.appearance is not None]

    # ------------------------------------------------------------------------------------------------------- doubts

    @cached_property
    def doubts(self) -> tuple[str, ...]:
        """What does not go together in the data, in words: headers against scanners, names against images."""
        return (*self._doubts_of_size(), *self._doubts_of_names())

    def _doubts_of_size(self) -> Iterator[str]:
        extent, (low, high) = self.extent_mm, HEAD_MM
        if extent < SMALLEST_MM:
            yield f"a field of view of {extent:.3g} mm is smaller than a mouse's head; wrong unit of the spacing?"
        elif not self.is_rodent and not self.is_human_head:
            yield (
                f"a field of view of {extent:.0f} mm is neither a rodent's (up to {RODENT_MM} mm) nor that of a human "
                f"head ({low} to {high} mm): another species, or a wrong unit of the spacing?"
            )
        elif self.is_human_head and self.slice_mm > WIDEST_SLICES_MM and not self.single_slices:
            yield (
                f"slices {self.slice_mm:.3g} mm apart are rare in people; were headers multiplied by ten, as "
                "preclinical exports do?"
            )

    def _doubts_of_names(self) -> Iterator[str]:
        for name, kind, seen in zip(self.channels, self.contrasts, self.lesions, strict=True):
            usual = LESIONS.get(kind)
            if usual is not None and seen is not None and seen != usual:
                yield f"lesions are {seen} in channel {name}, and usually {usual} in {kind}: is it what it is called?"
        if self.one_contrast and len({*self.contrasts}) > 1:
            yield "all channels look alike, and their names say that they are different contrasts"

    # --------------------------------------------------------------------------------------------------- in words

    @property
    def words(self) -> list[tuple[str, str]]:
        """What was looked at, for reading: a label and what was found."""
        spacing = " x ".join(f"{e.median:.3g}" for e in self.fingerprint.summary.spacing_mm)
        head = f"; the head {self.object_mm:.0f} mm" if self.object_mm is not None else ""
        return [
            ("size", f"{self._kind} by the field of view ({self.extent_mm:.3g} mm{head})"),
            ("voxels", f"{spacing} mm (z, y, x); {self._slices}"),
            ("channels", "; ".join(self._channel_words(i) for i in range(len(self.channels)))),
            ("lesions", self._lesion_words),
            ("cases", f"{self.n_cases}, {self.n_with_lesions} with lesions"),
        ]

    @property
    def _kind(self) -> str:
        return (
            "a rodent"
            if self.is_rodent
            else "a human head"
            if self.is_human_head
            else "neither rodent nor human"
        )

    @property
    def _slices(self) -> str:
        if self.single_slices:
            return "single slices"
        return f"slices {self.slice_ratio:.1f} times as far apart as the pixels"

    def _channel_words(self, channel: int) -> str:
        kind, seen, shade = self.contrasts[channel], self.lesions[channel], self.shading[channel]
        parts = [kind or "contrast not known by its name"] if kind != self.channels[channel] else []
        parts += [f"lesions {seen}"] if seen else []
        parts += [f"shading {shade:.1f}-fold"] if shade is not None else []
        return f"{self.channels[channel]} ({', '.join(parts)})" if parts else self.channels[channel]

    @property
    def _lesion_words(self) -> str:
        summary, classes = self.fingerprint.summary, ", ".join(self.classes)
        if not self.n_with_lesions:
            return f"{classes}: none in any case"
        sizes, number = summary.lesion_volume_ml, summary.lesions_per_case
        low, high = (millilitres(value or 0.0) for value in (sizes.q25, sizes.q75))
        spread = f"half of them {low} to {high}" if sizes.n > 1 else low
        overlap = ", overlapping" if self.has_regions else ""
        return f"{classes}{overlap}; {number.median:.0f} in the median case, {spread}"
