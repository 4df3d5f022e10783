"""One case through a trained model: preprocess, every member's network, fusion, the way back, post-processing.

Notation: ``c`` channels, ``k`` outputs; ``z, y, x`` the original grid unless "working grid" is said.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch

from autoseg import messages, plugins, postprocessing
from autoseg.bundle import weights
from autoseg.bundle.fitted import with_learned
from autoseg.bundle.layout import FINGERPRINT, NORMALISATION, PREDICTING_NETWORK, WeightsKind
from autoseg.bundle.networks import build_network, load, make_ready, refuse_classifier
from autoseg.bundle.opening import Model, open_model, overridden
from autoseg.dataset import physical_sense
from autoseg.dataset.channel_order import SeenChannels
from autoseg.dataset.imageio import Geometry
from autoseg.dataset.integrity import intensity_faults
from autoseg.dataset.physical_sense import SeenSizes
from autoseg.dataset.raw_layout import Case
from autoseg.device import accelerates, choose_device, keep_on_card
from autoseg.errors import AutosegError
from autoseg.files import read_model
from autoseg.fingerprint import Fingerprint
from autoseg.inference import fusion
from autoseg.inference.tiling import mirrorings, predict_logits
from autoseg.orientation import Turn, is_orientation
from autoseg.plan import PostStep, is_hash_of
from autoseg.plan.schema import LEAST_STEP
from autoseg.plugins.parts import Companion, Fusion, Restore, Segmentation
from autoseg.plugins.trainer import Trainer
from autoseg.preprocessing import unexpected
from autoseg.preprocessing.case import Preprocessed, preprocess_case, refuse_beyond_memory
from autoseg.preprocessing.fixed import FixedConstants
from autoseg.preprocessing.fixed import apply as apply_constants
from autoseg.preprocessing.mask import mask_beside_images
from autoseg.preprocessing.normalise import fixed_channels
from autoseg.preprocessing.raw_case import RawCase, read_raw_case
from autoseg.preprocessing.restore import logits_to_mask, logits_to_probabilities


@dataclass(frozen=True)
class PredictionOptions:
    """How a model is used, as far as it changes the result.

    Attributes:
        folds, checkpoint: which weights.
        mirror: average over mirrored copies of each tile.
        step: distance of neighbouring tiles as a share of the tile.
    """

    folds: tuple[str, ...]
    checkpoint: WeightsKind
    mirror: bool
    step: float


class Predictor:
    """A trained model, ready to predict; everything that can be wrong with its files is found when it is made.

    Args:
        model: the model folder, or what :func:`autoseg.bundle.opening.open_model` returned for it.
        folds: numbers or ``all``; None takes every finished fold.
        checkpoint: ``final`` or ``best``.
        device: None takes CUDA where there is one, else the CPU.
        mirror: None mirrors except on a CPU, where it would take up to eight times as long.
        step: None takes the plan's.
        overrides: changes to how the plan predicts, see :func:`autoseg.bundle.opening.overridden`; they come on top of
            those that the model was opened with.

    Raises:
        AutosegError: the model is incomplete, damaged or of another version; its trainer is not installed.
    """

    def __init__(
        self,
        model: Path | Model,
        *,
        folds: Sequence[int | str] | None = None,
        checkpoint: WeightsKind = "final",
        device: torch.device | str | None = None,
        mirror: bool | None = None,
        step: float | None = None,
        overrides: Mapping[str, Any] | None = None,
    ) -> None:
        if not isinstance(model, Model):
            model = open_model(Path(model), folds, checkpoint, overrides)
        self.model, self._overrides = model, {**model.overrides, **(overrides or {})}
        self.device = device if isinstance(device, torch.device) else choose_device(device)
        self.plan = overridden(model.plan, self._overrides)
        self.labels = self.plan.label_set
        recipe = self.plan.recipe
        self.trainer: Trainer = plugins.load(plugins.TRAINERS, self.plan.trainer)
        self._inference = recipe.inference if step is None else _with_step(recipe.inference, step)
        mirror = accelerates(self.device) if mirror is None else mirror
        self.options = PredictionOptions(
            folds=self.model.folds,
            checkpoint=self.model.checkpoint,
            mirror=mirror and bool(recipe.inference.mirror_axes),
            step=self._inference.step,
        )
        self._refuse_other_channels()
        postprocessing.check(recipe, self.trainer)
        rows = postprocessing.rows(recipe.postprocessing, self.trainer)
        self._on_logits = [(step, row) for step, row in rows if row.on == "logits" and step.apply]
        self._on_mask = [(step, row) for step, row in rows if row.on == "mask" and step.apply]
        self._learning = [row for step, row in rows if step.fit != "none"]
        self.steps = with_learned(self._on_mask, model.fitted)
        fingerprint = self._read_fingerprint()
        self._seen = self._seen_sizes(fingerprint)
        cases = fingerprint.cases if fingerprint else []
        self._seen_channels = SeenChannels.of_cases(cases, self.plan.channel_names)
        self._constants = self._read_constants()
        self._load_members()

    @property
    def n_members(self) -> int:
        """How many networks take part."""
        return len(self._members)

    @property
    def n_mirrored(self) -> int:
        """How many passes of each tile mirroring takes when it is on."""
        return len(mirrorings(self._inference.mirror_axes, planes=len(self._inference.patch_size) == 2))

    @property
    def identity(self) -> dict[str, Any]:
        """What determines the result beside the image: the model and the options."""
        options = {key: list(v) if isinstance(v, tuple) else v for key, v in vars(self.options).items()}
        changed = {"overrides": self._overrides} if self._overrides else {}
        return {"model": self.model.hash, **options, **changed}

    def needs(self, what: str) -> bool:
        """Whether a step on the mask that is applied, or one that learns, asks for ``image`` or ``probabilities``."""
        return any(what in row.needs for row in (*self._learning, *(row for _, row in self._on_mask)))

    # ------------------------------------------------------------------------------------- the parts, in order

    def read(self, case: Case) -> RawCase:
        """A case from its files, turned into the plan's orientation.

        Raises:
            AutosegError: a file is missing, damaged or does not fit the others.
        """
        plan = self.plan.preprocessing
        return read_raw_case(case.name, case.images, plan, mask=self.mask_path(case))

    def mask_path(self, case: Case) -> Path | None:
        """The file of the plan's mask for a case; None where the plan has none or takes it from a channel.

        Raises:
            AutosegError: there is no such file.
        """
        role = self.plan.preprocessing.mask
        return mask_beside_images(case, role) if role is not None else None

    def preprocess(
        self, name: str, image: np.ndarray, geometry: Geometry, mask: np.ndarray | None = None
    ) -> Preprocessed:
        """From raw arrays ``[c, z, y, x]`` in the plan's orientation, as :meth:`read` gives them, to the working grid.

        Args:
            name: of the case.
            image: raw intensities.
            geometry: of the image.
            mask: ``[z, y, x]``, for a plan whose mask comes from a folder.

        Raises:
            AutosegError: another number of channels, NaN or Inf, a constant channel; a mask that is missing.
        """
        expected = self.plan.channel_names
        if image.ndim != 4 or image.shape[0] != len(expected):
            raise AutosegError(
                "the image does not have the model's channels",
                where=name,
                found=f"an array of shape {tuple(image.shape)}",
                expected=f"[c, z, y, x] with c = {len(expected)}: {', '.join(expected)}",
                fix="give the model the channels that it was trained with, in this order",
            )
        for channel, values in zip(expected, image, strict=True):
            if channel in self.plan.preprocessing.may_be_missing and not values.any():
                continue
            for fault in intensity_faults(f"channel {channel}", values):
                raise AutosegError(
                    f"{fault.where}: {fault.problem}",
                    where=name,
                    found=fault.found,
                    expected=fault.expected,
                    fix=fault.fix,
                )
        self._check_sizes(name, geometry)
        if swapped := self._seen_channels.swapped(image):
            messages.note_first(
                "channels may be in another order than in the training; check the numbers of the files",
                f"{name} ({swapped})",
            )
        made = preprocess_case(
            name, image, geometry, self.plan.preprocessing, channel_names=expected, mask=mask
        )
        if made.unexpected:
            unexpected.note(name, made.unexpected, self.plan.preprocessing.normalisation, expected)
        # beside the image: the logits of one member, and what the fusion keeps of the others
        refuse_beyond_memory(name, made.properties.working_shape, len(image) + 2 * self.labels.n_outputs)
        return made

    def _check_sizes(self, name: str, geometry: Geometry) -> None:
        """Refuse a voxel size that cannot be, and warn of a scan of another size than the model was made for."""
        fault = physical_sense.voxel_fault(name, geometry.spacing_mm, geometry.shape)
        if fault is not None:
            raise AutosegError(**vars(fault))
        if unlike := self._seen.unlike(geometry.extent_mm, geometry.spacing_mm):
            messages.note_first(
                "another size than the model was trained on; check the spacing in the header (a factor of ten, "
                "another unit), or that these are scans of its kind",
                f"{name} has {unlike}",
            )

    def logits(
        self, case: Preprocessed, progress: Callable[[float], None] | None = None
    ) -> Iterator[torch.Tensor]:
        """Each member's logits ``[k, z, y, x]`` on the working grid, float32 on the CPU.

        Args:
            case: preprocessed.
            progress: told the share of the case that is done, 0 to 1.

        Raises:
            AutosegError: a network answers with NaN or Inf.
        """
        images: dict[str, torch.Tensor] = {}
        for index, member in enumerate(self.model.members):
            if member.fold not in images:
                images = {member.fold: self._normalised(case, member.fold)}
            image = images[member.fold]
            self._use(index)
            logits = predict_logits(
                self._network.module,
                image,
                self._inference,
                self.labels.n_outputs,
                self.device,
                self.options.mirror,
                takes=self._network.takes,
                regions=self.labels.has_regions,
                progress=partial(_tell, progress, index, self.n_members) if progress else None,
                precision=self.plan.recipe.precision,
            )
            _refuse_not_finite(logits, member.main)
            yield self._refined(index, logits, image)

    def _normalised(self, case: Preprocessed, fold: str) -> torch.Tensor:
        """The image ``[c, z, y, x]`` as the members of a fold were trained to see it."""
        constants = self._constants.get(fold)
        image = np.ascontiguousarray(case.image)
        if constants is not None:
            image = image.copy()
            apply_constants(image, constants)
        return torch.from_numpy(image)

    def _refined(self, index: int, logits: torch.Tensor, image: torch.Tensor) -> torch.Tensor:
        """A member's logits after the steps that look at them."""
        for step, row in self._on_logits:
            logits = row.run(logits, image, self._companions[index], **step.arguments)
        return logits

    def fusion(self, case: Preprocessed) -> Fusion:
        """The plan's fusion for one case."""
        way = (case.properties, self.plan.preprocessing, self.labels)
        restore = Restore(
            mask=lambda logits: logits_to_mask(logits, *way, inside=case.inside),
            probabilities=lambda logits: logits_to_probabilities(logits, *way, inside=case.inside),
        )
        return fusion.build(self.plan.recipe.fusion, self.labels, restore, self.trainer)

    def finish(
        self,
        fused: Fusion,
        spacing_mm: tuple[float, float, float],
        *,
        image: np.ndarray | None = None,
        probabilities: bool = False,
        steps: Sequence[PostStep] | None = None,
        inside: np.ndarray | None = None,
    ) -> Segmentation:
        """The fused members on the original grid, after post-processing.

        Args:
            fused: fed with all members.
            spacing_mm: of the original grid, z, y, x.
            image: raw ``[c, z, y, x]``, for steps that ask for it.
            probabilities: keep them in the result.
            steps: on the mask; None takes the plan's, with what they have learned.
            inside: what counts of the case, see :class:`autoseg.preprocessing.case.Preprocessed`.
        """
        result = fused.result(probabilities=probabilities or self.needs("probabilities"))
        case = Segmentation(result.mask, spacing_mm, result.probabilities, image, inside)
        return postprocessing.apply(case, self.steps if steps is None else steps, self.trainer)

    def predict(
        self,
        name: str,
        image: np.ndarray,
        geometry: Geometry,
        *,
        mask: np.ndarray | None = None,
        probabilities: bool = False,
        steps: Sequence[PostStep] | None = None,
    ) -> Segmentation:
        """All parts for one case, from raw ``[c, z, y, x]`` in the plan's orientation to the mask on the same grid; see
        :meth:`preprocess` and :meth:`finish`."""
        case = self.preprocess(name, image, geometry, mask)
        fused = self.fusion(case)
        for logits in self.logits(case):
            fused.add(logits)
        raw = image if self.needs("image") else None
        messages.tell_notes()
        return self.finish(
            fused,
            geometry.spacing_mm,
            image=raw,
            probabilities=probabilities,
            steps=steps,
            inside=case.inside,
        )

    # ------------------------------------------------------------------------------------------------ loading

    def _refuse_other_channels(self) -> None:
        ours, theirs = self.plan.channel_names, list(self.model.info.channel_names.values())
        if ours != theirs:
            raise AutosegError(
                "plan.json and dataset.json of the model do not belong together",
                where=str(self.model.folder),
                found=f"channels {', '.join(theirs)} in dataset.json",
                expected=f"channels {', '.join(ours)} as in plan.json",
                fix="import or train the model again",
            )

    def _read_fingerprint(self) -> Fingerprint | None:
        """That of the training cases; None where it was not handed on or cannot be read."""
        path = self.model.folder / FINGERPRINT
        try:
            return read_model(path, Fingerprint) if path.is_file() else None
        except AutosegError as error:  # it feeds warnings alone
            messages.warn(f"scans are not held against the training cases, by {path}: {error.fault.problem}")
            return None

    def _seen_sizes(self, fingerprint: Fingerprint | None) -> SeenSizes:
        """The sizes of the training cases; those of the working grid where nothing is known of them."""
        if fingerprint is not None:
            return SeenSizes.of_cases(fingerprint.cases)
        known = [mm for mm in self.plan.preprocessing.spacing_mm if mm is not None]
        if len(known) < 3:
            return SeenSizes()
        usual = physical_sense.middle(known)
        return SeenSizes(spacing_mm=(usual, usual))

    def _read_constants(self) -> dict[str, FixedConstants]:
        """Of each fold, where the plan normalises by numbers of the dataset."""
        if not fixed_channels(self.plan.preprocessing):
            return {}
        paths = {fold: self.model.folder / f"fold_{fold}" / NORMALISATION for fold in self.model.folds}
        return {
            fold: read_model(path, FixedConstants, made_by="autoseg_train") for fold, path in paths.items()
        }

    def _load_members(self) -> None:
        """Read all weights and try each in the network, before any work is done."""
        refuse_classifier(self.plan, PREDICTING_NETWORK, self.trainer)
        self._network = build_network(self.plan, PREDICTING_NETWORK, self.trainer)
        members: list[dict[str, torch.Tensor]] = []
        for member in self.model.members:
            file = self._read(member.main, PREDICTING_NETWORK)
            load(self._network, file, where=str(member.main))
            members.append(file.tensors)
        self._companions = self._load_companions()
        make_ready(self._network, self.device, self.plan)
        # each case asks all of them: where there is one, it has its weights already
        self._members = keep_on_card(members, self.device) if len(members) > 1 else members
        self._loaded = len(members) - 1

    def _read(self, path: Path, network: str) -> weights.WeightFile:
        """A weight file of a network; one that another plan trained is said."""
        file = weights.read(path, network)
        if file.info.plan_hash != self.model.plan_hash and not is_hash_of(
            file.info.plan_hash, self.model.plan
        ):
            messages.warn(
                f"{path.name} was trained by plan {file.info.plan_hash[:12]}, plan.json is "
                f"{self.model.plan_hash[:12]}: "
                "it was changed after the training"
            )
        return file

    def _load_companions(self) -> list[dict[str, Companion]]:
        """For each member the networks that refine what it predicts, if a step asks for any; each file once."""
        members = self.model.members if self._on_logits else ()
        files = {path: key for member in members for key, path in member.companions.items()}
        loaded = {path: self._companion(key, path) for path, key in files.items()}
        return [{key: loaded[path] for key, path in member.companions.items()} for member in members]

    def _companion(self, key: str, path: Path) -> Companion:
        file = self._read(path, key)
        network = load(build_network(self.plan, key, self.trainer), file, where=str(path))
        return Companion(network.module.to(self.device).eval(), network.arguments, file.info.facts)

    def _use(self, index: int) -> None:
        """Put a member's weights into the network unless they are there."""
        if self._loaded != index:
            where = str(self.model.members[index].main)
            weights.load_network(self._network.module, self._members[index], where=where)
            self._loaded = index


def _refuse_not_finite(logits: torch.Tensor, path: Path) -> None:
    """A mask must not be made of what is no number: it would be background in silence."""
    n = logits.numel() - int(torch.isfinite(logits).sum())
    if n:
        raise AutosegError(
            "the network answers with NaN or Inf",
            where="/".join(path.parts[-3:]),
            found=f"{n} of {logits.numel()} numbers",
            expected="finite numbers",
            fix="look at the intensities of this image; on a GPU, try --set precision=float32",
        )


def _tell(progress: Callable[[float], None], member: int, n_members: int, done: int, total: int) -> None:
    progress((member + done / total) / n_members)


def _with_step(inference: Any, step: float) -> Any:
    if not LEAST_STEP <= step <= 1:
        raise AutosegError(
            "the step size does not fit",
            found=step,
            expected=f"a share of the tile from {LEAST_STEP} to 1",
            fix="leave it out, or give a number such as 0.5",
        )
    return inference.model_copy(update={"step": step})


def predict(
    bundle: Path | str | Predictor,
    image: np.ndarray,
    spacing_mm: Sequence[float],
    *,
    folds: Sequence[int | str] | None = None,
    checkpoint: WeightsKind = "final",
    device: str | None = None,
    mirror: bool | None = None,
    step: float | None = None,
    overrides: Mapping[str, Any] | None = None,
    mask: np.ndarray | None = None,
    orientation: str | None = None,
    return_probabilities: bool = False,
) -> np.ndarray | tuple[np.ndarray, np.ndarray]:
    """Segment one case that lies in memory.

    Args:
        bundle: a model folder, an exported zip, or a :class:`Predictor`, which saves loading it each time (the
            options below are its own then).
        image: ``[c, z, y, x]`` raw intensities with the model's channels, or ``[z, y, x]`` for one channel.
        spacing_mm: z, y, x.
        folds, checkpoint, device, mirror, step, overrides: see :class:`Predictor`.
        mask: ``[z, y, x]``, what counts, for a model whose plan takes a mask from a folder.
        orientation: of the arrays, where the axes x, y, z point to, such as ``RAS`` (see :mod:`autoseg.orientation`).
            They are turned into the orientation of the model's plan, and the result is turned back. None: they lie as
            the plan says (an array has no header), or the plan has no orientation.
        return_probabilities: also return ``[k, z, y, x]`` float32: background and classes, or regions.

    Returns:
        The mask ``[z, y, x]`` uint8, with the probabilities when asked for.

    Raises:
        AutosegError: the image does not fit the model, or the model is damaged; the orientation is none.
    """
    from autoseg.bundle.transfer import opened

    image = np.asarray(image)
    image = image[None] if image.ndim == 3 else image
    spacing = _checked_spacing(spacing_mm)
    if isinstance(bundle, Predictor):
        predictor = bundle
    else:
        with opened(Path(bundle)) as folder:
            predictor = Predictor(
                folder,
                folds=folds,
                checkpoint=checkpoint,
                device=device,
                mirror=mirror,
                step=step,
                overrides=overrides,
            )
    turn = _turn_of_arrays(orientation, predictor.plan.preprocessing.orientation)
    geometry = Geometry(tuple(image.shape[1:]), spacing, (0.0, 0.0, 0.0), (1, 0, 0, 0, 1, 0, 0, 0, 1))
    # the raw array goes in as float32, as image files do
    result = predictor.predict(
        "image",
        turn.array(image.astype(np.float32, copy=False)),
        turn.geometry(geometry),
        mask=turn.array(mask) if mask is not None else None,
        probabilities=return_probabilities,
    )
    if return_probabilities and result.probabilities is not None:
        return turn.back.array(result.mask), turn.back.array(result.probabilities)
    return turn.back.array(result.mask)


def _turn_of_arrays(given: str | None, planned: str | None) -> Turn:
    """From the orientation of arrays in memory into that of the plan."""
    if given is not None and not is_orientation(given):
        raise AutosegError(
            "the orientation does not fit",
            where="orientation",
            found=given,
            expected="one letter each of L or R, P or A, and S or I, such as RAS",
            fix="read it from the image file's header",
        )
    return Turn() if given is None or planned is None else Turn.between(given, planned)


def _checked_spacing(spacing_mm: Sequence[float]) -> tuple[float, float, float]:
    values = tuple(float(value) for value in spacing_mm)
    if len(values) != 3 or not all(np.isfinite(values)) or min(values) <= 0:
        raise AutosegError(
            "the spacing does not fit",
            where="spacing_mm",
            found=values,
            expected="three positive numbers in mm, in the order z, y, x",
            fix="read it from the image file's header",
        )
    return values
