"""What the labels of a dataset mean for a network: its outputs, its targets, its decision."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

LARGEST_LABEL = 255
"""The largest value of a label: masks are written as 8-bit files."""

OUTSIDE = -1
"""The label beyond an image, and outside the part of it that counts, on the working grid. No file holds it."""


def label_values(labels: dict[str, int | list[int]]) -> list[int]:
    """All values of the labels, sorted.

    Raises:
        ValueError: some are too large, or there are more labels than values.
    """
    values = sorted({v for item in labels.values() for v in (item if isinstance(item, list) else [item])})
    if values and values[-1] > LARGEST_LABEL:
        largest = str(values[-1]) if values[-1] < 10**15 else f"a number of {len(str(values[-1]))} digits"
        raise ValueError(f"label values go up to {LARGEST_LABEL}, found {largest}")
    if len(labels) > LARGEST_LABEL + 1:
        raise ValueError(f"there are at most {LARGEST_LABEL + 1} labels, found {len(labels)}")
    return values


def refuse_bad_labels(labels: dict[str, int | list[int]]) -> None:
    """Check the entry ``labels`` of dataset.json.

    Raises:
        ValueError: no background, no other label, values that are not 0, 1, 2 and so on, or too many of them.
    """
    if labels.get("background") != 0:
        raise ValueError('labels must contain "background": 0')
    plain = [v for v in labels.values() if not isinstance(v, list)]
    if len(set(plain)) < len(plain):
        raise ValueError("two labels have the same value")
    values = label_values(labels)
    if values != list(range(len(values))):
        missing = ", ".join(str(v) for v in sorted(set(range(values[-1] + 1)) - set(values)))
        gap = f"{missing} missing" if missing else f"{values[0]} is negative"
        raise ValueError(f"label values must be consecutive from 0: {gap}")
    if len(values) < 2:
        raise ValueError("at least one label beside the background is needed")
    ignore = labels.get("ignore")
    if ignore is not None and ignore != values[-1]:
        raise ValueError(f"the label 'ignore' must be the highest value ({values[-1]}), found {ignore}")


def refuse_bad_order(labels: dict[str, int | list[int]], order: list[int] | None) -> None:
    """Check the entry ``regions_class_order`` of dataset.json, where labels are regions.

    Raises:
        ValueError: it is missing, has another number of values than there are regions, or values of no label.
    """
    if not any(isinstance(v, list) for v in labels.values()):
        return
    n_regions = sum(name not in ("background", "ignore") for name in labels)
    if order is None or len(order) != n_regions:
        found = order if order is None else f"{len(order)}"
        raise ValueError(f"regions need regions_class_order with {n_regions} values, found {found}")
    known = {v for item in labels.values() for v in (item if isinstance(item, list) else [item])}
    if unknown := [v for v in order if v not in known]:
        raise ValueError(f"regions_class_order names {unknown[0]}, which is the value of no label")


@dataclass(frozen=True)
class LabelSet:
    """The classes that are segmented and scored.

    Attributes:
        names: of the foreground classes or regions, in the order of dataset.json.
        values: for each of them the label values that belong to it.
        ignore: the value of voxels that are neither trained nor scored.
        writes: for regions, the value that each writes, in order; None for plain classes.
    """

    names: tuple[str, ...]
    values: tuple[tuple[int, ...], ...]
    ignore: int | None = None
    writes: tuple[int, ...] | None = None

    @classmethod
    def from_labels(
        cls, labels: dict[str, int | list[int]], regions_class_order: list[int] | None = None
    ) -> LabelSet:
        """From the entries ``labels`` and ``regions_class_order`` of dataset.json."""
        foreground = {n: v for n, v in labels.items() if n not in ("background", "ignore")}
        regions = any(isinstance(v, list) for v in foreground.values())
        return cls(
            names=tuple(foreground),
            values=tuple(tuple(v) if isinstance(v, list) else (v,) for v in foreground.values()),
            ignore=labels.get("ignore"),  # type: ignore[arg-type]
            writes=tuple(regions_class_order) if regions and regions_class_order else None,
        )

    @property
    def has_regions(self) -> bool:
        """Whether classes overlap; then each output is a sigmoid of its own."""
        return self.writes is not None

    @property
    def n_outputs(self) -> int:
        """Channels that a network puts out: one for each region, or background and one for each class."""
        return len(self.names) if self.has_regions else len(self.names) + 1

    @property
    def known_values(self) -> tuple[int, ...]:
        """All values that a mask may hold, with background and ignore."""
        found = {0, *(v for values in self.values for v in values)}
        return tuple(sorted(found | ({self.ignore} if self.ignore is not None else set())))

    def masks(self, label: np.ndarray) -> dict[str, np.ndarray]:
        """One boolean mask ``[z, y, x]`` for each foreground class or region."""
        return {n: np.isin(label, v) for n, v in zip(self.names, self.values, strict=True)}

    def foreground(self, label: np.ndarray) -> np.ndarray:
        """All foreground voxels; the ignore label is not foreground."""
        mask = label > 0
        return mask if self.ignore is None else mask & (label != self.ignore)

    def decide(self, scores: np.ndarray) -> np.ndarray:
        """The mask ``[z, y, x]`` (uint8) that follows from network outputs.

        Args:
            scores: logits ``[k, z, y, x]``; for plain classes any monotone function of them does as well.
        """
        mask = np.zeros(scores.shape[1:], np.uint8)
        if self.writes is None:  # argmax(0), which numpy takes ten times as long for
            largest = scores[0]
            for score, values in zip(scores[1:], self.values, strict=True):
                np.putmask(mask, score > largest, values[0])
                largest = np.maximum(largest, score)
            return mask
        for score, value in zip(scores, self.writes, strict=True):
            np.putmask(mask, score > 0, value)
        return mask
