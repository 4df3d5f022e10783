"""A plan with what was found out beside it: the ranked table, corrections, and how long it takes on this device."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

import torch

from autoseg import messages, plugins
from autoseg.dataset.folds import Fold
from autoseg.device import free_cached_memory
from autoseg.errors import AutosegError
from autoseg.fingerprint import Fingerprint
from autoseg.plan import ForetoldTime, Plan, Proposals, hash_plan
from autoseg.plan.table import length_words
from autoseg.plugins.planner import Budget
from autoseg.plugins.trainer import Trainer
from autoseg.preparation.proposals import find_candidates, looked_at, propose, proposed_corrections
from autoseg.training import foretell
from autoseg.training.foretell import Workload


def complete(
    plan: Plan,
    fingerprint: Fingerprint,
    budget: Budget,
    device: torch.device,
    *,
    ranked: bool,
    hours: float | None = None,
    folds: list[Fold] | None = None,
    before: Plan | None = None,
) -> Plan:
    """The plan with its proposals; cut where it should take no more than some hours.

    Args:
        plan: as its planner made it, with what the user set.
        fingerprint: that it was made from.
        budget: of the planners.
        device: that will train.
        ranked: whether all families are asked, for the table.
        hours: that a fold may take; None for the length of the plan.
        folds: that are in use.
        before: a plan of this name that was written earlier. What was measured for it on such a device is not measured
            again, so that planning twice gives the same plan.

    Raises:
        AutosegError: hours that are too few, or no step of the plan fits the device and hours were asked for.
    """
    if before is not None and hours is None and _is_done(before, plan, ranked):
        return plan.model_copy(update={"proposals": before.proposals})
    work = _measured(plan, fingerprint, device, folds, _known(before, plan, hours), must=hours is not None)
    proposals = Proposals(looked_at=looked_at(fingerprint), corrections=proposed_corrections(fingerprint))
    if ranked:
        candidates = find_candidates(fingerprint, budget)
        candidates = [replace(c, plan=plan) if c.family == plan.planner else c for c in candidates]

        def time_of(other: Plan) -> ForetoldTime | None:
            if other is plan:
                found = work
            else:
                with messages.muted():
                    found = _measured(other, fingerprint, device, folds)
            return foretell.as_record(other, found) if found is not None else None

        proposals = propose(candidates, fingerprint, time_of)
    full = plan
    if hours is not None and work is not None:
        plan = foretell.fit_hours(plan, work, hours, _trainer(plan))
    if work is not None:
        record = foretell.as_record(plan, work, hours, length_words(full))
        proposals = proposals.model_copy(update={"time": record})
    return plan.model_copy(update={"proposals": proposals})


def _trainer(plan: Plan) -> Trainer:
    trainer: Trainer = plugins.load(plugins.TRAINERS, plan.trainer)
    return trainer


def _is_done(before: Plan, plan: Plan, ranked: bool) -> bool:
    """Whether all this was found out for the same plan."""
    found = before.proposals
    return (
        found is not None
        and found.time is not None
        and bool(found.families) >= ranked
        and hash_plan(before) == hash_plan(plan)
    )


def _known(before: Plan | None, plan: Plan, hours: float | None) -> Mapping[str, float]:
    """Seconds of steps that were measured for a plan that was cut to as many hours."""
    if before is None or before.proposals is None or before.proposals.time is None or hours is None:
        return {}
    same = (before.planner, before.fingerprint_hash) == (plan.planner, plan.fingerprint_hash)
    return before.proposals.time.step_seconds if same and before.proposals.time.hours == hours else {}


def _measured(
    plan: Plan,
    fingerprint: Fingerprint,
    device: torch.device,
    folds: list[Fold] | None,
    known: Mapping[str, float] | None = None,
    must: bool = False,
) -> Workload | None:
    """Steps of a plan on the device; None, with a warning, where they do not fit it."""
    try:
        return foretell.measure(plan, fingerprint, _trainer(plan), device, folds, known)
    except AutosegError as error:
        if must:
            raise
        messages.warn(
            f"how long '{plan.planner}' takes is not known: {error.fault.problem} ({error.fault.found})"
        )
        return None
    finally:
        free_cached_memory(device)
