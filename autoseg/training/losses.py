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
from autoseg.plugins.parts import Loss, LossPart
from autoseg.plugins.registry import Registry
from autoseg.plugins.trainer import Trainer


class Targets(nn.Module):
    """Label values to what the outputs are compared with.

    ``forward(target)`` returns the one-hot target ``[b, k, *space]`` (float) and the mask ``[b, 1, *space]``
    of voxels that count (all but those with the ignore label), or None when all do.
    """

    table: torch.Tensor

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


def refuse_regions(labels: LabelSet, loss: str) -> None:
    """For losses that need classes which exclude each other.

    Args:
        loss: its name, for the message.

    Raises:
        AutosegError: the dataset has regions.
    """
    if labels.has_regions:
        raise AutosegError(
            f"the loss '{loss}' needs classes that exclude each other",
            found="regions in dataset.json",
            expected="one number per label",
            fix="use the loss 'dice_ce', or give the labels as plain classes",
        )


def at_least_float32(logits: torch.Tensor) -> torch.Tensor:
    """Float64 stays, everything narrower becomes float32."""
    return logits.to(torch.promote_types(logits.dtype, torch.float32))


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
    return (2 * overlap + smooth) / (total + smooth).clamp_min(1e-20)


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


REGISTRY: Registry[LossPart] = Registry(
    "loss", "losses", [LossPart("dice_ce", dice_ce, "soft Dice plus cross-entropy, as nnU-Net")]
)


def build(name: str, *, labels: LabelSet, trainer: Trainer | None = None, **arguments: Any) -> Loss:
    """The loss ``name`` for this label set, the trainer's own before autoseg's.

    Raises:
        AutosegError: an unknown name or arguments that do not fit.
    """
    return REGISTRY.build(name, labels=labels, trainer=trainer, **arguments)
