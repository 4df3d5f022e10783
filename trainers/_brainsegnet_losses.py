"""The losses of Brain SegNet (Hu et al. 2020, section "Curriculum learning"; gamma is that of the authors' code)."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import nn

from autoseg.errors import AutosegError
from autoseg.labels import LabelSet
from autoseg.plugins.parts import LossPart
from autoseg.training.losses import Targets, at_least_float32, soft_dice

SMALLEST = 1e-8
"""A probability of being wrong counts as at least this much: no power of it has an endless gradient."""


class FocalDice(nn.Module):
    """``a focal + b (1 - Dice)``.

    Focal is the mean over voxels of ``-(1 - p)^gamma log p``, p the softmax probability of the true class; of regions,
    each a sigmoid of its own, the mean over them too. With gamma 0 it is the cross-entropy. Logarithms are taken of
    logits, never of probabilities: a voxel that is surely wrong keeps its gradient in every precision.

    Dice is the soft Dice without squares and without the background, as in nnU-Net.

    Args:
        labels: the classes.
        gamma: how much less voxels count that are right already, at least 0.
        focal_weight, dice_weight: a and b; published is focal alone.
        batch_dice: see :func:`autoseg.training.losses.soft_dice`.

    Raises:
        AutosegError: a negative gamma.
    """

    def __init__(
        self,
        labels: LabelSet,
        gamma: float = 2.0,
        focal_weight: float = 1.0,
        dice_weight: float = 0.0,
        batch_dice: bool = False,
    ) -> None:
        super().__init__()
        if gamma < 0:
            raise AutosegError(
                "the focal loss cannot work with its arguments",
                found=f"gamma {gamma:g}",
                expected="at least 0, which is the cross-entropy",
                fix="correct the arguments in the plan",
            )
        self.targets = Targets(labels)
        self.regions = labels.has_regions
        self.gamma = gamma
        self.focal_weight = focal_weight
        self.dice_weight = dice_weight
        self.batch_dice = batch_dice

    def forward(self, logits: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
        """A scalar; logits ``[b, k, *space]``, target ``[b, *space]``. Computed in float32 at least."""
        one_hot, valid = self.targets(target)
        logits = at_least_float32(logits)
        one_hot = one_hot.to(logits.dtype)
        if self.regions:
            log_p, lesions = F.logsigmoid(torch.where(one_hot > 0, logits, -logits)), logits.sigmoid()
        else:
            every = logits.log_softmax(1)
            log_p, lesions, one_hot = (
                (every * one_hot).sum(1, keepdim=True),
                every[:, 1:].exp(),
                one_hot[:, 1:],
            )
        loss = self.focal_weight * _mean(focal(log_p, self.gamma), valid)
        if self.dice_weight:
            dice = soft_dice(lesions, one_hot, valid, batch_dice=self.batch_dice)
            loss = loss + self.dice_weight * (1 - dice.mean())
        return loss


def focal(log_p: torch.Tensor, gamma: float) -> torch.Tensor:
    """``-(1 - p)^gamma log p``, element by element."""
    if gamma == 0:
        return -log_p
    return -((-log_p.expm1()).clamp_min(SMALLEST) ** gamma) * log_p


def _mean(values: torch.Tensor, valid: torch.Tensor | None) -> torch.Tensor:
    """The mean over the voxels that count."""
    if valid is None:
        return values.mean()
    return (values * valid).sum() / (valid.sum() * values.shape[1]).clamp_min(1)


LOSSES = (
    LossPart("brainsegnet", FocalDice, "focal loss, with gamma 0 cross-entropy, and Dice as an option"),
)
