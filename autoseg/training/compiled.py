"""A network through ``torch.compile``, or as it is where that fails."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import nn

from autoseg import messages


class Compiled(nn.Module):
    """The outputs of a network, computed by what ``torch.compile`` makes of it.

    Where it cannot be compiled (no compiler on this machine, a card that is too old), that is said once, and the
    network runs as it is: a training is not lost for want of speed.

    Args:
        network: its parameters are those of this module, under names that
            :func:`autoseg.bundle.weights.plain_name` takes back.
    """

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self._orig_mod = network
        # not as a module of this one, or each parameter would have two names
        self._run: list[Callable[..., Any]] = [torch.compile(network)]

    def forward(self, *inputs: torch.Tensor) -> Any:
        """What the network returns."""
        if self._run[0] is not self._orig_mod:
            try:
                return self._run[0](*inputs)
            except Exception as error:
                if not _is_of_the_compiler(error):
                    raise
                reason = str(error).strip().split("\n")[0][:200]
                messages.warn(f"the network cannot be compiled here and runs as it is: {reason}")
                self._run[0] = self._orig_mod
        return self._run[0](*inputs)


def _is_of_the_compiler(error: Exception) -> bool:
    """Whether compiling failed, not the network."""
    return type(error).__module__.startswith(("torch._dynamo", "torch._inductor"))
