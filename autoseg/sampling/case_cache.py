"""The cases of a training, in memory as far as it reaches."""

from __future__ import annotations

import contextlib
import math
import os
import threading
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from autoseg import messages
from autoseg.errors import AutosegError
from autoseg.sampling.clones import CaseClones
from autoseg.sampling.foreground import Foreground
from autoseg.sampling.geometry import as_voxel

if TYPE_CHECKING:  # worker processes come here for of_case, and have no use for torch
    from autoseg.plugins.parts import CaseStore, Voxel

GIGABYTE = 1e9
NO_MEMORY = ("out of memory", "tried to allocate", "ALLOC_FAILED")  # in the words of torch
ALMOST_NOTHING = 1e-3  # of the largest magnitude: less than one grey value of 255
ASSUMED_MEMORY_GB = 4.0  # where the system does not say how much is free

AUGMENTED = ("augmented", "report this with the text above")  # for of_case


class CaseCache:
    """Reads cases from the store and keeps them while there is room; safe for several threads.

    The first cases that are used are kept; the others are read again each time, so that memory never grows beyond
    the limit and no case pushes another out.

    Args:
        store: where they are.
        classes: for each foreground class the label values that belong to it.
        stored_channels: how many the images must have.
        limit_gb: memory for cases (1e9 bytes); None takes half of what is available now.
        share_with: how many processes of this machine take their part of that half.
        channels: indices of those that are wanted, in this order; None for all. No others are kept.
        clones: of the cases, which can be asked for by name; they share what is kept of their originals.
    """

    def __init__(
        self,
        store: CaseStore,
        classes: Sequence[Sequence[int]],
        stored_channels: int,
        limit_gb: float | None = None,
        share_with: int = 1,
        *,
        channels: Sequence[int] | None = None,
        clones: CaseClones | None = None,
    ) -> None:
        self.clones = clones
        self.store, self.classes = store, classes
        self.stored_channels = stored_channels
        self.channels = tuple(range(stored_channels) if channels is None else channels)
        self.limit = (available_gb() / 2 / share_with if limit_gb is None else limit_gb) * GIGABYTE
        self.used = 0
        self._full = False
        self._arrays: dict[str, tuple[np.ndarray, np.ndarray]] = {}
        self._sizes: dict[str, Voxel] = {}
        self._foreground: dict[str, Foreground] = {}
        self._minima: dict[str, np.ndarray] = {}
        self._largest: dict[str, np.ndarray] = {}
        self._lock = threading.Lock()

    def size(self, name: str) -> Voxel:
        """Size z, y, x of a case."""
        name = self.original(name)
        if name not in self._sizes:
            self.arrays(name)
        return self._sizes[name]

    def foreground(self, name: str) -> Foreground:
        """The foreground of a case, for drawing."""
        name = self.original(name)
        if name not in self._foreground:
            self.arrays(name)
        return self._foreground[name]

    def foreground_voxels(self, name: str) -> np.ndarray:
        """All voxels of any class, int32 ``[n, 3]``: z, y, x. The store's list, for drawing, is cut short."""
        _, label = self.arrays(name)
        with of_case(name, "read from the store"):
            values = sorted({value for values in self.classes for value in values})
            return np.argwhere(np.isin(label[...], values)).astype(np.int32)

    def minimum(self, name: str) -> np.ndarray:
        """The least value of each channel, float32 ``[c]``, of a clone that of its original; found once."""
        name = self.original(name)
        if name not in self._minima:
            image, _ = self.arrays(name)
            with of_case(name, "read from the store"):
                channels = (np.asarray(image[c : c + 1]) for c in range(len(self.channels)))
                self._minima[name] = np.array([channel.min() for channel in channels], np.float32)
        return self._minima[name]

    def nonzero_share(self, name: str, start: Sequence[int], size: Sequence[int]) -> float:
        """Of a box, z, y, x, the share of voxels of which any channel is not 0.

        What lies outside the image is 0, but a box that is larger than the image counts as full where all of the image
        is. 0 is what is less than :data:`ALMOST_NOTHING` of the channel's largest magnitude: resampling by splines
        leaves traces of the head in the air. A clone counts as its original.
        """
        name = self.original(name)
        image, _ = self.arrays(name)
        with of_case(name, "read from the store"):
            limits = ALMOST_NOTHING * self._magnitudes(name, image)
            shape = image.shape[1:]
            edges = zip(start, size, shape, strict=True)
            inner: tuple[Any, ...] = (
                Ellipsis,
                *(slice(max(a, 0), max(min(a + n, edge), 0)) for a, n, edge in edges),
            )
            box = np.abs(image[inner])
            filled = np.count_nonzero((box > limits[:, None, None, None]).any(axis=0))
            return float(filled) / math.prod(map(min, size, shape))

    def _magnitudes(self, name: str, image: Any) -> np.ndarray:
        """The largest magnitude of each channel, float32 ``[c]``; found once."""
        if name not in self._largest:
            channels = (np.asarray(image[c : c + 1]) for c in range(len(self.channels)))
            self._largest[name] = np.array([np.abs(channel).max() for channel in channels], np.float32)
        return self._largest[name]

    def original(self, name: str) -> str:
        """The case that a clone was made of; any other as it is."""
        return name if self.clones is None else self.clones.original(name)

    def arrays(self, name: str, epoch: int = 0) -> tuple[Any, Any]:
        """Image ``[c, z, y, x]`` and label ``[z, y, x]`` that can be sliced; do not write to them.

        Args:
            name: of a case or a clone.
            epoch: for clones that are drawn anew in each.
        """
        image, label = self._stored(self.original(name))
        if self.clones is None:
            return image, label
        with of_case(name, "read from the store"):
            return self.clones.image(name, image, label, epoch), label

    def _stored(self, name: str) -> tuple[Any, Any]:
        """Image and label of a case that is no clone."""
        if name in self._arrays:
            return self._arrays[name]
        with of_case(name, "read from the store"):
            stored = self.store.read(name)
            label = stored.label
            image = self._image(name, stored.image, tuple(label.shape))
            with self._lock:
                if name not in self._sizes:
                    self._foreground[name] = Foreground(stored.foreground, self.classes)
                    self._sizes[name] = as_voxel(label.shape)
            size_bytes = int(np.prod(label.shape)) * (4 * len(self.channels) + 2)
            if not self._reserve(size_bytes):
                self._say_full()
                return image, label
            loaded = np.asarray(image[...], np.float32), np.asarray(label[...])
        self._arrays[name] = loaded[0], _small(loaded[1])
        return self._arrays[name]

    def _say_full(self) -> None:
        if not self._full:
            self._full = True
            messages.warn(
                f"not all cases fit into {self.limit / GIGABYTE:.1f} GB of memory; "
                "the others are read from the store for every patch"
            )

    def _reserve(self, size_bytes: int) -> bool:
        with self._lock:
            fits = self.used + size_bytes <= self.limit
            self.used += size_bytes if fits else 0
            return fits

    def _image(self, name: str, image: Any, size: tuple[int, ...]) -> Any:
        """The image as it is trained on, which can be sliced."""
        self._check(name, image, size)
        if self.channels == tuple(range(self.stored_channels)):
            return image
        return SomeChannels(image, self.channels)

    def _check(self, name: str, image: Any, size: tuple[int, ...]) -> None:
        expected = (self.stored_channels, *size)
        if tuple(image.shape) != expected:
            raise AutosegError(
                "the stored image does not fit the plan",
                where=f"case {name}",
                found=f"shape {tuple(image.shape)}",
                expected=f"{expected} (channels of the plan, size of the label)",
                fix="run autoseg_plan_and_preprocess again",
            )


class SomeChannels:
    """An image with some of its channels, read when they are needed.

    Args:
        image: ``[c, z, y, x]``, can be sliced.
        channels: indices, in the order that is wanted.
    """

    def __init__(self, image: Any, channels: Sequence[int]) -> None:
        self._image, self._channels = image, tuple(channels)
        self.shape = (len(self._channels), *image.shape[1:])

    def __getitem__(self, key: Any) -> np.ndarray:
        """Some of the channels (a slice), or a part of each (``...``, alone or with slices of z, y, x)."""
        channels = self._channels[key] if isinstance(key, slice) else self._channels
        space = key[1:] if isinstance(key, tuple) else ()
        parts = [(slice(channel, channel + 1), *space) for channel in channels]
        return np.concatenate([np.asarray(self._image[part]) for part in parts])


def _small(label: np.ndarray) -> np.ndarray:
    """The label in one byte per voxel where its values allow it."""
    fits = label.size == 0 or (label.min() >= -128 and label.max() <= 127)
    return label.astype(np.int8 if fits else np.int16)


@contextlib.contextmanager
def of_case(name: str, doing: str, fix: str = "") -> Iterator[None]:
    """Name the case in any error that is raised within.

    Args:
        name: of the case.
        doing: completes "a patch could not be ...".
        fix: what to do about it, unless memory ran out.
    """
    try:
        yield
    except AutosegError:
        raise
    except Exception as error:
        if isinstance(error, MemoryError) or any(words in str(error) for words in NO_MEMORY):
            fix = "use fewer workers, or a smaller --set stages.STAGE.patch_size or .batch_size"
        raise AutosegError(
            f"a patch could not be {doing}",
            where=f"case {name}",
            found=f"{type(error).__name__}: {error}",
            fix=fix or "run autoseg_plan_and_preprocess again; it makes what is damaged anew",
        ) from error


def available_gb() -> float:
    """Free memory, in 1e9 bytes: of the machine, or of the container where that is less."""
    found = []
    with contextlib.suppress(OSError, ValueError, IndexError):
        lines = Path("/proc/meminfo").read_text().splitlines()
        found.append(next(int(line.split()[1]) * 1024 for line in lines if line.startswith("MemAvailable")))
    with contextlib.suppress(OSError, ValueError):
        group = Path("/sys/fs/cgroup")
        limit = int((group / "memory.max").read_text())
        found.append(limit - int((group / "memory.current").read_text()))
    if not found:
        with contextlib.suppress(OSError, ValueError, AttributeError):
            found.append(os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") // 2)
    return max(min(found, default=ASSUMED_MEMORY_GB * GIGABYTE) / GIGABYTE, 0.0)
