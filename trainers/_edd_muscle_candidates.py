"""What MUSCLE Net learns from: the small components that EDD Net finds in the training cases, real and false ones.

Chen, Bentley and Rueckert 2017, section "MUSCLE Net". How the patches were augmented or balanced is not in the paper;
flips, quarter turns and batches of half real, half false candidates are ours. Predictions of cases that EDD Net was
trained on have too few false components (the paper counts 3.78 in a training and 5.67 in a validation scan), so the
networks that find candidates may be others, each trained without the cases that it is used on (``Stage.leave_out``).
"""

from __future__ import annotations

import math
import time
from collections.abc import Generator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from autoseg import messages
from autoseg.bundle.networks import ReadyNetwork
from autoseg.dataset.folds import left_out
from autoseg.device import send
from autoseg.errors import AutosegError
from autoseg.evaluation.false_lesions import SHARE_HELD, size_that_holds, sizes_in_words
from autoseg.inference.tiling import predict_logits
from autoseg.messages import count_of
from autoseg.networks.edd_muscle import IMAGE_WINDOWS_PX, PROBABILITY_WINDOWS_PX
from autoseg.plan import Plan, Stage
from autoseg.plugins.parts import Batch, RunContext
from autoseg.plugins.registry import refuse_misfits
from autoseg.sampling.keys import Purpose, generator
from autoseg.sampling.prefetch import Prefetcher
from autoseg.trainers import _edd_muscle_judging as judging

REAL, FALSE = "real_candidates", "false_candidates"
"""Names of the facts that are kept with the weights of MUSCLE Net."""

Drawn = tuple[torch.Tensor, torch.Tensor, tuple[str, ...]]
"""Patches ``[b, c, size, size]``, label values ``[b]`` and cases of a batch, in the memory of the CPU."""


@dataclass(frozen=True)
class Found:
    """The candidates of one case: patches ``[n, c, size, size]`` float32 and which are real ``[n]``; and the sizes in
    pixels of all false components ``[m]``, candidates or larger."""

    case: str
    patches: np.ndarray
    real: np.ndarray
    false_px: np.ndarray


def windows(arguments: Mapping[str, Any]) -> dict[str, Any]:
    """The windows around a candidate, from the arguments of the network ``muscle`` in the plan."""
    return {
        "image_windows_px": tuple(arguments.get("image_windows_px", IMAGE_WINDOWS_PX)),
        "probability_windows_px": tuple(arguments.get("probability_windows_px", PROBABILITY_WINDOWS_PX)),
        "size_px": arguments.get("patch_size", 16),
    }


def lesion_probability(logits: torch.Tensor) -> np.ndarray:
    """Logits ``[k, z, y, x]``, background first, to the probability ``[z, y, x]`` of any lesion."""
    lesion = logits.softmax(0)[1:]
    return (lesion[0] if len(lesion) == 1 else lesion.sum(0)).numpy()


class CandidateSource:
    """Batches of candidates, one half real and one half false; a :class:`autoseg.plugins.parts.Source`.

    The stage's ``sampling.arguments``: ``stages`` (the stages whose networks find the candidates: one in all cases, or
    several, each in the cases that it has left out), ``threshold``, ``largest_px``, ``connectivity`` (see
    :func:`autoseg.trainers._edd_muscle_judging.find_candidates`). One epoch has as many samples as there are
    candidates.

    Args:
        context: see there.

    Raises:
        AutosegError: stages that do not exist or have not found candidates in every case.
        Interrupted: the user stopped it.
    """

    def __init__(self, context: RunContext) -> None:
        self.context = context
        found = _find(context)
        self.patches = np.concatenate([f.patches for f in found])
        self.owners = [f.case for f in found for _ in f.real]
        real = np.concatenate([f.real for f in found])
        self.groups = (np.flatnonzero(real), np.flatnonzero(~real))
        n_real, n_false = (len(group) for group in self.groups)
        self.facts = {REAL: n_real, FALSE: n_false}
        limit = _rules(context.stage).get("largest_px", judging.LARGEST_PX)
        if context.rank == 0 and (said := found_in_words([f.false_px for f in found], limit)):
            messages.info(f"stage {context.stage.name}: {said}")
        self.iterations = math.ceil(len(real) / context.stage.batch_size)
        self.nothing_to_learn = "" if n_real and n_false else _why_nothing(n_real, n_false, context)

    @staticmethod
    def check(plan: Plan, stage: Stage) -> None:
        """Refuse what could not find candidates; see the class.

        Raises:
            AutosegError: other stages than earlier ones, or not one prediction of each case; unknown arguments.
        """
        if plan.label_set.n_outputs != 2:
            raise AutosegError(
                "edd_muscle knows lesion and background only",
                found=f"{plan.label_set.n_outputs} outputs",
                expected="one label beside the background, and no regions",
                fix="use the planner unet, or merge the labels",
            )
        refuse_misfits("the sampling 'candidates'", judging.find_candidates, None, **_rules(stage))
        _finders(plan, stage)

    def batches(self, epoch: int, start_iteration: int = 0) -> Generator[Batch, None, None]:
        """See :class:`autoseg.plugins.parts.Source`."""
        device = self.context.device
        ahead = Prefetcher(self._drawn(epoch, start_iteration))
        try:
            started = time.perf_counter()
            for images, target, cases in ahead:
                waited = time.perf_counter() - started
                yield Batch(send(images, device), send(target, device), cases, waited)
                started = time.perf_counter()
        finally:
            ahead.close()

    def close(self) -> None:
        """See :class:`autoseg.plugins.parts.Source`; nothing runs between epochs."""

    def _drawn(self, epoch: int, start_iteration: int) -> Generator[Drawn, None, None]:
        """The batches of an epoch in the memory of the CPU."""
        for iteration in range(start_iteration, self.iterations):
            yield self._draw_batch(epoch, iteration)

    def _draw_batch(self, epoch: int, iteration: int) -> Drawn:
        patches, values, cases = zip(
            *(self._draw(epoch, index) for index in self._indices(iteration)), strict=True
        )
        return torch.from_numpy(np.stack(patches)), torch.tensor(values, dtype=torch.int16), cases

    def _indices(self, iteration: int) -> range:
        """The samples of a batch that are this process's, counted over the epoch."""
        size = self.context.stage.batch_size
        return range(iteration * size + self.context.rank, (iteration + 1) * size, self.context.world_size)

    def _is_real(self, index: int) -> bool:
        """The first half of every batch is real, so that processes which share a batch have as many of both kinds.

        Of an odd number of samples the one in the middle is real in every other batch.
        """
        size = self.context.stage.batch_size
        iteration, position = divmod(index, size)
        return position < (size + (iteration + 1) % 2) // 2

    def _draw(self, epoch: int, index: int) -> tuple[np.ndarray, int, str]:
        """One candidate, flipped and turned: patch, label value, case."""
        rng = generator(Purpose.CASE, (*self.context.seed_key, epoch, index))
        is_real = self._is_real(index)
        group = self.groups[0 if is_real else 1]
        which = int(group[rng.integers(len(group))])
        patch = np.rot90(self.patches[which], int(rng.integers(4)), axes=(1, 2))
        patch = patch[..., ::-1] if rng.random() < 0.5 else patch
        value = self.context.plan.label_set.values[0][0] if is_real else 0
        return np.ascontiguousarray(patch), value, self.owners[which]


def found_in_words(false_px: Sequence[np.ndarray], limit: int) -> str:
    """How large the false components are (the paper's Fig. 7), and which limit would hold 99 % of them; empty where
    there is none.

    Args:
        false_px: sizes in each case.
        limit: that of candidates.
    """
    sizes = np.concatenate(list(false_px))
    if not len(sizes):
        return ""
    return (
        f"{sizes_in_words(sizes, len(false_px))}; largest_px {limit} holds {(sizes <= limit).mean():.0%} of them, and "
        f"{math.ceil(size_that_holds(sizes))} would hold {SHARE_HELD:.0%}"
    )


def _why_nothing(n_real: int, n_false: int, context: RunContext) -> str:
    """Why there is nothing to learn: one kind of candidate is missing, or both. What a user can do about it."""
    counts = f"{n_real} real and {n_false} false" if n_real or n_false else "no"
    missing = "real ones" if n_false else "false ones" if n_real else "any"
    seen = len(context.stage.sampling.arguments["stages"]) == 1 and not n_false
    return (
        f"EDD Net has {counts} candidates in {count_of(len(context.cases), 'training case')}; without {missing} "
        "there is nothing to tell apart, and predictions stay as EDD Net makes them"
        + "; planner.cross_fitting=true looks in cases that it has not learnt from"
        * seen
    )


def _find(context: RunContext) -> list[Found]:
    """The candidates of every training case, in the order of their names."""
    say = messages.info if context.rank == 0 else lambda _: None
    say(
        f"stage {context.stage.name}: looking for candidates in {count_of(len(context.cases), 'training case')}"
    )
    found: dict[str, Found] = {}
    finders, ticker = _finders(context.plan, context.stage), messages.Ticker()
    for finder in finders:
        network = context.network_of(finder.name)
        for case in context.cases if len(finders) == 1 else left_out(context.cases, finder.leave_out):
            context.check_stop()
            if context.rank == 0:
                ticker.tell(f"looking for candidates, case {len(found) + 1} of {len(context.cases)}")
            found[case] = _in_case(context, network, case)
    ticker.close()
    n_real = sum(int(f.real.sum()) for f in found.values())
    n_false = sum(len(f.real) for f in found.values()) - n_real
    say(f"stage {context.stage.name}: {n_real} real and {n_false} false candidates")
    return [found[case] for case in sorted(found)]


def _finders(plan: Plan, stage: Stage) -> list[Stage]:
    """The stages whose networks find candidates: one in all cases, or several, each in the part that it leaves out."""
    names = [other.name for other in plan.recipe.stages]
    known = names[: names.index(stage.name)]
    wanted = list(stage.sampling.arguments.get("stages", ()))
    unknown = [name for name in wanted if name not in known]
    if unknown or not wanted:
        raise AutosegError(
            f"stage '{stage.name}' does not say which stages find its candidates",
            where="sampling.arguments.stages",
            found=", ".join(unknown) or "none",
            expected=f"earlier stages: {', '.join(known)}",
            fix="correct the plan",
        )
    finders = [plan.stage(name) for name in wanted]
    parts = [finder.leave_out for finder in finders]
    every_part = [(k, len(parts)) for k in range(len(parts))]
    shared = sorted(part for part in parts if part is not None) == every_part
    if len(parts) > 1 and (not shared or stage.leave_out is not None):
        raise AutosegError(
            f"the stages that find candidates for '{stage.name}' do not share the cases out",
            where="sampling.arguments.stages",
            found="leave_out of " + ", ".join(f"{s.name}: {s.leave_out}" for s in (*finders, stage)),
            expected=f"{', '.join(map(str, every_part))}, and none of {stage.name}",
            fix="name one stage, or one for each part of leave_out",
        )
    return finders


def _rules(stage: Stage) -> dict[str, Any]:
    """What is a candidate: arguments of :func:`autoseg.trainers._edd_muscle_judging.find_candidates`."""
    return {key: value for key, value in stage.sampling.arguments.items() if key != "stages"}


def _in_case(context: RunContext, network: ReadyNetwork, case: str) -> Found:
    """The candidates that a network finds in one case."""
    stored, plan = context.store.read(case), context.plan
    image = np.asarray(stored.image[...], np.float32)
    logits = predict_logits(
        network.module,
        torch.from_numpy(image),
        plan.recipe.inference,
        plan.label_set.n_outputs,
        context.device,
        mirror=False,
        takes=network.takes,
        progress=lambda *_: context.check_stop(),
        precision=plan.recipe.precision,
    )
    probability = lesion_probability(logits)
    candidates = judging.find_candidates(probability, **_rules(context.stage))
    truth = np.any(list(plan.label_set.masks(stored.label[...]).values()), axis=0)
    spec = plan.networks[context.stage.network]
    patches = judging.cut_patches(image, probability, candidates.centres, **windows(spec.arguments))
    every = judging.find_candidates(probability, **{**_rules(context.stage), "largest_px": probability.size})
    false_px = every.sizes_px[~judging.real(every, truth)]
    return Found(case, patches, judging.real(candidates, truth), false_px)
