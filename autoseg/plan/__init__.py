"""plan.json: every decision that a run follows, each with its reason; changes by the user; the plan as a table."""

from autoseg.plan.identity import hash_plan, is_hash_of, without_defaults
from autoseg.plan.overrides import OFF, apply_overrides
from autoseg.plan.schema import (
    PLAN_VERSION,
    Augmentation,
    Inference,
    MaskRole,
    ModelStart,
    Named,
    Normalisation,
    PatchSize,
    Plan,
    PostStep,
    Preprocessing,
    Reason,
    Recipe,
    Sampling,
    Stage,
    Strict,
    Validation,
)

__all__ = [
    "Augmentation",
    "Inference",
    "MaskRole",
    "ModelStart",
    "PostStep",
    "PatchSize",
    "Named",
    "Normalisation",
    "OFF",
    "PLAN_VERSION",
    "Plan",
    "Preprocessing",
    "Reason",
    "Recipe",
    "Sampling",
    "Stage",
    "Strict",
    "Validation",
    "apply_overrides",
    "hash_plan",
    "is_hash_of",
    "without_defaults",
]
