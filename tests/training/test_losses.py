"""Losses against hand-worked values, torch's own cross-entropy and identities."""

import math

import pytest
import sweep
import torch
import torch.nn.functional as F

from autoseg.errors import AutosegError
from autoseg.labels import LabelSet
from autoseg.training import losses

BINARY = LabelSet.from_labels({"background": 0, "lesion": 1})


def test_soft_dice_by_hand():
    p = torch.tensor([0.9, 0.2, 0.6, 0.05]).view(1, 1, 2, 2)
    y = torch.tensor([1.0, 0.0, 1.0, 0.0]).view(1, 1, 2, 2)
    expected = 2 * (0.9 + 0.6) / (1.75 + 2)
    assert losses.soft_dice(p, y, smooth=0).item() == pytest.approx(expected)


@pytest.mark.parametrize(
    ("p", "y", "smooth", "expected"),
    [
        ([0.0, 0.0], [0.0, 0.0], 1e-5, 1),  # s / s: absent from both
        ([0.0, 0.0], [0.0, 0.0], 0.5, 1),
        ([0.25, 0.25], [0.0, 0.0], 0.5, 1 / 2),  # 0.5 / (0.5 + 0.5)
        ([0.0, 0.0], [1.0, 0.0], 1.0, 1 / 2),
        ([0.5, 0.0], [1.0, 0.0], 0.5, 3 / 4),  # (1 + 0.5) / (0.5 + 1 + 0.5)
    ],
)
@pytest.mark.parametrize("batch_dice", [False, True])
def test_smoothing_is_in_both_parts_of_the_dice(p, y, smooth, expected, batch_dice):
    p, y = torch.tensor(p).view(1, 1, 2), torch.tensor(y).view(1, 1, 2)
    assert losses.soft_dice(p, y, smooth=smooth, batch_dice=batch_dice).item() == pytest.approx(expected)


def test_a_class_that_is_rightly_absent_costs_nothing():
    """Probability exactly 0 and no lesion: no entropy, Dice 1. Of two classes, one of them found for sure: the same."""
    one_lesion = losses.build("dice_ce", labels=BINARY)
    empty = torch.zeros(1, 4, dtype=torch.long)
    sure = torch.tensor([1000.0, 0.0]).view(1, 2, 1).expand(1, 2, 4)
    assert one_lesion(sure, empty).item() == pytest.approx(0, abs=1e-6)
    two = losses.build("dice_ce", labels=LabelSet.from_labels({"background": 0, "a": 1, "b": 2}))
    target = torch.tensor([[1, 1, 0, 0]])
    assert two(1000 * F.one_hot(target, 3).movedim(-1, 1).float(), target).item() == pytest.approx(
        0, abs=1e-6
    )


def test_batch_dice_pools_the_batch():
    p, y = torch.rand(3, 2, 4, 4), (torch.rand(3, 2, 4, 4) > 0.5).float()
    pooled = losses.soft_dice(p, y, batch_dice=True)
    as_one = losses.soft_dice(p.movedim(0, 2).reshape(1, 2, 12, 4), y.movedim(0, 2).reshape(1, 2, 12, 4))
    assert torch.allclose(pooled, as_one[0])


def test_cross_entropy_part_is_torchs():
    logits, target = torch.randn(2, 2, 3, 4, 5), torch.randint(0, 2, (2, 3, 4, 5))
    loss = losses.DiceCrossEntropy(BINARY, dice_weight=0)
    assert loss(logits, target).item() == pytest.approx(F.cross_entropy(logits, target).item(), rel=1e-5)


def test_a_perfect_prediction_costs_nothing_and_a_wrong_one_much():
    target = torch.zeros(1, 4, 4, 4, dtype=torch.long)
    target[0, :2] = 1
    sure = torch.stack([(target == 0).float(), (target == 1).float()], 1) * 40 - 20
    loss = losses.build("dice_ce", labels=BINARY)
    assert loss(sure, target).item() == pytest.approx(0, abs=1e-5)
    assert loss(-sure, target).item() > 20


def test_ignored_voxels_do_not_count():
    labels = LabelSet.from_labels({"background": 0, "lesion": 1, "ignore": 2})
    target = torch.randint(0, 2, (1, 4, 4, 4))
    logits = torch.randn(1, 2, 4, 4, 4)
    ignored = target.clone()
    ignored[0, 2:] = 2
    loss = losses.build("dice_ce", labels=labels)
    changed = logits.clone()
    changed[:, :, 2:] += 7
    assert loss(logits, ignored).item() == pytest.approx(loss(changed, ignored).item(), rel=1e-6)
    part = losses.build("dice_ce", labels=BINARY)(logits[:, :, :2], target[:, :2])
    assert loss(logits, ignored).item() == pytest.approx(part.item(), rel=1e-4)


def test_regions_are_sigmoids_of_their_own():
    labels = LabelSet.from_labels({"background": 0, "whole": [1, 2], "core": [2]}, [1, 2])
    target = torch.randint(0, 3, (2, 4, 4, 4))
    logits = torch.randn(2, 2, 4, 4, 4)
    whole, core = (target > 0).float(), (target == 2).float()
    expected = F.binary_cross_entropy_with_logits(logits, torch.stack([whole, core], 1))
    got = losses.DiceCrossEntropy(labels, dice_weight=0)(logits, target)
    assert got.item() == pytest.approx(expected.item(), rel=1e-5)


def test_outputs_follow_the_order_of_names_not_of_values():
    labels = LabelSet.from_labels({"background": 0, "core": 2, "edema": 1})
    one_hot, _ = losses.Targets(labels)(torch.tensor([[[2, 1, 0]]]))
    assert one_hot[0, :, 0, 0].tolist() == [0, 1, 0] and one_hot[0, :, 0, 1].tolist() == [0, 0, 1]
    assert labels.decide(one_hot[0].numpy()[:, None]).tolist() == [[[2, 1, 0]]]


def test_deep_supervision_weights():
    target = torch.randint(0, 2, (1, 8, 8, 8))
    outputs = [torch.randn(1, 2, n, n, n) for n in (8, 4, 2)]
    one = losses.DiceCrossEntropy(BINARY)
    expected = (one(outputs[0], target) + 0.5 * one(outputs[1], losses.nearest(target, (4, 4, 4)))) / 1.5
    got = losses.build("dice_ce", labels=BINARY)(outputs, target)
    assert got.item() == pytest.approx(expected.item(), rel=1e-5)


THREE_QUARTERS = [1, 0]  # a lesion voxel and one of background; both classes have 3/4 where they are true
ENTROPY = -math.log(3 / 4)
# For each loss: arguments, the number of outputs (None for a tensor) and the value for THREE_QUARTERS.
CASES = {
    "dice_ce": [
        ({}, None, ENTROPY + 1 / 4),  # the lesion's Dice: 2 * 3/4 / (3/4 + 1/4 + 1)
        ({"dice_weight": 2.0, "cross_entropy_weight": 3.0}, None, 3 * ENTROPY + 1 / 2),
        ({"batch_dice": True, "deep_supervision": False}, None, ENTROPY + 1 / 4),
    ],
    "ratlesnetv2": [
        ({}, None, ENTROPY + 1 / 13),  # both classes: 2 * (3/4 + 3/4) / (2 * (9/16 + 1/16) + 2) = 12 / 13
        ({"dice_classes": "foreground"}, None, ENTROPY + 1 / 13),  # 2 * 3/4 / (9/16 + 1/16 + 1)
        ({"dice_weight": 0.0, "cross_entropy_weight": 2.0}, None, 2 * ENTROPY),
        ({"dice_weight": 13.0, "cross_entropy_weight": 0.0, "auxiliary_weight": 0.5}, 3, 1 + ENTROPY),
    ],
    "resunet": [
        ({}, None, 0.1 * ENTROPY + 0.9 / 4),  # of the lesion 2 * 3/4 / (3/4 + 1/4 + 1) = 3 / 4
        ({"bce_weight": 1.0, "dice_weight": 0.0, "lesion_weight": 3.0}, None, 2 * ENTROPY),
    ],
    "brainsegnet": [
        ({}, None, ENTROPY / 16),  # (1 - 3/4) ** 2 of the entropy
        ({"gamma": 0.0}, None, ENTROPY),
        ({"focal_weight": 4.0, "dice_weight": 2.0, "batch_dice": True}, None, ENTROPY / 4 + 1 / 2),
    ],
    "edd_muscle": [
        ({}, None, ENTROPY),
        ({}, 4, 4 * ENTROPY),
        ({}, 5, 5 * ENTROPY),  # three branches
        ({"output_weights": [1.0, 0.5]}, 2, 1.5 * ENTROPY),
    ],
}
WHERE = "CASES of tests/training/test_losses.py"


@pytest.mark.parametrize("name", losses.REGISTRY.names())
def test_every_loss_by_hand(name):
    target = torch.tensor([THREE_QUARTERS])
    logits = math.log(3) * F.one_hot(target, 2).movedim(-1, 1).double()
    for arguments, n, expected in sweep.hand_worked(CASES, name, WHERE):
        outputs = logits if n is None else [logits] * n
        found = losses.build(name, labels=BINARY, **arguments)(outputs, target).item()
        assert found == pytest.approx(expected, abs=1e-5), arguments


def test_no_case_is_left_over():
    sweep.refuse_leftovers(CASES, losses.REGISTRY.names(), WHERE)


@pytest.mark.parametrize("name", losses.REGISTRY.names())
def test_every_loss_is_finite_with_gradient_on_empty_truth(name):
    logits = torch.randn(2, 2, 4, 4, 4, requires_grad=True)
    value = losses.build(name, labels=BINARY)(logits, torch.zeros(2, 4, 4, 4, dtype=torch.long))
    value.backward()
    assert torch.isfinite(value) and torch.isfinite(logits.grad).all()


def test_an_unknown_argument_is_refused():
    with pytest.raises(AutosegError, match="do not fit the loss 'dice_ce'"):
        losses.build("dice_ce", labels=BINARY, gamma=2)
    with pytest.raises(AutosegError, match="did you mean dice_ce"):
        losses.build("dice_cee", labels=BINARY)
