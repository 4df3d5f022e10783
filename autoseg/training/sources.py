"""Where the batches of a stage come from: a source that the family brings, or patches of the cases."""

from __future__ import annotations

from autoseg.bundle.networks import network_row
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
    plan, spec = run.plan, run.plan.networks[run.stage.network]
    return BatchSource(
        run.store,
        run.cases,
        run.stage,
        run.seed_key,
        run.device,
        workers=run.workers,
        rank=run.rank,
        world_size=run.world_size,
        inside_nonzero=[
            entry.inside_nonzero or entry.inside_mask for entry in plan.preprocessing.normalisation
        ],
        label_values=plan.label_set.values,
        channels=plan.channels_of(run.stage.network),
        raw_zero=run.raw_zero,
        divisor=network_row(plan, run.stage.network, run.trainer).divisor_of(spec.arguments),
        weights=maps_folder(run.job, run.stage) if run.stage.sampling.weights is not None else None,
        trainer=run.trainer,
    )
