"""Weights of voxels: error maps as the card of the study works them out by hand, drawing by them, what is refused."""

from pathlib import Path

import numpy as np
import pytest

from autoseg.errors import AutosegError
from autoseg.sampling.voxel_weights import (
    draw,
    error_weights,
    read_weights,
    refuse_bad_weights,
    summed,
    write_weights,
)

TRUTH = np.array([1, 0, 0, 1], np.int16).reshape(4, 1, 1)
PROBABILITY = np.array([0.9, 0.2, 0.6, 0.1]).reshape(4, 1, 1)


def shares(weights, voxels):
    """Normalised to a sum of 1."""
    return np.diff(summed(weights, np.array(voxels)), prepend=0) / summed(weights, np.array(voxels))[-1]


def test_the_error_maps_of_four_voxels_are_those_of_the_card():
    """Errors .01, .04, .36, .81, z -.915527, -.822422, .170691, 1.567258; each kind has its own share."""
    z = [-0.915527, -0.822422, 0.170691, 1.567258]
    weights = error_weights(PROBABILITY, TRUTH)
    assert weights.ravel() == pytest.approx(np.subtract(z, min(z)), abs=1e-5)
    assert shares(weights, [0, 3]) == pytest.approx([0, 1])
    assert shares(weights, [1, 2]) == pytest.approx([0.078947, 0.921053], abs=1e-6)


def test_only_what_lies_inside_the_mask_counts():
    truth = np.concatenate([TRUTH, np.full((2, 1, 1), -1, np.int16)])
    probability = np.concatenate([PROBABILITY, np.ones((2, 1, 1))])
    weights = error_weights(probability, truth)
    assert (weights[:4] == error_weights(PROBABILITY, TRUTH)).all() and (weights[4:] == 0).all()


def test_where_no_voxel_is_worse_than_another_all_are_alike():
    weights = error_weights(TRUTH.astype(float), TRUTH)
    assert not weights.any() and summed(weights, np.array([1, 2])) is None
    rng = np.random.default_rng(1)
    assert {draw(rng, 2, None) for _ in range(40)} == {0, 1}
    assert not error_weights(np.zeros((0, 1, 1)), np.zeros((0, 1, 1))).any()


def test_voxels_are_drawn_by_their_weights():
    rng, sums = np.random.default_rng(0), summed(np.array([0.0, 1, 0, 3, 9]), np.array([0, 1, 2, 3]))
    counts = np.bincount([draw(rng, 4, sums) for _ in range(4000)], minlength=4)
    assert counts[[0, 2]].tolist() == [0, 0] and counts[3] / counts[1] == pytest.approx(3, rel=0.1)


@pytest.mark.parametrize(
    ("weights", "found"),
    [([1, -0.5], "-0.5 in some voxel"), ([0, 0], "0 throughout"), ([1, np.nan], "no number in some voxels")],
)
def test_weights_that_no_voxel_could_be_drawn_by_are_refused(weights, found):
    with pytest.raises(AutosegError, match=f"(?s)weight map of case lund_7 cannot be drawn by.*{found}"):
        refuse_bad_weights(np.array(weights, float), "lund_7", Path("weightsTr/lund_7.nii.gz"))
    refuse_bad_weights(np.array([0.0, 2]), "lund_7", Path())


def test_a_map_is_kept_as_it_is_and_a_damaged_one_is_named(tmp_path):
    made = error_weights(PROBABILITY, TRUTH)
    write_weights(tmp_path, "a", made)
    assert (read_weights(tmp_path, "a") == made).all()
    (tmp_path / "a.npz").write_bytes(b"x")
    with pytest.raises(AutosegError, match="map of case a is missing or damaged"):
        read_weights(tmp_path, "a")
