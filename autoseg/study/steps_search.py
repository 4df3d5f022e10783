"""Which post-processing is best, chosen out of fold and told by nested cross-validation.

A chain is what is decided from the probabilities (the plan's own mask, the most probable class, or a threshold) and
then steps on the mask: the smallest lesion that stays, closing, holes that are filled. Each is chosen in turn, by the
mean of a metric over cases and classes, and a longer chain only where it is better. To tell what it brings on new
cases, each part of them (a fold) is scored with the chain that the others chose; the figure of a chain on the cases
that chose it is too good.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from statistics import fmean, median

import numpy as np

from autoseg import parallel, postprocessing
from autoseg.bundle.found_steps import FoundSteps
from autoseg.evaluation.metrics.catalogue import METRICS
from autoseg.evaluation.score_case import score_labels
from autoseg.plan import PostStep
from autoseg.plugins.parts import Segmentation
from autoseg.study.out_of_fold import Arrays, OutOfFold, OutOfFoldCase

PLAN, DECIDED = "the plan's own", "the most probable class"
THRESHOLDS = (0.1, 0.2, 0.3, 0.4, 0.6, 0.7, 0.8, 0.9)
"""Beside 0.5, which is the most probable class."""
SIZES = (5, 10, 20, 50, 100, 200)
"""Voxels of the median case, fewer than which a lesion or a hole is removed."""
CLOSINGS = (1, 2)
TOLD = ("dice", "lesion_f1")
LEAST_GAIN = 1e-6
"""Of a longer chain."""
PARTS = 5
"""Where one fold predicted all cases."""


@dataclass(frozen=True)
class Chain:
    """A start and steps on the mask.

    Attributes:
        start: :data:`PLAN`, :data:`DECIDED` or a threshold.
        steps: after it.
    """

    start: str | float = PLAN
    steps: tuple[PostStep, ...] = field(default=(), compare=False)
    key: tuple[object, ...] = ()

    def then(self, step: PostStep) -> Chain:
        """The chain with one more step."""
        return replace(self, steps=(*self.steps, step), key=(*self.key, step.name, *step.arguments.items()))

    @property
    def words(self) -> str:
        """For reading."""
        first = f"threshold {self.start:g}" if isinstance(self.start, float) else self.start
        return ", ".join([first, *(_words(step) for step in self.steps)])

    def plan_steps(self, planned: Sequence[PostStep]) -> list[PostStep] | None:
        """As a plan has them; None for the plan's own alone.

        Args:
            planned: those of the plan.
        """
        if self.start == PLAN:
            return [*planned, *self.steps] if self.steps else None
        if isinstance(self.start, float):
            return [PostStep(name="threshold", arguments={"above": self.start}), *self.steps]
        return list(self.steps)


def _words(step: PostStep) -> str:
    values = [
        f"{v:g}" if isinstance(v, float) else str(v) for k, v in step.arguments.items() if k != "voxel_mm3"
    ]
    return f"{step.name.replace('_', ' ')} ({', '.join(values)})" if values else step.name.replace("_", " ")


def apply_chain(arrays: Arrays, chain: Chain) -> np.ndarray:
    """The mask ``[z, y, x]`` that a chain makes of a case."""
    if chain.start == PLAN:
        mask = arrays.planned
    elif chain.start == DECIDED:
        mask = arrays.decided
    else:
        mask = (arrays.probabilities[1] > np.float32(chain.start)).astype(np.uint8)
    case = Segmentation(mask.astype(np.uint8, copy=False), arrays.geometry.spacing_mm, arrays.probabilities)
    return postprocessing.apply(case, chain.steps).mask


@dataclass(frozen=True)
class _Task:
    """One case and the chains that it is scored with."""

    predictions: OutOfFold
    case: OutOfFoldCase
    chains: tuple[Chain, ...]


def _score(task: _Task) -> list[dict[str, float]]:
    """Of each chain the metrics, their mean over classes; ``nan`` where it is undefined."""
    arrays, labels = task.predictions.read(task.case), task.predictions.labels
    metrics, found = [METRICS[name] for name in TOLD], []
    for chain in task.chains:
        spacing = arrays.geometry.spacing_mm
        scores = score_labels(apply_chain(arrays, chain), arrays.truth, spacing, labels, metrics)
        found.append({name: float(np.mean([of[name] for of in scores.values()])) for name in TOLD})
    return found


@dataclass
class Search:
    """The search over all cases; every chain is scored once for a case.

    Attributes:
        predictions: out of fold.
        metric: that decides.
        processes: at most.
        scores: chain to case to metric to value.
    """

    predictions: OutOfFold
    metric: str = "dice"
    processes: int = 1
    scores: dict[Chain, dict[str, dict[str, float]]] = field(default_factory=dict)

    def run(self) -> tuple[Chain, dict[int, Chain], dict[str, int]]:
        """Search on all cases, and for each part on the others.

        Returns:
            The chain of all cases, that of each part, and case to part.
        """
        parts = parts_of(self.predictions.cases)
        names = list(parts)
        chosen = {-1: Chain(), **{part: Chain() for part in sorted(set(parts.values()))}}
        others = {key: [n for n in names if parts[n] != key] or names for key in chosen}
        for options in self._options():
            wanted = {key: [chain, *options(chain)] for key, chain in chosen.items()}
            self._fill({chain for chains in wanted.values() for chain in chains})
            chosen = {key: self._best(chains, others[key]) for key, chains in wanted.items()}
        return chosen.pop(-1), chosen, parts

    def mean(self, chain: Chain, names: Iterable[str], metric: str = "") -> float:
        """Of a metric over cases where it is defined."""
        values = [self.scores[chain][name][metric or self.metric] for name in names]
        return fmean(defined) if (defined := [v for v in values if not np.isnan(v)]) else 0.0

    def _best(self, chains: Sequence[Chain], names: Sequence[str]) -> Chain:
        """The first of the best; a later one must be better."""
        best = chains[0]
        for chain in chains[1:]:
            if self.mean(chain, names) > self.mean(best, names) + LEAST_GAIN:
                best = chain
        return best

    def _options(self) -> list:
        labels = self.predictions.labels
        starts: list[Chain] = [Chain(DECIDED)]
        if labels.n_outputs == 2 and not labels.has_regions:
            starts += [Chain(above) for above in THRESHOLDS]
        voxel = median(self._voxels_mm3())
        value = labels.values[0][0] if labels.writes is None else labels.writes[0]

        def sized(name: str, **more: object) -> list[PostStep]:
            return [
                PostStep(name=name, arguments={"fewer_than_voxels": size, "voxel_mm3": voxel, **more})
                for size in SIZES
            ]

        one = len(labels.names) == 1
        small = sized("remove_small_components")
        holes = sized("fill_small_holes", value=value) if one else []
        closings = [
            PostStep(name="closing", arguments={"iterations": n, "radius": 1, "value": value})
            for n in CLOSINGS
        ]
        return [
            lambda chain: starts,
            *(
                (lambda chain, steps=steps: [chain.then(step) for step in steps])
                for steps in (small, closings if one else [], holes)
            ),
        ]

    def _voxels_mm3(self) -> list[float]:
        from autoseg.dataset.imageio import read_geometry

        return [1000 * read_geometry(case.masks[0]).voxel_ml for case in self.predictions.cases]

    def _fill(self, wanted: Iterable[Chain]) -> None:
        """Score every case with the chains that are new."""
        new = tuple(sorted((c for c in wanted if c not in self.scores), key=lambda c: c.words))
        alone = replace(self.predictions, cases=())  # what a process is sent
        tasks = [_Task(alone, case, new) for case in self.predictions.cases] if new else []
        self.scores |= {chain: {} for chain in new}
        for index, scores in parallel.each(
            _score, tasks, self.processes, name_of=lambda task: task.case.name, doing="post-processing"
        ):
            for chain, score in zip(new, scores, strict=True):
                self.scores[chain][tasks[index].case.name] = score


def parts_of(cases: Sequence[OutOfFoldCase]) -> dict[str, int]:
    """Case to its part: its fold, or every fifth case where there is one fold."""
    if len({case.part for case in cases}) > 1:
        return {case.name: case.part for case in cases}
    return {case.name: number % PARTS for number, case in enumerate(cases)}


def found_steps(
    search: Search,
    chain: Chain,
    of_parts: Mapping[int, Chain],
    parts: Mapping[str, int],
    planned: Sequence[PostStep],
) -> FoundSteps:
    """The result as a model carries it.

    Args:
        search: that ended.
        chain, of_parts, parts: what :meth:`Search.run` returned.
        planned: the steps of the plan.
    """
    names = list(parts)

    def nested(metric: str) -> float:
        values = [search.scores[of_parts[parts[name]]][name][metric] for name in names]
        return fmean(defined) if (defined := [v for v in values if not np.isnan(v)]) else 0.0

    return FoundSteps(
        steps=chain.plan_steps(planned),
        words=chain.words,
        metric=search.metric,
        cases=len(names),
        parts=len(of_parts),
        nested={metric: nested(metric) for metric in TOLD},
        tuned={metric: search.mean(chain, names, metric) for metric in TOLD},
        planned={metric: search.mean(Chain(), names, metric) for metric in TOLD},
        chosen=[one.words for one in of_parts.values()],
    )
