"""What is known of a run while one of its stages is trained: the one context that all parts share."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import torch

from autoseg.bundle.layout import NORMALISATION, weight_file_name
from autoseg.bundle.networks import ReadyNetwork, build_network, load, make_ready
from autoseg.dataset.folds import Fold, held_back
from autoseg.files import hash_json, read_model
from autoseg.plan import Plan, Stage, hash_plan
from autoseg.plugins.parts import CaseStore
from autoseg.plugins.trainer import Trainer
from autoseg.preprocessing.fixed import FixedConstants, raw_zeros
from autoseg.preprocessing.normalise import fixed_channels
from autoseg.preprocessing.normalised_store import NormalisedStore
from autoseg.training.distributed import World
from autoseg.training.interrupt import StopRequest
from autoseg.training.job import FoldJob
from autoseg.training.journal import Journal
from autoseg.training.progress import FoldProgress
from autoseg.training.seeds import fold_number

Scores = dict[str, float | None]
"""Class to its mean validation Dice, None where it could not be measured."""


def measure_nothing(network: ReadyNetwork) -> Scores:
    """A run without validation."""
    return {}


@dataclass
class StageRun:
    """One stage of one member of one fold; an :class:`autoseg.plugins.parts.RunContext`.

    Attributes:
        job: what the user asked for.
        fold: its cases.
        trainer: of the plan.
        member, index: which run of which stage, counted from 0.
        world: the processes that share a batch.
        stop: set when the user wants to stop.
        journal: where epochs are recorded; None in processes that do not lead.
        progress: what is told of them meanwhile; None likewise.
        validate: measures the network that predicts on whole volumes. Raises Interrupted when the user stops it.
        n_validated: how many cases it measures.
    """

    job: FoldJob
    fold: Fold
    trainer: Trainer
    member: int
    index: int
    world: World
    stop: StopRequest
    journal: Journal | None = None
    progress: FoldProgress | None = None
    validate: Callable[[ReadyNetwork], Scores] = measure_nothing
    n_validated: int = 0

    @property
    def plan(self) -> Plan:
        """The plan that the run follows."""
        return self.job.plan

    @property
    def stage(self) -> Stage:
        """The stage's part of the plan."""
        return self.plan.recipe.stages[self.index]

    @property
    def cases(self) -> tuple[str, ...]:
        """Names of the stage's training cases."""
        left = set(held_back(self.fold, self.stage))
        return tuple(name for name in self.fold.train if name not in left)

    @cached_property
    def store(self) -> CaseStore:
        """The preprocessed cases, normalised as the fold's own cases say."""
        return fold_store(self.job)

    @cached_property
    def raw_zero(self) -> tuple[float, ...]:
        """Of each image channel of the store, see :class:`autoseg.plugins.parts.PatchShape`."""
        return raw_zeros(self.plan.preprocessing, fold_constants(self.job))

    @property
    def folder(self) -> Path:
        """Of the fold."""
        return self.job.folder

    @property
    def seed_key(self) -> tuple[int, ...]:
        """The root of the stage's random numbers."""
        return (self.plan.seed, fold_number(self.job.fold), self.member, self.index)

    @property
    def device(self) -> torch.device:
        """Where the network is trained."""
        return self.job.device

    @property
    def workers(self) -> int:
        """Processes or threads that may prepare batches."""
        return self.job.workers

    @property
    def rank(self) -> int:
        """Of this process among those that share a batch."""
        return self.world.rank

    @property
    def world_size(self) -> int:
        """How many processes share a batch."""
        return self.world.size

    @cached_property
    def plan_hash(self) -> str:
        """See :func:`autoseg.plan.hash_plan`."""
        return hash_plan(self.plan)

    @property
    def cases_hash(self) -> str:
        """Of the names of the fold's training cases."""
        return hash_cases(self.fold)

    def weights_path(self, stage: str, **kind: Any) -> Path:
        """Where this member's weights of a stage go; ``kind`` as of
        :func:`autoseg.bundle.layout.weight_file_name`."""
        return self.folder / "weights" / weight_file_name(stage, self.member, **kind)

    def optimiser_path(self, stage: str) -> Path:
        """Where the state of a stage's optimiser goes, for a stage that goes on with it."""
        return self.folder / "optimiser" / weight_file_name(stage, self.member)

    def network_of(self, stage: str) -> ReadyNetwork:
        """The network that an earlier stage of the same member has trained, ready to predict."""
        key = self.plan.stage(stage).network
        network = build_network(self.plan, key, self.trainer)
        return make_ready(load(network, self.weights_path(stage), key=key), self.device, self.plan)

    def check_stop(self) -> None:
        """Raises Interrupted when the user wants to stop."""
        self.stop.check()


def fold_store(job: FoldJob) -> CaseStore:
    """The preprocessed cases as a fold sees them."""
    constants = fold_constants(job)
    return job.prepared.store if constants is None else NormalisedStore(job.prepared.store, constants)


def fold_constants(job: FoldJob) -> FixedConstants | None:
    """What the training cases of a fold say about its normalisation; None where nothing was asked of them."""
    if not fixed_channels(job.plan.preprocessing):
        return None
    return read_model(job.folder / NORMALISATION, FixedConstants)


def hash_cases(fold: Fold) -> str:
    """Of the names of the training cases."""
    return hash_json(list(fold.train))
