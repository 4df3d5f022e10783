"""plan.json, typed: every decision that a run follows, each with its reason.

A plan is data. A **recipe** is a list of **stages** (patch, epochs, loss, optimiser, augmentation, sampling,
what is frozen, where the weights start from), a number of **members** (repeated runs, snapshots), a **fusion**
and a chain of **post-processing** steps. Building the parts that the plan names is the trainer's job
(:mod:`autoseg.plugins.trainer`).

Axis order is z, y, x everywhere; ``working`` means the transposed grid on which the network sees the case.
"""

from __future__ import annotations

from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, PositiveInt, model_validator

from autoseg.device import Precision
from autoseg.labels import LabelSet

PLAN_VERSION = 1


class Strict(BaseModel):
    """A part of the plan: unknown keys are refused, so that a mistyped one is noticed."""

    model_config = ConfigDict(extra="forbid", validate_assignment=True)


class Named(Strict):
    """Something that is built by name from plain arguments."""

    name: str
    arguments: dict[str, Any] = Field(default_factory=dict)


class Normalisation(Strict):
    """How one channel is normalised.

    Attributes:
        scheme: zscore, zscore_object, ct, rescale_0_1, rgb_0_1 or none.
        inside_nonzero: statistics from, and effect on, the non-zero mask only; outside becomes 0.
        statistics: ct only: mean, std, percentile_00_5, percentile_99_5 of the dataset's foreground.
        bias_correction: n4 first takes out slow changes of brightness, as a surface coil makes them.
    """

    scheme: Literal["zscore", "zscore_object", "ct", "rescale_0_1", "rgb_0_1", "none"] = "zscore"
    inside_nonzero: bool = False
    statistics: dict[str, float] = Field(default_factory=dict)
    bias_correction: Literal["none", "n4"] = "none"


class Preprocessing(Strict):
    """From raw arrays to the working grid.

    Attributes:
        transpose: working axis i is file axis ``transpose[i]``.
        crop_to_nonzero: cut to the box in which any channel is not 0.
        crop_to_object: cut to the box of the head, with a margin, where the air around it is not 0 but noise.
        spacing_mm: of the working grid, in working axis order; None keeps the spacing of the case on that axis.
        normalisation: one entry for each channel.
        image_order: spline order for images, 0 to 5.
        label_order: 1 is label-wise linear at 0.5, 0 is nearest.
        logits_order: spline order for logits on the way back.
        separate_axis_ratio: a grid whose largest spacing is more than this times its smallest is resampled
            in its planes by the order above and across them by ``separate_axis_order``.
        separate_axis_order: see above.
    """

    transpose: tuple[int, int, int] = (0, 1, 2)
    crop_to_nonzero: bool = True
    crop_to_object: bool = False
    spacing_mm: tuple[float | None, float | None, float | None]
    normalisation: list[Normalisation]
    image_order: int = Field(3, ge=0, le=5)
    label_order: int = Field(1, ge=0, le=1)
    logits_order: int = Field(1, ge=0, le=3)
    separate_axis_ratio: float = Field(3.0, gt=1)
    separate_axis_order: int = Field(0, ge=0, le=1)


class Sampling(Strict):
    """Where patches come from.

    Attributes:
        name: ``foreground_share`` draws cases uniformly and centres that share of each batch on the foreground;
            ``lesion_pixels`` shows every pixel of every lesion once in a pass, anywhere in its patch; trainers may
            bring others.
        foreground_share: share of a batch that is centred on a foreground voxel, 0 to 1.
        balance: among the foreground of a case: ``voxel`` (a lesion's chance follows its volume, as nnU-Net) or
            ``component`` (every lesion has the same chance).
    """

    name: str = "foreground_share"
    foreground_share: float = Field(0.33, ge=0, le=1)
    balance: Literal["voxel", "component"] = "voxel"
    arguments: dict[str, Any] = Field(default_factory=dict)


class Augmentation(Strict):
    """Which random changes a patch goes through.

    Attributes:
        name: ``nnunet`` or ``none``; trainers may bring others.
        backend: ``torch`` works on the training device, ``batchgenerators`` in worker processes,
            ``auto`` takes torch on a GPU and batchgenerators on a CPU with workers.
        mirror_axes: working axes that may be mirrored; take one out where left and right differ.
        arguments: changes to the transforms' probabilities and ranges.
    """

    name: str = "nnunet"
    backend: Literal["auto", "torch", "batchgenerators"] = "auto"
    mirror_axes: tuple[int, ...] = (0, 1, 2)
    arguments: dict[str, Any] = Field(default_factory=dict)


class Stage(Strict):
    """One training run of one network, from first to last epoch.

    Attributes:
        name: unique within the recipe.
        network: key of ``Plan.networks``.
        start: ``scratch``; ``previous`` (the last weights of the stage before with the same network); or the name of
            an earlier stage.
        patch_size: in voxels of the working grid; two numbers for a 2D network, which sees planes of the first axis. An
            empty list trains on whole images, whatever their sizes, one in a batch.
        batch_size: in all, over all devices.
        iterations_per_epoch: None means one pass over what is sampled: the training cases, or every lesion pixel.
        gradient_clip: largest norm of the gradient; None for no clipping.
        frozen: patterns (``fnmatch``) of parameter names that do not train.
        snapshots: epochs (counted from 1) after which the weights are kept as members of their own.
        keep: whether the weights of this stage take part in the prediction.
        leave_out: ``(k, n)`` trains on all cases of the fold but part k of n, counted from 0: every n-th case by name.
            The stage is validated on that part, and a later stage can learn from what this one predicts for cases that
            it has not seen (cross-fitting).
        patience: ends the stage after so many epochs without a better validation Dice; its last weights are then
            those of the best one. With ``leave_out`` the fold's validation cases have no part in this choice; without
            it their scores are too good. None trains all epochs. Only stages of the network ``main`` are validated.
    """

    name: str
    network: str = "main"
    start: str = "scratch"
    patch_size: list[PositiveInt] = Field(max_length=3)
    batch_size: int = Field(ge=1)
    epochs: int = Field(ge=1)
    iterations_per_epoch: int | None = Field(None, ge=1)
    loss: Named
    optimiser: Named
    schedule: Named
    gradient_clip: float | None = Field(None, gt=0)
    sampling: Sampling = Field(default_factory=Sampling)
    augmentation: Augmentation = Field(default_factory=Augmentation)
    frozen: list[str] = Field(default_factory=list)
    snapshots: list[int] = Field(default_factory=list)
    keep: bool = True
    leave_out: tuple[int, int] | None = None
    patience: int | None = Field(None, ge=1)

    @model_validator(mode="after")
    def _left_out_part_exists(self) -> Stage:
        if self.leave_out is not None and not 0 <= self.leave_out[0] < self.leave_out[1] >= 2:
            raise ValueError(f"leave_out is part k of n, 0 <= k < n and n >= 2, found {self.leave_out}")
        return self

    @model_validator(mode="after")
    def _patch_fits_the_batch(self) -> Stage:
        if len(self.patch_size) == 1:
            raise ValueError(
                f"patch_size has two numbers, three, or none for whole images, found {self.patch_size}"
            )
        if not self.patch_size and self.batch_size != 1:
            raise ValueError(f"whole images come one in a batch, found batch_size {self.batch_size}")
        return self

    @model_validator(mode="after")
    def _snapshots_within(self) -> Stage:
        if any(not 1 <= epoch <= self.epochs for epoch in self.snapshots):
            raise ValueError(f"snapshots must lie within 1 to {self.epochs} epochs, found {self.snapshots}")
        return self


class Inference(Strict):
    """How a whole case is predicted.

    Attributes:
        patch_size: as of a stage; an empty list predicts the whole image at once, or whole planes of the first axis
            with a 2D network.
        step: distance of neighbouring tiles as a share of the patch.
        gaussian: weigh the middle of a tile more than its border.
        mirror_axes: working axes (0, 1, 2 for z, y, x, also for a 2D network) for test-time mirroring, in all
            combinations.
        batch_size: tiles at once.
    """

    patch_size: list[PositiveInt] = Field(max_length=3)
    step: float = Field(0.5, gt=0, le=1)
    gaussian: bool = True
    mirror_axes: tuple[int, ...] = (0, 1, 2)
    batch_size: int = Field(1, ge=1)


class Validation(Strict):
    """Whole-volume validation during training: a fixed subset of the fold's validation cases.

    Attributes:
        cases: how many of them, spread over the sorted list.
        every: epochs between validations; the last epoch always has one.
    """

    cases: int = Field(4, ge=0)
    every: int = Field(1, ge=1)


class Recipe(Strict):
    """Everything from weights to masks.

    Attributes:
        stages: in the order in which they are trained.
        members: how often the stages are run, each time with other random numbers.
        fusion: ``mean_logits``, ``mean_probabilities``, ``majority``, or one that the trainer brings.
        postprocessing: steps in order: first those on each member's logits, which only trainers bring, then those on
            the fused mask.
        precision: ``auto`` is mixed precision on CUDA (bfloat16 where the card has it) and float32 elsewhere;
            ``bfloat16`` is mixed precision on a CPU too, which is several times as fast where the CPU has AMX.
        compile: train through ``torch.compile``.
    """

    stages: list[Stage] = Field(min_length=1)
    members: int = Field(1, ge=1)
    fusion: Named = Field(default_factory=lambda: Named(name="mean_logits"))
    postprocessing: list[Named] = Field(default_factory=list)
    inference: Inference
    validation: Validation = Field(default_factory=Validation)
    precision: Precision = "auto"
    compile: bool = False

    @model_validator(mode="after")
    def _stages_are_linked(self) -> Recipe:
        seen: dict[str, str] = {}
        for stage in self.stages:
            if stage.name in seen or stage.name in ("scratch", "previous"):
                raise ValueError(
                    f"stage names must be unique and not 'scratch' or 'previous': {stage.name!r}"
                )
            if stage.start not in ("scratch", "previous", *seen):
                raise ValueError(
                    f"stage {stage.name!r} starts from {stage.start!r}, which is not an earlier stage"
                )
            if stage.start == "previous" and stage.network not in seen.values():
                raise ValueError(
                    f"stage {stage.name!r} has no previous stage of network {stage.network!r} to start from"
                )
            if (other := seen.get(stage.start, stage.network)) != stage.network:
                raise ValueError(
                    f"stage {stage.name!r} of network {stage.network!r} starts from {stage.start!r}, "
                    f"which trains network {other!r}"
                )
            seen[stage.name] = stage.network
        if not any(stage.keep for stage in self.stages):
            raise ValueError("at least one stage must be kept for the prediction")
        return self


class Reason(Strict):
    """Why one decision was taken.

    Attributes:
        what: the decision, in words or as a path into the plan.
        value: what was decided, for reading.
        why: the reason, with the numbers it rests on.
    """

    what: str
    value: str
    why: str


class Plan(Strict):
    """plan.json.

    Attributes:
        planner, planner_options: who decided, with which options.
        trainer: the plug-in that builds networks, losses and the rest.
        dataset: full name of the dataset.
        fingerprint_hash: of the fingerprint that the plan was made from.
        seed: the root of all random numbers of the run.
        in_channels, labels, regions_class_order, channel_names: as of dataset.json.
        networks: by key; ``arguments`` go to :func:`autoseg.networks.build` as they are.
        reasons: one for each decision.
        overrides: what the user set, path to value.
        alternatives: other configurations that the planner worked out, for reading.
    """

    version: Literal[1] = PLAN_VERSION
    planner: str
    planner_options: dict[str, Any] = Field(default_factory=dict)
    trainer: str
    dataset: str
    fingerprint_hash: str
    seed: int = Field(12345, ge=0)
    channel_names: list[str]
    labels: dict[str, int | list[int]]
    regions_class_order: list[int] | None = None
    preprocessing: Preprocessing
    networks: dict[str, Named]
    recipe: Recipe
    reasons: list[Reason] = Field(default_factory=list)
    overrides: dict[str, Any] = Field(default_factory=dict)
    alternatives: dict[str, Any] = Field(default_factory=dict)

    @model_validator(mode="after")
    def _networks_are_known(self) -> Plan:
        for stage in self.recipe.stages:
            if stage.network not in self.networks:
                raise ValueError(
                    f"stage {stage.name!r} trains network {stage.network!r}, known: {list(self.networks)}"
                )
        return self

    @property
    def in_channels(self) -> int:
        """Image channels."""
        return len(self.channel_names)

    @property
    def label_set(self) -> LabelSet:
        """The classes, with what a network puts out for them."""
        return LabelSet.from_labels(self.labels, self.regions_class_order)

    def stage(self, name: str) -> Stage:
        """The stage with this name."""
        return next(stage for stage in self.recipe.stages if stage.name == name)
