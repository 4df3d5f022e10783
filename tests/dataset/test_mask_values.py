"""Values of masks: whole numbers in any type, or close to them."""

import numpy as np
import pytest

from autoseg import messages
from autoseg.dataset.mask_values import as_labels
from autoseg.errors import AutosegError


@pytest.mark.parametrize("off", [1e-7, 9e-4, -9e-4])
@pytest.mark.parametrize("kind", [np.float32, np.float64])
def test_values_close_to_whole_numbers_are_taken_as_meant(off, kind):
    messages.forget_warnings()
    meant = np.array([[[0, 1, 2, 1]]])
    labels = as_labels(meant.astype(kind) + kind(off) * (meant > 0), where="in/labelsTr/a.nii.gz")
    assert labels.dtype == np.uint8 and np.array_equal(labels, meant)
    messages.tell_notes()
    (told,) = messages.warning_counts()
    assert "off whole numbers by rounding" in told and told.endswith("labelsTr/a.nii.gz")


@pytest.mark.parametrize("values", [[0, 1.002], [0, 0.5], [0, np.nan], [0, np.inf], [0, 1e300]])
def test_values_further_off_are_refused(values):
    with pytest.raises(AutosegError, match=r"(?s)a\.nii\.gz.*not whole numbers.*nearest neighbour"):
        as_labels(np.array([[values]], np.float64), where="a.nii.gz")


def test_whole_numbers_are_told_of_nothing():
    messages.forget_warnings()
    as_labels(np.array([[[0.0, 1.0, 3.0]]]), where="a.nii.gz")
    messages.tell_notes()
    assert not messages.warning_counts()
