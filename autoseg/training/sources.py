"""Where the batches of a stage come from: a source that the family brings, or patches of the cases."""

from __future__ import annotations

from collections.abc import Sequence

from autoseg.bundle.networks import network_row
from autoseg.plan import Stage
from autoseg.plugins.parts import Source, SourcePart
from autoseg.plugins.registry import Registry
from autoseg.plugins.trainer import Trainer
from autoseg.sampling import samplers
from autoseg.sampling.loader import BatchSource
from autoseg.training.stage_run import StageRun
from autoseg.training.weight_maps import maps_folder

REGISTRY: Registry[SourcePart] = Registry("source of batches", "sources")
"""autoseg has none of its own beside :class:`autoseg.sampling.loader.BatchSource`."""


def source_part(name: str, trainer: Trainer) -> SourcePart | None:
    """The source of this name: the trainer's own, else another family's; None where the name is a sampler's."""
    own = next((row for row in trainer.sources if row.name == name), None)
    if own is not None or any(row.name == name for row in trainer.samplers):
        return own
    return None if name in samplers.REGISTRY.names() else REGISTRY.rows().get(name)


def open_source(run: StageRun) -> Source:
    """The batches of a stage.

    Raises:
        AutosegError: there is nothing to train on.
        Interrupted: the user stopped a search for it.
    """
    part = source_part(run.stage.sampling.name, run.trainer)
    if part is not None:
        return part.open(run)
    return patches_of(
        run,
        run.cases,
        run.stage,
        run.seed_key,
        workers=run.workers,
        rank=run.rank,
        world_size=run.world_size,
    )


def patches_of(
    run: StageRun,
    cases: Sequence[str],
    stage: Stage,
    seed_key: tuple[int, ...],
    *,
    workers: int = 0,
    rank: int = 0,
    world_size: int = 1,
    cache_gb: float | None = None,
) -> BatchSource:
    """Patches of some cases as a stage has them, for a network of the run; see :class:`BatchSource`.

    Raises:
        AutosegError: there is nothing to show.
    """
    plan, spec = run.plan, run.plan.networks[stage.network]
    return BatchSource(
        run.store,
        cases,
        stage,
        seed_key,
        run.device,
        workers=workers,
        rank=rank,
        world_size=world_size,
        cache_gb=cache_gb,
        inside_nonzero=[
            entry.inside_nonzero or entry.inside_mask for entry in plan.preprocessing.normalisation
        ],
        label_values=plan.label_set.values,
        channels=plan.channels_of(stage.network),
        raw_zero=run.raw_zero,
        divisor=network_row(plan, stage.network, run.trainer).divisor_of(spec.arguments),
        weights=maps_folder(run.job, stage) if stage.sampling.weights is not None else None,
        trainer=run.trainer,
    )
