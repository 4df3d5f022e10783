"""What a family can bring: one frozen row for each part of a recipe, and what the parts are given and give back.

A row says everything about its part: its name in the plan, how it is built from the plan's plain arguments, and what
others must know of it before it is built. A trainer (:class:`autoseg.plugins.trainer.Trainer`) lists the rows that its
family brings; autoseg's own rows lie beside the code that uses them. :mod:`autoseg.plugins.registry` finds both.

Notation: ``b`` batch, ``c`` image channels, ``k`` outputs of a network, ``z, y, x`` space; ``[*patch]`` is the space of
a patch, with three axes or two.
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Mapping, Sequence
from dataclasses import dataclass, field
from statistics import fmean
from types import MappingProxyType
from typing import Any, Literal, Protocol

import numpy as np
import torch
from torch import nn

from autoseg.plan import Named, Plan, Stage

Divisor = tuple[int, ...]
"""For each axis of a patch what its size must be a multiple of; two numbers mark a 2D network."""


# ------------------------------------------------------------------------------------------------------ networks


def same_channels(image_channels: int, **arguments: Any) -> int:
    """A network that takes the image as it is."""
    return image_channels


@dataclass(frozen=True)
class NetworkInput:
    """What a built network takes.

    Attributes:
        divisor: see :data:`Divisor`.
        channels: indices of the image channels that it sees; None for all, in their order.
    """

    divisor: Divisor = (1, 1, 1)
    channels: tuple[int, ...] | None = None

    def select(self, image: torch.Tensor) -> torch.Tensor:
        """The channels of ``[c, z, y, x]`` that the network sees."""
        if self.channels is None or self.channels == tuple(range(len(image))):
            return image
        return image[list(self.channels)]


@dataclass(frozen=True)
class NetworkPart:
    """A network, ``[b, c, *patch]`` to logits ``[b, k, *patch]``.

    In training mode it may return a list of such outputs, the first of which counts: coarser ones follow (deep
    supervision), or auxiliary ones for a loss of its own::

        NetworkPart("tiny_net", TinyNet, divisor=(1, 2, 2), summary="two convolutions")

    Attributes:
        name: in ``Plan.networks``.
        build: ``(in_channels, out_channels, **arguments)`` to the module, freshly initialised.
        summary: one line: what it is and where it was published.
        divisor: see :data:`Divisor`; or a function of the arguments that gives it.
        context: voxels that it sees, and does not predict, on each side of each axis (valid convolutions): from
            ``[b, c, *(patch + 2 context)]`` it makes ``[b, k, *patch]``; or a function of the arguments.
        classifies: it takes patches of exactly ``divisor`` and says one thing of each, ``[b, k]``. Such a network
            cannot be the one that predicts a mask.
        channels: ``(image channels, **arguments)`` to ``in_channels``, for a network that does not see the image alone.
    """

    name: str
    build: Callable[..., nn.Module]
    summary: str = ""
    divisor: Divisor | Callable[..., Divisor] = (1, 1, 1)
    context: Divisor | Callable[..., Divisor] = (0, 0, 0)
    classifies: bool = False
    channels: Callable[..., int] = same_channels

    def divisor_of(self, arguments: Mapping[str, Any]) -> Divisor:
        """The divisor of the network with these arguments."""
        return self.divisor(**arguments) if callable(self.divisor) else self.divisor

    def context_of(self, arguments: Mapping[str, Any]) -> Divisor:
        """The context of the network with these arguments, as many numbers as the divisor has."""
        context = self.context(**arguments) if callable(self.context) else self.context
        return context[-len(self.divisor_of(arguments)) :]


# ------------------------------------------------------------------------------- losses, optimisers, schedules

Loss = Callable[[Any, torch.Tensor], torch.Tensor]
"""``loss(outputs, target)`` to a scalar: what the network returned, and label values ``[b, *patch]`` (int16)."""

Schedule = Callable[[float], dict[str, float]]
"""Progress in epochs (0 to epochs, fractional within an epoch) to settings of the optimiser: ``lr_factor`` multiplies
the initial learning rate, every other key (such as ``momentum``) replaces the setting of that name."""


@dataclass(frozen=True)
class LossPart:
    """A loss::

        LossPart("weighted_ce", lambda labels, lesion_weight=3.0: WeightedCrossEntropy(labels, lesion_weight))

    Attributes:
        name: in ``Stage.loss``.
        build: ``(labels, **arguments)``, with the dataset's :class:`autoseg.labels.LabelSet`, to a :data:`Loss`.
        summary: one line.
    """

    name: str
    build: Callable[..., Loss]
    summary: str = ""


@dataclass(frozen=True)
class OptimiserPart:
    """An optimiser::

        OptimiserPart("rmsprop", lambda parameters, lr: torch.optim.RMSprop(parameters, lr))

    Attributes:
        name: in ``Stage.optimiser``.
        build: ``(parameters, **arguments)`` to the optimiser.
        summary: one line.
    """

    name: str
    build: Callable[..., torch.optim.Optimizer]
    summary: str = ""


@dataclass(frozen=True)
class SchedulePart:
    """A schedule::

        SchedulePart("halving", lambda epochs, every=10: lambda progress: {"lr_factor": 0.5 ** (progress // every)})

    Attributes:
        name: in ``Stage.schedule``.
        build: ``(epochs, **arguments)`` to a :data:`Schedule`.
        summary: one line.
        in_epochs: names of the arguments that count epochs; a training that is cut shorter shortens them alike.
    """

    name: str
    build: Callable[..., Schedule]
    summary: str = ""
    in_epochs: tuple[str, ...] = ()


# ------------------------------------------------------------------------------------------- where batches come from


class StoredImage(Protocol):
    """One preprocessed case, on disk or in memory: arrays that can be sliced.

    Attributes:
        image: float32 ``[c, z, y, x]``.
        label: integers ``[z, y, x]``.
        foreground: int32 ``[n, 5]``: z, y, x, label value, component.
    """

    @property
    def image(self) -> Any:
        """See the class."""

    @property
    def label(self) -> Any:
        """See the class."""

    @property
    def foreground(self) -> np.ndarray:
        """See the class."""


class CaseStore(Protocol):
    """What is asked of the preprocessed store."""

    def read(self, name: str) -> StoredImage:
        """One case."""


@dataclass(frozen=True)
class Batch:
    """What one iteration trains on.

    Attributes:
        images: float32 ``[b, c, *patch]`` on the device.
        target: int16 ``[b, *patch]`` on the device: label values, never negative; the ignore label is kept. Of a
            network that classifies one value for each entry, ``[b]``.
        cases: the case of each entry.
        wait_seconds: from asking for the batch to having it.
        samples: how each entry was made, from a source that keeps such a record.
    """

    images: torch.Tensor
    target: torch.Tensor
    cases: tuple[str, ...]
    wait_seconds: float
    samples: tuple[Any, ...] = ()


class Source(Protocol):
    """Where the batches of a stage come from; :class:`autoseg.sampling.loader.BatchSource` unless a trainer brings
    one."""

    @property
    def iterations(self) -> int:
        """Batches in an epoch."""

    @property
    def facts(self) -> Mapping[str, int]:
        """Kept with the weights of the stage and given back when these are used."""

    @property
    def nothing_to_learn(self) -> str:
        """Why there is nothing to train on, in words; the stage then keeps the weights it starts from, and the training
        goes on. Empty otherwise."""

    def batches(self, epoch: int, start_iteration: int = 0) -> Generator[Batch, None, None]:
        """The batches of an epoch from ``start_iteration`` on: the same ones whenever they are asked for."""

    def close(self) -> None:
        """End threads and processes."""


class RunContext(Protocol):
    """One stage of one member of one fold: what a part may know of the run that it serves."""

    @property
    def plan(self) -> Plan:
        """The plan that the run follows."""

    @property
    def stage(self) -> Stage:
        """The stage that is trained."""

    @property
    def cases(self) -> tuple[str, ...]:
        """Names of the stage's training cases."""

    @property
    def store(self) -> CaseStore:
        """The preprocessed cases."""

    @property
    def seed_key(self) -> tuple[int, ...]:
        """The root of the stage's random numbers."""

    @property
    def device(self) -> torch.device:
        """Where the network is trained."""

    @property
    def workers(self) -> int:
        """Processes or threads that may prepare batches."""

    @property
    def rank(self) -> int:
        """Of this process among those that share a batch."""

    @property
    def world_size(self) -> int:
        """How many processes share a batch."""

    def network_of(self, stage: str) -> Any:
        """The network that an earlier stage of the same member has trained, ready to predict on the device
        (:class:`autoseg.bundle.networks.ReadyNetwork`)."""

    def check_stop(self) -> None:
        """Raises Interrupted when the user wants to stop; to be called now and then in work that takes long."""


def accept(plan: Plan, stage: Stage) -> None:
    """Nothing to refuse."""


@dataclass(frozen=True)
class SourcePart:
    """Batches that are not patches of the cases::

        SourcePart("candidates", CandidateSource, check=CandidateSource.check)

    Attributes:
        name: in ``Stage.sampling.name``.
        open: makes the :class:`Source` of a stage from its :class:`RunContext`.
        check: ``(plan, stage)``; refuses before the training what cannot work.
        summary: one line.
    """

    name: str
    open: Callable[[RunContext], Source]
    check: Callable[[Plan, Stage], None] = accept
    summary: str = ""


# ------------------------------------------------------------------------------------------- where patches come from

Voxel = tuple[int, int, int]
"""z, y, x: a voxel of a case, counted from 0, or a size."""

Outside = Literal["zero", "minimum"]
"""What an image shows beyond its border: 0, or its least value, channel by channel."""


@dataclass(frozen=True)
class Place:
    """Where one patch is cut.

    Attributes:
        case: its name.
        forced: whether it had to show foreground.
        voxel: the foreground voxel for which it was cut; None for a random place, also when a case without foreground
            was drawn for a forced sample.
        start: first voxel of the unturned patch; may lie outside the image.
        size: of the patch, which is what is predicted; 1 along z for a 2D network.
    """

    case: str
    forced: bool
    voxel: Voxel | None
    start: Voxel
    size: Voxel


class TrainingCases(Protocol):
    """The cases of a stage, as a sampler sees them."""

    @property
    def names(self) -> tuple[str, ...]:
        """Of the training cases and, after them, of their clones."""

    @property
    def stage(self) -> Stage:
        """Patch size, batch size, iterations, ``sampling``."""

    @property
    def seed_key(self) -> tuple[int, ...]:
        """The root of the stage's random numbers."""

    def original(self, name: str) -> str:
        """The case that a clone was made of, whose label, mask and maps are the clone's too; any other as it is."""

    def size(self, name: str) -> Voxel:
        """Size of a case."""

    def patch_size(self, name: str) -> Voxel:
        """Size of a patch of this case: one plane for a 2D network, the size of the case where the plan says so."""

    def draw_foreground(
        self, name: str, rng: np.random.Generator, *, by_component: bool = False
    ) -> Voxel | None:
        """A voxel of a class that the case has, each class, and of it each voxel or each component, as likely as the
        others; None where it has none. Drawn from the store's list, which is cut short for large lesions."""

    def foreground_voxels(self, name: str) -> np.ndarray:
        """All voxels of any class, int32 ``[n, 3]``."""

    def nonzero_share(self, place: Place) -> float:
        """Share of a place's voxels, as far as an image of this size can fill it, of which any channel is not 0."""

    def voxel_weights(self, name: str) -> np.ndarray | None:
        """How likely each voxel is to be in the middle of a patch among those of its kind, ``[z, y, x]``, by
        ``sampling.weights``; None: all alike."""

    def arrays(self, name: str) -> tuple[Any, Any]:
        """Image ``[c, z, y, x]`` and label ``[z, y, x]``, which can be sliced and must not be changed. The label is -1
        where nothing counts: outside the plan's mask, and outside the non-zero voxels where a channel is normalised
        in them."""


class Sampler(Protocol):
    """The places of one stage. Each follows from the run's key, the epoch and the index alone."""

    @property
    def pass_length(self) -> int:
        """How many samples show everything once: the length of an epoch whose iterations the plan leaves open."""

    def place(self, epoch: int, index: int, matrix: np.ndarray | None) -> Place:
        """The place of sample ``index`` of an epoch.

        Args:
            epoch, index: counted from 0; ``index`` over the epoch and over all devices.
            matrix: ``[3, 3]``, how the patch will be turned and scaled, from directions in the patch to directions in
                the image; None when it is not.
        """


def any_values(**arguments: Any) -> None:
    """Nothing to refuse."""


@dataclass(frozen=True)
class PassFacts:
    """What is known of the training cases of a stage before they are preprocessed, for an estimate.

    Attributes:
        cases: how many.
        lesion_voxels: of all of them, on the working grid.
        parts: of the depth of a case that a patch covers, rounded up.
    """

    cases: int
    lesion_voxels: float
    parts: int


def one_of_each(facts: PassFacts, **arguments: Any) -> float:
    """A pass shows each case once."""
    return facts.cases


@dataclass(frozen=True)
class SamplerPart:
    """A rule that says where patches are cut::

        SamplerPart("lesion_pixels", LesionPixels, needs_lesions=True, outside="minimum")

    Attributes:
        name: in ``Stage.sampling.name``.
        build: ``(cases, **arguments)``, with the :class:`TrainingCases` of a stage, to its :class:`Sampler`.
        needs_lesions: cases without any lesion leave nothing to show.
        outside: what lies beyond an image, unless ``sampling.arguments.outside`` says otherwise, which the builder
            does not get.
        check: ``(**arguments)``; refuses before the training values that cannot work. Names are checked without it.
        summary: one line.
        redraws: it heeds ``sampling.nonzero_share``, by :func:`autoseg.sampling.redraw.full_enough`.
        weighs: it heeds ``sampling.weights``, by :mod:`autoseg.sampling.voxel_weights`.
        foretold: ``(facts, **arguments)``, with :class:`PassFacts`, to about how many patches a pass has.
    """

    name: str
    build: Callable[..., Sampler]
    needs_lesions: bool = False
    outside: Outside = "zero"
    check: Callable[..., None] = any_values
    summary: str = ""
    redraws: bool = False
    weighs: bool = False
    foretold: Callable[..., float] = one_of_each


@dataclass(frozen=True)
class PatchShape:
    """What a transform is drawn for.

    Attributes:
        channels: of the image.
        size: of what the network sees, patch and context, in two or three numbers. Transforms that move voxels are
            drawn before the case is: for them an axis that takes the whole image has the size of the first case.
        raw_zero: for each channel what the 0 of its files has become by the normalisation, where that is one number for
            all cases (:func:`autoseg.preprocessing.fixed.raw_zeros`), else 0. Empty: 0 for all.
    """

    channels: int
    size: tuple[int, ...]
    raw_zero: tuple[float, ...] = ()


Numbers = Mapping[str, Any]
"""What a transform drew for one sample: plain data that JSON can hold."""


@dataclass(frozen=True)
class TransformPart:
    """A random change of a patch, either of where its voxels come from or of the patch that was cut::

        TransformPart("flip", draw_flip, affine=flipped)
        TransformPart("slice_factor", draw_factors, apply=scale_slices)

    Attributes:
        name: in ``Stage.augmentation.transforms``.
        draw: ``(rng, shape, **arguments)``, with a generator of the sample's own and a :class:`PatchShape`, to
            :data:`Numbers`, or to None for a sample that stays as it is. Nothing else is random.
        affine: ``(numbers, axes)`` to a matrix ``[axes, axes]``, for a patch with two axes (y, x) or three: from a
            direction in the patch to the direction in the image that it shows, about the middle of the patch. All
            such transforms of a sample, and those of the shipped list, are one interpolation; turns by quarters and
            flips are none.
        apply: ``(image, label, numbers)`` to both: tensors float32 ``[c, *size]`` and integer ``[*size]`` (-1 outside),
            on any device, which may be overwritten. The sizes stay. Runs in the process that trains.
        check: ``(**arguments)``; refuses before the training values that cannot work. Names are checked without it.
        summary: one line.
    """

    name: str
    draw: Callable[..., Numbers | None]
    affine: Callable[[Numbers, int], np.ndarray] | None = None
    apply: Callable[[torch.Tensor, torch.Tensor, Numbers], tuple[torch.Tensor, torch.Tensor]] | None = None
    check: Callable[..., None] = any_values
    summary: str = ""

    def __post_init__(self) -> None:
        if (self.affine is None) == (self.apply is None):
            raise ValueError(f"transform {self.name!r} needs affine or apply, one of them")


# ---------------------------------------------------------------------------------------- from logits to the mask


@dataclass(frozen=True)
class Restore:
    """The way of one case from its working grid to its original grid.

    Attributes:
        mask: logits ``[k, z, y, x]`` to a mask ``[z, y, x]`` uint8.
        probabilities: logits to probabilities ``[k, z, y, x]`` float32.
    """

    mask: Callable[[np.ndarray], np.ndarray]
    probabilities: Callable[[np.ndarray], np.ndarray]


@dataclass(frozen=True)
class Fused:
    """A prediction on the original grid: mask ``[z, y, x]`` uint8, and ``[k, z, y, x]`` when asked for."""

    mask: np.ndarray
    probabilities: np.ndarray | None = None


class Fusion(Protocol):
    """What makes one prediction of the logits of several members; it keeps only what it needs of each."""

    def add(self, logits: torch.Tensor) -> None:
        """Take in one member's logits ``[k, z, y, x]`` (float32, CPU, working grid), which may be changed."""

    def result(self, *, probabilities: bool = False) -> Fused:
        """The prediction of all members that were added."""


@dataclass(frozen=True)
class FusionPart:
    """A fusion::

        FusionPart("median", MedianFusion)

    Attributes:
        name: in ``Recipe.fusion``.
        build: ``(labels, restore, **arguments)``, with a :class:`autoseg.labels.LabelSet` and a :class:`Restore`, to
            the :class:`Fusion` of one case.
        summary: one line.
    """

    name: str
    build: Callable[..., Fusion]
    summary: str = ""


@dataclass(frozen=True)
class Segmentation:
    """A predicted case on its original grid.

    Attributes:
        mask: ``[z, y, x]`` uint8 label values.
        spacing_mm: z, y, x.
        probabilities: ``[k, z, y, x]`` float32, when a step asks for them or the user saves them.
        image: ``[c, z, y, x]`` raw intensities, when a step asks for them.
        inside: bool ``[z, y, x]``, what counts by the plan's mask; None for all. After each step what lies outside is
            background again.
    """

    mask: np.ndarray
    spacing_mm: tuple[float, float, float]
    probabilities: np.ndarray | None = None
    image: np.ndarray | None = None
    inside: np.ndarray | None = None


@dataclass(frozen=True)
class FitCase:
    """A case with its truth, for a step that learns.

    Attributes:
        name: of the case.
        case: predicted, after the steps before, with what the step ``needs``.
        truth: label values ``[z, y, x]`` on the original grid.
    """

    name: str
    case: Segmentation
    truth: np.ndarray


@dataclass(frozen=True)
class Companion:
    """A network that looks at what the predicting network of the same member found.

    Attributes:
        network: in evaluation mode, on its device.
        arguments: of the network in the plan.
        facts: of its training, see :class:`Source`.
    """

    network: nn.Module
    arguments: Mapping[str, Any]
    facts: Mapping[str, int]


@dataclass(frozen=True)
class StepPart:
    """A step of the post-processing, on the fused mask or on each member's logits. It must not change its input::

        StepPart("drop_first_slice", drop_first_slice)
        StepPart("muscle", judge_candidates, on="logits", networks=("muscle",))

    Attributes:
        name: in ``Recipe.postprocessing``.
        run: on the mask ``(case, **arguments)``, a :class:`Segmentation` to another; on the logits
            ``(logits, image, companions, **arguments)`` to logits: ``[k, z, y, x]`` of one member and the image
            ``[c, z, y, x]``, float32 on the CPU and on the working grid, and the :class:`Companion` of each key.
        on: which; steps on the logits come first.
        needs: what it asks for of a :class:`Segmentation`: ``image``, ``probabilities``.
        networks: keys of ``Plan.networks`` that it cannot do without; a stage of each must be kept.
        fit: ``(cases, labels, **arguments)`` to numbers that it learns from cases (:class:`FitCase`, to be gone through
            as often as it likes) and then gets as arguments beside those of the plan; None for a step that learns
            nothing. Steps on the mask only.
        combine: the numbers of several folds to one, for a prediction that fuses them.
        summary: one line.
    """

    name: str
    run: Callable[..., Any]
    on: Literal["mask", "logits"] = "mask"
    needs: tuple[str, ...] = ()
    networks: tuple[str, ...] = ()
    fit: Callable[..., Mapping[str, float]] | None = None
    combine: Callable[[Sequence[float]], float] = fmean
    summary: str = ""


# ----------------------------------------------------------------------------------------- weights from elsewhere


@dataclass(frozen=True)
class ImportedWeights:
    """Weights from elsewhere, recognised.

    Attributes:
        network: as the plan will name it.
        tensors: by the names of that network.
        facts: what the file says of itself, for the model card.
    """

    network: Named
    tensors: Mapping[str, torch.Tensor]
    facts: Mapping[str, int | str] = field(default_factory=lambda: MappingProxyType({}))


@dataclass(frozen=True)
class WeightsImport:
    """How a family takes weights that others trained.

    Attributes:
        recognise: ``(state dict, file name)`` to the weights; an AutosegError says why they are none of the family's.
        plan: ``(network, number of members)`` to the plan around them, from raw image to mask.
    """

    recognise: Callable[[Mapping[str, torch.Tensor], str], ImportedWeights]
    plan: Callable[[Named, int], Plan]
