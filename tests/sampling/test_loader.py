"""Batches: the same whatever the workers, the devices and the place of resuming; errors that reach the consumer."""

import json
import os
import signal
import threading
import time
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from autoseg import messages
from autoseg.errors import AutosegError
from autoseg.sampling.case_cache import CaseCache, available_gb
from autoseg.sampling.loader import BatchSource, choose_backend
from autoseg.sampling.parameters import Parameters
from autoseg.sampling.prefetch import Prefetcher
from autoseg.sampling.sample import Sample

NAMES = ["case0", "case1", "case2", "case3", "empty"]


@pytest.fixture
def make_source(store, make_stage):
    sources = []

    def make(names=NAMES, stage=None, **options):
        settings = {"inside_nonzero": [False, True], "label_values": [1, 2], "cache_gb": 1.0, **options}
        source = BatchSource(store, names, stage or make_stage(), (7, 0), torch.device("cpu"), **settings)
        sources.append(source)
        return source

    yield make
    for source in sources:
        source.close()


def backend(name):
    return {"augmentation": {"backend": name}}


def same(first, second):
    return (
        first.samples == second.samples
        and torch.equal(first.images, second.images)
        and torch.equal(first.target, second.target)
    )


def test_a_batch_is_what_the_contract_says(make_source):
    source = make_source()
    batches = list(source.batches(0))
    assert len(batches) == source.iterations == 4
    for batch in batches:
        assert batch.images.shape == (2, 2, 16, 16, 16) and batch.images.dtype == torch.float32
        assert batch.target.shape == (2, 16, 16, 16) and batch.target.dtype == torch.int16
        assert set(batch.target.unique().tolist()) <= {0, 1, 2}
        assert set(batch.cases) <= set(NAMES) and len(batch.cases) == 2
        assert batch.wait_seconds >= 0
        assert [sample.place.forced for sample in batch.samples] == [False, True]


def test_a_2d_network_gets_planes(make_source, make_stage):
    source = make_source(stage=make_stage(patch_size=[20, 12], batch_size=3))
    for batch in source.batches(0):
        assert batch.images.shape == (3, 2, 20, 12) and batch.target.shape == (3, 20, 12)
        for sample in batch.samples:
            place = sample.place
            assert place.voxel is None or place.start[0] == place.voxel[0]


def test_forced_samples_show_their_class(make_source, make_stage, store):
    stage = make_stage(
        sampling={"foreground_share": 1.0}, iterations_per_epoch=15, augmentation={"name": "none"}
    )
    for batch in make_source(stage=stage).batches(0):
        for sample, target in zip(batch.samples, batch.target, strict=True):
            place = sample.place
            assert (place.voxel is None) == (place.case == "empty")
            if place.voxel is not None:
                shown = tuple(v - s for v, s in zip(place.voxel, place.start, strict=True))
                assert target[shown] == store.cases[place.case].label[place.voxel] > 0


def test_the_ignore_label_is_kept(make_source, make_stage, store):
    store.cases["case0"].label[:] = 5
    batch = next(make_source(["case0"]).batches(0))
    assert 5 in batch.target.unique()


def test_without_a_number_of_iterations_an_epoch_shows_every_case_once(make_source, make_stage):
    source = make_source(stage=make_stage(iterations_per_epoch=None))
    orders = [[case for batch in source.batches(epoch) for case in batch.cases] for epoch in range(3)]
    assert source.iterations == 3
    for order in orders:
        assert sorted(order[:5]) == NAMES and len(order) == 6 and order[5] == order[0]
    assert len({tuple(order) for order in orders}) > 1


def test_the_same_key_gives_the_same_batches_and_another_epoch_others(make_source):
    first, again = list(make_source().batches(3)), list(make_source().batches(3))
    assert all(map(same, first, again))
    assert not any(map(same, first, make_source().batches(4)))


def test_resuming_gives_the_rest_of_the_epoch(make_source):
    source = make_source()
    assert all(map(same, list(source.batches(1))[2:], list(source.batches(1, start_iteration=2))))
    assert len(list(source.batches(1, start_iteration=4))) == 0


@pytest.mark.parametrize("name", ["torch", "batchgenerators"])
def test_two_processes_share_the_batches_of_one(make_source, make_stage, name):
    stage = make_stage(batch_size=4, **backend(name))
    whole = make_source(stage=stage).batches(0)
    halves = [make_source(stage=stage, rank=rank, world_size=2).batches(0) for rank in range(2)]
    for batch, even, odd in zip(whole, *halves, strict=True):
        assert torch.equal(batch.images[0::2], even.images) and torch.equal(batch.images[1::2], odd.images)
        assert torch.equal(batch.target[0::2], even.target) and torch.equal(batch.target[1::2], odd.target)


def test_workers_change_nothing_and_do_not_repeat_each_other(make_source, make_stage):
    """nnU-Net's workers, forked with one torch seed, take the same decisions; ours are drawn per sample."""
    stage = make_stage(iterations_per_epoch=6, **backend("batchgenerators"))
    without = list(make_source(stage=stage).batches(0))
    for workers in (1, 2):
        source = make_source(stage=stage, workers=workers)
        assert all(map(same, without, source.batches(0)))
        assert all(map(same, without[3:], source.batches(0, start_iteration=3)))
    decisions = [json.dumps(sample.parameters.to_dict()) for batch in without for sample in batch.samples]
    assert len(set(decisions)) == len(decisions)


def test_threads_that_cut_change_nothing(make_source, make_stage):
    stage = make_stage(**backend("torch"))
    assert all(map(same, make_source(stage=stage).batches(0), make_source(stage=stage, workers=3).batches(0)))


def test_a_cache_without_room_changes_nothing(make_source, store):
    cached = list(make_source().batches(0))
    store.reads.clear()
    assert all(map(same, cached, make_source(cache_gb=0).batches(0)))
    assert len(store.reads) > len(NAMES)


def test_cached_cases_are_read_once_and_stay_untouched(make_source, store):
    before = {name: case.image.copy() for name, case in store.cases.items()}
    source = make_source()
    for epoch in range(2):
        list(source.batches(epoch))
    assert len(store.reads) == len(set(store.reads))
    assert all((store.cases[name].image == image).all() for name, image in before.items())


@pytest.mark.parametrize("name", ["torch", "batchgenerators"])
def test_replay_from_json_is_bit_exact(make_source, make_stage, name):
    source = make_source(stage=make_stage(**backend(name)))
    for batch in source.batches(0):
        for i, sample in enumerate(batch.samples):
            image, target = source.replay(Sample.from_dict(json.loads(json.dumps(sample.to_dict()))))
            assert torch.equal(image, batch.images[i]) and torch.equal(target, batch.target[i])


def test_small_images_are_padded(make_source, make_stage):
    stage = make_stage(patch_size=[40, 40, 40], augmentation={"name": "none"}, iterations_per_epoch=2)
    for batch in make_source(["case0"], stage=stage).batches(0):
        assert batch.images.shape[2:] == (40, 40, 40)
        assert (
            batch.images[..., :8, :, :].abs().max() == 0 and batch.images[..., 8:32, 7:33, 6:34].std() > 0.5
        )
        assert batch.target.min() == 0


def test_a_damaged_case_is_named_to_the_consumer(make_source, store):
    store.broken.add("case1")
    with pytest.raises(AutosegError, match=r"case case1: a patch could not be read(.|\n)*chunk is damaged"):
        list(make_source(["case1"]).batches(0))


def test_an_image_with_other_channels_is_refused(make_source):
    with pytest.raises(AutosegError, match=r"case case0: the stored image does not fit(.|\n)*channels"):
        list(make_source(["case0"], inside_nonzero=[False]).batches(0))


@pytest.mark.parametrize("workers", [0, 1])
def test_an_error_while_augmenting_names_the_case(make_source, make_stage, workers):
    source = make_source(["case0"], stage=make_stage(**backend("batchgenerators")), workers=workers)
    source.augmentation = SimpleNamespace(draw=lambda rng, channels: Parameters(mirror=(7,)))
    with pytest.raises(AutosegError, match=r"case case0: a patch could not be augmented(.|\n)*AxisError"):
        list(source.batches(0))


def test_a_dead_worker_is_reported_with_case_and_setting(make_source, make_stage):
    stage = make_stage(iterations_per_epoch=500, **backend("batchgenerators"))
    source = make_source(["case2"], stage=stage, workers=1)
    batches = source.batches(0)
    next(batches)
    os.kill(source._pool.pids[0], signal.SIGKILL)
    with pytest.raises(AutosegError, match=r"case case2: a worker process died(.|\n)*fewer workers"):
        list(batches)


def test_leaving_an_epoch_early_ends_its_thread(make_source):
    before = threading.active_count()
    batches = make_source().batches(0)
    next(batches)
    batches.close()
    assert threading.active_count() == before


def test_a_new_epoch_ends_the_last(make_source):
    source = make_source()
    left = source.batches(0)
    next(left)
    assert len(list(source.batches(1))) == 4
    assert len(list(left)) <= 3


def test_the_prefetcher_is_only_so_far_ahead_and_passes_errors_on():
    made = []

    def items():
        for i in range(10):
            made.append(i)
            if i == 5:
                raise ValueError("five")
            yield i

    prefetcher = Prefetcher(items(), depth=2)
    assert next(prefetcher) == 0
    time.sleep(0.3)
    assert len(made) <= 4
    with pytest.raises(ValueError, match="five"):
        list(prefetcher)
    prefetcher.close()


@pytest.mark.parametrize(
    ("wanted", "device", "workers", "chosen"),
    [
        ("auto", "cuda", 4, "torch"),
        ("auto", "cpu", 0, "torch"),
        ("auto", "cpu", 2, "batchgenerators"),
        ("auto", "mps", 2, "torch"),
        ("torch", "cpu", 2, "torch"),
        ("batchgenerators", "cpu", 0, "batchgenerators"),
    ],
)
def test_auto_backend(wanted, device, workers, chosen):
    assert choose_backend(wanted, torch.device(device), workers) == chosen


def test_impossible_settings_are_refused(make_source, make_stage):
    with pytest.raises(AutosegError, match=r"stage full: there is no case to train on"):
        make_source([])
    with pytest.raises(AutosegError, match=r"batch size 2, 3 processes"):
        make_source(world_size=3)


def test_memory_is_measured_and_cases_keep_to_the_limit(store):
    assert 0 < available_gb() < 1e5
    one_case = 24 * 26 * 28 * (4 * 2 + 2) / 1e9
    cases = CaseCache(store, [(1,), (2,)], 2, limit_gb=1.5 * one_case)
    for name in NAMES:
        image, label = cases.arrays(name)
        np.testing.assert_array_equal(label, store.cases[name].label)
    assert cases.used <= cases.limit
    store.reads.clear()
    for name in NAMES:
        cases.arrays(name)
    assert store.reads == NAMES[1:]


def test_batches_on_cuda(make_source, make_stage, store, cuda):
    stage = make_stage()
    source = BatchSource(
        store, NAMES, stage, (7, 0), cuda, inside_nonzero=[False, True], label_values=[1, 2], cache_gb=1.0
    )
    on_cpu = make_source(stage=stage).batches(0)
    for batch, other in zip(source.batches(0), on_cpu, strict=True):
        assert batch.images.device.type == batch.target.device.type == "cuda"
        for i, sample in enumerate(batch.samples):
            if sample.parameters.noise_sigma is None:
                torch.testing.assert_close(batch.images[i].cpu(), other.images[i], atol=1e-3, rtol=0)
    source.close()


def test_the_real_store_gives_the_same_batches_as_memory(make_source, make_stage, store, tmp_path):
    """From disk, cached or patch by patch."""
    from autoseg.preprocessing.case import CaseProperties, Preprocessed
    from autoseg.preprocessing.store import CaseKey, Store

    on_disk = Store(tmp_path)
    for name, case in store.cases.items():
        size = case.label.shape
        properties = CaseProperties(
            name=name,
            geometry={},
            crop_box=tuple((0, n) for n in size),
            shape_before_resampling=size,
            working_shape=size,
            working_spacing_mm=(1, 1, 1),
        )
        key = CaseKey(content_hash=name, preprocessing={}, ignore=None)
        on_disk.write(name, Preprocessed(case.image, case.label, properties, case.foreground), key)
    expected = list(make_source().batches(0))
    for cache_gb in (1.0, 0.0):
        source = make_source(cache_gb=cache_gb)
        source.cases.store = on_disk
        assert all(map(same, expected, source.batches(0)))


def whole_images(make_stage, **changes):
    settings = {"patch_size": [], "batch_size": 1, "iterations_per_epoch": None, **changes}
    return make_stage(**{"augmentation": {"name": "none"}, **settings})


def test_whole_images_come_as_they_are_each_once(make_source, make_stage, store):
    batches = list(make_source(stage=whole_images(make_stage)).batches(0))
    assert sorted(batch.cases[0] for batch in batches) == sorted(NAMES)
    for batch in batches:
        case = store.cases[batch.cases[0]]
        np.testing.assert_array_equal(batch.images[0].numpy(), case.image)
        np.testing.assert_array_equal(batch.target[0].numpy(), np.maximum(case.label, 0))


def test_whole_images_can_be_augmented(make_source, make_stage, store):
    stage = whole_images(make_stage, augmentation={"name": "nnunet", "arguments": {"rotation_p": 1.0}})
    for batch in make_source(stage=stage).batches(0):
        case = store.cases[batch.cases[0]]
        assert batch.images.shape[1:] == case.image.shape
        assert not np.array_equal(batch.images[0].numpy(), case.image)


def half_a_message():
    """In a worker: take the lock of the results, send the beginning of one, and be killed."""
    import gc
    from multiprocessing.queues import SimpleQueue

    (results,) = (queue for queue in gc.get_objects() if isinstance(queue, SimpleQueue))
    results._wlock.acquire()
    os.write(results._writer.fileno(), b"\x00\x00")
    os.kill(os.getpid(), signal.SIGKILL)


def test_a_worker_that_dies_while_it_sends_is_noticed(monkeypatch):
    from autoseg.sampling import prefetch

    monkeypatch.setattr(prefetch, "NOTICE_SECONDS", 0.3)
    pool = prefetch.WorkerPool(1, _nothing)
    future = pool.submit("case7", half_a_message)
    with pytest.raises(AutosegError, match="case case7: a worker process died"):
        pool.result(future)
    pool.close()


def _nothing():
    """What a worker prepares."""


def test_an_epoch_that_shows_no_lesion_is_said_once(make_source, make_stage):
    """A case without any; a resumed epoch says nothing, since its beginning is not known."""
    messages.forget_warnings()
    source = make_source(["empty"])
    list(source.batches(0, start_iteration=2))
    assert not messages.warning_counts()
    list(source.batches(1))
    list(source.batches(2))
    ((text, n),) = messages.warning_counts().items()
    assert n == 1 and "stage full: none of 8 patches of epoch 2 shows a lesion" in text
    messages.forget_warnings()
    stage = make_stage(sampling={"foreground_share": 1.0})
    list(make_source(stage=stage).batches(0))
    assert not messages.warning_counts()
