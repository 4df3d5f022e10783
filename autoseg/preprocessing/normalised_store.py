"""The store of preprocessed cases as a fold sees it: normalised by the fold's constants."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from autoseg.preprocessing.fixed import FixedConstants, apply
from autoseg.preprocessing.store import Store, StoredCase


@dataclass(frozen=True)
class NormalisedImage:
    """An image ``[c, z, y, x]`` of the store; what is cut from it is normalised."""

    stored: Any
    constants: FixedConstants

    @property
    def shape(self) -> tuple[int, ...]:
        """c, z, y, x."""
        return tuple(self.stored.shape)

    def __getitem__(self, key: Any) -> np.ndarray:
        """A copy of a part, with all its axes: ``image[...]``, ``image[0:1]``, ``image[..., z, y, x]`` of slices."""
        parts = key if isinstance(key, tuple) else (key,)
        channels = range(self.shape[0])
        first = parts[0] if parts and isinstance(parts[0], slice) and len(parts) in (1, 4) else slice(None)
        part = np.array(self.stored[key], np.float32)
        apply(part, self.constants.of_channels(list(channels[first])))
        return part


@dataclass(frozen=True)
class NormalisedCase:
    """A case of the store, see :class:`autoseg.plugins.parts.StoredImage`."""

    image: NormalisedImage
    label: Any
    foreground: np.ndarray


@dataclass(frozen=True)
class NormalisedStore:
    """Reads cases and normalises them by the constants of a fold."""

    store: Store
    constants: FixedConstants

    def read(self, name: str) -> NormalisedCase:
        """One case."""
        case: StoredCase = self.store.read(name)
        return NormalisedCase(NormalisedImage(case.image, self.constants), case.label, case.foreground)
