"""Which plan a file belongs to: a hash over what the plan decides.

Fields at their defaults are left out, so that a word which a later autoseg adds makes nothing stale; so is what else
could have been planned (``proposals``), which is no decision. Files of version 1 carry the hash of the whole plan.json
of that time, which can be computed still.
"""

from __future__ import annotations

from typing import Any

from autoseg.files import hash_json
from autoseg.plan.schema import Plan, Strict

NO_DECISIONS = {"proposals"}
"""Words of the plan that nothing depends on."""
SINCE_VERSION_2: dict[str, Any] = {
    "proposals": True,
    "preprocessing": {
        "mask": True,
        "orientation": True,
        "may_be_missing": True,
        "normalisation": {
            "__all__": {"inside_mask", "spread", "divide_by_mode", "factor", "expected_maximum"}
        },
    },
    "recipe": {
        "stages": {
            "__all__": {
                "optimiser_state": True,
                "channels": True,
                "context": True,
                "save_every": True,
                "leave_out_in": True,
                "sampling": {"nonzero_share", "clones", "weights"},
                "augmentation": {"share", "transforms"},
            }
        },
        "inference": {"context", "tiles", "halo", "members"},
        "validation": {"view", "samples", "sample_size"},
        "postprocessing": {"__all__": {"fit", "apply"}},
    },
}
"""Words that version 1 did not have, as pydantic's ``exclude`` takes them."""


def hash_plan(plan: Plan) -> str:
    """SHA-256 over what the plan decides, hexadecimal."""
    return hash_json(without_defaults(plan))


def is_hash_of(found: str, plan: Plan) -> bool:
    """Whether a file that carries this hash belongs to the plan; also one that was written by version 1."""
    return found in (hash_plan(plan), hash_json(as_version_1(plan)))


def without_defaults(part: Strict) -> dict[str, Any]:
    """Plain data of a plan or a part of it, at any depth without the fields that have their default."""
    return part.model_dump(mode="json", exclude_defaults=True, exclude=NO_DECISIONS)


def as_version_1(plan: Plan) -> dict[str, Any]:
    """plan.json as version 1 would have written it, if it had the words."""
    return {**plan.model_dump(mode="json", exclude=SINCE_VERSION_2), "version": 1}


def differences(one: Any, other: Any, path: str = "") -> list[str]:
    """Dotted paths at which two plain structures differ."""
    if isinstance(one, dict) and isinstance(other, dict):
        return [
            found
            for key in sorted(set(one) | set(other))
            for found in differences(one.get(key), other.get(key), f"{path}.{key}" if path else str(key))
        ]
    if isinstance(one, list) and isinstance(other, list) and len(one) == len(other):
        pairs = enumerate(zip(one, other, strict=True))
        return [found for i, (a, b) in pairs for found in differences(a, b, f"{path}.{i}")]
    return [] if one == other else [path]
