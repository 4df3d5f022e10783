"""What a stage starts from: weights of an earlier stage or of another model, and the state of an optimiser."""

from __future__ import annotations

from contextlib import ExitStack
from pathlib import Path
from typing import Any

import torch

from autoseg import messages
from autoseg.bundle import weights
from autoseg.bundle.layout import weight_file_name
from autoseg.bundle.networks import ReadyNetwork, build_network
from autoseg.bundle.opening import read_plan, refuse_changed
from autoseg.bundle.transfer import opened
from autoseg.dataset.folds import Fold
from autoseg.errors import AutosegError
from autoseg.files import hash_file, read_json
from autoseg.messages import count_of, some_of
from autoseg.plan import ModelStart, Plan, Stage
from autoseg.plugins.trainer import Trainer
from autoseg.training import checkpoint
from autoseg.training.check_fold_folder import earlier_stages
from autoseg.training.checkpoint import Checkpoint, Position
from autoseg.training.job import FoldJob
from autoseg.training.stage_run import StageRun
from autoseg.training.start_model import find_start, say_choice, start_fold


def load_start(run: StageRun, network: ReadyNetwork) -> dict[str, Any]:
    """Give a fresh network the weights that the plan says the stage starts from.

    Returns:
        Where they came from, if that is another model, to be kept with the weights that are trained from them; else
        empty. The file that is named carries such a record itself where it was trained from a third model: the chain
        can be followed back.

    Raises:
        AutosegError: they are missing, damaged, or do not fit the network.
    """
    start = run.stage.start
    if start == "scratch":
        return {}
    with ExitStack() as held:
        path = start_path(run.job, run.stage, run.member, held)
        key = run.stage.network
        load_weights(network, path, key, partial=isinstance(start, ModelStart) and start.partial)
        info = weights.read_info(path)
        if not isinstance(start, ModelStart):
            return dict(info.start)
        messages.info(f"stage {run.stage.name} of member {run.member} starts from {path}")
        return {
            "model": start.model or path.parents[2].name,
            "file": f"{path.parent.parent.name}/weights/{path.name}",
            "sha256": hash_file(path),
            "plan_hash": info.plan_hash,
            **({"start": dict(info.start)} if info.start else {}),
        }


def load_weights(network: ReadyNetwork, path: Path, key: str, *, partial: bool) -> None:
    """Put weights into the network under a key: all of them, strictly, or as far as they fit.

    Raises:
        AutosegError: they are damaged, of another network or do not fit; with ``partial`` not one does.
    """
    tensors = weights.read(path, key).tensors
    if partial:
        weights.load_some(network.module, _fitting(network, tensors, path), where=str(path))
    else:
        weights.load_network(network.module, tensors, where=str(path))


def start_path(job: FoldJob, stage: Stage, member: int, held: ExitStack) -> Path:
    """The weight file that a stage starts from.

    Args:
        job: the run.
        stage: that does not start from scratch.
        member: counted from 0; another model with fewer members gives its first ones again.
        held: keeps an unpacked zip for as long as it is open.

    Raises:
        AutosegError: there is no such file.
        FaultsError: it is not the one of its model's card.
    """
    if isinstance(stage.start, ModelStart):
        return _in_model(job, stage.start, stage.network, member, held)
    earlier = earlier_stage(job.plan, stage)
    path = job.folder / "weights" / weight_file_name(earlier.name, member) if earlier else Path()
    if earlier is None or not path.exists():
        raise AutosegError(
            f"stage '{stage.name}' has nothing to start from",
            where=str(path),
            found=f"start: {stage.start}",
            expected=f"weights of an earlier stage that trains network '{stage.network}'",
            fix="correct the stage's start in the plan",
        )
    return path


def earlier_stage(plan: Plan, stage: Stage) -> Stage | None:
    """The stage of the same plan that a stage starts from; None where it starts elsewhere."""
    stages = plan.recipe.stages
    before = stages[: [other.name for other in stages].index(stage.name)]
    if stage.start == "previous":
        return next((other for other in reversed(before) if other.network == stage.network), None)
    return next((other for other in before if other.name == stage.start), None)


def _in_model(job: FoldJob, start: ModelStart, network: str, member: int, held: ExitStack) -> Path:
    folder = held.enter_context(opened(model_path(job, start)))
    plan = read_plan(folder)
    stages = [stage for stage in plan.recipe.stages if stage.network == network]
    chosen = next((s for s in reversed(stages) if start.stage in (None, s.name)), None)
    if chosen is None:
        raise AutosegError(
            "the model to start from has no such stage",
            where=str(folder),
            found=", ".join(f"{s.name} (network {s.network})" for s in plan.recipe.stages),
            expected=f"stage {start.stage or 'of any name'} of network {network}",
            fix="correct the stage's start in the plan",
        )
    fold = start_fold(job, start)
    name = weight_file_name(chosen.name, member % plan.recipe.members, best=start.weights == "best")
    path = folder / f"fold_{fold}" / "weights" / name
    if not path.is_file():
        raise AutosegError(
            "the model to start from lacks these weights",
            where=str(folder),
            found=f"no fold_{fold}/weights/{name}",
            expected=f"a trained fold {fold}",
            fix=f"train it first, or name another fold: start.fold of the stage is {start.fold}",
        )
    refuse_changed(folder, [path])
    return path


def model_path(job: FoldJob, start: ModelStart) -> Path:
    """The folder or zip of a model: beside this one, or by its path.

    Raises:
        AutosegError: there is none.
    """
    if start.options:
        return _model_by_options(job, start)
    beside = job.model.parent / start.model
    for path in (beside, Path(start.model).expanduser()):
        if (path / "plan.json").is_file() or (path.is_file() and path.suffix == ".zip"):
            return path
    there = sorted(
        path.parent.name for path in job.model.parent.glob("*/plan.json") if path.parent != job.model
    )
    raise AutosegError(
        f"there is no model '{start.model}' to start from",
        where=str(job.model.parent),
        found=", ".join(there) or "no other model of this dataset",
        expected="the name of a model of this dataset, a model folder, or an exported zip",
        fix="train or import it first",
    )


def _model_by_options(job: FoldJob, start: ModelStart) -> Path:
    folder = find_start(job, start)
    if folder is None:
        fold = start_fold(job, start)
        raise AutosegError(
            f"there is no model with {start.words} to start from",
            where=str(job.model.parent),
            found=f"none whose fold {fold} is trained",
            fix="train it first; autoseg_train does so by itself",
        )
    return folder


def _fitting(network: ReadyNetwork, tensors: dict[str, torch.Tensor], path: Path) -> dict[str, torch.Tensor]:
    """Those that the network has too, in the same shape; the others are said.

    Raises:
        AutosegError: none fits.
    """
    own = {name: tuple(value.shape) for name, value in network.module.state_dict().items()}
    fitting = {name: value for name, value in tensors.items() if own.get(name) == tuple(value.shape)}
    if not fitting:
        raise AutosegError(
            "none of the weights fits the network",
            where=str(path),
            found=f"{count_of(len(tensors), 'tensor')}, such as {next(iter(tensors), 'none')}",
            expected=f"some of the network's {len(own)}",
            fix="start from a model with a similar network",
        )
    if left := sorted(set(own) - set(fitting)):
        some = count_of(len(left), f"of {len(own)} tensors starts", f"of {len(own)} tensors start")
        messages.warn(f"{some} fresh, such as {left[0]}: {path.name} has none for them")
    return fitting


def check_starts(job: FoldJob, fold: Fold, trainer: Trainer) -> None:
    """Try every start that can be known before the training.

    Raises:
        AutosegError: a model or weights that are missing or do not fit; a stage that cannot go on with the optimiser of
            the one before.
    """
    for stage in job.plan.recipe.stages:
        _refuse_other_optimiser(job.plan, stage)
        _refuse_missing_optimiser(job, stage)
        if not isinstance(stage.start, ModelStart):
            continue
        for member in range(job.plan.recipe.members):
            network = build_network(job.plan, stage.network, trainer)
            with ExitStack() as held:
                path = start_path(job, stage, member, held)
                if member == 0:
                    refuse_other_channels(job.plan, read_plan(path.parents[2]), stage, path.parents[2])
                load_weights(network, path, stage.network, partial=stage.start.partial)
                _warn_of_seen_cases(path.parents[1], fold, stage)
            if stage.start.options and member == 0:
                say_choice(job, stage.start, path.parents[2])


def refuse_other_channels(plan: Plan, other: Plan, stage: Stage, where: Path) -> None:
    """What the network saw in the other model, channel by channel, is what it sees now.

    Another channel in the place of one is said: its filters are taken over on purpose. Fewer or more channels, and the
    same ones in another order, can only be a mistake.

    Args:
        plan: of the training.
        other: of the model that the stage starts from.
        stage: that starts.
        where: the other model.

    Raises:
        AutosegError: another number of channels, though the weights must fit all; a channel in another place.
    """
    ours, theirs = ([p.channel_names[i] for i in p.channels_of(stage.network)] for p in (plan, other))
    partial = isinstance(stage.start, ModelStart) and stage.start.partial
    moved = [name for i, name in enumerate(ours) if name in theirs and name not in theirs[i : i + 1]]
    if moved or (len(ours) != len(theirs) and not partial):
        raise AutosegError(
            f"the model that stage '{stage.name}' starts from sees other channels",
            where=str(where),
            found=", ".join(theirs),
            expected=", ".join(ours),
            fix=f"--set stages.{stage.name}.channels with as many channels, those that are the same in their places",
        )
    for i, (before, now) in enumerate(zip(theirs, ours, strict=False), start=1):
        if before != now:
            messages.info(
                f"stage {stage.name} goes on with {now} in the place of {before} (channel {i}), which its start was "
                "trained with"
            )


def _warn_of_seen_cases(other: Path, fold: Fold, stage: Stage) -> None:
    """Weights that were trained on cases which this fold is scored on make its scores too good.

    Raises:
        AutosegError: the start is to be of the same fold, and was trained when the fold was another one.
    """
    record = other / "fold.json"
    trained = set(read_json(record).get("train_cases", ())) if record.is_file() else set()
    seen = sorted(trained & {*fold.validation, *fold.test})
    if seen and isinstance(stage.start, ModelStart) and stage.start.fold == "same":
        raise AutosegError(
            f"the model that stage '{stage.name}' starts from has other folds",
            where=str(other),
            found=f"it was trained on {count_of(len(seen), 'case')} that this fold is scored on: {some_of(seen, 3)}",
            expected="a model of the same splits.json",
            fix="train it again with the folds as they are now, or name a fold of it: "
            f"stages.{stage.name}.start.fold",
        )
    if seen:
        messages.warn(
            f"stage {stage.name} starts from weights that were trained on {len(seen)} of the cases that this fold is "
            f"scored on, such as {seen[0]}: its scores will be too good"
        )


# ------------------------------------------------------------------------------------------ the optimiser's state


def _refuse_other_optimiser(plan: Plan, stage: Stage) -> None:
    """The state belongs to the parameters that were trained and to the kind of optimiser."""
    earlier = earlier_stage(plan, stage) if stage.optimiser_state == "previous" else None
    if earlier is None:
        return
    pairs = {
        "optimiser": (earlier.optimiser.name, stage.optimiser.name),
        "frozen": (earlier.frozen, stage.frozen),
    }
    for what, (before, now) in pairs.items():
        if before != now:
            raise AutosegError(
                f"stage '{stage.name}' cannot go on with the optimiser of stage '{earlier.name}'",
                found=f"{what}: {now}",
                expected=f"{before}, as stage '{earlier.name}' has it",
                fix=f"--set stages.{stage.name}.optimiser_state=fresh",
            )


def _refuse_missing_optimiser(job: FoldJob, stage: Stage) -> None:
    """A stage that is trained again may go on with the optimiser of one that is kept."""
    earlier = earlier_stage(job.plan, stage) if stage.optimiser_state == "previous" else None
    kept = earlier_stages(job)
    if earlier in kept and stage not in kept:
        for member in range(job.plan.recipe.members):
            path = job.folder / "optimiser" / weight_file_name(earlier.name, member)
            if not path.exists():
                raise _no_optimiser(path, stage)


def is_continued(plan: Plan, stage: Stage) -> bool:
    """Whether a later stage goes on with the state of this stage's optimiser."""
    return any(
        later.optimiser_state == "previous" and earlier_stage(plan, later) is stage
        for later in plan.recipe.stages
    )


def keep_optimiser(run: StageRun, optimiser: torch.optim.Optimizer, position: Position) -> None:
    """Write the state of the optimiser at the end of a stage, where a later stage asks for it."""
    if is_continued(run.plan, run.stage):
        state = Checkpoint(
            position=position, plan_hash=run.plan_hash, network={}, optimiser=optimiser.state_dict()
        )
        checkpoint.save(run.optimiser_path(run.stage.name), state)


def _no_optimiser(path: Path, stage: Stage) -> AutosegError:
    return AutosegError(
        f"the state of the optimiser that stage '{stage.name}' goes on with is missing",
        where=str(path),
        fix=f"start again with --overwrite, or with --set stages.{stage.name}.optimiser_state=fresh",
    )


def load_optimiser(run: StageRun, optimiser: torch.optim.Optimizer) -> None:
    """Give a fresh optimiser the state of the stage that this one starts from; its settings stay the plan's.

    Raises:
        AutosegError: the state is missing or damaged.
    """
    earlier = earlier_stage(run.plan, run.stage)
    path = run.optimiser_path(earlier.name if earlier else "")
    if not path.exists():
        raise _no_optimiser(path, run.stage)
    state = checkpoint.load(path).optimiser["state"]
    settings = optimiser.state_dict()["param_groups"]
    fill_optimiser(optimiser, {"state": state, "param_groups": settings}, where=str(path))


def fill_optimiser(optimiser: torch.optim.Optimizer, content: dict[str, Any], *, where: str) -> None:
    """Give an optimiser the state and the settings of a checkpoint.

    Args:
        optimiser: that of the plan, with its parameters.
        content: as of ``optimiser.state_dict()``.
        where: the file, for the message.

    Raises:
        AutosegError: they are not of this optimiser and these parameters.
    """
    own = optimiser.state_dict()["param_groups"]
    parameters = [p for group in optimiser.param_groups for p in group["params"]]
    try:
        for mine, other in zip(own, content["param_groups"], strict=True):
            misfits = [key for key in mine if _kind(other[key]) != _kind(mine[key])]
            misfits += ["params"] if other["params"] != mine["params"] else []
            if misfits:
                raise ValueError(f"another {misfits[0]}")
        for index, values in content["state"].items():
            shapes = {tuple(v.shape) for v in values.values() if isinstance(v, torch.Tensor) and v.ndim}
            if shapes - {tuple(parameters[index].shape)}:
                raise ValueError(f"tensors of other shapes for parameter {index}")
        optimiser.load_state_dict(content)
    except (KeyError, IndexError, ValueError, TypeError, AttributeError) as error:
        raise AutosegError(
            "the state of the optimiser does not fit the plan",
            where=where,
            found=f"{type(error).__name__}: {error}",
            expected=f"that of {len(parameters)} parameters",
            fix="start this fold again with --overwrite",
        ) from None


def _kind(setting: Any) -> str:
    """What a setting of an optimiser is, in JSON."""
    return (
        "number"
        if type(setting) in (int, float)
        else "list"
        if type(setting) is tuple
        else type(setting).__name__
    )
