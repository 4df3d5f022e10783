"""A pretended CUDA device on a build of torch without CUDA: faults of devices found without a card.

Within :func:`pretend_card` torch believes that there is one card. Tensors on it say ``cuda:0`` and hold their values in
main memory, so that

* results are the CPU's, bit for bit, where the order of sums is the same;
* a kernel that is given tensors of both devices raises, as on a card;
* every wait for the device and every copy is counted, with the line of autoseg that asked for it.

It cannot show how kernels of a real card round, races of copies, memory, time, or several cards. It reaches into
torch's internals, which is why it belongs to the tests and to the pinned torch: a newer one may need another patch.
"""

from __future__ import annotations

import contextlib
import ctypes
import itertools
import traceback
from collections import Counter, deque
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from unittest import mock

import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves, tree_map_only

from autoseg.training import memory

aten = torch.ops.aten
CARD = torch.device("cuda", 0)
FREE_BYTES = 80 * 10**9
OURS = ("/autoseg/", "/trainers/", "/planners/")

COPIES = {aten._to_copy.default, aten.copy_.default}
TAKES_BOTH = {*COPIES, aten.set_.source_Tensor, aten.is_same_size.default}
INDEXING = {
    aten.index.Tensor,
    aten.index_put.default,
    aten.index_put_.default,
    aten._index_put_impl_.default,
    aten._unsafe_index.Tensor,
    aten._unsafe_index_put.default,
}
"""A tensor on the card may be indexed by one on the CPU."""
WAITS = {
    aten._local_scalar_dense.default,
    aten.nonzero.default,
    aten.equal.default,
    aten.is_nonzero.default,
    aten.masked_select.default,
    aten._unique2.default,
}
"""Their result, or its size, must be known to the CPU."""


def missing() -> str:
    """Why it cannot be pretended here; empty where it can."""
    if torch.version.cuda is not None:
        return "this torch has CUDA: its own device guards are in the way"
    return "" if _library().is_file() else f"{_library().name} is not there: another platform"


@dataclass
class Record:
    """What was asked of the card, each by operation and place (``file:line`` of autoseg).

    Attributes:
        waits: the CPU waited for the card.
        blocking: of the copies to the card, those from memory that is not page-locked or without ``non_blocking``:
            on a card they wait for all work before them.
        kernels: calls by operation.
    """

    waits: Counter[tuple[str, str]] = field(default_factory=Counter)
    blocking: Counter[tuple[str, str]] = field(default_factory=Counter)
    kernels: Counter[str] = field(default_factory=Counter)

    def clear(self) -> None:
        """Count from 0 again."""
        for counter in (self.waits, self.blocking, self.kernels):
            counter.clear()


@contextlib.contextmanager
def pretend_card(*, has_bfloat16: bool = True) -> Iterator[Record]:
    """Torch with one card, see the module."""
    _install_guard()
    _pinned.clear()  # addresses of an earlier card may have been given to other tensors since
    record = Record()
    card = _Card(record)
    with contextlib.ExitStack() as stack:
        before = torch.__future__.get_overwrite_module_params_on_conversion()
        stack.callback(torch.__future__.set_overwrite_module_params_on_conversion, before)
        torch.__future__.set_overwrite_module_params_on_conversion(True)  # ``.data =`` would lose the values
        for target, name, value in _patches(has_bfloat16):
            stack.enter_context(mock.patch.object(target, name, value))
        stack.enter_context(card)
        yield record


def _patches(has_bfloat16: bool) -> list[tuple[Any, str, Any]]:
    return [
        (torch.cuda, "is_available", lambda: True),
        (torch.cuda, "device_count", lambda: 1),
        (torch.cuda, "is_bf16_supported", lambda including_emulation=True: has_bfloat16),
        (torch.cuda, "get_device_capability", lambda device=None: (8, 0) if has_bfloat16 else (7, 0)),
        (torch.cuda, "get_device_name", lambda device=None: "pretended card"),
        (torch.cuda, "mem_get_info", lambda device=None: (FREE_BYTES, FREE_BYTES)),
        (torch.cuda, "max_memory_allocated", lambda device=None: 0),
        (torch.cuda, "reset_peak_memory_stats", lambda device=None: None),
        (torch.cuda, "empty_cache", lambda: None),
        (torch.cuda, "synchronize", _synchronise),
        (torch.cuda, "set_device", lambda device: None),
        (torch.cuda, "_lazy_init", lambda: None),
        (torch.Tensor, "pin_memory", _pin),
        (torch.Tensor, "is_pinned", lambda self, device=None: _is_pinned(self)),
        (torch.Tensor, "backward", backward),
        (torch, "Generator", _Generator),
        (torch, "empty", _empty),
        # tensors made in inference mode cannot be wrapped; without gradients the arithmetic is the same
        (torch, "inference_mode", _without_gradients),
        # counts on fake tensors, which a pretended card cannot tell from its own
        (memory, "step_gb", lambda *_: 0.0),
    ]


def _without_gradients(mode: Any = True) -> Any:
    if callable(mode):
        return torch.no_grad()(mode)
    return torch.no_grad() if mode else contextlib.nullcontext()


def _synchronise(device: object = None) -> None:
    _Card.current.record.waits["synchronize", _place()] += 1


# ------------------------------------------------------------------------------------------- page-locked memory

_pinned: set[int] = set()
"""Addresses of the storages that were asked for page-locked."""
_plain_empty = torch.empty


def _pin(self: torch.Tensor, device: object = None) -> torch.Tensor:
    copy = self.clone()
    _pinned.add(copy.untyped_storage().data_ptr())
    return copy


def _empty(*size: Any, pin_memory: bool = False, **options: Any) -> torch.Tensor:
    made = _plain_empty(*size, **options)
    if pin_memory:
        _pinned.add(made.untyped_storage().data_ptr())
    return made


def _is_pinned(tensor: torch.Tensor) -> bool:
    return not isinstance(tensor, OnCard) and tensor.untyped_storage().data_ptr() in _pinned


class _Generator(torch.Generator):
    """A build for the CPU refuses a generator on the card; the numbers then come from the CPU's."""

    def __new__(cls, device: object = "cpu") -> _Generator:
        return super().__new__(cls, device="cpu")

    def __init__(self, device: object = "cpu") -> None:
        pass


# ------------------------------------------------------------------------------------------------ device guard

_for_ever: list[Any] = []
"""What C++ points to."""
CUDA_DEVICE_TYPE = 1
REGISTRY = "_ZN3c104impl26device_guard_impl_registryE"


def _library() -> Path:
    return Path(torch.__file__).parent / "lib/libc10.so"


def _install_guard() -> None:
    """Give torch a guard of CUDA devices that does nothing.

    Torch has one for :class:`FakeTensorMode` and puts it where a real one answers that there is no card. A build for
    the CPU has none at all, so first an object is registered whose every method answers 0.
    """
    if _for_ever:
        return
    registry = (ctypes.c_void_p * 24).in_dll(ctypes.CDLL(str(_library())), REGISTRY)
    answer = ctypes.CFUNCTYPE(ctypes.c_long)(lambda: 0)
    address = ctypes.cast(answer, ctypes.c_void_p).value
    methods = (ctypes.c_void_p * 64)(*[address] * 64)
    thing = (ctypes.c_void_p * 1)(ctypes.addressof(methods))
    registry[CUDA_DEVICE_TYPE] = ctypes.addressof(thing)
    torch._C._ensureCUDADeviceGuardSet()
    _for_ever.extend((answer, methods, thing))


# ------------------------------------------------------------------------------------------------ backward pass

_passes = itertools.count(1)


def backward(tensor: torch.Tensor, gradient: torch.Tensor | None = None, **_: Any) -> None:
    """``Tensor.backward``. Torch's own engine asks a card for its streams, which a build for the CPU does not have."""
    if tensor.grad_fn is None:
        raise RuntimeError("element 0 of tensors does not require grad and does not have a grad_fn")
    waiting = _incoming(tensor.grad_fn)
    gradients: dict[Any, dict[int, torch.Tensor]] = {
        tensor.grad_fn: {0: torch.ones_like(tensor) if gradient is None else gradient}
    }
    ready = deque([tensor.grad_fn])
    number = next(_passes)  # by it torch.utils.checkpoint knows what it has computed again
    with torch.no_grad(), mock.patch.object(torch._C, "_current_graph_task_id", lambda: number):
        while ready:
            node = ready.popleft()
            results = _run_node(node, gradients.pop(node, {}))
            for (following, place), value in zip(node.next_functions, results, strict=False):
                if following is None:
                    continue
                if value is not None:
                    sums = gradients.setdefault(following, {})
                    sums[place] = sums[place] + value if place in sums else value
                waiting[following] -= 1
                if not waiting[following]:
                    ready.append(following)


def _incoming(root: Any) -> Counter[Any]:
    """How many gradients each node of the graph waits for."""
    waiting: Counter[Any] = Counter()
    seen, stack = {root}, [root]
    while stack:
        for following, _ in stack.pop().next_functions:
            if following is not None:
                waiting[following] += 1
                if following not in seen:
                    seen.add(following)
                    stack.append(following)
    return waiting


def _run_node(node: Any, given: dict[int, torch.Tensor]) -> tuple[torch.Tensor | None, ...]:
    """What a node hands on; the last nodes of all fill the gradients of parameters."""
    if type(node).__name__ == "AccumulateGrad":
        if 0 in given:
            _accumulate(node.variable, given[0])
        return ()
    if not given:
        return (None,) * len(node.next_functions)
    expected = node._input_metadata
    values = [_fitting(given.get(i), about) for i, about in enumerate(expected)]
    own = isinstance(node, torch.autograd.function.BackwardCFunction)  # a torch.autograd.Function of Python
    results = node.apply(*values) if own else node(*values)
    return results if isinstance(results, tuple) else (results,)


def _fitting(value: torch.Tensor | None, about: Any) -> torch.Tensor | None:
    if value is None:
        return None
    if tuple(value.shape) != tuple(about.shape):
        value = value.sum_to_size(about.shape)
    return value.to(about.dtype) if value.dtype != about.dtype else value


def _accumulate(parameter: torch.Tensor, value: torch.Tensor) -> None:
    if value.device != parameter.device:
        raise RuntimeError(f"a gradient on {value.device} for a parameter on {parameter.device}")
    value = value.sum_to_size(parameter.shape)
    parameter.grad = value.detach() if parameter.grad is None else parameter.grad + value


# ------------------------------------------------------------------------------------------------ tensors


class OnCard(torch.Tensor):
    """Says that it lies on the card; ``values`` is where its numbers are."""

    values: torch.Tensor
    __torch_function__ = torch._C._disabled_torch_function_impl

    @staticmethod
    def __new__(cls, values: torch.Tensor) -> OnCard:
        return torch.Tensor._make_wrapper_subclass(
            cls,
            values.shape,
            strides=values.stride(),
            storage_offset=values.storage_offset(),
            dtype=values.dtype,
            layout=values.layout,
            device=CARD,
        )

    def __init__(self, values: torch.Tensor) -> None:
        self.values = values

    def __repr__(self) -> str:
        return f"OnCard({self.values!r})"

    def data_ptr(self) -> int:
        """The address of the values."""
        return self.values.data_ptr()

    def numpy(self, *_: Any, **__: Any) -> Any:
        """Refused, as by a tensor on a card."""
        raise TypeError("can't convert cuda:0 device type tensor to numpy. Use Tensor.cpu() first")

    @classmethod
    def __torch_dispatch__(cls, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        return _Card.current.run(function, args, kwargs or {})


class _Card(TorchDispatchMode):
    """Every operation of this thread goes through here."""

    current: _Card

    def __init__(self, record: Record) -> None:
        super().__init__()
        self.record = record

    def __enter__(self) -> _Card:
        _Card.current = self
        self._lifts = torch._C._only_lift_cpu_tensors()
        torch._C._set_only_lift_cpu_tensors(True)  # torch.tensor(..., device="cuda") copies from the CPU
        return super().__enter__()

    def __exit__(self, *error: Any) -> None:
        torch._C._set_only_lift_cpu_tensors(self._lifts)
        super().__exit__(*error)

    def __torch_dispatch__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        return self.run(function, args, kwargs or {})

    def run(self, function: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        """Compute an operation on the CPU, count it, and say where its result lies."""
        if torch._C._dispatch_has_kernel_for_dispatch_key(function.name(), "CompositeImplicitAutograd"):
            with self:
                out = function.decompose(*args, **kwargs)
            if out is not NotImplemented:
                return out
        tensors = [leaf for leaf in tree_leaves((args, kwargs)) if isinstance(leaf, torch.Tensor)]
        here = any(isinstance(tensor, OnCard) for tensor in tensors)
        target = torch.device(kwargs["device"]).type if kwargs.get("device") is not None else None
        if not here and target != "cuda":
            return function(*args, **kwargs)
        refuse_mixed(function, tensors)
        self._count(function, args, kwargs, tensors, target)
        return self._on_the_cpu(function, args, kwargs, target)

    def _count(
        self,
        function: Any,
        args: tuple[Any, ...],
        kwargs: dict[str, Any],
        tensors: list[torch.Tensor],
        target: str | None,
    ) -> None:
        self.record.kernels[str(function)] += 1
        by_mask = any(t.dtype in (torch.bool, torch.uint8) for t in tensors[1:] if isinstance(t, OnCard))
        if function in WAITS or (function in INDEXING and by_mask):
            self.record.waits[str(function), _place()] += 1
        if function not in COPIES:
            return
        to, source = (args[0], args[1]) if function is aten.copy_.default else (None, args[0])
        to_card = isinstance(to, OnCard) if to is not None else target in (None, "cuda")
        asked = args[2:3] == (True,) or kwargs.get("non_blocking", False)
        if isinstance(source, OnCard) and not to_card:
            if not (asked and to is not None and _is_pinned(to)):
                self.record.waits["copy to the CPU", _place()] += 1
        elif not isinstance(source, OnCard) and to_card and not (asked and _is_pinned(source)):
            self.record.blocking["copy to the card", _place()] += 1

    def _on_the_cpu(self, function: Any, args: Any, kwargs: dict[str, Any], target: str | None) -> Any:
        plain_args, plain_kwargs = tree_map_only(OnCard, lambda tensor: tensor.values, (args, kwargs))
        if target == "cuda":
            plain_kwargs["device"] = torch.device("cpu")
        if function is aten._to_copy.default:
            plain_kwargs.pop("non_blocking", None)
        out = function(*plain_args, **plain_kwargs)
        if function is aten._to_copy.default and out is plain_args[0]:
            out = out.clone()
        if function in (aten.copy_.default, aten.index_put_.default):
            return args[0]
        if target not in (None, "cuda"):
            return out
        # an operation in place gives back the tensor that it was given
        given = {id(leaf.values): leaf for leaf in tree_leaves((args, kwargs)) if isinstance(leaf, OnCard)}
        return tree_map_only(torch.Tensor, lambda t: given[id(t)] if id(t) in given else OnCard(t), out)


def refuse_mixed(function: Any, tensors: list[torch.Tensor]) -> None:
    """What kernels of CUDA check: all tensors on one device, but for single numbers, and indices from the CPU.

    Raises:
        RuntimeError: tensors of both devices.
    """
    if function in TAKES_BOTH:
        return
    kinds = {t.device.type for t in tensors if t.dim() or t.device.type != "cpu"}
    if len(kinds) > 1 and not (function in INDEXING and tensors[0].device.type == "cuda"):
        found = ", ".join(f"{t.device.type}{tuple(t.shape)}" for t in tensors)
        raise RuntimeError(f"{function}: expected all tensors to be on the same device, found {found}")


def _place() -> str:
    """The innermost line of autoseg that is at work."""
    ours = [
        frame
        for frame in traceback.extract_stack()
        if any(room in frame.filename for room in OURS) and "site-packages" not in frame.filename
    ]
    return f"{Path(ours[-1].filename).name}:{ours[-1].lineno}" if ours else "a library"
