"""The losses of the RatLesNetv2 study (Valverde et al. 2020)."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import nn

from autoseg.errors import AutosegError
from autoseg.labels import LabelSet
from autoseg.plugins.parts import LossPart
from autoseg.training.losses import Targets, at_least_float32, refuse_regions


class PooledDiceCrossEntropy(nn.Module):
    """Cross-entropy plus a Dice pooled over all classes, of RatLesNetv2 (Valverde et al. 2020) and its comparators.

    With softmax probabilities q and one-hot labels y, n voxels that count, per sample and averaged over the batch:
    cross-entropy ``-sum y log(q + 1e-15) / n`` and Dice ``1 - 2 sum q y / (sum (q^2 + y^2) + 1e-6)``. The authors'
    code sums both channels into one Dice, so that scans without lesion have a gradient, and so does this; their paper
    describes the lesion alone (``dice_classes="foreground"``), where an empty label costs a constant 1. For a batch
    of several samples their code takes 1 minus the sum of the ratios, which turns negative; this is the mean.

    The defaults are those of RatLesNetv2, its ablations and the 3D U-Net; RatLesNet, and VoxResNet with its auxiliary
    outputs, have ``dice_weight`` 0.

    Args:
        labels: the classes; regions are refused.
        dice_weight, cross_entropy_weight: of the two parts.
        dice_classes: "all" or "foreground".
        auxiliary_weight: of the cross-entropy of each further output of full size, where a network has several.

    Raises:
        AutosegError: regions, or other dice_classes.
    """

    def __init__(
        self,
        labels: LabelSet,
        dice_weight: float = 1.0,
        cross_entropy_weight: float = 1.0,
        dice_classes: str = "all",
        auxiliary_weight: float = 0.001,
    ) -> None:
        super().__init__()
        refuse_regions(labels, "ratlesnetv2")
        if dice_classes not in ("all", "foreground"):
            raise AutosegError(
                "the arguments of the loss 'ratlesnetv2' do not fit",
                found=f"dice_classes '{dice_classes}'",
                expected="all or foreground",
                fix="correct the arguments in the plan",
            )
        self.targets = Targets(labels)
        self.dice_weight = dice_weight
        self.cross_entropy_weight = cross_entropy_weight
        self.first_class = 0 if dice_classes == "all" else 1
        self.auxiliary_weight = auxiliary_weight

    def forward(self, outputs: torch.Tensor | Sequence[torch.Tensor], target: torch.Tensor) -> torch.Tensor:
        """A scalar; logits ``[b, k, *space]`` or a list of such, the one that counts first; target ``[b, *space]``.

        Computed in float32 at least.
        """
        one_hot, valid = self.targets(target)
        main, *auxiliary = [outputs] if isinstance(outputs, torch.Tensor) else outputs
        probabilities = _softmax(main)
        total = self.cross_entropy_weight * _saturating_cross_entropy(probabilities, one_hot, valid)
        if self.dice_weight:
            classes = slice(self.first_class, None)
            dice = _pooled_dice(probabilities[:, classes], one_hot[:, classes], valid)
            total = total + self.dice_weight * (1 - dice.mean())
        for output in auxiliary:
            entropy = _saturating_cross_entropy(_softmax(output), one_hot, valid)
            total = total + self.auxiliary_weight * entropy
        return total


def _softmax(logits: torch.Tensor) -> torch.Tensor:
    """Probabilities in float32, or in float64 where the logits are."""
    return at_least_float32(logits).softmax(1)


def _saturating_cross_entropy(
    probabilities: torch.Tensor, one_hot: torch.Tensor, valid: torch.Tensor | None
) -> torch.Tensor:
    """The mean over voxels of ``-log(q + 1e-15)`` of the true class; 34.54 at most.

    The 1e-15 comes from the authors' code. It limits the loss, and the gradient, of voxels that are surely wrong.
    """
    entropy = -(one_hot * torch.log(probabilities + 1e-15)).sum(1, keepdim=True)
    if valid is None:
        return entropy.mean()
    return (entropy * valid).sum() / valid.sum().clamp_min(1)


def _pooled_dice(
    probabilities: torch.Tensor, one_hot: torch.Tensor, valid: torch.Tensor | None
) -> torch.Tensor:
    """``2 sum q y / (sum (q^2 + y^2) + 1e-6)`` per sample, sums over classes and voxels: ``[b]``."""
    if valid is not None:
        probabilities, one_hot = probabilities * valid, one_hot * valid
    overlap = (probabilities * one_hot).flatten(1).sum(1)
    total = (probabilities**2 + one_hot**2).flatten(1).sum(1)
    return 2 * overlap / (total + 1e-6)


LOSSES = (
    LossPart("ratlesnetv2", PooledDiceCrossEntropy, "cross-entropy plus a Dice pooled over all classes"),
)
