"""Error maps: where the model that a stage starts from errs in cases that it has not seen.

Each case is predicted by the fold in which it was a test case (a validation case where folds have no test part), on the
working grid. These folds have seen other cases, among them those that the fold at hand is scored on: a small leak,
which is said.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import torch

from autoseg import messages, plugins
from autoseg.bundle.layout import PREDICTING_NETWORK
from autoseg.bundle.networks import ReadyNetwork, build_network, load, make_ready
from autoseg.bundle.opening import open_model, read_plan
from autoseg.dataset.folds import Fold
from autoseg.errors import AutosegError
from autoseg.files import read_json
from autoseg.inference.tiling import predict_logits
from autoseg.messages import count_of, some_of
from autoseg.plan import ModelStart, Plan, Stage
from autoseg.sampling.voxel_weights import error_weights
from autoseg.training.job import FoldJob
from autoseg.training.stage_run import fold_store
from autoseg.training.start import model_path
from autoseg.training.start_model import command_of_start, find_start


@dataclass(frozen=True)
class ErrorMaps:
    """The error maps of a fold's training cases.

    Attributes:
        job: the run.
        fold: its cases.
        stage: which draws by them.
        starts: whether the model that it starts from must be there.
    """

    job: FoldJob
    fold: Fold
    stage: Stage
    starts: bool = True

    def check(self) -> None:
        """Raises:
        AutosegError: the stage starts from no other model; a training case that no fold of it has held out; another
            preprocessing.
        """
        lacking = [name for name in self.fold.train if name not in self._held_out]
        if lacking:
            raise self._no_folds(lacking)
        if self._model is not None and self._plan.preprocessing != self.job.plan.preprocessing:
            raise AutosegError(
                "error maps need a model of the same preprocessing",
                where=str(self._model),
                found="other spacing, mask or normalisation than this plan",
                fix=f"train one, or leave the maps out: --set stages.{self.stage.name}.sampling.weights=null",
            )

    def origin(self) -> dict[str, str]:
        """What the maps are made from: each fold's model hash and the case that it predicts."""
        hashes = {fold: self._opened(fold).hash for fold in sorted(set(self._used.values()))}
        return {name: hashes[fold] for name, fold in self._used.items()}

    def maps(self) -> Iterator[tuple[str, np.ndarray]]:
        """The name of each training case, and its weights ``[z, y, x]``."""
        self._say()
        for fold in sorted(set(self._used.values())):
            networks = self._networks(fold)
            for name in (name for name, other in self._used.items() if other == fold):
                yield name, self._map(name, fold, networks)

    # ------------------------------------------------------------------------------------------- where from

    @property
    def _start(self) -> ModelStart:
        if isinstance(self.stage.start, ModelStart):
            return self.stage.start
        raise AutosegError(
            f"stage '{self.stage.name}' draws by the errors of what it starts from, and starts from no other model",
            found=f"start: {self.stage.start}",
            expected="start with a model of the same dataset",
            fix=f"--set stages.{self.stage.name}.sampling.weights=null",
        )

    @cached_property
    def _model(self) -> Path | None:
        """The folder of the other model; None where it has still to be trained."""
        if self._start.options and not self.starts:
            return find_start(self.job, self._start)
        path = model_path(self.job, self._start)
        if path.is_dir():
            return path
        raise AutosegError(
            "error maps need a model folder with its folds",
            where=str(path),
            found="an exported zip",
            fix="import it: autoseg_import_bundle",
        )

    @cached_property
    def _plan(self) -> Plan:
        return read_plan(self._model or Path())

    @cached_property
    def _records(self) -> dict[str, dict[str, Any]]:
        """Of the other model's finished folds, by name."""
        paths = sorted(self._model.glob("fold_*/fold.json")) if self._model is not None else []
        return {path.parent.name.removeprefix("fold_"): read_json(path) for path in paths}

    @cached_property
    def _held_out(self) -> dict[str, str]:
        """Case to the fold that had no part of it in training or in any choice."""
        return {
            name: fold
            for fold, record in self._records.items()
            for name in record.get("test_cases") or record["validation_cases"]
        }

    @property
    def _used(self) -> dict[str, str]:
        return {name: self._held_out[name] for name in self.fold.train}

    def _no_folds(self, lacking: list[str]) -> AutosegError:
        """Which folds of the other model have still to be trained."""
        commands = []
        for fold in range(len(self.job.prepared.folds)):
            one = self.job.prepared.fold(fold)
            held = set(one.test or one.validation) & set(lacking)
            if held and str(fold) not in self._records and fold != self.job.fold:
                commands.append(command_of_start(self.job, self._start, self._model, fold))
        first = "".join(f"\n            {line}" for line in commands)
        return AutosegError(
            f"stage '{self.stage.name}' draws patches by error maps, and {count_of(len(lacking), 'training case')} "
            f"{'has' if len(lacking) == 1 else 'have'} none",
            where=f"fold {self.job.fold}",
            found=f"no trained fold of {self._start.words} that held out {some_of(lacking, 3)}",
            expected="for each training case the fold that held it out, trained",
            fix=f"train these first (fold {self.job.fold} is trained by itself):{first}\n            "
            f"or leave the maps out: --set stages.{self.stage.name}.sampling.weights=null (deepmedic: error_maps=off)",
        )

    def _say(self) -> None:
        """The leak, in numbers."""
        scored = {*self.fold.validation, *self.fold.test}
        seen = {
            name
            for fold in set(self._used.values())
            for part in ("train_cases", "validation_cases")
            for name in self._records[fold].get(part, ())
        }
        folds = ", ".join(sorted(set(self._used.values())))
        leak = sorted(scored & seen)
        messages.info(
            f"error maps of {count_of(len(self._used), 'training case')} from "
            f"{self._model and self._model.name}, folds {folds}: each case by the fold that held it out"
            + (
                f". These folds were trained or tuned on {len(leak)} of the {len(scored)} cases that fold "
                f"{self.job.fold} is watched with and scored on, such as {leak[0]}: a small leak into the maps"
                if leak
                else ""
            )
        )

    # ------------------------------------------------------------------------------------------- predictions

    def _opened(self, fold: str) -> Any:
        return open_model(self._model or Path(), [fold], fitted=False)

    def _networks(self, fold: str) -> list[ReadyNetwork]:
        trainer = plugins.load(plugins.TRAINERS, self._plan.trainer)
        return [
            make_ready(
                load(
                    build_network(self._plan, PREDICTING_NETWORK, trainer),
                    member.main,
                    key=PREDICTING_NETWORK,
                ),
                self.job.device,
                self._plan,
            )
            for member in self._opened(fold).members
        ]

    def _map(self, name: str, fold: str, networks: list[ReadyNetwork]) -> np.ndarray:
        messages.info(f"error map of {name}, by fold {fold}")
        there = replace(self.job, plan=self._plan, model=self._model or Path(), fold=int(fold))
        case, labels = fold_store(there).read(name), self._plan.label_set
        image = torch.from_numpy(np.asarray(case.image[...], np.float32))
        found = np.zeros(image.shape[1:], np.float32)
        for network in networks:
            logits = predict_logits(
                network.module,
                image,
                self._plan.recipe.inference,
                labels.n_outputs,
                self.job.device,
                mirror=False,
                takes=network.takes,
                regions=labels.has_regions,
                precision=self._plan.recipe.precision,
            )
            found += foreground_probability(logits, regions=labels.has_regions).numpy() / len(networks)
        return error_weights(found, case.label[...])


def foreground_probability(logits: torch.Tensor, *, regions: bool) -> torch.Tensor:
    """``[k, z, y, x]`` to ``[z, y, x]``: of any class; with regions of the likeliest one."""
    return logits.sigmoid().amax(0) if regions else 1 - logits.softmax(0)[0]
