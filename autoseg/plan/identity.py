"""Which plan a file belongs to: a hash over what the plan decides.

Fields at their defaults are left out, so that a word which a later autoseg adds makes nothing stale. Files of version 1
carry the hash of the whole plan.json of that time, which can be computed still.
"""

from __future__ import annotations

from typing import Any

from pydantic import BaseModel

from autoseg.files import hash_json
from autoseg.plan.schema import Augmentation, Inference, Normalisation, Plan, PostStep, Preprocessing, Stage

SINCE_VERSION_2: dict[type[BaseModel], tuple[str, ...]] = {
    Normalisation: ("inside_mask", "spread", "divide_by_mode", "factor"),
    Preprocessing: ("mask",),
    Augmentation: ("share", "transforms"),
    Stage: ("optimiser_state", "channels", "context"),
    Inference: ("context", "tiles"),
    PostStep: ("fit",),
}


def hash_plan(plan: Plan) -> str:
    """SHA-256 over what the plan decides, hexadecimal."""
    return hash_json(without_defaults(plan))


def is_hash_of(found: str, plan: Plan) -> bool:
    """Whether a file that carries this hash belongs to the plan; also one that was written by version 1."""
    return found in (hash_plan(plan), hash_json(as_version_1(plan)))


def without_defaults(value: Any) -> Any:
    """Plain data of a model, at any depth without the fields that have their default."""
    if isinstance(value, BaseModel):
        plain = value.model_dump(mode="json")
        return {
            name: without_defaults(getattr(value, name))
            if _holds_models(getattr(value, name))
            else plain[name]
            for name, field in type(value).model_fields.items()
            if name != "version" and (field.is_required() or getattr(value, name) != _default(field))
        }
    if isinstance(value, (list, tuple)):
        return [without_defaults(item) for item in value]
    if isinstance(value, dict):
        return {key: without_defaults(item) for key, item in value.items()}
    return value


def as_version_1(plan: Plan) -> dict[str, Any]:
    """plan.json as version 1 would have written it, if it had the words."""
    return {**_without_new_fields(plan), "version": 1}


def _without_new_fields(value: Any) -> Any:
    if isinstance(value, BaseModel):
        plain, new = value.model_dump(mode="json"), SINCE_VERSION_2.get(type(value), ())
        return {
            name: _without_new_fields(getattr(value, name))
            if _holds_models(getattr(value, name))
            else plain[name]
            for name in type(value).model_fields
            if name not in new
        }
    if isinstance(value, (list, tuple)):
        return [_without_new_fields(item) for item in value]
    if isinstance(value, dict):
        return {key: _without_new_fields(item) for key, item in value.items()}
    return value


def _holds_models(value: Any) -> bool:
    if isinstance(value, (list, tuple)):
        return any(_holds_models(item) for item in value)
    if isinstance(value, dict):
        return any(_holds_models(item) for item in value.values())
    return isinstance(value, BaseModel)


def _default(field: Any) -> Any:
    return field.get_default(call_default_factory=True)
