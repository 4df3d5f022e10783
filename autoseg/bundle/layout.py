"""Names of the files of a model folder. torch is not needed.

The folder is the bundle: ``plan.json``, ``dataset.json``, ``model_card.json`` and, for each fold, ``fold_K/weights``.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

from autoseg.plan import Plan, Stage

WeightsKind = Literal["final", "best"]
"""Which weights of each stage: its last, or those of the best validation."""

CARD = "model_card.json"
NORMALISATION = "normalisation.json"
"""Of a fold: the constants of channels with the scheme ``fixed``, measured in its training cases."""
FINGERPRINT = "fingerprint.json"
"""Of the training data, where the model was trained; it is not exported."""
BUNDLE_VERSION = 1

PREDICTING_NETWORK = "main"
"""The key of the network that predicts; networks under other keys serve post-processing."""


def weight_file_name(
    stage: str, member: int = 0, *, snapshot_epoch: int | None = None, best: bool = False
) -> str:
    """``member{M}.{STAGE}.safetensors``, with ``.epoch{E}`` for a snapshot or ``.best`` before the ending."""
    kind = f".epoch{snapshot_epoch}" if snapshot_epoch is not None else ".best" if best else ""
    return f"member{member}.{stage}{kind}.safetensors"


@dataclass(frozen=True)
class MemberFiles:
    """The weight files of one network that predicts.

    Attributes:
        main: its own.
        companions: of the networks under other keys, which look at what it predicts; by key.
    """

    main: str
    companions: Mapping[str, str]


def expected_members(plan: Plan, checkpoint: WeightsKind) -> list[MemberFiles]:
    """The weight files of one fold that take part in the prediction.

    For each member that predicts and each stage: the weights after the epochs that it keeps. Those after its last epoch
    are its last (or best) weights. Companions are the last ones kept of their networks; these have no best weights,
    since only the predicting network is validated. Where the plan has no post-processing, nothing asks for them.
    """
    kept = [stage for stage in plan.recipe.stages if stage.keep]
    asked = [s for s in kept if s.network != PREDICTING_NETWORK] if plan.recipe.postprocessing else []
    members = []
    for member in plan.recipe.predicting_members:
        others = {stage.network: _names(stage, member)[-1] for stage in asked}
        for stage in kept:
            if stage.network == PREDICTING_NETWORK:
                names = _names(stage, member, best=checkpoint == "best")
                members += [MemberFiles(name, others) for name in names]
    return members


def _names(stage: Stage, member: int, *, best: bool = False) -> list[str]:
    """The weight files of a stage that take part, in the order of their epochs."""
    return [
        weight_file_name(stage.name, member, best=best)
        if epoch == stage.epochs
        else weight_file_name(stage.name, member, snapshot_epoch=epoch)
        for epoch in stage.kept_epochs
    ]
