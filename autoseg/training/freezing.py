"""Which parameters of a network train."""

from __future__ import annotations

import fnmatch

from torch import nn

from autoseg.errors import AutosegError, nearest_names
from autoseg.plan import Stage


def trained_parameters(network: nn.Module, stage: Stage) -> list[nn.Parameter]:
    """Freeze what the stage freezes; the parameters that are left to train.

    Raises:
        AutosegError: a pattern that fits no parameter, or nothing is left.
    """
    names = [name for name, _ in network.named_parameters()]
    for pattern in stage.frozen:
        if not fnmatch.filter(names, pattern):
            raise AutosegError(
                f"stage '{stage.name}' freezes '{pattern}', which fits no parameter",
                found=f"parameters such as {', '.join(names[:3])}",
                fix=nearest_names(pattern, names),
            )
    trained = []
    for name, parameter in network.named_parameters():
        parameter.requires_grad = not any(fnmatch.fnmatchcase(name, pattern) for pattern in stage.frozen)
        if parameter.requires_grad:
            trained.append(parameter)
    if not trained:
        raise AutosegError(
            f"stage '{stage.name}' freezes every parameter",
            found=f"frozen: {', '.join(stage.frozen)}",
            expected="something to train",
            fix="correct the stage's frozen patterns",
        )
    return trained
