"""Losses by name. ``build(name, labels=..., **arguments)`` gives ``loss(outputs, target)``.

``outputs`` are logits ``[b, k, *space]`` or, for deep supervision, a list of them, the finest first;
``target`` is ``[b, *space]`` with label values of dataset.json.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import nn

from autoseg.errors import AutosegError
from autoseg.labels import LabelSet
from autoseg.registry import Registry

REGISTRY = Registry("loss")


def build(name: str, *, labels: LabelSet, **arguments: Any) -> nn.Module:
    """The loss ``name`` for this label set.

    Raises:
        AutosegError: an unknown name or arguments that do not fit.
    """
    return REGISTRY.build(name, labels=labels, **arguments)


def names() -> list[str]:
    """All registered losses."""
    return REGISTRY.names()


class Targets(nn.Module):
    """Label values to what the outputs are compared with.

    ``forward(target)`` returns the one-hot target ``[b, k, *space]`` (float) and the mask ``[b, 1, *space]``
    of voxels that count (all but those with the ignore label), or None when all do.
    """

    def __init__(self, labels: LabelSet) -> None:
        super().__init__()
        highest = max(labels.known_values)
        table = torch.zeros(labels.n_outputs, highest + 1)
        if not labels.has_regions:
            table[0, 0] = 1
        for output, values in enumerate(labels.values, start=0 if labels.has_regions else 1):
            table[output, list(values)] = 1
        self.ignore = labels.ignore
        self.register_buffer("table", table, persistent=False)

    def forward(self, target: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor | None]:
        """See the class."""
        one_hot = self.table.t()[target.long()].movedim(-1, 1)
        valid = None if self.ignore is None else (target != self.ignore).unsqueeze(1).float()
        return one_hot, valid


def soft_dice(
    probabilities: torch.Tensor,
    one_hot: torch.Tensor,
    valid: torch.Tensor | None = None,
    *,
    batch_dice: bool = False,
    smooth: float = 1e-5,
) -> torch.Tensor:
    """Soft Dice ``(2 tp + s) / (sum p + sum y + s)`` per output, and per sample unless ``batch_dice``.

    Args:
        probabilities, one_hot: ``[b, k, *space]``.
        valid: ``[b, 1, *space]``, 1 where a voxel counts.
        batch_dice: sums run over the batch, and over all devices of a distributed run.
        smooth: s; 1e-5 as in nnU-Net.

    Returns:
        ``[b, k]``, or ``[k]`` with ``batch_dice``.
    """
    axes = tuple(range(2, probabilities.ndim))
    if valid is not None:
        probabilities, one_hot = probabilities * valid, one_hot * valid
    overlap = (probabilities * one_hot).sum(axes)
    total = probabilities.sum(axes) + one_hot.sum(axes)
    if batch_dice:
        overlap, total = _sum_over_devices(overlap.sum(0)), _sum_over_devices(total.sum(0))
    return (2 * overlap + smooth) / (total + smooth).clamp_min(1e-8)


def _sum_over_devices(value: torch.Tensor) -> torch.Tensor:
    """The sum over all processes, through which gradients flow."""
    if _distributed():
        from torch.distributed.nn.functional import all_reduce

        return all_reduce(value)
    return value


def _distributed() -> bool:
    """Whether several processes train together."""
    return torch.distributed.is_available() and torch.distributed.is_initialized()


class DiceCrossEntropy(nn.Module):
    """Soft Dice plus cross-entropy, 1:1, by nnU-Net's rules (peers: nnU-Net 2.8, nnUNetTrainer).

    Plain classes: softmax, Dice without the background. Regions: sigmoid, binary cross-entropy, Dice of all.
    The Dice part is ``1 - Dice`` (nnU-Net subtracts Dice; the gradient is the same, this one stays positive).

    Args:
        labels: the classes.
        batch_dice: see :func:`soft_dice`.
        dice_weight, cross_entropy_weight: of the two parts.
    """

    def __init__(
        self,
        labels: LabelSet,
        batch_dice: bool = False,
        dice_weight: float = 1.0,
        cross_entropy_weight: float = 1.0,
    ) -> None:
        super().__init__()
        self.targets = Targets(labels)
        self.regions = labels.has_regions
        self.batch_dice = batch_dice
        self.dice_weight = dice_weight
        self.cross_entropy_weight = cross_entropy_weight

    def forward(self, logits: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
        """A scalar; logits ``[b, k, *space]``, target ``[b, *space]``. Computed in float32."""
        logits = logits.float()
        one_hot, valid = self.targets(target)
        if self.regions:
            probabilities = logits.sigmoid()
            entropy = F.binary_cross_entropy_with_logits(logits, one_hot, reduction="none")
            dice = soft_dice(probabilities, one_hot, valid, batch_dice=self.batch_dice)
        else:
            log_probabilities = logits.log_softmax(1)
            entropy = -(one_hot * log_probabilities).sum(1, keepdim=True)
            dice = soft_dice(
                log_probabilities.exp()[:, 1:], one_hot[:, 1:], valid, batch_dice=self.batch_dice
            )
        if valid is None:
            entropy = entropy.mean()
        else:
            entropy = (entropy * valid).sum() / (valid.sum() * entropy.shape[1]).clamp_min(1)
        return self.cross_entropy_weight * entropy + self.dice_weight * (1 - dice.mean())


class DeepSupervision(nn.Module):
    """A loss on outputs of several resolutions, weighted 1, 1/2, 1/4, ... and normalised to 1.

    The coarsest output does not count, as in nnU-Net. Targets are brought to each resolution by nearest neighbour.

    Args:
        loss: of one resolution.
    """

    def __init__(self, loss: nn.Module) -> None:
        super().__init__()
        self.loss = loss

    def forward(self, outputs: torch.Tensor | Sequence[torch.Tensor], target: torch.Tensor) -> torch.Tensor:
        """A scalar; a single output is compared as it is."""
        if isinstance(outputs, torch.Tensor):
            return self.loss(outputs, target)
        used = outputs[:-1] if len(outputs) > 1 else outputs
        weights = [0.5**i for i in range(len(used))]
        total = sum(
            weight * self.loss(output, nearest(target, output.shape[2:]))
            for weight, output in zip(weights, used, strict=True)
        )
        if len(outputs) > 1 and _distributed():
            # every parameter must have a gradient there, also those behind the output that does not count
            total = total + 0 * outputs[-1].sum()
        return total / sum(weights)


def nearest(target: torch.Tensor, size: Sequence[int]) -> torch.Tensor:
    """A label map ``[b, *space]`` at another resolution, by nearest neighbour."""
    if tuple(target.shape[1:]) == tuple(size):
        return target
    return (
        F.interpolate(target.unsqueeze(1).float(), tuple(size), mode="nearest-exact")
        .squeeze(1)
        .to(target.dtype)
    )


@REGISTRY.register("dice_ce")
def dice_ce(
    labels: LabelSet,
    batch_dice: bool = False,
    deep_supervision: bool = True,
    dice_weight: float = 1.0,
    cross_entropy_weight: float = 1.0,
) -> nn.Module:
    """Soft Dice plus cross-entropy, see :class:`DiceCrossEntropy` and :class:`DeepSupervision`."""
    loss = DiceCrossEntropy(labels, batch_dice, dice_weight, cross_entropy_weight)
    return DeepSupervision(loss) if deep_supervision else loss


class PooledDiceCrossEntropy(nn.Module):
    """Cross-entropy plus a Dice pooled over all classes, of RatLesNetv2 (Valverde et al. 2020) and its comparators.

    With softmax probabilities q and one-hot labels y, n voxels that count, per sample and averaged over the batch:
    cross-entropy ``-sum y log(q + 1e-15) / n`` and Dice ``1 - 2 sum q y / (sum (q^2 + y^2) + 1e-6)``. The authors'
    code sums both channels into one Dice, so that scans without lesion have a gradient, and so does this; their paper
    describes the lesion alone (``dice_classes="foreground"``), where an empty label costs a constant 1. For a batch
    of several samples their code takes 1 minus the sum of the ratios, which turns negative; this is the mean.

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
        if labels.has_regions:
            raise AutosegError(
                "the loss 'ratlesnetv2' needs classes that exclude each other",
                found="regions in dataset.json",
                expected="one number per label",
                fix="use the loss 'dice_ce', or give the labels as plain classes",
            )
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
    return logits.to(torch.promote_types(logits.dtype, torch.float32)).softmax(1)


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


@REGISTRY.register("ratlesnetv2")
def ratlesnetv2(
    labels: LabelSet,
    dice_weight: float = 1.0,
    cross_entropy_weight: float = 1.0,
    dice_classes: str = "all",
    auxiliary_weight: float = 0.001,
) -> nn.Module:
    """The losses of the RatLesNetv2 study, see :class:`PooledDiceCrossEntropy`.

    As they stand for RatLesNetv2, its ablations and the 3D U-Net; with ``dice_weight`` 0 for RatLesNet, and for
    VoxResNet with its auxiliary outputs.
    """
    return PooledDiceCrossEntropy(labels, dice_weight, cross_entropy_weight, dice_classes, auxiliary_weight)


class SummedCrossEntropy(nn.Module):
    """The weighted sum of the cross-entropies of all outputs of a network, of EDD Net (Chen et al. 2017).

    Each is the mean over the pixels that count of the whole batch. EDD Net's outputs are the refined logits, the
    fused ones and those of both branches, all with weight 1. A single output is compared as it is; it may also be
    one of whole patches, ``[b, k]`` with a target ``[b]``.

    Args:
        labels: the classes; regions are refused.
        output_weights: one for each output.

    Raises:
        AutosegError: regions; in use, outputs that are not as many as the weights.
    """

    def __init__(self, labels: LabelSet, output_weights: Sequence[float] = (1.0, 1.0, 1.0, 1.0)) -> None:
        super().__init__()
        if labels.has_regions:
            raise AutosegError(
                "the loss 'edd_muscle' needs classes that exclude each other",
                found="regions in dataset.json",
                expected="one number per label",
                fix="use the loss 'dice_ce', or give the labels as plain classes",
            )
        self.output_weights = tuple(output_weights)
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
        if len(outputs) != len(self.output_weights):
            raise AutosegError(
                "the loss 'edd_muscle' does not fit the network",
                found=f"{len(outputs)} outputs",
                expected=f"{len(self.output_weights)}, one for each of its output_weights",
                fix="correct output_weights in the plan",
            )
        terms = [_mean_cross_entropy(output, classes) for output in outputs]
        return sum(weight * term for weight, term in zip(self.output_weights, terms, strict=True))


_NO_CLASS = -100  # the class of pixels that do not count


def _mean_cross_entropy(logits: torch.Tensor, classes: torch.Tensor) -> torch.Tensor:
    """The mean over all pixels that count; 0 if none does."""
    logits = logits.to(torch.promote_types(logits.dtype, torch.float32))
    total = F.cross_entropy(logits, classes, ignore_index=_NO_CLASS, reduction="sum")
    return total / (classes != _NO_CLASS).sum().clamp_min(1)


@REGISTRY.register("edd_muscle")
def edd_muscle(labels: LabelSet, output_weights: Sequence[float] = (1.0, 1.0, 1.0, 1.0)) -> nn.Module:
    """The losses of EDD Net, MUSCLE Net and the networks that EDD Net was compared with.

    See :class:`SummedCrossEntropy`.
    """
    return SummedCrossEntropy(labels, output_weights)
