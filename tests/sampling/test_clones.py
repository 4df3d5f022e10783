"""Clones of training cases (Algorithm 2): what is drawn, from what it follows, and that all else stays as it is."""

import hashlib
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from autoseg.plan import Clones as Settings
from autoseg.sampling.clones import ClonedImage, draw_lesions
from autoseg.sampling.keys import Purpose
from autoseg.sampling.loader import BatchSource

NAMES = ["case0", "case1", "empty"]
CHANNELS = {"inside_nonzero": [False, True], "label_values": [1, 2], "cache_gb": 1.0}


@pytest.fixture
def make_source(store, make_stage):
    sources = []

    def make(clones, names=NAMES, cases=store, stage=(), **options):
        sampling = {"foreground_share": 0.5, "clones": clones}
        given = make_stage(**{"sampling": sampling, "batch_size": 4, **dict(stage)})
        source = BatchSource(cases, names, given, (7, 0), "cpu", **{**CHANNELS, **options})
        sources.append(source)
        return source

    yield make
    for source in sources:
        source.close()


def offline(case, name, number=1, seed=7):
    """Algorithm 2 as it reads: for each channel and lesion, mean and deviation, and a draw for every voxel."""
    image = case.image.copy()
    digest = np.frombuffer(hashlib.sha256(name.encode()).digest()[:16], "<u4")
    for channel in range(len(image)):
        key = (int(Purpose.CLONE), seed, *map(int, digest), number, channel, 0)
        rng = np.random.Generator(np.random.Philox(np.random.SeedSequence(key)))
        noise = np.zeros(case.label.shape)
        noise[case.label > 0] = rng.standard_normal(int((case.label > 0).sum()))
        for value in (1, 2):
            lesion = case.label == value
            if lesion.any():
                voxels = case.image[channel][lesion].astype(np.float64)
                image[channel][lesion] = voxels.mean() + voxels.std() * noise[lesion]
    return SimpleNamespace(**{**vars(case), "image": image})


def same(one, other):
    pairs = list(zip(one, other, strict=True))
    return all(torch.equal(a.images, b.images) and torch.equal(a.target, b.target) for a, b in pairs)


def test_clones_are_the_files_that_would_have_been_written(make_source, store, make_store):
    written = {f"{name}:clone1": offline(store.cases[name], name) for name in NAMES}
    files = make_store({**store.cases, **written})
    drawn, read = make_source({}), make_source(None, [*NAMES, *written], files)
    assert drawn.names == read.names == (*NAMES, *written)
    batches = list(drawn.batches(0))
    assert same(batches, read.batches(0))
    assert {case for batch in batches for case in batch.cases} & set(written)
    assert not same(batches, make_source(None).batches(0))


def test_everything_outside_the_lesions_stays_as_it_is(make_source, store):
    source = make_source({"number": 2})
    for name in NAMES:
        image, label = source.cases.arrays(name)
        copies = [source.cases.arrays(f"{name}:clone{number}") for number in (1, 2)]
        for copy, its_label in copies:
            assert its_label is label and np.array_equal(copy[...][:, label <= 0], image[:, label <= 0])
            assert (copy[...][:, label > 0] != image[:, label > 0]).all()
        assert not (copies[0][0][...] == copies[1][0][...])[:, label > 0].any()
        assert source.cases.size(f"{name}:clone1") == source.cases.size(name)
    assert sorted(store.reads) == sorted(NAMES)  # a clone takes no memory of a case


def test_mean_and_deviation_are_those_of_the_lesion_in_each_channel(store):
    rng = np.random.default_rng(0)
    label = np.zeros((40, 40, 40), np.int16)
    label[4:36, 4:36, 4:36] = 1
    image = np.stack([rng.gamma(2.0, 3.0, label.shape), rng.random(label.shape) < 0.5]).astype(np.float32)
    image[:, label == 0] = -1000
    settings = {"channels": (0, 1), "seed": 1, "case": "a", "number": 1}
    white = draw_lesions(image, label, (1,), noise="white", **settings).values
    alike = draw_lesions(image, label, (1,), noise="correlated", **settings).values
    for drawn in (white, alike):
        inside = image[:, label == 1]
        np.testing.assert_allclose(drawn.mean(1), inside.mean(1), atol=0.03 * inside.std(1).max())
        np.testing.assert_allclose(drawn.std(1), inside.std(1), rtol=0.03)
        assert abs(np.corrcoef(drawn)[0, 1]) < 0.05  # channels know nothing of each other
    fields = [drawn[0].reshape(32, 32, 32) for drawn in (white, alike)]
    neighbours = [np.corrcoef(f[1:].ravel(), f[:-1].ravel())[0, 1] for f in fields]
    assert abs(neighbours[0]) < 0.02  # white
    assert neighbours[1] == pytest.approx(np.exp(-1 / 4), abs=0.03)  # a Gaussian of 1 voxel, with itself
    assert abs(white[0]).max() < 100  # nothing of what lies around


def test_a_channel_does_not_depend_on_which_others_are_seen(make_source):
    both, second = make_source({}), make_source({}, channels=[1])
    assert np.array_equal(
        both.cases.arrays("case0:clone1")[0][1:2], second.cases.arrays("case0:clone1")[0][...]
    )


def test_a_part_of_a_clone_is_that_of_the_whole(make_source):
    image, _ = make_source({}).cases.arrays("case1:clone1")
    whole = image[...]
    box = (slice(4, 9), slice(0, 7), slice(6, 30))
    assert isinstance(image, ClonedImage) and whole.shape == image.shape
    assert np.array_equal(image[1:2], whole[1:2])
    assert np.array_equal(image[(Ellipsis, *box)], whole[(Ellipsis, *box)])
    assert np.array_equal(image[(slice(0, 1), *box)], whole[(slice(0, 1), *box)])
    assert np.array_equal(image[..., 0:2, 0:2, 0:2], whole[..., 0:2, 0:2, 0:2])  # without a lesion


def test_once_or_anew_in_each_epoch(make_source):
    def lesions(source, epoch):
        image, label = source.cases.arrays("case0:clone1", epoch)
        return image[...][:, label > 0]

    once, anew = make_source({}), make_source({"drawn": "each_epoch"})
    assert np.array_equal(lesions(once, 0), lesions(once, 5))
    first = lesions(anew, 0)
    assert not (first == lesions(anew, 1)).any() and not (first == lesions(once, 0)).any()
    assert np.array_equal(first, lesions(anew, 0))
    late = [sample for batch in anew.batches(3) for sample in batch.samples]
    clone = next(sample for sample in late if sample.place.case == "case0:clone1")
    again = make_source({"drawn": "each_epoch"})
    assert torch.equal(anew.replay(clone)[0], again.replay(clone)[0])


@pytest.mark.parametrize("drawn", ["once", "each_epoch"])
def test_workers_memory_and_the_place_of_resuming_change_nothing(make_source, drawn):
    clones, stage = {"drawn": drawn}, {"augmentation": {"backend": "batchgenerators"}}
    alone = list(make_source(clones, stage=stage).batches(1))
    assert same(alone, make_source(clones, stage=stage, workers=2).batches(1))
    assert same(alone, make_source(clones, stage=stage, cache_gb=0.0).batches(1))
    assert same(alone[2:], make_source(clones, stage=stage).batches(1, 2))


def test_a_pass_shows_every_clone_once(make_source):
    source = make_source({"number": 3}, stage={"iterations_per_epoch": None, "batch_size": 1})
    assert source.iterations == 12
    assert sorted(case for batch in source.batches(0) for case in batch.cases) == sorted(source.names)


@pytest.mark.parametrize("content", [{"number": 0}, {"noise": "pink"}, {"drawn": "twice"}])
def test_what_is_no_clone_is_refused(content):
    with pytest.raises(ValueError, match="number|noise|drawn"):
        Settings.model_validate(content)
