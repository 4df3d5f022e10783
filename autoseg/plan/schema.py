"""plan.json, typed: every decision that a run follows, each with its reason.

A plan is data. A **recipe** is a list of **stages** (patch, epochs, loss, optimiser, augmentation, sampling,
what is frozen, where the weights start from), a number of **members** (repeated runs, snapshots), a **fusion**
and a chain of **post-processing** steps. Building the parts that the plan names is the trainer's job
(:mod:`autoseg.plugins.trainer`).

Axis order is z, y, x everywhere; ``working`` means the transposed grid on which the network sees the case.
"""

from __future__ import annotations

import re
from typing import Annotated, Any, Literal

from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    field_validator,
    model_validator,
)

from autoseg.device import Precision
from autoseg.fingerprint import MOST_CHANNELS
from autoseg.labels import LabelSet, label_values, refuse_bad_order
from autoseg.names import Name, is_name
from autoseg.orientation import is_orientation

PLAN_VERSION = 2  # as Plan.version
"""2 added words for valid convolutions, masks, subsets of channels, weights of other models, and steps that learn. Each
is optional and its default is what version 1 did, so a plan of version 1 is read as it is."""

Millimetres = Annotated[float, Field(ge=1e-4, le=1e3)]
"""A spacing; finer or coarser ones are mistakes of the unit."""

Axis = Annotated[int, Field(ge=0, le=2)]
"""z, y or x."""

Voxels = Annotated[int, Field(gt=0, le=16384)]
Margin = Annotated[int, Field(ge=0, le=16384)]

PatchSize = list[Voxels | Literal["whole"]]
"""Voxels of each axis; ``whole`` takes what the image has there, padded to a multiple that the network takes."""


LEAST_STEP = 0.05
"""Of the tiles of a prediction: each voxel is seen 8000 times."""


class Strict(BaseModel):
    """A part of the plan: unknown keys are refused, so that a mistyped one is noticed."""

    model_config = ConfigDict(extra="forbid", validate_assignment=True, allow_inf_nan=False)


class Named(Strict):
    """Something that is built by name from plain arguments."""

    name: str
    arguments: dict[str, Any] = Field(default_factory=dict)


class Normalisation(Strict):
    """How one channel is normalised.

    Attributes:
        scheme: zscore, zscore_object, ct, rescale_0_1, rgb_0_1, fixed or none. ``fixed`` takes the same two numbers for
            all cases, measured in the training cases of each fold: ``(x - mean) / spread``.
        inside_nonzero: statistics from, and effect on, the non-zero mask only; outside becomes 0.
        inside_mask: the same for the mask of :class:`MaskRole`.
        statistics: ct only: mean, std, percentile_00_5, percentile_99_5 of the dataset's foreground.
        spread: fixed only: the mean absolute deviation or the (population) standard deviation; of the voxels inside
            where ``inside_nonzero`` or ``inside_mask`` says so, else of all.
        divide_by_mode: before the scheme each case is divided by its most frequent intensity: the lower edge of the
            fullest of the bins of this width, bin 0 left out; None for no division.
        factor: after the scheme values are multiplied by this number: 1 / 255, say, for scans of 0 to 255.
        bias_correction: n4 first takes out slow changes of brightness, as a surface coil makes them.
        expected_maximum: none and rgb_0_1 only: the largest intensity of a case lies above the first number and not
            above the second, and none is negative. A case that is otherwise is brought to 0 to 1 by a rule of its own
            (:mod:`autoseg.preprocessing.unexpected`), which is said and recorded. None takes all cases alike.
    """

    scheme: Literal["zscore", "zscore_object", "ct", "rescale_0_1", "rgb_0_1", "fixed", "none"] = "zscore"
    inside_nonzero: bool = False
    inside_mask: bool = False
    statistics: dict[str, float] = Field(default_factory=dict)
    spread: Literal["mean_absolute_deviation", "standard_deviation"] = "standard_deviation"
    divide_by_mode: float | None = Field(None, gt=0)
    factor: float = Field(1.0, gt=0)
    bias_correction: Literal["none", "n4"] = "none"
    expected_maximum: tuple[float, float] | None = None

    def expects(self, least: float, largest: float) -> bool:
        """Whether a case with these intensities is as ``expected_maximum`` says.

        Negative values of less than a thousandth of the largest are traces of an interpolation.
        """
        if self.expected_maximum is None:
            return True
        above, up_to = self.expected_maximum
        return above < largest <= up_to and least >= -largest / 1000

    @model_validator(mode="after")
    def _expects_what_can_be(self) -> Normalisation:
        if self.expected_maximum is None:
            return self
        if self.scheme not in ("none", "rgb_0_1"):
            raise ValueError(
                f"expected_maximum belongs to the schemes none and rgb_0_1, found {self.scheme}, which suits any unit"
            )
        if not 0 <= self.expected_maximum[0] < self.expected_maximum[1]:
            raise ValueError(
                f"expected_maximum goes from 0 or more to a larger number, found {list(self.expected_maximum)}"
            )
        return self

    @model_validator(mode="after")
    def _inside_one_mask(self) -> Normalisation:
        if self.inside_nonzero and self.inside_mask:
            raise ValueError("inside_nonzero and inside_mask exclude each other")
        return self


class MaskRole(Strict):
    """Which part of a case counts, such as the brain: for sampling, for normalisation and for what is predicted.

    Outside the mask the label of the working grid is -1, and no lesion is predicted.

    Attributes:
        channel: name of the channel whose voxels above 0 are the mask; it may be an input as well.
        folder: or a folder of the raw dataset, and of the images to predict, with a mask ``CASE`` + file ending each.
        dilation: steps by which the mask grows to its 6 neighbours, on the grid of the file.
        fill_holes: holes in each plane of the first working axis belong to it.
    """

    channel: str | None = None
    folder: str | None = None
    dilation: int = Field(0, ge=0, le=1000)
    fill_holes: bool = True

    @model_validator(mode="after")
    def _has_one_origin(self) -> MaskRole:
        if (self.channel is None) == (self.folder is None):
            raise ValueError("a mask comes from a channel or from a folder, one of them")
        if self.folder is not None and not all(is_name(part) for part in self.folder.split("/")):
            raise ValueError(
                f"the folder of the masks lies in that of the dataset, found {self.folder[:60]!r}"
            )
        return self


class Preprocessing(Strict):
    """From raw arrays to the working grid.

    Attributes:
        orientation: three of L R P A S I, where the file axes x, y, z point to. Every case is turned into it, without
            interpolation, before all else, and its mask is turned back; "file" then means the turned one. None takes
            each case as it is stored.
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
        mask: which part of a case counts; None for all of it.
        may_be_missing: names of channels that an image to predict may lack: their files hold 0 throughout, and the
            network was trained to do without them. Other constant channels are refused.
    """

    orientation: str | None = None
    transpose: tuple[int, int, int] = (0, 1, 2)
    crop_to_nonzero: bool = True
    crop_to_object: bool = False
    spacing_mm: tuple[Millimetres | None, Millimetres | None, Millimetres | None]
    normalisation: list[Normalisation]
    image_order: int = Field(3, ge=0, le=5)
    label_order: int = Field(1, ge=0, le=1)
    logits_order: int = Field(1, ge=0, le=3)
    separate_axis_ratio: float = Field(3.0, gt=1)
    separate_axis_order: int = Field(0, ge=0, le=1)
    mask: MaskRole | None = None
    may_be_missing: list[str] = Field(default_factory=list)

    @field_validator("transpose")
    @classmethod
    def _every_axis_once(cls, value: tuple[int, int, int]) -> tuple[int, int, int]:
        if sorted(value) != [0, 1, 2]:
            raise ValueError(f"transpose has each of the axes 0, 1 and 2 once, found {list(value)}")
        return value

    @field_validator("orientation")
    @classmethod
    def _names_every_axis(cls, value: str | None) -> str | None:
        if value is not None and not is_orientation(value):
            raise ValueError(
                f"orientation is one letter each of L or R, P or A, and S or I, such as RAS, found {value!r}"
            )
        return value

    @model_validator(mode="after")
    def _mask_is_there(self) -> Preprocessing:
        if self.mask is None and any(entry.inside_mask for entry in self.normalisation):
            raise ValueError("inside_mask needs preprocessing.mask")
        if self.mask is not None and any(entry.inside_nonzero for entry in self.normalisation):
            raise ValueError(
                "with preprocessing.mask, channels are normalised inside_mask, not inside_nonzero"
            )
        return self


class Clones(Strict):
    """Further training cases: copies whose lesion voxels are drawn anew, see :mod:`autoseg.sampling.clones`.

    Attributes:
        number: of each training case of the fold.
        noise: ``white``, voxel by voxel; ``correlated``, so that neighbours are alike.
        drawn: ``once``: a clone is the same in all epochs, stages and members, as if it were a file; ``each_epoch``:
            its lesions are others in each.
    """

    number: int = Field(1, ge=1, le=100)
    noise: Literal["white", "correlated"] = "white"
    drawn: Literal["once", "each_epoch"] = "once"


class WeightMaps(Strict):
    """How likely the voxels of a case are to be in the middle of a patch, beside their kind.

    Attributes:
        foreground, background: folders of the raw dataset with a map ``CASE`` + file ending of each training case, on
            the grid of its image: weights of 0 and more, of which each kind of voxels has its own share. Without a
            folder the voxels of that kind are alike. Both may name the same one.
        errors_of: ``start``: the maps are the errors of the model that the stage starts from, each predicted by the
            fold that did not train on the case (:mod:`autoseg.training.error_maps`).
    """

    foreground: str | None = None
    background: str | None = None
    errors_of: Literal["start"] | None = None

    @model_validator(mode="after")
    def _has_one_origin(self) -> WeightMaps:
        if (self.errors_of is not None) == any(self.folders):
            raise ValueError("weights come from folders or are errors of the start, one of them")
        if not all(is_name(part) for folder in self.folders for part in folder.split("/")):
            raise ValueError(f"the folders of weight maps lie in that of the dataset, found {self.folders}")
        return self

    @property
    def folders(self) -> list[str]:
        """Those that are named."""
        return [folder for folder in (self.foreground, self.background) if folder is not None]


class Sampling(Strict):
    """Where patches come from.

    Attributes:
        name: ``foreground_share`` draws cases uniformly and centres that share of each batch on the foreground;
            ``lesion_pixels`` shows every pixel of every lesion once in a pass, anywhere in its patch; trainers may
            bring others.
        foreground_share: share of a batch that is centred on a foreground voxel, 0 to 1.
        balance: among the foreground of a case: ``voxel`` (a lesion's chance follows its volume, as nnU-Net) or
            ``component`` (every lesion has the same chance).
        nonzero_share: a patch of which a smaller share is non-zero is drawn again
            (:func:`autoseg.sampling.redraw.full_enough`); 0 takes every patch as it comes.
        clones: of the training cases, which the sampler sees as further cases; None for none.
        weights: of the voxels of each kind, for samplers that heed them; None: all voxels of a kind are alike.
    """

    name: str = "foreground_share"
    foreground_share: float = Field(0.33, ge=0, le=1)
    balance: Literal["voxel", "component"] = "voxel"
    nonzero_share: float = Field(0.0, ge=0, le=1)
    clones: Clones | None = None
    weights: WeightMaps | None = None
    arguments: dict[str, Any] = Field(default_factory=dict)


class Augmentation(Strict):
    """Which random changes a patch goes through.

    Attributes:
        name: ``nnunet`` or ``none``.
        backend: ``torch`` works on the training device, ``batchgenerators`` in worker processes,
            ``auto`` takes torch on a GPU and batchgenerators on a CPU with workers.
        mirror_axes: working axes that may be mirrored; take one out where left and right differ.
        arguments: changes to the transforms' probabilities and ranges.
        share: of the samples that are augmented at all, 0 to 1.
        transforms: further ones, which follow those of ``name``, in this order; a trainer may bring its own.
    """

    name: str = "nnunet"
    backend: Literal["auto", "torch", "batchgenerators"] = "auto"
    mirror_axes: tuple[Axis, ...] = Field((0, 1, 2), max_length=3)
    arguments: dict[str, Any] = Field(default_factory=dict)
    share: float = Field(1.0, ge=0, le=1)
    transforms: list[Named] = Field(default_factory=list, max_length=100)


class ModelStart(Strict):
    """Weights of another model, to start from.

    Attributes:
        model: name of a model of the same dataset (``TRAINER__PLAN``), or path of a model folder or an exported zip.
        options: instead of a name what tells the model from this one: options of the planner, such as
            ``[{"experiment": "E1"}]``. It is that of the same dataset whose plan was made by the same planner with
            them; where there is none, ``autoseg_train`` trains it first. Of several entries the one counts whose
            validation Dice was the best at its end, among those that are trained; the last one is trained where none
            is.
        stage: of that model; None for its last one of the same network.
        fold: ``same`` for the fold that is trained (its test and validation cases have then never been seen), or a
            number or ``all``.
        weights: the last ones of that stage, or those of its best validation.
        partial: tensors whose names or shapes differ stay as they are, and are said; else they are refused.
    """

    model: str = ""
    options: list[dict[str, Any]] = Field(default_factory=list, max_length=100)
    stage: Name | None = None
    fold: Annotated[int, Field(ge=0)] | Literal["same", "all"] = "same"
    weights: Literal["final", "best"] = "final"
    partial: bool = False

    @model_validator(mode="after")
    def _names_a_model(self) -> ModelStart:
        if bool(self.model) == bool(self.options) or not all(self.options):
            raise ValueError("a start has the name of a model or options of its planner, one of them")
        return self

    @property
    def words(self) -> str:
        """The model, for messages and tables."""
        told = [", ".join(f"{name}={value}" for name, value in entry.items()) for entry in self.options]
        return self.model or ("the best of " * (len(told) > 1)) + " / ".join(told)


class Stage(Strict):
    """One training run of one network, from first to last epoch.

    Attributes:
        name: unique within the recipe.
        network: key of ``Plan.networks``.
        start: ``scratch``; ``previous`` (the last weights of the stage before with the same network); the name of an
            earlier stage; or another model.
        optimiser_state: ``fresh``, or ``previous``: it goes on with that of the stage that it starts from, which
            trained the same parameters with the same optimiser.
        channels: names of the image channels that the network sees, in this order; empty for all of them. The stages of
            a network share them.
        patch_size: what is predicted, in voxels of the working grid; two numbers for a 2D network, which sees planes of
            the first axis. An empty list trains on whole images, whatever their sizes, one in a batch.
        context: voxels that the network sees around the patch, on each side of each axis, and does not predict; empty
            for none.
        batch_size: in all, over all devices.
        iterations_per_epoch: None means one pass over what is sampled: the training cases, or every lesion pixel.
        gradient_clip: largest norm of the gradient; None for no clipping.
        frozen: patterns (``fnmatch``) of parameter names that do not train.
        snapshots: epochs (counted from 1) after which the weights are kept as members of their own.
        save_every: weights are also written after each so many epochs, for a prediction to choose among by ``keep``;
            they take no part of themselves. None writes none.
        keep: whether the weights of this stage take part in the prediction: the last ones and all snapshots, or none;
            or those after the epochs of a list, each of which must have been written.
        leave_out: ``(k, n)`` trains on all cases of the fold but part k of n, counted from 0: every n-th case by name.
            The stage is validated on that part, and a later stage can learn from what this one predicts for cases that
            it has not seen (cross-fitting).
        leave_out_in: ``all_folds``; or ``two_part_folds``, so that a fold which has a test part trains on all of its
            training cases and is validated on its validation part, which is not scored there.
        patience: ends the stage after so many epochs without a better validation Dice; its last weights are then
            those of the best one. With ``leave_out`` the fold's validation cases have no part in this choice; without
            it their scores are too good. None trains all epochs. Only stages of the network ``main`` are validated.
    """

    name: Name
    network: Name = "main"
    start: str | ModelStart = "scratch"
    optimiser_state: Literal["fresh", "previous"] = "fresh"
    channels: list[str] = Field(default_factory=list)
    patch_size: PatchSize = Field(max_length=3)
    context: list[Margin] = Field(default_factory=list, max_length=3)
    batch_size: int = Field(ge=1, le=65536)
    epochs: int = Field(ge=1, le=1_000_000)
    iterations_per_epoch: int | None = Field(None, ge=1, le=10_000_000)
    loss: Named
    optimiser: Named
    schedule: Named
    gradient_clip: float | None = Field(None, gt=0)
    sampling: Sampling = Field(default_factory=Sampling)
    augmentation: Augmentation = Field(default_factory=Augmentation)
    frozen: list[str] = Field(default_factory=list)
    snapshots: list[int] = Field(default_factory=list, max_length=1000)
    save_every: int | None = Field(None, ge=1, le=1_000_000)
    keep: bool | list[int] = True
    leave_out: tuple[int, int] | None = None
    leave_out_in: Literal["all_folds", "two_part_folds"] = "all_folds"
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
        whole = not self.patch_size or "whole" in self.patch_size
        if whole and self.batch_size != 1:
            raise ValueError(f"whole images come one in a batch, found batch_size {self.batch_size}")
        return self

    @model_validator(mode="after")
    def _context_has_the_axes_of_the_patch(self) -> Stage:
        refuse_other_axes(self.context, self.patch_size)
        return self

    @model_validator(mode="after")
    def _optimiser_has_a_state(self) -> Stage:
        if self.optimiser_state == "previous" and (
            self.start == "scratch" or isinstance(self.start, ModelStart)
        ):
            raise ValueError(
                "optimiser_state 'previous' needs a start from an earlier stage of the same plan"
            )
        return self

    @model_validator(mode="after")
    def _snapshots_within(self) -> Stage:
        if any(not 1 <= epoch <= self.epochs for epoch in self.snapshots):
            raise ValueError(f"snapshots must lie within 1 to {self.epochs} epochs, found {self.snapshots}")
        return self

    @model_validator(mode="after")
    def _kept_weights_are_written(self) -> Stage:
        refuse_repeats(f"keep of stage {self.name!r}", [] if isinstance(self.keep, bool) else self.keep)
        lacking = [epoch for epoch in self.kept_epochs if epoch not in self.written_epochs]
        if lacking:
            raise ValueError(
                f"keep names epochs after which stage {self.name!r} writes no weights: {lacking}; it writes them "
                f"after {listed(self.written_epochs)}"
            )
        return self

    @property
    def written_epochs(self) -> list[int]:
        """Epochs (counted from 1) after which there are weights: snapshots, saved ones and the last."""
        saved = range(self.save_every, self.epochs + 1, self.save_every) if self.save_every else ()
        return sorted({*self.snapshots, *saved, self.epochs})

    @property
    def kept_epochs(self) -> list[int]:
        """Epochs whose weights take part in the prediction; the last one of the stage comes last."""
        if not isinstance(self.keep, bool):
            return sorted(set(self.keep))
        return (
            [*(epoch for epoch in self.snapshots if epoch != self.epochs), self.epochs] if self.keep else []
        )


def refuse_repeats(what: str, numbers: list[int]) -> None:
    """Numbers of which each counts once may not be there twice, as if a second one counted more.

    Raises:
        ValueError: one is.
    """
    repeated = sorted({number for number in numbers if numbers.count(number) > 1})
    if repeated:
        raise ValueError(f"{what} names {', '.join(map(str, repeated))} more than once; each counts once")


def listed(epochs: list[int]) -> str:
    """``epochs 50, 100, 150``, at most the first ten."""
    some = [str(epoch) for epoch in epochs[:10]] + ["..."] * (len(epochs) > 10)
    return f"{'epoch' if len(epochs) == 1 else 'epochs'} {', '.join(some)}" if epochs else "no epoch"


def refuse_other_axes(context: list[int], patch_size: PatchSize) -> None:
    """A context has as many axes as its patch, three for whole images.

    Raises:
        ValueError: it has others.
    """
    if context and len(context) != (len(patch_size) or 3):
        raise ValueError(
            f"context has one number for each axis of the patch, found {context} for {patch_size}"
        )


class Inference(Strict):
    """How a whole case is predicted.

    Attributes:
        patch_size: as of a stage; an empty list predicts the whole image at once, or whole planes of the first axis
            with a 2D network.
        context: as of a stage.
        tiles: ``cover`` lays tiles over the whole image, which overlap; ``centre`` predicts one patch in its middle,
            and what lies outside is background; ``chunks`` cuts the image into parts that lie side by side, the last
            one shorter. A chunk is never larger than the image, so that nothing is padded but what the network asks
            for, and ``step`` and ``gaussian`` have no part in it; ``flush`` is the same, but the last part is moved
            back until it is as large as the others, and counts where it overlaps them.
        halo: of chunks: how far the network sees beyond one, on each side of each axis, as far as the image goes; what
            it says there is dropped. Where it is as wide as what the network sees, all chunks together are equal to one
            pass over the whole image, also at its borders, where the network pads itself. Empty for none.
        step: distance of neighbouring tiles as a share of the patch.
        gaussian: weigh the middle of a tile more than its border.
        mirror_axes: working axes (0, 1, 2 for z, y, x, also for a 2D network) for test-time mirroring, in all
            combinations.
        batch_size: tiles at once.
        members: which of the recipe's repeated runs predict, counted from 0 as in the names of weight files; empty for
            all.
    """

    patch_size: PatchSize = Field(max_length=3)
    context: list[Margin] = Field(default_factory=list, max_length=3)
    tiles: Literal["cover", "centre", "chunks", "flush"] = "cover"
    halo: list[Margin] = Field(default_factory=list, max_length=3)
    step: float = Field(0.5, ge=LEAST_STEP, le=1)
    gaussian: bool = True
    mirror_axes: tuple[Axis, ...] = Field((0, 1, 2), max_length=3)
    batch_size: int = Field(1, ge=1, le=65536)
    members: list[Annotated[int, Field(ge=0)]] = Field(default_factory=list, max_length=1000)

    @model_validator(mode="after")
    def _context_has_the_axes_of_the_patch(self) -> Inference:
        refuse_other_axes(self.context, self.patch_size)
        return self

    @model_validator(mode="after")
    def _patch_has_axes(self) -> Inference:
        if len(self.patch_size) == 1:
            raise ValueError(f"patch_size has two numbers, three, or none, found {self.patch_size}")
        return self

    @model_validator(mode="after")
    def _tiles_have_a_patch(self) -> Inference:
        if self.tiles != "cover" and not self.patch_size:
            raise ValueError(f"tiles '{self.tiles}' needs a patch_size")
        return self

    @model_validator(mode="after")
    def _halo_is_of_chunks(self) -> Inference:
        if self.halo and self.tiles != "chunks":
            raise ValueError(f"a halo is that of tiles 'chunks', found tiles '{self.tiles}'")
        if self.halo and len(self.halo) != len(self.patch_size):
            raise ValueError(
                f"halo has one number for each axis of the patch, found {self.halo} for {self.patch_size}"
            )
        return self


class Validation(Strict):
    """Validation during training: a fixed subset of the fold's validation cases. The scores after it are of all of them
    and always of whole cases.

    Attributes:
        cases: how many of them, spread over the sorted list, or ``all`` of them: what ends a stage or chooses weights
            should not hang on a few.
        every: epochs between validations; the last epoch always has one.
        view: ``whole`` cases; or ``lesion_crop``, one patch of each, centred on its lesion
            (:mod:`autoseg.training.lesion_crop`). That takes less time, needs the truth to know where to look, and
            serves the choice of the best weights alone.
        samples: so many patches around voxels that count are scored after each epoch, drawn from all of the cases that
            the stage is watched by (:mod:`autoseg.training.validation_samples`); for curves only. 0 for none.
        sample_size: what is predicted and scored of each, as a stage's ``patch_size``; empty for that.
    """

    cases: Annotated[int, Field(ge=0)] | Literal["all"] = 4
    every: int = Field(1, ge=1)
    view: Literal["whole", "lesion_crop"] = "whole"
    samples: int = Field(0, ge=0, le=1_000_000)
    sample_size: PatchSize = Field(default_factory=list, max_length=3)


class PostStep(Named):
    """A step of the post-processing.

    Attributes:
        fit: on which cases it learns numbers after the last stage, for a step that can: the fold's ``validation``
            cases, those that were ``held_back`` by the stages' ``leave_out``, or those of its ``train`` part, which the
            networks have learned from. ``none``: its arguments stand in the
            plan.
        apply: whether a prediction runs it. One that is not applied learns all the same, and sees what the applied ones
            before it make; ``--set postprocessing.STEP.apply=true`` then predicts with it.
    """

    fit: Literal["none", "validation", "held_back", "train"] = "none"
    apply: bool = True


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

    stages: list[Stage] = Field(min_length=1, max_length=100)
    members: int = Field(1, ge=1, le=1000)
    fusion: Named = Field(default_factory=lambda: Named(name="mean_logits"))
    postprocessing: list[PostStep] = Field(default_factory=list, max_length=100)
    inference: Inference
    validation: Validation = Field(default_factory=Validation)
    precision: Precision = "auto"
    compile: bool = False

    @field_validator("postprocessing", mode="before")
    @classmethod
    def _plain_names_are_steps(cls, value: Any) -> Any:
        if not isinstance(value, (list, tuple)):
            return value
        return [PostStep(**dict(step)) if type(step) is Named else step for step in value]

    @model_validator(mode="after")
    def _members_exist(self) -> Recipe:
        refuse_repeats("inference.members", self.inference.members)
        lacking = [member for member in self.inference.members if member >= self.members]
        if lacking:
            known = "0" if self.members == 1 else f"0 to {self.members - 1}"
            raise ValueError(f"inference.members names {lacking}, there are members {known}, counted from 0")
        return self

    @property
    def predicting_members(self) -> list[int]:
        """Numbers of the repeated runs that take part in the prediction, each once."""
        return sorted(set(self.inference.members)) or list(range(self.members))

    @model_validator(mode="after")
    def _stages_are_linked(self) -> Recipe:
        seen: dict[str, str] = {}
        for stage in self.stages:
            if stage.name in seen or stage.name in ("scratch", "previous"):
                raise ValueError(
                    f"stage names must be unique and not 'scratch' or 'previous': {stage.name!r}"
                )
            if isinstance(stage.start, ModelStart):
                seen[stage.name] = stage.network
                continue
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

    @model_validator(mode="after")
    def _stages_have_files_of_their_own(self) -> Recipe:
        taken: set[str] = set()
        for stage in self.stages:  # some file systems do not tell small letters from capitals
            name = stage.name.casefold()
            if name in taken or re.sub(r"\.(best|epoch\d+)$", "", name) in taken - {name}:
                raise ValueError(f"the weights of stage {stage.name!r} would have the files of another stage")
            taken.add(name)
        return self

    @model_validator(mode="after")
    def _networks_have_one_input(self) -> Recipe:
        seen: dict[str, Stage] = {}
        for stage in self.stages:
            first = seen.setdefault(stage.network, stage)
            if (first.channels, first.context) != (stage.channels, stage.context):
                raise ValueError(
                    f"stages {first.name!r} and {stage.name!r} train one network with other channels or context"
                )
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


class ProposedFamily(Strict):
    """One row of :class:`Proposals`.

    Attributes:
        family: its name.
        verdict: in words.
        score: 0 to 1, how much of what it was published for is in the data; not how well it will segment them.
        evidence: what speaks for it.
        against: what speaks against it.
        configuration: what it would run, in words.
        published: the length of its training as published, in words.
        fold_seconds: of a fold of that length on the device at hand; None where it was not measured.
        change: what would change its place.
    """

    family: Name
    verdict: str
    score: float
    evidence: list[str] = Field(default_factory=list)
    against: list[str] = Field(default_factory=list)
    configuration: str = ""
    published: str = ""
    fold_seconds: float | None = None
    change: str = ""


class ProposedCorrection(Strict):
    """A change of the images that the data ask for; it is not made unless the user sets it.

    Attributes:
        name: one or two words.
        why: with the numbers.
        words: what to give to ``--set``.
    """

    name: str
    why: str
    words: list[str]


class ForetoldTime(Strict):
    """How long the training of a fold takes, from steps that were measured when it was planned.

    Attributes:
        device: where they were measured.
        step_seconds: of an iteration, by stage; a stage that could not be measured is left out.
        fold_seconds: of a fold by this plan.
        whole: whether all stages are in it.
        peak_gb: memory of a card at the peak of a step; None on others.
        hours: what the training was cut to, by ``--hours``; None for the length of the method.
        published: the length of the method, in words.
    """

    device: str
    step_seconds: dict[str, float]
    fold_seconds: float
    whole: bool = True
    peak_gb: float | None = None
    hours: float | None = None
    published: str = ""


class Proposals(Strict):
    """What was looked at before the plan was made, and what else could be done; nothing that a run depends on.

    Attributes:
        looked_at: facts in words, each with a label.
        families: the ranked table, best first; empty where the user named the planner.
        doubts: why the first row may be wrong; empty where nothing speaks for another.
        corrections: see there.
        time: see there; None where nothing was measured.
    """

    looked_at: list[tuple[str, str]] = Field(default_factory=list)
    families: list[ProposedFamily] = Field(default_factory=list)
    doubts: list[str] = Field(default_factory=list)
    corrections: list[ProposedCorrection] = Field(default_factory=list)
    time: ForetoldTime | None = None


class Plan(Strict):
    """plan.json.

    Attributes:
        planner, planner_options: who decided, with which options.
        trainer: the plug-in that builds networks, losses and the rest.
        dataset: full name of the dataset.
        fingerprint_hash: of the fingerprint that the plan was made from.
        seed: the root of all random numbers of the run.
        channel_names, labels, regions_class_order: as of dataset.json.
        networks: by key; ``arguments`` go to the network's builder as they are.
        reasons: one for each decision.
        overrides: what the user set, path to value.
        alternatives: other configurations that the planner worked out, for reading.
        proposals: what else could be done, for reading; no part of the hash.
    """

    version: Literal[2] = 2
    planner: Name
    planner_options: dict[str, Any] = Field(default_factory=dict)
    trainer: Name
    dataset: Name
    fingerprint_hash: str
    seed: int = Field(12345, ge=0, lt=2**63)
    channel_names: list[str] = Field(min_length=1, max_length=MOST_CHANNELS)
    labels: dict[str, int | list[int]]
    regions_class_order: list[int] | None = None
    preprocessing: Preprocessing
    networks: dict[Name, Named] = Field(min_length=1, max_length=100)
    recipe: Recipe
    reasons: list[Reason] = Field(default_factory=list)
    overrides: dict[str, Any] = Field(default_factory=dict)
    alternatives: dict[str, Any] = Field(default_factory=dict)
    proposals: Proposals | None = None

    @model_validator(mode="before")
    @classmethod
    def _version_1_is_read(cls, content: Any) -> Any:
        if isinstance(content, dict) and content.get("version") == 1:
            return {**content, "version": PLAN_VERSION}
        return content

    @field_validator("labels")
    @classmethod
    def _labels_fit_a_mask(cls, value: dict[str, int | list[int]]) -> dict[str, int | list[int]]:
        label_values(value)
        if not LabelSet.from_labels(value).names:
            raise ValueError("at least one label beside the background is needed")
        return value

    @model_validator(mode="after")
    def _regions_have_an_order(self) -> Plan:
        refuse_bad_order(self.labels, self.regions_class_order)
        return self

    @model_validator(mode="after")
    def _every_channel_is_normalised(self) -> Plan:
        if len(self.preprocessing.normalisation) != len(self.channel_names):
            raise ValueError(
                f"preprocessing.normalisation has one entry for each of {len(self.channel_names)} channels, "
                f"found {len(self.preprocessing.normalisation)}"
            )
        return self

    @model_validator(mode="after")
    def _channels_are_known(self) -> Plan:
        mask = self.preprocessing.mask
        asked = [] if mask is None or mask.channel is None else [("preprocessing.mask", mask.channel)]
        asked += [("preprocessing.may_be_missing", name) for name in self.preprocessing.may_be_missing]
        asked += [(f"stage {stage.name!r}", name) for stage in self.recipe.stages for name in stage.channels]
        for where, name in asked:
            if name not in self.channel_names:
                raise ValueError(f"{where} names channel {name!r}, known: {', '.join(self.channel_names)}")
        return self

    @model_validator(mode="after")
    def _networks_are_known(self) -> Plan:
        for stage in self.recipe.stages:
            if stage.network not in self.networks:
                raise ValueError(
                    f"stage {stage.name!r} trains network {stage.network!r}, known: {list(self.networks)}"
                )
        return self

    @property
    def quick(self) -> bool:
        """Whether it was made for trying out (:class:`autoseg.preparation.quick.Common`)."""
        return self.planner_options.get("length") == "quick"

    @property
    def in_channels(self) -> int:
        """Image channels of a case."""
        return len(self.channel_names)

    def channels_of(self, network: str) -> tuple[int, ...]:
        """Indices of the image channels that a network sees, by its key."""
        names = next((s.channels for s in self.recipe.stages if s.network == network), [])
        return tuple(self.channel_names.index(name) for name in names or self.channel_names)

    @property
    def label_set(self) -> LabelSet:
        """The classes, with what a network puts out for them."""
        return LabelSet.from_labels(self.labels, self.regions_class_order)

    def stage(self, name: str) -> Stage:
        """The stage with this name."""
        return next(stage for stage in self.recipe.stages if stage.name == name)
