"""Corrections of images that the data ask for: proposed to every family, taken by none unless the user says so."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from autoseg.evidence.contrasts import QUANTITIES
from autoseg.evidence.facts import Evidence

SHADED = 1.6
"""From this shading on N4 is proposed. Measured: surface coils on rats 1.8 to 1.9, heads of people 1.2 to 1.5."""
MOSTLY_AIR = 0.4
"""A head that fills less of the image than this leaves most of it to air."""
CUT_OUT_SHARE = 0.75
"""A non-zero box that holds less of the image than this crops it already."""


@dataclass(frozen=True)
class Correction:
    """One proposal.

    Attributes:
        name: one or two words.
        why: with the numbers.
        words: what to give to ``--set``.
    """

    name: str
    why: str
    words: tuple[str, ...]


def corrections(evidence: Evidence) -> list[Correction]:
    """What would help by what was measured; none where nothing was."""
    return [*_shading(evidence), *_air(evidence)]


def _shading(evidence: Evidence) -> Iterator[Correction]:
    kinds = zip(evidence.channels, evidence.contrasts, evidence.shading, strict=True)
    shaded = [
        (number, name, shade)
        for number, (name, kind, shade) in enumerate(kinds)
        if shade is not None and shade >= SHADED and kind not in QUANTITIES
    ]
    if shaded:
        told = ", ".join(f"{name} {shade:.1f}-fold" for _, name, shade in shaded)
        yield Correction(
            "N4",
            f"brightness changes across the head ({told}; without a surface coil 1.2 to 1.5-fold)",
            tuple(f"preprocessing.normalisation.{number}.bias_correction=n4" for number, *_ in shaded),
        )


def _air(evidence: Evidence) -> Iterator[Correction]:
    share = evidence.object_share
    cropped = evidence.fingerprint.summary.median_relative_size_after_crop
    if share is None or share >= MOSTLY_AIR or cropped < CUT_OUT_SHARE:
        return
    yield Correction(
        "crop to the head",
        f"the head fills {share:.0%} of the image, and the air around it is not 0",
        ("preprocessing.crop_to_object=true",),
    )
    numbers = [i for i, kind in enumerate(evidence.contrasts) if kind not in QUANTITIES]
    if numbers:
        yield Correction(
            "z-score of the head",
            "air counts in a z-score of the whole image, more of it the smaller the head",
            tuple(f"preprocessing.normalisation.{number}.scheme=zscore_object" for number in numbers),
        )
