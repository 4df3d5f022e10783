"""Several predictions of a case on its original grid become one: the mean of probabilities, or votes."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal, get_args

import numpy as np
import torch

from autoseg.errors import AutosegError
from autoseg.inference import fusion
from autoseg.labels import LabelSet
from autoseg.plan import Named
from autoseg.plugins.parts import Restore

FusionName = Literal["mean_probabilities", "majority"]
FUSIONS: tuple[str, ...] = get_args(FusionName)


def fuse(maps: Sequence[np.ndarray], labels: LabelSet, name: str) -> tuple[np.ndarray, np.ndarray]:
    """The fused probabilities, and what they decide.

    Args:
        maps: probabilities ``[k, z, y, x]`` of each model.
        labels: the classes.
        name: of the fusion; one map is taken as it is.

    Returns:
        float32 ``[k, z, y, x]`` and the mask ``[z, y, x]`` uint8.

    Raises:
        AutosegError: an unknown fusion.
    """
    if name not in FUSIONS:
        raise AutosegError(f"there is no fusion '{name}' of models", expected=" or ".join(FUSIONS))
    if len(maps) == 1:
        probabilities = maps[0].astype(np.float32, copy=False)
        return probabilities, labels.decide(_scores(probabilities, labels))
    restore = Restore(
        mask=lambda logits: labels.decide(logits),
        probabilities=lambda logits: _probabilities(logits, labels),
    )
    fused = fusion.build(Named(name=name), labels, restore)
    for one in maps:
        fused.add(torch.from_numpy(_logits(one, labels)))
    result = fused.result(probabilities=True)
    if result.probabilities is None:
        raise AutosegError(f"the fusion '{name}' gives no probabilities")
    return result.probabilities, result.mask


def _scores(probabilities: np.ndarray, labels: LabelSet) -> np.ndarray:
    """What a label set decides by: regions are those above 0."""
    return probabilities - 0.5 if labels.has_regions else probabilities


def _logits(probabilities: np.ndarray, labels: LabelSet) -> np.ndarray:
    """Logits of which these are the probabilities."""
    smallest = fusion.MeanProbabilities.SMALLEST
    clipped = np.clip(probabilities.astype(np.float32), smallest, 1 - smallest)
    return np.log(clipped) - np.log1p(-clipped) if labels.has_regions else np.log(clipped)


def _probabilities(logits: np.ndarray, labels: LabelSet) -> np.ndarray:
    tensor = torch.from_numpy(logits)
    return (tensor.sigmoid() if labels.has_regions else tensor.softmax(0)).numpy()
