"""Fusions against cases worked out by hand."""

import numpy as np
import pytest
import sweep
import torch

from autoseg.errors import AutosegError
from autoseg.inference import fusion
from autoseg.labels import LabelSet
from autoseg.plan import Named
from autoseg.plugins.parts import FusionPart
from autoseg.plugins.trainer import Trainer

TWO = LabelSet.from_labels({"background": 0, "lesion": 1})
FOUR = LabelSet.from_labels({"background": 0, "a": 1, "b": 2, "c": 3})
REGIONS = LabelSet.from_labels({"background": 0, "whole": [1, 2], "core": [2]}, [1, 2])


def restore(labels):
    """The original grid is the working grid."""

    def probabilities(logits):
        tensor = torch.from_numpy(logits)
        return (tensor.sigmoid() if labels.has_regions else tensor.softmax(0)).numpy()

    return fusion.Restore(mask=labels.decide, probabilities=probabilities)


def fuse(name, labels, members, **options):
    made = fusion.build(Named(name=name), labels, restore(labels))
    for logits in members:
        made.add(logits.clone())
    return made.result(**options)


def voxels(rows):
    """``[k, 1, 1, n]`` from one list of logits for each output."""
    return torch.tensor(rows, dtype=torch.float32)[:, None, None]


def votes_for(labels, choice):
    """Logits ``[k, 1, 1, n]`` whose winners are ``choice``."""
    return torch.nn.functional.one_hot(torch.tensor(choice), labels.n_outputs).T[:, None, None].float()


def test_mean_logits_and_mean_probabilities_differ_as_they_should():
    # member 1 is sure of the lesion (p = 0.9999), member 2 and 3 lean against it (p = 0.27)
    members = [voxels([[0.0], [9.2]]), voxels([[1.0], [0.0]]), voxels([[1.0], [0.0]])]
    logits = fuse("mean_logits", TWO, members, probabilities=True)
    assert logits.mask.item() == 1
    assert logits.probabilities[1].item() == pytest.approx(1 / (1 + np.exp((2 - 9.2) / 3)), abs=1e-6)
    mean = fuse("mean_probabilities", TWO, members, probabilities=True)
    expected = (1 / (1 + np.exp(-9.2)) + 2 / (1 + np.e)) / 3
    assert mean.probabilities[1].item() == pytest.approx(expected, abs=1e-6)
    assert mean.mask.item() == int(expected > 0.5) == 1
    assert fuse("majority", TWO, members).mask.item() == 0


def test_mean_probabilities_of_regions():
    members = [voxels([[3.0], [-1.0]]), voxels([[-1.0], [-1.0]])]
    fused = fuse("mean_probabilities", REGIONS, members, probabilities=True)
    expected = [(1 / (1 + np.exp(-3)) + 1 / (1 + np.e)) / 2, 1 / (1 + np.e)]
    np.testing.assert_allclose(fused.probabilities.ravel(), expected, rtol=1e-5)
    assert fused.mask.item() == 1


def odds(*rows):
    """Logits ``[k, 1, 1, n]`` of one member for outputs with these odds."""
    return voxels(np.log(rows).tolist())


# Three members and two voxels. Lesion against background: 10^6, 1/8, 1/8 and, the other way round, 10^-6, 8, 8.
CLASSES = [odds([1, 1], [a, 1 / a]) for a in (1e6, 1 / 8, 1 / 8)]
# Two members and three voxels. Whole: 9 and 1/4, 9 and 9, 9 and 9. Core: 1/9 and 1/9, 4 and 1/9, 9 and 4.
PARTS = [odds([9, 9, 9], [1 / 9, 4, 9]), odds([1 / 4, 9, 9], [1 / 9, 1 / 9, 4])]
SURE = 1e6 / (1e6 + 1)
# For each fusion: mask and lesion probabilities of CLASSES; mask and probabilities of whole and core of PARTS.
CASES = {
    # the geometric mean of the odds: (10^6 / 64)^(1/3) = 25; 3/2, 9, 9 and 1/9, 2/3, 6
    "mean_logits": ([1, 0], [25 / 26, 1 / 26], [1, 1, 2], [[3 / 5, 0.9, 0.9], [0.1, 2 / 5, 6 / 7]]),
    "mean_probabilities": (
        [0, 1],
        [(SURE + 2 / 9) / 3, (1 - SURE + 16 / 9) / 3],
        [1, 1, 2],
        [[(0.9 + 0.2) / 2, 0.9, 0.9], [0.1, (0.8 + 0.1) / 2, (0.9 + 0.8) / 2]],
    ),
    # one of three loses, two win; of two regions votes one is not enough
    "majority": ([0, 1], [1 / 3, 2 / 3], [0, 1, 2], [[1 / 2, 1, 1], [0, 1 / 2, 1]]),
}
WHERE = "CASES of tests/inference/test_fusion.py"


@pytest.mark.parametrize("name", fusion.REGISTRY.names())
def test_every_fusion_by_hand(name):
    mask, lesion, mask_of_regions, regions = sweep.hand_worked(CASES, name, WHERE)
    fused = fuse(name, TWO, CLASSES, probabilities=True)
    assert fused.mask.ravel().tolist() == mask and fused.mask.dtype == np.uint8
    np.testing.assert_allclose(fused.probabilities[:, 0, 0], [1 - np.array(lesion), lesion], atol=1e-6)
    assert fuse(name, TWO, CLASSES).probabilities is None
    fused = fuse(name, REGIONS, PARTS, probabilities=True)
    assert fused.mask.ravel().tolist() == mask_of_regions
    np.testing.assert_allclose(fused.probabilities[:, 0, 0], regions, atol=1e-6)


def test_no_case_is_left_over():
    sweep.refuse_leftovers(CASES, fusion.REGISTRY.names(), WHERE)


@pytest.mark.parametrize(
    ("n_for", "n_members", "wins"), [(1, 2, False), (2, 4, False), (3, 4, True), (2, 3, True)]
)
def test_half_of_the_votes_does_not_win_a_region(n_for, n_members, wins):
    """Members agree on the whole; ``n_for`` of them see the core."""
    members = [voxels([[1.0], [1.0 if i < n_for else -1.0]]) for i in range(n_members)]
    assert fuse("majority", REGIONS, members).mask.item() == (2 if wins else 1)


def test_one_member_is_itself():
    logits = torch.randn(4, 3, 4, 5)
    for name in fusion.REGISTRY.names():
        assert np.array_equal(fuse(name, FOUR, [logits]).mask, FOUR.decide(logits.numpy())), name


@pytest.mark.parametrize(
    ("ballots", "winner"),
    [
        ([1, 1, 0], 1),
        ([1, 0], 0),  # a tie is background
        ([1, 1, 0, 0], 0),
        ([0, 0, 1], 0),
    ],
)
def test_majority_of_one_class_needs_more_than_half(ballots, winner):
    members = [votes_for(TWO, [ballot]) for ballot in ballots]
    assert fuse("majority", TWO, members).mask.item() == winner


@pytest.mark.parametrize(
    ("ballots", "winner"),
    [
        ([1, 1, 2, 0], 1),  # most votes, not more than half
        ([1, 1, 2, 2], 0),
        ([2, 2, 1, 1, 3], 0),
        ([1, 2, 3], 0),
        ([1, 1, 0, 0, 2], 0),
        ([3, 3, 1, 2, 0], 3),
        ([1, 2, 2], 2),
        ([1, 1, 2, 2, 3, 3, 3], 3),
    ],
)
def test_majority_of_many_classes(ballots, winner):
    fused = fuse("majority", FOUR, [votes_for(FOUR, [b]) for b in ballots], probabilities=True)
    assert fused.mask.item() == winner
    shares = [ballots.count(i) / len(ballots) for i in range(4)]
    np.testing.assert_allclose(fused.probabilities.ravel(), shares, atol=1e-6)


def test_majority_of_regions_votes_on_each():
    # whole: 2 of 3, core: 1 of 3
    members = [voxels([[1.0], [1.0]]), voxels([[1.0], [-1.0]]), voxels([[-1.0], [-1.0]])]
    fused = fuse("majority", REGIONS, members, probabilities=True)
    assert fused.mask.item() == 1
    np.testing.assert_allclose(fused.probabilities.ravel(), [2 / 3, 1 / 3], atol=1e-6)


def test_memory_does_not_grow_with_members():
    made = fusion.build(Named(name="mean_probabilities"), FOUR, restore(FOUR))
    kept = set()
    for _ in range(5):
        made.add(torch.randn(4, 2, 2, 2))
        kept.add(sum(v.numel() for v in vars(made).values() if isinstance(v, torch.Tensor)))
    assert kept == {32}


def test_a_trainers_own_fusion_goes_first_and_unknown_ones_are_refused():
    marker = object()
    own = Trainer("t", "", fusions=(FusionPart("majority", lambda labels, restore: marker),))
    assert fusion.build(Named(name="majority"), TWO, restore(TWO), own) is marker
    with pytest.raises(AutosegError, match="(?s)no fusion 'majorty'.*majority"):
        fusion.build(Named(name="majorty"), TWO, restore(TWO))
    with pytest.raises(AutosegError, match="no member to fuse"):
        fuse("mean_logits", TWO, [])
