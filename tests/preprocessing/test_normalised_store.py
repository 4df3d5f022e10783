"""Parts of an image that is normalised when it is read, for a network that sees some of its channels."""

import numpy as np
import pytest

from autoseg.preprocessing.fixed import ChannelConstants, FixedConstants
from autoseg.preprocessing.normalised_store import NormalisedImage
from autoseg.sampling.case_cache import SomeChannels

BOX = (slice(1, 4), slice(0, 5), slice(2, 6))


def constants(mean: float, spread: float) -> ChannelConstants:
    return ChannelConstants(
        mean=mean, spread=spread, what="standard_deviation", inside="everywhere", n_voxels=1
    )


@pytest.mark.parametrize("key", [..., slice(0, 2), slice(1, 2), (..., *BOX)], ids=str)
def test_some_channels_are_normalised_by_their_own_constants(key):
    raw = np.random.default_rng(0).normal(size=(3, 3, 5, 6)).astype(np.float32)
    means, spreads = (1.0, -2.0, 4.0), (2.0, 3.0, 0.5)
    entries = tuple(constants(*pair) for pair in zip(means, spreads, strict=True))
    image = NormalisedImage(raw, FixedConstants(channels=entries, cases=1, cases_hash=""))
    wanted = np.stack([(raw[c] - means[c]) / spreads[c] for c in (2, 0)])[key]
    assert SomeChannels(image, (2, 0))[key] == pytest.approx(wanted, abs=1e-5)
