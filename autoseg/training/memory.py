"""The memory of a training, foretold: the plan's row where the user changed it, and a warning before it starts."""

from __future__ import annotations

from collections.abc import Sequence

import torch

from autoseg import messages, plugins
from autoseg.device import free_memory, is_card, lower_precision
from autoseg.fingerprint import Fingerprint
from autoseg.plan import Plan, Reason
from autoseg.plan.overrides import long_paths
from autoseg.plan.table import COUNTED_ANEW
from autoseg.plugins.trainer import Trainer
from autoseg.training.step_count import count_step

ROW = "memory"
"""Of the plan's reasons."""
MATTERS = {
    "networks",
    "network",
    "patch_size",
    "batch_size",
    "loss",
    "optimiser",
    "channels",
    "context",
    "frozen",
}
MATTERS |= {"precision"}
"""Fields of a plan that the memory follows."""


def with_memory(plan: Plan, fingerprint: Fingerprint) -> Plan:
    """The plan with its row about memory counted anew where the user changed what it follows."""
    if not any(_matters(long) for path in plan.overrides for long in long_paths(plan, path)):
        return plan
    shape, counted = largest_shape(plan, fingerprint), []
    kinds = {torch.bfloat16: "mixed precision, the default on CUDA", None: "float32"}
    if plan.recipe.precision != "auto":
        kinds = {None: "float32"} if plan.recipe.precision == "float32" else {torch.bfloat16: "bfloat16"}
    for dtype, words in kinds.items():
        counted.append((step_gb(plan, dtype, shape), words))
    value = f"about {counted[0][0]:.1f} GB"
    why = f"{COUNTED_ANEW}: " + ", ".join(f"{gb:.1f} GB in {words}" for gb, words in counted)
    before = [reason for reason in plan.reasons if reason.what == ROW]
    why += f"; as planned {before[0].value}" if before else ""
    row = Reason(what=ROW, value=value, why=f"{why}; leave 1 to 2 GB of room")
    rows = [row if reason.what == ROW else reason for reason in plan.reasons]
    return plan.model_copy(update={"reasons": rows if before else [*rows, row]})


def _matters(path: str) -> bool:
    return not path.startswith("recipe.inference") and bool(MATTERS & set(path.split(".")))


def largest_shape(plan: Plan, fingerprint: Fingerprint) -> tuple[int, ...]:
    """Of the cases on the working grid, z, y, x: the one of most voxels."""
    settings, shapes = plan.preprocessing, []
    for case in fingerprint.cases:
        size = case.shape_after_crop if settings.crop_to_nonzero else case.shape
        axes = zip(settings.transpose, settings.spacing_mm, strict=True)
        shapes.append(
            tuple(
                round(size[axis] * case.spacing_mm[axis] / (mm or case.spacing_mm[axis])) for axis, mm in axes
            )
        )
    return max(shapes, key=lambda shape: shape[0] * shape[1] * shape[2])


def step_gb(plan: Plan, dtype: torch.dtype | None, shape: Sequence[int]) -> float:
    """Of the stage that takes most, in 1e9 bytes; see :func:`autoseg.training.step_count.count_step`."""
    trainer: Trainer = plugins.load(plugins.TRAINERS, plan.trainer)
    alike = {
        (stage.network, tuple(stage.patch_size), stage.batch_size, stage.loss.name): stage
        for stage in plan.recipe.stages
    }
    return max(count_step(plan, stage, trainer, dtype=dtype, shape=shape).peak_gb for stage in alike.values())


def warn_of_small_card(plan: Plan, device: torch.device, shape: Sequence[int], size: int = 1) -> None:
    """Say before a training begins that it will hardly fit the card.

    Args:
        plan: of the training.
        device: nothing is said of one without memory of its own.
        shape: of the largest case, z, y, x.
        size: processes that share a batch.
    """
    if not is_card(device) or size > 1:
        return
    need, there = (
        step_gb(plan, lower_precision(device, plan.recipe.precision), shape),
        free_memory(device) / 1e9,
    )
    if need > there:
        messages.warn(
            f"a training step takes about {need:.1f} GB, counted without what cuDNN needs, and {there:.1f} GB of "
            f"{device} are free: end what else uses it, plan again with a smaller -gpu_memory_target, or set a smaller "
            "batch_size"
        )
