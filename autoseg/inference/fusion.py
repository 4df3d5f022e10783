"""From the logits of several members to one prediction, one member at a time.

A fusion is fed with one member's logits after the other and keeps only what it needs, so memory does not
grow with the number of members. Notation: ``k`` outputs; ``z, y, x`` the working grid for logits, the original
grid for masks and probabilities.
"""

from __future__ import annotations

from typing import TypeVar

import numpy as np
import torch

from autoseg.errors import AutosegError
from autoseg.labels import LabelSet
from autoseg.plan import Named
from autoseg.plugins.parts import Fused, Fusion, FusionPart, Restore
from autoseg.plugins.registry import Registry
from autoseg.plugins.trainer import Trainer

Sum = TypeVar("Sum")


def _there(sum_of_members: Sum | None) -> Sum:
    """What the members add up to.

    Raises:
        AutosegError: there was none.
    """
    if sum_of_members is None:
        raise AutosegError("there is no member to fuse", fix="train at least one stage that the plan keeps")
    return sum_of_members


class MeanLogits:
    """The mean of the members' logits."""

    def __init__(self, labels: LabelSet, restore: Restore) -> None:
        self._restore = restore
        self._sum: torch.Tensor | None = None
        self._n = 0

    def add(self, logits: torch.Tensor) -> None:
        """See :class:`autoseg.plugins.parts.Fusion`."""
        self._sum = logits if self._sum is None else self._sum.add_(logits)
        self._n += 1

    def result(self, *, probabilities: bool = False) -> Fused:
        """See :class:`autoseg.plugins.parts.Fusion`."""
        total = _there(self._sum)
        mean = (total / self._n if self._n > 1 else total).numpy()
        return Fused(self._restore.mask(mean), self._restore.probabilities(mean) if probabilities else None)


class MeanProbabilities:
    """The mean of the members' probabilities, taken on the working grid.

    It goes on as the logits that belong to it, so that it returns to the original grid like any other.
    """

    # far below what float32 probabilities resolve near 1, and still a finite logit
    SMALLEST = 1e-7

    def __init__(self, labels: LabelSet, restore: Restore) -> None:
        self._regions = labels.has_regions
        self._restore = restore
        self._mean: torch.Tensor | None = None
        self._n = 0

    def add(self, logits: torch.Tensor) -> None:
        """See :class:`autoseg.plugins.parts.Fusion`."""
        probabilities = logits.sigmoid_() if self._regions else logits.softmax(0)
        self._n += 1
        if self._mean is None:
            self._mean = probabilities
        else:
            self._mean.lerp_(probabilities, 1 / self._n)

    def result(self, *, probabilities: bool = False) -> Fused:
        """See :class:`autoseg.plugins.parts.Fusion`."""
        mean = _there(self._mean).clamp(self.SMALLEST, 1 - self.SMALLEST)
        logits = (mean.logit() if self._regions else mean.log()).numpy()
        return Fused(
            self._restore.mask(logits), self._restore.probabilities(logits) if probabilities else None
        )


class Majority:
    """Each member's mask on the original grid has one vote per voxel.

    A class wins with the most votes; when classes or background share the most votes it is background, so
    with one class it takes more than half of the members. Regions are voted on one by one (more than half of
    the members) and written in their order. The probabilities are the shares of votes.
    """

    def __init__(self, labels: LabelSet, restore: Restore) -> None:
        self._labels = labels
        self._restore = restore
        self._votes: np.ndarray | None = None
        self._n = 0

    def add(self, logits: torch.Tensor) -> None:
        """See :class:`autoseg.plugins.parts.Fusion`."""
        mask = self._restore.mask(logits.numpy())
        if self._votes is None:
            self._votes = np.zeros((len(self._labels.names), *mask.shape), np.uint16)
        for votes, chosen in zip(self._votes, self._labels.masks(mask).values(), strict=True):
            votes += chosen
        self._n += 1

    def result(self, *, probabilities: bool = False) -> Fused:
        """See :class:`autoseg.plugins.parts.Fusion`."""
        mask = self._regions() if self._labels.has_regions else self._classes()
        return Fused(mask, self._shares() if probabilities else None)

    def _regions(self) -> np.ndarray:
        all_votes = _there(self._votes)
        mask = np.zeros(all_votes.shape[1:], np.uint8)
        for votes, value in zip(all_votes, self._labels.writes or (), strict=True):
            mask[2 * votes > self._n] = value
        return mask

    def _classes(self) -> np.ndarray:
        all_votes = _there(self._votes)
        mask = np.zeros(all_votes.shape[1:], np.uint8)
        most = self._n - all_votes.sum(0, dtype=np.uint16)  # the votes for background
        for votes, values in zip(all_votes, self._labels.values, strict=True):
            mask[votes > most] = values[0]
            mask[(votes == most) & (votes > 0)] = 0
            most = np.maximum(most, votes)
        return mask

    def _shares(self) -> np.ndarray:
        shares = _there(self._votes).astype(np.float32) / np.float32(self._n)
        if self._labels.has_regions:
            return shares
        return np.concatenate([1 - shares.sum(0, keepdims=True), shares])


REGISTRY: Registry[FusionPart] = Registry(
    "fusion",
    "fusions",
    [
        FusionPart("mean_logits", MeanLogits, "the mean of the members' logits"),
        FusionPart("mean_probabilities", MeanProbabilities, "the mean of the members' probabilities"),
        FusionPart("majority", Majority, "each member's mask has one vote per voxel"),
    ],
)


def build(spec: Named, labels: LabelSet, restore: Restore, trainer: Trainer | None = None) -> Fusion:
    """The fusion that the plan names, for one case.

    Args:
        spec: of the plan.
        labels: the classes.
        restore: of the case.
        trainer: whose own fusions go before autoseg's.

    Raises:
        AutosegError: an unknown name or arguments that do not fit.
    """
    return REGISTRY.build(spec.name, labels, restore, trainer=trainer, **spec.arguments)
