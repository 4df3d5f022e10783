"""Batches for the training loop.

The random numbers of a sample follow from ``(seed_key, epoch, its index in the epoch)`` alone. How many workers cut
and augment, how many processes share a batch, and where a run was resumed do not change any batch.
"""

from __future__ import annotations

import math
import time
from collections import deque
from collections.abc import Callable, Generator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import Any, Literal

import numpy as np
import torch

from autoseg import messages, plan
from autoseg.device import accelerates, is_card, page_locked, send
from autoseg.errors import AutosegError
from autoseg.messages import count_of, some_of
from autoseg.plugins.parts import Batch, CaseStore, PatchShape, Place
from autoseg.plugins.trainer import Trainer
from autoseg.sampling import batchgenerators_backend, geometry, parameters, patches, samplers, torch_backend
from autoseg.sampling.case_cache import AUGMENTED, CaseCache, of_case
from autoseg.sampling.clones import CaseClones
from autoseg.sampling.keys import Purpose, generator
from autoseg.sampling.parameters import Parameters
from autoseg.sampling.patches import Patch
from autoseg.sampling.prefetch import Prefetcher, WorkerPool
from autoseg.sampling.sample import Sample
from autoseg.sampling.stage_cases import StageCases
from autoseg.sampling.transforms import Transforms, is_augmented

PREFETCH = 2  # batches that wait; more would only hide a shortage at the start of an epoch
TASK_VOXELS = 64**3  # what one call of a worker augments: less, and sending takes longer than working
NAMED = 3  # cases in a message about several
LABEL_TYPE = torch.int16
Finished = tuple[torch.Tensor, torch.Tensor]


@dataclass(frozen=True)
class _Prepared:
    """A batch on its way: cut patches, or finished tensors in the memory of the CPU."""

    samples: tuple[Sample, ...]
    patches: tuple[Patch, ...] = ()
    finished: Finished | None = None


class BatchSource:
    """Draws, cuts and augments the batches of one stage.

    Args:
        store: preprocessed cases.
        cases: names of the training cases; the stage's clones of them follow.
        stage: patch and batch size, sampling, augmentation.
        seed_key: numbers from 0 that name this run (seed, fold, member, stage).
        device: where batches are wanted.
        workers: with the batchgenerators backend processes that augment; with the torch backend threads that cut.
        rank, world_size: this process takes the samples ``rank, rank + world_size, ...`` of every batch.
        cache_gb: memory for cases; None for half of what is available.
        inside_nonzero: per image channel, whether it is 0 outside the non-zero mask and must stay so.
        label_values: the foreground classes: a label value, or the values of a region, each.
        channels: indices of the image channels that the network sees; None for all.
        divisor: what the size of a patch must be a multiple of; axes that take the whole image are padded to it.
        raw_zero: of each image channel, see :class:`autoseg.plugins.parts.PatchShape`; empty for 0.
        weights: folder of the weight maps of voxels (:mod:`autoseg.sampling.voxel_weights`); None without any.
        trainer: brings samplers and transforms of its own.

    Raises:
        AutosegError: no cases; nothing in them that the sampler could show; a batch that is smaller than the world;
            unknown names in the plan.
    """

    facts: Mapping[str, int] = MappingProxyType({})
    nothing_to_learn = ""

    def __init__(
        self,
        store: CaseStore,
        cases: Sequence[str],
        stage: plan.Stage,
        seed_key: tuple[int, ...],
        device: torch.device | str,
        *,
        inside_nonzero: Sequence[bool],
        label_values: Sequence[int | Sequence[int]],
        workers: int = 0,
        rank: int = 0,
        world_size: int = 1,
        cache_gb: float | None = None,
        channels: Sequence[int] | None = None,
        divisor: Sequence[int] = (1, 1, 1),
        raw_zero: Sequence[float] = (),
        weights: Path | None = None,
        trainer: Trainer | None = None,
    ) -> None:
        _check(cases, stage, world_size)
        self.stage, self.seed_key = stage, tuple(seed_key)
        self.device, self.workers = torch.device(device), workers
        self.rank, self.world_size = rank, world_size
        self.dims = len(stage.patch_size) or 3
        self.context = tuple(stage.context)
        self._around = (0,) * (3 - len(self.context)) + self.context
        self.backend = choose_backend(stage.augmentation.backend, self.device, workers)
        part = samplers.check(stage.sampling, trainer)
        self.outside = samplers.outside_of(stage.sampling, part)
        classes = [(value,) if isinstance(value, int) else tuple(value) for value in label_values]
        seen = tuple(range(len(inside_nonzero)) if channels is None else channels)
        clones = CaseClones(
            cases,
            stage.sampling.clones,
            seed=self.seed_key[0],
            values=sorted({value for values in classes for value in values}),
            channels=seen,
        )
        self.names = (*cases, *clones.originals)
        self.cases = CaseCache(
            store, classes, len(inside_nonzero), cache_gb, world_size, channels=seen, clones=clones
        )
        self.inside_nonzero = tuple(inside_nonzero[channel] for channel in self.cases.channels)
        self._raw_zero = tuple(raw_zero[channel] for channel in self.cases.channels) if raw_zero else ()
        stage_cases = StageCases(self.names, stage, self.seed_key, self.cases, tuple(divisor), weights)
        size = stage_cases.patch_size(self.names[0])[-self.dims :]
        self.augmentation = parameters.build(stage.augmentation, size)
        self.transforms = Transforms(stage.augmentation.transforms, trainer)
        self._shape = self._shape_of(size)
        self.sampler = samplers.build(stage_cases, trainer)
        self._pool: WorkerPool | None = None
        self._threads: ThreadPoolExecutor | None = None
        self._running: Prefetcher[_Prepared] | None = None
        self._shows_foreground = False

    @property
    def iterations(self) -> int:
        """Batches in an epoch: as planned, or as many as one pass over what is sampled needs.

        All batches are full: where a pass does not fill the last one, the first of the epoch come again.
        """
        return self.stage.iterations_per_epoch or math.ceil(self.sampler.pass_length / self.stage.batch_size)

    def batches(self, epoch: int, start_iteration: int = 0) -> Generator[Batch, None, None]:
        """The batches of an epoch, from ``start_iteration`` on. One epoch runs at a time; a new call ends the last.

        Raises:
            AutosegError: a case cannot be read, a worker died. Raised here, never left in a thread.
        """
        self._stop()
        running = Prefetcher(self._prepare(epoch, start_iteration), PREFETCH)
        self._running = running
        try:
            while True:
                asked = time.perf_counter()
                prepared = next(running, None)
                if prepared is None:
                    if start_iteration == 0:
                        self._say_nothing_shown(epoch)
                    return
                waited = time.perf_counter() - asked
                images, target = self._deliver(prepared)
                if not is_card(self.device):  # there it is work of the card, not waiting for data
                    waited = time.perf_counter() - asked
                samples = prepared.samples
                cases = tuple(sample.place.case for sample in samples)
                yield Batch(images, target, cases, waited, samples)
        finally:
            running.close()

    def sample(self, epoch: int, index: int) -> Sample:
        """How sample ``index`` of an epoch is made; counted over all processes."""
        key = (*self.seed_key, epoch, index)
        if not is_augmented(self.stage.augmentation.share, key):
            place = self.sampler.place(epoch, index, None)
            return Sample(epoch, index, place, Parameters(), self.transforms.nothing)
        drawn = self.augmentation.draw(generator(Purpose.AUGMENTATION, key), self._shape.channels)
        moves = self.transforms.draw_moves(key, self._shape)
        matrix = geometry.in_space(drawn, self.dims, self.transforms.affine(moves, self.dims))
        place = self.sampler.place(epoch, index, matrix)
        if self.transforms.change_cut_patches:
            moves = self.transforms.draw_rest(key, self._shape_of(place.size[-self.dims :]), moves)
        return Sample(epoch, index, place, drawn, moves)

    def _shape_of(self, patch_size: Sequence[int]) -> PatchShape:
        """What the network sees of a patch."""
        size = tuple(n + 2 * around for n, around in zip(patch_size, self._around[-self.dims :], strict=True))
        return PatchShape(len(self.inside_nonzero), size, self._raw_zero)

    def replay(self, sample: Sample) -> Finished:
        """Make one entry of a batch again: image ``[c, *patch]`` and target ``[*patch]`` on the device."""
        prepared = _Prepared((sample,), (self._cut(sample),))
        images, target = self._deliver(prepared)
        return images[0], target[0]

    def close(self) -> None:
        """End threads and processes. The source can be used again; it starts new ones then."""
        self._stop()
        if self._pool is not None:
            self._pool.close()
        if self._threads is not None:
            self._threads.shutdown()
        self._pool = self._threads = None

    def __enter__(self) -> BatchSource:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _stop(self) -> None:
        if self._running is not None:
            self._running.close()
            self._running = None

    def _samples(self, epoch: int, iteration: int) -> tuple[Sample, ...]:
        """Those of one batch that are this process's."""
        first = iteration * self.stage.batch_size
        return tuple(
            self.sample(epoch, first + i) for i in range(self.rank, self.stage.batch_size, self.world_size)
        )

    def _cut(self, sample: Sample) -> Patch:
        case = sample.place.case
        image, label = self.cases.arrays(case, sample.epoch)
        with of_case(case, "read from the store"):
            self._look_for_foreground(sample.place, label)
            pinned = self._augments_on_device
            beyond = self.cases.minimum(case) if self.outside == "minimum" else None
            further = self.transforms.affine(sample.transforms, self.dims)
            return patches.cut_patch(
                sample,
                image,
                label,
                dims=self.dims,
                further=further,
                context=self._around,
                beyond=beyond,
                pinned=pinned,
            )

    def _look_for_foreground(self, place: Place, label: Any) -> None:
        """Note whether a patch, as it lies unturned, has any foreground; once one had, no more are looked at."""
        if not self._shows_foreground:
            values = [value for values in self.cases.classes for value in values]
            box = tuple((a, a + n) for a, n in zip(place.start, place.size, strict=True))
            self._shows_foreground = bool(np.isin(patches.cut(label, box, 0, label.dtype), values).any())

    def _say_nothing_shown(self, epoch: int) -> None:
        """Warn once, after a whole epoch without any foreground."""
        if self._shows_foreground:
            return
        self._shows_foreground = True
        n, stage = self.iterations * self.stage.batch_size // self.world_size, self.stage.name
        messages.warn(
            f"stage {stage}: none of {count_of(n, 'patch', 'patches')} of epoch {epoch + 1} shows a lesion, so there "
            f"was none to learn from; a larger patch shows more, or --set stages.{stage}.sampling.foreground_share=0.33"
        )

    def _prepare(self, epoch: int, start: int) -> Generator[_Prepared, None, None]:
        """Runs in the prefetch thread."""
        if self.backend == "batchgenerators" and self.workers > 0:
            yield from self._prepare_in_pool(epoch, start)
            return
        if self.workers > 1 and self._threads is None:
            self._threads = ThreadPoolExecutor(self.workers, "autoseg-cut")
        each = self._threads.map if self._threads is not None else map
        for iteration in range(start, self.iterations):
            samples = self._samples(epoch, iteration)
            prepared = _Prepared(samples, tuple(each(self._cut, samples)))
            yield prepared if self._augments_on_device else self._finish(prepared)

    def _prepare_in_pool(self, epoch: int, start: int) -> Generator[_Prepared, None, None]:
        """Cut here, augment in the workers, collect in order; enough batches ahead to keep all workers busy."""
        if self._pool is None:
            self._pool = WorkerPool(self.workers, batchgenerators_backend.limit_threads)
        waiting: deque[tuple[tuple[Sample, ...], list[Future]]] = deque()
        for iteration in range(start, self.iterations):
            samples = self._samples(epoch, iteration)
            tasks = [self._send(self._pool, some) for some in self._tasks(samples)]
            waiting.append((samples, tasks))
            if len(waiting) > max(1, math.ceil(2 * self.workers / len(tasks))):
                yield self._collect(self._pool, *waiting.popleft())
        while waiting:
            yield self._collect(self._pool, *waiting.popleft())

    def _tasks(self, samples: tuple[Sample, ...]) -> list[tuple[Sample, ...]]:
        """The samples of a batch in parts: one large patch each, or many small ones, but all workers have some."""
        share = math.ceil(len(samples) / self.workers)
        each = min(share, max(1, TASK_VOXELS // math.prod(samples[0].place.size)))
        return [samples[first : first + each] for first in range(0, len(samples), each)]

    def _send(self, pool: WorkerPool, samples: tuple[Sample, ...]) -> Future:
        cut = [self._cut(sample) for sample in samples]
        function, arguments = self._in_numpy
        return pool.submit(_names(cut), function, cut, *arguments)

    @property
    def _in_numpy(self) -> tuple[Callable[..., list[tuple[np.ndarray, np.ndarray]]], tuple[Any, ...]]:
        """What batchgenerators' side does, and its arguments after the patches; less where transforms follow."""
        if self.transforms.change_cut_patches:
            return batchgenerators_backend.change_all, ()
        return batchgenerators_backend.augment_all, (self.inside_nonzero, self.context)

    def _collect(self, pool: WorkerPool, samples: tuple[Sample, ...], tasks: list[Future]) -> _Prepared:
        arrays = [result for task in tasks for result in pool.result(task)]
        return _Prepared(samples, finished=self._stack(self._as_tensors(samples, arrays)))

    def _as_tensors(
        self, samples: Sequence[Sample], arrays: Sequence[tuple[np.ndarray, np.ndarray]]
    ) -> list[Finished]:
        """What batchgenerators' functions made of the samples; further transforms are applied here."""
        results = [(torch.from_numpy(image), torch.from_numpy(label)) for image, label in arrays]
        if not self.transforms.change_cut_patches:
            return results
        finished = []
        for sample, (image, label) in zip(samples, results, strict=True):
            with of_case(sample.place.case, *AUGMENTED):
                images, labels = self._go_on([sample], image[None], label[None])
            finished.append((images[0], labels[0]))
        return finished

    @property
    def _augments_on_device(self) -> bool:
        return self.backend == "torch" and is_card(self.device)

    def _finish(self, prepared: _Prepared) -> _Prepared:
        """Augment in this process, on the CPU."""
        if self.backend == "torch":
            results = self._augment_in_torch(prepared, "cpu")
        else:
            function, arguments = self._in_numpy
            results = self._as_tensors(prepared.samples, function(prepared.patches, *arguments))
        return _Prepared(prepared.samples, finished=self._stack(results))

    def _augment_in_torch(self, prepared: _Prepared, device: torch.device | str) -> list[Finished]:
        """Image ``[c, *patch]`` and label ``[*patch]`` of each; those that are alike at once."""
        results: dict[int, Finished] = {}
        for numbers in torch_backend.alike(prepared.patches):
            together = [prepared.patches[number] for number in numbers]
            samples = [prepared.samples[number] for number in numbers]
            with of_case(_names(together), *AUGMENTED):
                images, labels = self._go_on(samples, *torch_backend.change_alike(together, device))
            results.update(zip(numbers, zip(images, labels, strict=True), strict=True))
        return [results[number] for number in range(len(prepared.patches))]

    def _go_on(self, samples: Sequence[Sample], images: torch.Tensor, labels: torch.Tensor) -> Finished:
        """After the shipped transforms, of ``[b, c, *size]`` and ``[b, *size]``: further ones, and what comes last."""
        if self.transforms.change_cut_patches:
            each = zip(images, labels, samples, strict=True)
            changed = [
                self.transforms.apply(image, label, sample.transforms) for image, label, sample in each
            ]
            images = torch.stack([image for image, _ in changed])
            labels = torch.stack([label for _, label in changed])
        return torch_backend.finish(images, labels, self.inside_nonzero, self.context)

    def _stack(self, results: Sequence[Finished]) -> Finished:
        """One batch ``[b, c, *patch]`` and ``[b, *patch]``; page-locked when it goes to CUDA."""
        images = torch.stack([image for image, _ in results])
        target = torch.stack([label for _, label in results]).to(LABEL_TYPE)
        if is_card(self.device) and not is_card(images.device):
            return page_locked(images), page_locked(target)
        return images, target

    def _deliver(self, prepared: _Prepared) -> Finished:
        """On the device; runs in the consumer's thread, so that CUDA's order of work is the consumer's."""
        if prepared.finished is None and not self._augments_on_device:
            prepared = self._finish(prepared)
        if prepared.finished is None:
            return self._stack(self._augment_in_torch(prepared, self.device))
        images, target = prepared.finished
        return send(images, self.device), send(target, self.device)


def choose_backend(
    wanted: Literal["auto", "torch", "batchgenerators"], device: torch.device, workers: int
) -> Literal["torch", "batchgenerators"]:
    """``auto``: batchgenerators for a CPU with workers, torch otherwise."""
    if wanted == "auto":
        return "torch" if accelerates(device) or workers == 0 else "batchgenerators"
    return wanted


def _names(cut: Sequence[Patch]) -> str:
    """The cases of some patches, the first of many."""
    return some_of(list(dict.fromkeys(patch.case for patch in cut)), NAMED)


def _check(cases: Sequence[str], stage: plan.Stage, world_size: int) -> None:
    if not cases:
        raise AutosegError(
            "there is no case to train on",
            where=f"stage {stage.name}",
            expected="at least one training case",
            fix="check the fold and splits.json",
        )
    if stage.batch_size < world_size:
        raise AutosegError(
            "the batch is smaller than the number of processes",
            where=f"stage {stage.name}",
            found=f"batch size {stage.batch_size}, {world_size} processes",
            expected="at least one sample for each process",
            fix="--set stages.0.batch_size=... or start fewer processes with torchrun",
        )
