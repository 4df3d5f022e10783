"""The losses of EDD Net and MUSCLE Net (Chen, Bentley and Rueckert 2017)."""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import nn

from autoseg.errors import AutosegError
from autoseg.labels import LabelSet
from autoseg.messages import count_of
from autoseg.plugins.parts import LossPart
from autoseg.training.losses import Targets, at_least_float32, refuse_regions


class SummedCrossEntropy(nn.Module):
    """The weighted sum of the cross-entropies of all outputs of a network (Chen et al. 2017): EDD Net, MUSCLE Net and
    the networks that EDD Net was compared with.

    Each is the mean over the pixels that count of the whole batch. EDD Net's outputs are the refined logits, the
    fused ones and those of its branches, all with weight 1. A single output is compared as it is; it may also be
    one of whole patches, ``[b, k]`` with a target ``[b]``.

    Args:
        labels: the classes; regions are refused.
        output_weights: one for each output; None weighs all alike, with 1.

    Raises:
        AutosegError: regions; in use, outputs that are not as many as the weights.
    """

    class_of: torch.Tensor

    def __init__(self, labels: LabelSet, output_weights: Sequence[float] | None = None) -> None:
        super().__init__()
        refuse_regions(labels, "edd_muscle")
        self.output_weights = None if output_weights is None else tuple(output_weights)
        self.ignore = labels.ignore
        self.register_buffer("class_of", Targets(labels).table.argmax(0), persistent=False)

    def forward(self, outputs: torch.Tensor | Sequence[torch.Tensor], target: torch.Tensor) -> torch.Tensor:
        """A scalar; logits ``[b, k, *space]`` or a list of such; target ``[b, *space]``.

        Computed in float32 at least.
        """
        classes = self.class_of[target.long()]
        if self.ignore is not None:
            classes = classes.masked_fill(target == self.ignore, _NO_CLASS)
        if isinstance(outputs, torch.Tensor):
            return _mean_cross_entropy(outputs, classes)
        weights = self.output_weights or (1.0,) * len(outputs)
        if len(outputs) != len(weights):
            raise AutosegError(
                "the loss 'edd_muscle' does not fit the network",
                found=count_of(len(outputs), "output"),
                expected=f"{len(weights)}, one for each of its output_weights",
                fix="correct output_weights in the plan",
            )
        terms = [_mean_cross_entropy(output, classes) for output in outputs]
        first, *others = (weight * term for weight, term in zip(weights, terms, strict=True))
        return sum(others, first)


_NO_CLASS = -100  # the class of pixels that do not count


def _mean_cross_entropy(logits: torch.Tensor, classes: torch.Tensor) -> torch.Tensor:
    """The mean over all pixels that count; 0 if none does."""
    total = F.cross_entropy(at_least_float32(logits), classes, ignore_index=_NO_CLASS, reduction="sum")
    return total / (classes != _NO_CLASS).sum().clamp_min(1)


LOSSES = (LossPart("edd_muscle", SummedCrossEntropy, "the cross-entropies of all outputs, summed"),)
