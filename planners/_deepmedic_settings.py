"""What the planner ``deepmedic`` knows beforehand: the study's numbers and options; and what it decides."""

from __future__ import annotations

import itertools
import math
from dataclasses import dataclass
from typing import Literal

from pydantic import BaseModel, Field, model_validator

SPACING_MM = 1 / 0.7
"""1 mm, then a factor of 0.7 along each axis, in one interpolation."""
HEAD_MM = (100.0, 300.0)
"""The longest edge of a scan of a human head."""
PATCH, CONTEXT, FACTOR = 9, 24, 3
"""Voxels that are trained on; that the coarse pathway sees around them; every how many it sees."""
SEGMENT = PATCH + 16
FAITHFUL_TILE = 29
"""What a segment of 45 voxels predicts."""
HALO = 3
"""One voxel would do; the coarse pathway starts at multiples of 3."""
BATCH, EPOCHS, SUB_EPOCHS, SEGMENTS, SUBJECTS = 24, 35, 20, 1000, 50
LESION_SHARE = 0.5
LEARNING_RATE, LAST_RATE = 1e-3, 1e-4
LAYERS = 8
"""Of each pathway."""
RHO, EPS, L1, L2 = 0.9, 1e-4, 1e-6, 1e-4
SHIFT, SCALE = 0.05, 0.01
RADIUS = 3
VALIDATE_EVERY, SAMPLES, SAMPLE_SIZE = 5, 5000, (1, 1, 1)
"""Epochs between validations of whole scans; segments after each epoch, and what is predicted of one of 17 voxels."""

QUICK_MAPS, QUICK_COMMON, QUICK_BATCH = (8, 8, 10, 10, 10, 10, 12, 12), (24, 24), 8
"""Of a plan for trying out: a fifteenth of the operations."""

SEGMENT_GB = 0.05
"""Of a training step, for each segment of a batch; measured on a CPU with 3 channels, with what convolutions need."""
COUNTED_GB, QUICK_COUNTED_GB, CHANNEL_GB = 0.0278, 0.0068, 0.00083
"""The same counted (:mod:`autoseg.training.step_count`), without that: of a segment, of one of a quick plan; more for
each channel."""
VOXEL_GB = 1.7e-6
"""Of a prediction, for each voxel of a chunk; measured in the same way."""
PREDICTION_SHARE = 0.5
"""Of the memory that a chunk may take."""
MOST_CHUNKS = 12
"""Along an axis."""

Shape = tuple[int, int, int]


class DeepMedicOptions(BaseModel, extra="forbid"):
    """Options of the planner, set by ``--set planner.NAME=VALUE``.

    Attributes:
        channels: names of those that the network sees; empty for ADC, MTT and rCBF where they are there, else all.
        mask: channel whose voxels above 0 are the brain; ``auto`` takes TTP where it is there; ``none`` for no mask,
            then the voxels of each channel that are not 0 count.
        schedule: ``text``: the learning rate ends at 1e-4, as the study says; ``software``: at 1e-7, as it was trained.
        inference: ``dense``: all voxels are predicted as in one pass over the whole image; ``faithful``: in the tiles
            of the software, whose results depend on where they lie.
        decision: what a prediction makes of the probabilities: ``base`` the likelier class, ``tht0`` or ``tht1`` a
            threshold, ``fh`` the likelier class after closing. The other two are learned too and can be asked for.
        border: of the closing: ``safe``, or ``scipy`` as in the study, which loses lesions near the border.
        experiment: of the study: ``E0`` from scratch, ``E1`` with clones, ``E2`` fine-tuned from E1 where that errs,
            ``E3``, ``E4`` and ``E5`` from E1 with another map and three depths of freezing.
        error_maps: off: E2 draws its patches as E0, as the study's software did.
        start_from: what E2 to E5 start from: ``E1``, or the ``best`` of the experiments before them that are trained,
            by their validation cases.
        other_map: what takes the place of rCBF in E3 to E5; ``auto``: rCBV.
        frozen_layers: numbers from 1 of the layers of each pathway that do not train; None for the experiment's own.
    """

    channels: list[str] = Field(default_factory=list)
    mask: str = "auto"
    schedule: Literal["text", "software"] = "text"
    inference: Literal["dense", "faithful"] = "dense"
    decision: Literal["base", "tht0", "tht1", "fh"] = "fh"
    border: Literal["safe", "scipy"] = "safe"
    experiment: Literal["E0", "E1", "E2", "E3", "E4", "E5"] = "E0"
    error_maps: bool = True
    start_from: Literal["E1", "best"] = "E1"
    other_map: str = "auto"
    frozen_layers: list[int] | None = None

    @model_validator(mode="after")
    def _nothing_is_set_in_vain(self) -> DeepMedicOptions:
        if not self.error_maps and self.experiment != "E2":
            raise ValueError(f"error_maps is of E2, found experiment={self.experiment}")
        if self.start_from == "best" and self.experiment in ("E0", "E1"):
            raise ValueError(f"{self.experiment} starts from scratch, found start_from=best")
        if self.other_map != "auto" and self.experiment not in ("E3", "E4", "E5"):
            raise ValueError(f"other_map is of E3, E4 and E5, found experiment={self.experiment}")
        return self


@dataclass(frozen=True)
class DeepMedicChoice:
    """What data and memory allow.

    Attributes:
        channels: that the network sees; empty for all.
        mask: channel of the brain's mask; empty for none.
        is_head: whether the scans have the size of a human head.
        shape: of the median case on the working grid, z, y, x.
        chunk: of a dense prediction.
        batch: segments of a training step.
        left_right: working axis from left to right; None where the files do not say so.
        budget_gb: memory that there is.
        one_lesion: whether there is one class beside the background.
    """

    channels: tuple[str, ...]
    mask: str
    is_head: bool
    shape: Shape
    chunk: Shape
    batch: int
    left_right: int | None
    budget_gb: float
    one_lesion: bool


def training_gb(batch: int, channels: int, quick: bool) -> float:
    """Memory of a training step in float32, in 1e9 bytes; counted, exact to 1 %."""
    segment = (QUICK_COUNTED_GB if quick else COUNTED_GB) + CHANNEL_GB * channels
    return batch * segment + (0.001 if quick else 0.017)


def batch_for(budget_gb: float) -> int:
    """Segments of a batch: 24, or as many as the memory holds."""
    return max(2, min(BATCH, int(budget_gb / SEGMENT_GB)))


def chunk_for(shape: Shape, budget_gb: float) -> Shape:
    """The chunk of multiples of 3 that fits the memory with its halo and predicts ``shape`` with the least overlap."""
    parts = [
        [
            (max(FACTOR, math.ceil(n / k / FACTOR) * FACTOR), n + 2 * HALO * (k - 1))
            for k in range(1, MOST_CHUNKS + 1)
        ]
        for n in shape
    ]
    most = budget_gb * PREDICTION_SHARE / VOXEL_GB

    def cost(chosen: tuple[tuple[int, int], ...]) -> tuple[bool, float]:
        edges = [min(edge + 2 * HALO, n) for (edge, _), n in zip(chosen, shape, strict=True)]
        voxels = math.prod(edges)
        return voxels > most, voxels if voxels > most else math.prod(total for _, total in chosen)

    (z, _), (y, _), (x, _) = min(itertools.product(*parts), key=cost)
    return z, y, x
