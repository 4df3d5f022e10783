"""Peak memory of PyTorch code, counted operation by operation: on any device, also ``meta``, which computes nothing.

Counted is every storage from the operation that makes it until it is freed; not counted are parameters, what an
operation needs inside itself, and what an allocator keeps. So the figure depends on the code alone.
"""

from __future__ import annotations

import weakref
from collections.abc import Iterable
from typing import Any

import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

FLOAT32_BYTES = 4


class LiveMemory(TorchDispatchMode):
    """Within it, ``now`` and ``peak`` are live bytes / 4, in float32 elements.

    Args:
        inputs: tensors that exist already and count.
        free: tensors that do not count, such as parameters and running statistics.
    """

    def __init__(self, inputs: Iterable[torch.Tensor] = (), free: Iterable[torch.Tensor] = ()) -> None:
        super().__init__()
        self.now = self.peak = 0
        self._known: dict[int, weakref.ref] = {}
        for tensor in free:
            self._follow(tensor, counts=False)
        for tensor in inputs:
            self._follow(tensor)

    def __torch_dispatch__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        """Run one operation and follow what it makes."""
        results = function(*args, **(kwargs or {}))
        for tensor in tree_leaves(results):
            if isinstance(tensor, torch.Tensor):
                self._follow(tensor)
        return results

    def _follow(self, tensor: torch.Tensor, counts: bool = True) -> None:
        storage = tensor.untyped_storage()
        key = storage._cdata
        if key in self._known:
            return
        elements = storage.nbytes() // FLOAT32_BYTES if counts else 0
        self._known[key] = weakref.ref(storage, lambda _: self._forget(key, elements))
        self.now += elements
        self.peak = max(self.peak, self.now)

    def _forget(self, key: int, elements: int) -> None:
        self._known.pop(key, None)
        self.now -= elements
