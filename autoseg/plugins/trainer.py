"""What a trainer plug-in is: a name, a summary, and the rows of the parts that its family brings.

It contains no loop, no argument parsing and no file handling. A part that it does not bring is autoseg's own, or that
of another installed family, as the plan names it.
"""

from __future__ import annotations

from dataclasses import dataclass

from autoseg.plugins.parts import (
    FusionPart,
    LossPart,
    NetworkPart,
    OptimiserPart,
    SamplerPart,
    SchedulePart,
    SourcePart,
    StepPart,
    TransformPart,
    WeightsImport,
)


@dataclass(frozen=True)
class Trainer:
    """A trainer plug-in::

        TRAINER = Trainer("tiny", "a tiny method", networks=(NetworkPart("tiny_net", TinyNet),))

    Attributes:
        name: as of the entry point.
        summary: one line for lists and help.
        networks, losses, optimisers, schedules, samplers, sources, transforms, fusions, steps: what the family brings,
            see :mod:`autoseg.plugins.parts`. A row goes before one of the same name elsewhere.
        preset: by which a fold is scored too, beside autoseg's own; empty for none.
        import_weights: for ``autoseg_import_weights``; None where the family takes no weights from elsewhere.
    """

    name: str
    summary: str
    networks: tuple[NetworkPart, ...] = ()
    losses: tuple[LossPart, ...] = ()
    optimisers: tuple[OptimiserPart, ...] = ()
    schedules: tuple[SchedulePart, ...] = ()
    samplers: tuple[SamplerPart, ...] = ()
    sources: tuple[SourcePart, ...] = ()
    transforms: tuple[TransformPart, ...] = ()
    fusions: tuple[FusionPart, ...] = ()
    steps: tuple[StepPart, ...] = ()
    preset: str = ""
    import_weights: WeightsImport | None = None
