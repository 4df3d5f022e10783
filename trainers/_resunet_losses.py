"""The loss of 3D-ResU-Net (Tomita et al. 2020, section 2.4; the weights are those of the authors' code)."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import nn

from autoseg.labels import LabelSet
from autoseg.plugins.parts import LossPart
from autoseg.training.losses import Targets, at_least_float32, soft_dice

ROUNDING = 2.22e-16
"""What the authors add above and below in the Dice: 1 where neither mask nor prediction has anything."""


class BinaryCrossEntropyDice(nn.Module):
    """``a BCE + b (1 - Dice)`` of each lesion's probability p, sums over all voxels of the batch together.

    BCE is the mean over voxels, Dice ``(2 sum p y + s) / (sum p + sum y + s)`` without squares. A crop without lesion
    has a Dice loss of nearly 1 with hardly any gradient: there the cross-entropy does the work. The paper has one
    class of lesions; of several, and of regions, this is the mean. p is the softmax, with one class its sigmoid.

    Args:
        labels: the classes.
        bce_weight, dice_weight: a and b.
        lesion_weight: of lesion voxels in the cross-entropy, relative to background.
    """

    def __init__(
        self, labels: LabelSet, bce_weight: float = 0.1, dice_weight: float = 0.9, lesion_weight: float = 1.0
    ) -> None:
        super().__init__()
        self.targets = Targets(labels)
        self.regions = labels.has_regions
        self.bce_weight = bce_weight
        self.dice_weight = dice_weight
        self.lesion_weight = lesion_weight

    def forward(self, logits: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
        """A scalar; logits ``[b, k, *space]``, target ``[b, *space]``. Computed in float32 at least."""
        one_hot, valid = self.targets(target)
        logits = at_least_float32(logits)
        lesions = logits if self.regions else against_the_others(logits)
        truth = (one_hot if self.regions else one_hot[:, 1:]).to(lesions.dtype)
        weight = 1 + (self.lesion_weight - 1) * truth
        entropy = F.binary_cross_entropy_with_logits(lesions, truth, weight, reduction="none")
        dice = soft_dice(lesions.sigmoid(), truth, valid, batch_dice=True, smooth=ROUNDING)
        return self.bce_weight * _mean(entropy, valid) + self.dice_weight * (1 - dice.mean())


def against_the_others(logits: torch.Tensor) -> torch.Tensor:
    """``[b, k, *space]`` of a softmax to ``[b, k - 1, *space]``: the sigmoid of each is the softmax of its class.

    The first class, background, is left out.
    """
    n_classes = logits.shape[1]
    others = [[j for j in range(n_classes) if j != c] for c in range(1, n_classes)]
    against = [logits[:, rest].logsumexp(1) if len(rest) > 1 else logits[:, rest[0]] for rest in others]
    return logits[:, 1:] - torch.stack(against, 1)


def _mean(values: torch.Tensor, valid: torch.Tensor | None) -> torch.Tensor:
    """The mean over the voxels that count."""
    if valid is None:
        return values.mean()
    return (values * valid).sum() / (valid.sum() * values.shape[1]).clamp_min(1)


LOSSES = (LossPart("resunet", BinaryCrossEntropyDice, "0.1 cross-entropy + 0.9 Dice of the whole batch"),)
