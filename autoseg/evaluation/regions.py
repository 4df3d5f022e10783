"""Regions in place of classes: the user's, those that dataset.json declares, or a preset's, if its labels are those."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence

from autoseg.dataset.dataset_json import DatasetJson
from autoseg.errors import AutosegError
from autoseg.evaluation.presets import Preset
from autoseg.labels import LabelSet

Regions = Mapping[str, Sequence[int]]
"""Region to the label values that it merges."""


def scored_regions(given: Regions | None, preset: Preset, info: DatasetJson | None) -> Regions | None:
    """The regions that are scored; None scores the classes or regions of dataset.json.

    A preset's regions are named by label values. Where dataset.json declares regions of the same names, they are what
    it says; where it gives those values to classes of other names, the regions would be of something else.

    Args:
        given: by the user.
        preset: may have regions.
        info: dataset.json; without it the values are taken as they are.

    Raises:
        AutosegError: dataset.json has no such label values, or they are of classes of another meaning.
    """
    if given:
        if info is not None:
            _refuse_unknown_values(given, info.label_set, preset)
        return given
    if not preset.regions or info is None:
        return preset.regions
    labels = info.label_set
    if labels.has_regions:
        return _declared(labels, preset)
    _refuse_unknown_values(preset.regions, labels, preset)
    _refuse_other_meanings(labels, preset)
    return preset.regions


def _declared(labels: LabelSet, preset: Preset) -> Regions:
    """The preset's regions as dataset.json declares them."""
    declared, wanted = dict(zip(labels.names, labels.values, strict=True)), preset.regions or {}
    lacking = [name for name in wanted if name not in declared]
    if lacking:
        raise AutosegError(
            f"dataset.json has other regions than the preset {preset.name}",
            where=", ".join(lacking),
            found=_listed(labels),
            expected=f"regions called {', '.join(wanted)}",
            fix=_fix(labels, preset, wanted),
        )
    return {name: declared[name] for name in wanted}


def meaning(name: str, words: Mapping[int, Sequence[str]]) -> int | None:
    """The label value of a preset that the name of a class stands for; None for a name that says nothing.

    Args:
        name: of the class.
        words: of :attr:`autoseg.evaluation.presets.Preset.label_words`, in order.
    """
    letters = re.sub("[^a-z]", "", name.casefold())
    for value, of_value in words.items():
        if any(letters == word if len(word) < 4 else word in letters for word in of_value):
            return value
    return None


def _refuse_other_meanings(labels: LabelSet, preset: Preset) -> None:
    """Classes whose names say that they are not what the preset takes their values for."""
    words = preset.label_words or {}
    odd = [
        name
        for name, values in zip(labels.names, labels.values, strict=True)
        if (found := meaning(name, words)) is not None and (found,) != values
    ]
    if odd:
        raise AutosegError(
            f"the labels of dataset.json are not those of the preset {preset.name}",
            where=", ".join(odd),
            found=_listed(labels),
            expected=", ".join(f"{value} {of_value[0]}" for value, of_value in sorted(words.items())),
            fix=_fix(labels, preset, preset.regions or {}),
        )


def _refuse_unknown_values(regions: Regions, labels: LabelSet, preset: Preset) -> None:
    """A region of values that the masks cannot hold would be scored too small, or as empty."""
    known = set(labels.known_values) - {0, labels.ignore}
    odd = {name: set(values) - known for name, values in regions.items() if set(values) - known}
    if not odd:
        return
    unknown = sorted(set().union(*odd.values()))
    raise AutosegError(
        "the regions do not fit the labels of dataset.json",
        where=", ".join(odd),
        found=f"label values that it does not have: {', '.join(map(str, unknown))}",
        expected=_listed(labels),
        fix=_fix(labels, preset, regions),
    )


def _listed(labels: LabelSet) -> str:
    return ", ".join(
        f"{'+'.join(map(str, values))} {name}"
        for name, values in zip(labels.names, labels.values, strict=True)
    )


def _fix(labels: LabelSet, preset: Preset, regions: Regions) -> str:
    """What to type: by the names of the classes where they all say what they are."""
    known = sorted(set(labels.known_values) - {0, *(() if labels.ignore is None else (labels.ignore,))})
    example = _by_names(labels, preset)
    if not example and labels.has_regions:
        example = dict(zip(labels.names, labels.values, strict=True))
    example = example or {next(iter(regions)): tuple(known)}
    texts = (f"{name}={','.join(map(str, values))}" for name, values in example.items())
    return f"say which labels belong to which region, such as --regions {' '.join(texts)}"


def _by_names(labels: LabelSet, preset: Preset) -> dict[str, tuple[int, ...]]:
    """The preset's regions in the label values of the dataset; empty where a name says nothing, or a region is."""
    if labels.has_regions or not preset.regions or not preset.label_words:
        return {}
    names = zip(labels.names, labels.values, strict=True)
    means = {value: meaning(name, preset.label_words) for name, (value,) in names}
    found = {
        region: tuple(value for value, stands_for in means.items() if stands_for in values)
        for region, values in preset.regions.items()
    }
    return found if None not in means.values() and all(found.values()) else {}
