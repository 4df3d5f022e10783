"""What the labels of a dataset mean for a network: its outputs, its targets, its decision."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

OUTSIDE = -1
"""The label beyond an image, and outside the part of it that counts, on the working grid. No file holds it."""


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
