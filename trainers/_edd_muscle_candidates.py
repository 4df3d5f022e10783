"""What MUSCLE Net learns from: the small components that EDD Net finds in the training cases, real and false ones.

Chen, Bentley and Rueckert 2017, section "MUSCLE Net". How the patches were augmented or balanced is not in the paper;
flips, quarter turns and batches of half real, half false candidates are ours. Predictions of cases that EDD Net was
trained on have too few false components (the paper counts 3.78 in a training and 5.67 in a validation scan), so the
networks that find candidates may be others, each trained without the cases that it is used on (``Stage.leave_out``).
"""

from __future__ import annotations

import math
import time
from collections.abc import Generator, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import nn

from autoseg import messages
from autoseg.dataset.folds import left_out
from autoseg.errors import AutosegError
from autoseg.inference.tiling import predict_logits
from autoseg.postprocessing import muscle
from autoseg.sampling.keys import Purpose, generator
from autoseg.sampling.loader import Batch
from autoseg.training.trainer import SourceContext

REAL, FALSE = "real_candidates", "false_candidates"
"""Names of the facts that are kept with the weights of MUSCLE Net."""


@dataclass(frozen=True)
class Found:
    """The candidates of one case: patches ``[n, c, size, size]`` float32 and which are real ``[n]``."""

    case: str
    patches: np.ndarray
    real: np.ndarray


def windows(arguments: Mapping[str, Any]) -> dict[str, Any]:
    """The windows around a candidate, from the arguments of the network ``muscle`` in the plan."""
    return {
        "image_windows_px": tuple(arguments.get("image_windows_px", (16, 32, 64))),
        "probability_windows_px": tuple(arguments.get("probability_windows_px", (16,))),
        "size_px": arguments.get("patch_size", 16),
    }


def lesion_probability(logits: torch.Tensor) -> np.ndarray:
    """Logits ``[k, z, y, x]``, background first, to the probability ``[z, y, x]`` of any lesion."""
    return logits.softmax(0)[1:].sum(0).numpy()


class CandidateSource:
    """Batches of candidates, one half real and one half false; a :class:`autoseg.training.trainer.Source`.

    The stage's ``sampling.arguments``: ``stages`` (the stages whose networks find the candidates, each in the cases
    that it has left out, or in all), ``threshold``, ``largest_px``, ``connectivity`` (see
    :func:`autoseg.postprocessing.muscle.find_candidates`). One epoch has as many samples as there are candidates.

    Args:
        context: see there.

    Raises:
        AutosegError: stages that do not exist or have not found candidates in every case.
        Interrupted: the user stopped it.
    """

    def __init__(self, context: SourceContext) -> None:
        self.context = context
        found = list(_find(context))
        self.patches = np.concatenate([f.patches for f in found])
        self.owners = [f.case for f in found for _ in f.real]
        real = np.concatenate([f.real for f in found])
        self.groups = (np.flatnonzero(real), np.flatnonzero(~real))
        n_real, n_false = (len(group) for group in self.groups)
        self.facts = {REAL: n_real, FALSE: n_false}
        self.iterations = math.ceil(len(real) / context.stage.batch_size)
        self.nothing_to_learn = "" if n_real and n_false else _why_nothing(n_real, n_false, len(found))

    def batches(self, epoch: int, start_iteration: int = 0) -> Generator[Batch, None, None]:
        """See :class:`autoseg.training.trainer.Source`."""
        for iteration in range(start_iteration, self.iterations):
            started = time.perf_counter()
            drawn = [self._draw(epoch, index) for index in self._indices(iteration)]
            images = torch.from_numpy(np.stack([patch for patch, _, _ in drawn]))
            target = torch.tensor([value for _, value, _ in drawn], dtype=torch.int16)
            device = self.context.device
            yield Batch(
                images.to(device),
                target.to(device),
                tuple(case for _, _, case in drawn),
                time.perf_counter() - started,
            )

    def close(self) -> None:
        """Nothing to end."""

    def _indices(self, iteration: int) -> range:
        """The samples of a batch that are this process's, counted over the epoch."""
        size = self.context.stage.batch_size
        return range(iteration * size + self.context.rank, (iteration + 1) * size, self.context.world_size)

    def _draw(self, epoch: int, index: int) -> tuple[np.ndarray, int, str]:
        """One candidate, flipped and turned: patch, label value, case. Even samples are real, odd ones false."""
        rng = generator(Purpose.CASE, (*self.context.seed_key, epoch, index))
        group = self.groups[index % 2]
        which = int(group[rng.integers(len(group))])
        patch = np.rot90(self.patches[which], int(rng.integers(4)), axes=(1, 2))
        patch = patch[..., ::-1] if rng.random() < 0.5 else patch
        value = 0 if index % 2 else self.context.plan.label_set.values[0][0]
        return np.ascontiguousarray(patch), value, self.owners[which]


def _why_nothing(n_real: int, n_false: int, n_cases: int) -> str:
    """Why there is nothing to learn: one kind of candidate is missing, or both."""
    counts = f"{n_real} real and {n_false} false" if n_real or n_false else "no"
    missing = "real ones" if n_false else "false ones" if n_real else "any"
    return (
        f"EDD Net has {counts} candidates in the {n_cases} training cases; without {missing} there is nothing to tell "
        "apart, and predictions stay as EDD Net makes them"
    )


def _find(context: SourceContext) -> Iterator[Found]:
    """The candidates of every training case, in the order of their names."""
    arguments = dict(context.stage.sampling.arguments)
    finders = _finders(context, arguments.pop("stages", ()))
    messages.info(
        f"stage {context.stage.name}: looking for candidates in {len(context.cases)} training cases"
    )
    found: dict[str, Found] = {}
    for name, cases in finders.items():
        network = context.network_of(name)
        for case in cases:
            context.check_stop()
            found[case] = _in_case(context, network, case, arguments)
    n_real = sum(int(f.real.sum()) for f in found.values())
    n_false = sum(len(f.real) for f in found.values()) - n_real
    messages.info(f"stage {context.stage.name}: {n_real} real and {n_false} false candidates")
    return iter([found[case] for case in sorted(found)])


def _finders(context: SourceContext, stages: Sequence[str]) -> dict[str, tuple[str, ...]]:
    """Stage to the cases in which its network finds candidates; together they are all cases of the stage."""
    known = [stage.name for stage in context.plan.recipe.stages]
    unknown = [name for name in stages if name not in known]
    if unknown or not stages:
        raise AutosegError(
            f"stage '{context.stage.name}' does not say which stages find its candidates",
            where="sampling.arguments.stages",
            found=", ".join(unknown) or "none",
            expected=f"earlier stages: {', '.join(known)}",
            fix="correct the plan",
        )
    parts = {name: context.plan.stage(name).leave_out for name in stages}
    finders = {
        name: left_out(context.cases, part) if part is not None else context.cases
        for name, part in parts.items()
    }
    covered = sorted(case for cases in finders.values() for case in cases)
    if covered != sorted(context.cases):
        raise AutosegError(
            f"the stages that find candidates for '{context.stage.name}' do not share the cases out",
            where="sampling.arguments.stages",
            found=f"{len(covered)} predictions of {len(set(covered))} different cases",
            expected=f"each of the {len(context.cases)} training cases once",
            fix="name one stage without leave_out, or one for each part of leave_out",
        )
    return finders


def _in_case(context: SourceContext, network: nn.Module, case: str, arguments: Mapping[str, Any]) -> Found:
    """The candidates that a network finds in one case."""
    stored, plan = context.store.read(case), context.plan
    image = np.asarray(stored.image[...], np.float32)
    logits = predict_logits(
        network,
        torch.from_numpy(image),
        plan.recipe.inference,
        plan.label_set.n_outputs,
        context.device,
        mirror=False,
        progress=lambda *_: context.check_stop(),
        precision=plan.recipe.precision,
    )
    probability = lesion_probability(logits)
    candidates = muscle.find_candidates(probability, **arguments)
    truth = np.any(list(plan.label_set.masks(stored.label[...]).values()), axis=0)
    spec = plan.networks[context.stage.network]
    patches = muscle.cut_patches(image, probability, candidates.centres, **windows(spec.arguments))
    return Found(case, patches, muscle.real(candidates, truth))
