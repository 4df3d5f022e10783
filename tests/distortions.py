"""Fingerprints of data that were damaged, renamed, scaled or thinned out: what a planner must not be sure about."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from autoseg.dataset.examine import quantiles, summarise_dataset
from autoseg.fingerprint import CaseFingerprint, Fingerprint

Axes = tuple[float, float, float]


def with_cases(fingerprint: Fingerprint, cases: Sequence[CaseFingerprint]) -> Fingerprint:
    return fingerprint.model_copy(update={"cases": list(cases), "summary": summarise_dataset(cases)})


def renamed(fingerprint: Fingerprint) -> Fingerprint:
    """Names that say nothing."""
    names = [f"image{number}" for number in range(len(fingerprint.channel_names))]
    return fingerprint.model_copy(update={"channel_names": names})


def misnamed(fingerprint: Fingerprint) -> Fingerprint:
    """One channel gets the name of another contrast; several get each other's."""
    names = fingerprint.channel_names
    other = ["T1" if names == ["T2"] else "T2"] if len(names) == 1 else names[::-1]
    return fingerprint.model_copy(update={"channel_names": other})


def permuted(fingerprint: Fingerprint) -> Fingerprint:
    """The axes x, z, y instead of z, y, x."""
    order = (2, 0, 1)

    def turned(case: CaseFingerprint) -> CaseFingerprint:
        names = ("spacing_mm", "shape", "extent_mm", "nonzero_box", "shape_after_crop")
        changes = {name: tuple(getattr(case, name)[axis] for axis in order) for name in names}
        extent = case.appearance.object_extent_mm
        changes["appearance"] = case.appearance.model_copy(
            update={"object_extent_mm": tuple(extent[axis] for axis in order)}
        )
        return case.model_copy(update=changes)

    return with_cases(fingerprint, [turned(case) for case in fingerprint.cases])


def scaled(factor: float) -> Callable[[Fingerprint], Fingerprint]:
    """Spacings times a factor."""

    def scale(fingerprint: Fingerprint) -> Fingerprint:
        return with_cases(fingerprint, [_spaced(case, (factor,) * 3) for case in fingerprint.cases])

    return scale


def half_of_the_slices(fingerprint: Fingerprint) -> Fingerprint:
    """Every second slice, so that they are twice as far apart."""
    across = fingerprint.summary.slices_first[0]

    def thinned(case: CaseFingerprint) -> CaseFingerprint:
        shape = [max(1, n // 2) if axis == across else n for axis, n in enumerate(case.shape)]
        cropped = [max(1, n // 2) if axis == across else n for axis, n in enumerate(case.shape_after_crop)]
        case = case.model_copy(update={"shape": tuple(shape), "shape_after_crop": tuple(cropped)})
        return _spaced(case, tuple(2.0 if axis == across else 1.0 for axis in range(3)))

    return with_cases(fingerprint, [thinned(case) for case in fingerprint.cases])


def a_tenth_of_the_cases(fingerprint: Fingerprint) -> Fingerprint:
    """At least one, with a lesion."""
    ill = [case for case in fingerprint.cases if case.lesions.n_components]
    return with_cases(fingerprint, ill[: max(1, len(fingerprint.cases) // 10)])


def another_species(fingerprint: Fingerprint) -> Fingerprint:
    """A rodent as large as a person, or a person as small as a rodent."""
    extent = max(quantiles([max(case.extent_mm) for case in fingerprint.cases]).median, 1.0)
    return scaled(8 if extent < 100 else 1 / 8)(fingerprint)


def _spaced(case: CaseFingerprint, factors: Axes) -> CaseFingerprint:
    """The case with other spacings; the extents follow from its shape."""
    spacing = tuple(mm * factor for mm, factor in zip(case.spacing_mm, factors, strict=True))
    extent = case.appearance.object_extent_mm
    looks = case.appearance.model_copy(
        update={"object_extent_mm": tuple(mm * f for mm, f in zip(extent, factors, strict=True))}
    )
    volume = factors[0] * factors[1] * factors[2]
    lesions = case.lesions.model_copy(update={"volume_ml": case.lesions.volume_ml * volume})
    return case.model_copy(
        update={
            "spacing_mm": spacing,
            "extent_mm": tuple(n * mm for n, mm in zip(case.shape, spacing, strict=True)),
            "appearance": looks,
            "lesions": lesions,
        }
    )


DISTORTIONS: dict[str, Callable[[Fingerprint], Fingerprint]] = {
    "as it is": lambda fingerprint: fingerprint,
    "names say nothing": renamed,
    "names swapped or wrong": misnamed,
    "axes permuted": permuted,
    "spacing x 10": scaled(10),
    "spacing / 10": scaled(1 / 10),
    "half of the slices": half_of_the_slices,
    "a tenth of the cases": a_tenth_of_the_cases,
    "another species' size": another_species,
}
