"""dataset.json, typed: nnU-Net's format, so that an nnU-Net user starts without converting anything."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np
from pydantic import BaseModel, ConfigDict, Field, field_validator, model_validator

FILE_ENDINGS = (".nii.gz", ".nii", ".nrrd", ".mha")


class DatasetJson(BaseModel):
    """The description of a raw dataset. Unknown keys are kept.

    Attributes:
        channel_names: channel index (as text) to name; the name chooses the normalisation.
        labels: label name to value, or to the list of values that make up a region; ``background`` is 0,
            ``ignore`` (optional) is the highest value.
        numTraining: how many training cases there should be.
        file_ending: one of :data:`FILE_ENDINGS`, the same for all files.
        regions_class_order: for regions, the value that each region writes, in that order.
    """

    model_config = ConfigDict(extra="allow")

    channel_names: dict[str, str] = Field(min_length=1)
    labels: dict[str, int | list[int]]
    numTraining: int = Field(ge=1)
    file_ending: str
    regions_class_order: list[int] | None = None

    @field_validator("channel_names")
    @classmethod
    def _channels_count_from_zero(cls, value: dict[str, str]) -> dict[str, str]:
        expected = [str(i) for i in range(len(value))]
        if sorted(value, key=lambda k: int(k) if k.isdigit() else -1) != expected:
            raise ValueError(f"channels must be numbered {', '.join(expected)}, found {', '.join(value)}")
        return {key: value[key] for key in expected}

    @field_validator("labels")
    @classmethod
    def _labels_are_consecutive(cls, value: dict[str, int | list[int]]) -> dict[str, int | list[int]]:
        if value.get("background") != 0:
            raise ValueError('labels must contain "background": 0')
        values = sorted({v for item in value.values() for v in (item if isinstance(item, list) else [item])})
        if values != list(range(len(values))):
            missing = sorted(set(range(max(values) + 1)) - set(values))
            raise ValueError(f"label values must be consecutive from 0, found {values}, missing {missing}")
        if len(values) < 2:
            raise ValueError("at least one label beside the background is needed")
        ignore = value.get("ignore")
        if ignore is not None and ignore != values[-1]:
            raise ValueError(f"the label 'ignore' must be the highest value ({values[-1]}), found {ignore}")
        return value

    @field_validator("file_ending")
    @classmethod
    def _ending_is_known(cls, value: str) -> str:
        if value not in FILE_ENDINGS:
            raise ValueError(f"file_ending must be one of {', '.join(FILE_ENDINGS)}, found {value!r}")
        return value

    @model_validator(mode="after")
    def _regions_have_an_order(self) -> DatasetJson:
        n_regions = sum(name not in ("background", "ignore") for name in self.labels)
        if any(isinstance(v, list) for v in self.labels.values()):
            order = self.regions_class_order
            if order is None or len(order) != n_regions:
                raise ValueError(
                    f"labels with regions need regions_class_order with {n_regions} values "
                    f"(what each region writes, outermost first), found {order}"
                )
        return self

    @cached_property
    def label_set(self) -> LabelSet:
        """What the labels mean for a network: its outputs, targets and regions."""
        foreground = {n: v for n, v in self.labels.items() if n not in ("background", "ignore")}
        regions = any(isinstance(v, list) for v in foreground.values())
        return LabelSet(
            names=tuple(foreground),
            values=tuple(tuple(v) if isinstance(v, list) else (v,) for v in foreground.values()),
            ignore=self.labels.get("ignore"),  # type: ignore[arg-type]
            writes=tuple(self.regions_class_order) if regions and self.regions_class_order else None,
        )


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
        if self.writes is None:
            winner = scores.argmax(0)
            table = np.array([0, *(v[0] for v in self.values)], np.uint8)
            return table[winner]
        mask = np.zeros(scores.shape[1:], np.uint8)
        for score, value in zip(scores, self.writes, strict=True):
            mask[score > 0] = value
        return mask
