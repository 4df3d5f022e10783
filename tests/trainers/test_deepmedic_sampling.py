"""Sub-epochs of DeepMedic: how many patches each case gets, and where their middles lie."""

from collections import Counter
from types import SimpleNamespace

import numpy as np
import pytest

from autoseg import messages
from autoseg.errors import AutosegError
from autoseg.trainers._deepmedic_sampling import SubEpochs, shared_out


class Cases:
    """n cases of 24 x 20 x 20 voxels, with a lesion of two voxels each, and a brain without the first plane."""

    def __init__(self, n, batch_size=24, patch=9, share=0.5, lesions=True):
        self.names, self.seed_key = tuple(f"case{i:02d}" for i in range(n)), (3, 1)
        sampling = SimpleNamespace(foreground_share=share, weights=None)
        self.stage = SimpleNamespace(batch_size=batch_size, patch_size=[patch] * 3, sampling=sampling)
        self.label = np.zeros((24, 20, 20), np.int16)
        self.label[0] = -1
        if lesions:
            self.label[10, 10, 10:12] = 1

    def original(self, name):
        return name

    def size(self, name):
        return self.label.shape

    def patch_size(self, name):
        return (self.stage.patch_size[0],) * 3

    def arrays(self, name):
        return None, self.label


def test_a_thousand_segments_of_26_cases():
    """19 of each kind for every case, 6 more of each kind drawn; 41 batches of 24."""
    sampler = SubEpochs(Cases(26))
    assert sampler.pass_length == 984
    dealt = Counter(sampler._dealt(0, 0))
    for forced in (True, False):
        counts = [n for (_, kind), n in dealt.items() if kind is forced]
        assert len(counts) == 26 and min(counts) >= 19 and sum(counts) == 500
        assert sum(n - 19 for n in counts) == 6
    assert shared_out(np.random.default_rng(0), 500, 50) == [10] * 50


def test_every_sub_epoch_has_other_cases_and_another_order():
    sampler = SubEpochs(Cases(60), segments=120, subjects=50)
    first, second = sampler._dealt(0, 0), sampler._dealt(0, 1)
    assert {len({case for case, _ in part}) for part in (first, second)} == {50}
    assert first != second and {case for case, _ in first} != {case for case, _ in second}
    again = SubEpochs(Cases(60), segments=120, subjects=50)
    assert again._dealt(0, 1) == second and again._dealt(0, 0) == first


def test_patches_lie_in_the_image_around_their_voxel():
    sampler = SubEpochs(Cases(3))
    places = [sampler.place(0, index, None) for index in range(200)]
    for place in places:
        middle = np.add(place.start, 4)
        assert (np.array(place.start) >= 0).all() and (np.add(place.start, 9) <= (24, 20, 20)).all()
        assert sampler.cases.label[tuple(middle)] == int(place.forced)
        if place.forced:
            assert place.voxel == tuple(middle) and place.voxel in ((10, 10, 10), (10, 10, 11))
        else:
            assert place.voxel is None and sampler.cases.label[tuple(middle)] == 0
    background = np.array([place.start for place in places if not place.forced])
    assert background.min(0).tolist() == [0, 0, 0] and background.max(0).tolist() == [15, 11, 11]
    assert places[5] == SubEpochs(Cases(3)).place(0, 5, None)


def test_a_share_of_0_or_1_and_cases_without_a_kind():
    assert {forced for _, forced in SubEpochs(Cases(2, share=1.0))._dealt(0, 0)} == {True}
    assert {forced for _, forced in SubEpochs(Cases(2, share=0.0))._dealt(0, 0)} == {False}
    dealt = SubEpochs(Cases(2, lesions=False))._dealt(0, 0)
    assert {forced for _, forced in dealt} == {False} and len(dealt) == 1000


def test_an_axis_shorter_than_the_patch_is_taken_whole():
    """25 voxels do not fit 24, 20 and 20: the patch lies around the middle."""
    place = SubEpochs(Cases(1, patch=25)).place(0, 0, None)
    assert place.start == (0, -2, -2)  # as elsewhere: of an odd number the larger half comes after


def test_a_brain_of_fewer_voxels_than_a_patch_is_said():
    little = Cases(2)
    little.label[:] = -1
    little.label[10, 8:12, 8:12], little.label[10, 10, 10] = 0, 1
    said = messages.warning_counts()
    SubEpochs(little).place(0, 0, None)
    found = messages.warnings_since(said)
    assert [text.split(";")[0] for text in found] == [
        f"{name}: only 16 voxels count, fewer than the 729 of a patch" for name in little.names
    ]
    assert "preprocessing.mask" in found[0] and "splits.json" in found[0]


def test_what_cannot_be_is_refused():
    with pytest.raises(AutosegError, match="(?s)fewer segments than a batch.*segments 8, batch_size 24"):
        SubEpochs(Cases(1), segments=8)
    empty = Cases(2)
    empty.label[:] = -1
    with pytest.raises(AutosegError, match="(?s)no case has a voxel.*smaller patch_size"):
        SubEpochs(empty).place(0, 0, None)
