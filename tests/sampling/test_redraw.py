"""Patches with too many zeros are drawn again: how full what is taken is, counted in the arrays themselves."""

from types import SimpleNamespace

import numpy as np
import pytest
import torch

from autoseg import messages
from autoseg.errors import AutosegError
from autoseg.plan import Sampling
from autoseg.plugins.parts import SamplerPart
from autoseg.plugins.trainer import Trainer
from autoseg.sampling import redraw, samplers
from autoseg.sampling.loader import BatchSource

N = 200


def half_full(size=(24, 24, 24), lesions=((1, (4, 12, 12)), (1, (20, 3, 3)))):
    """Two channels, each of which is filled in a part of the lower half along z; one lesion above, one below."""
    image, label = np.zeros((2, *size), np.float32), np.zeros(size, np.int16)
    image[0, : size[0] // 2, :8] = 5
    image[1, : size[0] // 2, 8:] = -3
    for value, voxel in lesions:
        label[voxel] = value
    rows = [(*voxel, value, i) for i, (value, voxel) in enumerate(lesions)]
    foreground = np.array(rows, np.int32).reshape(-1, 5)
    return SimpleNamespace(image=image, label=label, foreground=foreground, properties=None)


def counted(case, place) -> float:
    """Share of the voxels of a place that lie in the image and are not 0, by hand."""
    inside = [np.arange(a, a + n) for a, n in zip(place.start, place.size, strict=True)]
    grid = [
        axis[(axis >= 0) & (axis < edge)] for axis, edge in zip(inside, case.image.shape[1:], strict=True)
    ]
    return (case.image[(slice(None), *np.ix_(*grid))] != 0).any(0).sum() / np.prod(place.size)


@pytest.fixture
def make_source(make_store, make_stage):
    sources = []

    def make(case=None, workers=0, **sampling):
        stage = make_stage(
            sampling=sampling,
            patch_size=[8, 8, 8],
            augmentation={"name": "none"},
            iterations_per_epoch=N // 2,
        )
        store = make_store({"a": case or half_full(), "b": half_full()})
        source = BatchSource(
            store, ["a", "b"], stage, (7, 0), torch.device("cpu"),
            inside_nonzero=[False, False], label_values=[1], cache_gb=1.0, workers=workers,
        )  # fmt: skip
        sources.append(source)
        return source

    yield make
    for source in sources:
        source.close()


def places(source) -> list:
    return [source.sample(0, i).place for i in range(N)]


@pytest.mark.parametrize("name", ["foreground_share", "lesion_pixels"])
def test_places_are_full_enough_and_full_ones_stay(make_source, name):
    """Any channel that is not 0 counts. A patch that must show the pixel at z = 20 cannot be: the fullest is taken."""
    before, after = places(make_source(name=name)), places(make_source(name=name, nonzero_share=0.7))
    case = half_full()
    was, now = ([counted(case, place) for place in found] for found in (before, after))
    assert min(was) < 0.7
    out_of_reach = [place.voxel is not None and place.voxel[0] == 20 for place in after]
    assert any(out_of_reach) is (name == "lesion_pixels")
    assert all(share >= 0.7 or beyond for share, beyond in zip(now, out_of_reach, strict=True))
    assert [place.case for place in before] == [place.case for place in after]
    for one, other, share in zip(before, after, was, strict=True):
        if share >= 0.7:
            assert one == other


def test_the_place_follows_from_the_sample_alone(make_source):
    """Whatever was drawn before, and however many workers cut."""
    settings = {"nonzero_share": 0.7, "foreground_share": 0.3}
    source, again = make_source(**settings), make_source(**settings)
    forwards = [source.sample(0, i) for i in range(20)]
    assert forwards == [again.sample(0, i) for i in reversed(range(20))][::-1]
    batches = (
        make_source(**settings).batches(0, N // 2 - 3),
        make_source(workers=2, **settings).batches(0, N // 2 - 3),
    )
    for one, other in zip(*batches, strict=True):
        assert one.samples == other.samples and torch.equal(one.images, other.images)


def test_after_so_many_draws_the_fullest_is_taken_and_that_is_said(make_source, monkeypatch):
    messages.forget_warnings()
    monkeypatch.setattr(redraw, "TRIES", 5)
    draws = []

    def draw():
        draws.append(source.sampler.place(0, len(draws), None))
        return draws[-1]

    source = make_source()
    cases = source.sampler.cases
    strict = cases.stage.model_copy(update={"sampling": Sampling(nonzero_share=1.0)})
    only = SimpleNamespace(stage=strict, nonzero_share=lambda place: min(0.9, cases.nonzero_share(place)))
    taken = redraw.full_enough(only, draw)
    assert len(draws) == 5
    shares = [min(0.9, counted(half_full(), place)) for place in draws]
    assert taken == draws[shares.index(max(shares))]
    redraw.full_enough(only, lambda: taken)
    (warning,) = messages.warning_counts()
    assert f"{taken.case}: none of 5 patches of stage full has 100%" in warning
    assert "stages.full.sampling.nonzero_share" in warning


def test_an_image_that_is_smaller_than_the_patch_can_be_full(make_source):
    """6 x 24 x 24 voxels, all of them 1: padding is no reason to draw again."""
    small = half_full(size=(6, 24, 24), lesions=())
    small.image[:] = 1
    source = make_source(small)
    assert source.cases.nonzero_share("a", (-1, 3, 3), (8, 8, 8)) == 1
    assert source.cases.nonzero_share("a", (-1, -4, 3), (8, 8, 8)) == 0.5  # but a patch beyond the border is
    assert source.cases.nonzero_share("a", (40, 3, 3), (8, 8, 8)) == 0


def test_traces_of_resampling_are_zeros(make_source):
    case = half_full()
    case.image[0, 12:] = 1e-5
    assert make_source(case).cases.nonzero_share("a", (12, 0, 0), (12, 24, 24)) == 0


def test_a_sampler_that_does_not_heed_it_refuses_it():
    row = SamplerPart("first", lambda cases: None)
    trainer = Trainer("theirs", "a family", samplers=(row,))
    with pytest.raises(
        AutosegError, match=r"(?s)'first' draws no patch again.*0\.7.*foreground_share, lesion"
    ):
        samplers.check(Sampling(name="first", nonzero_share=0.7), trainer)
    assert samplers.check(Sampling(name="first"), trainer) is row
