"""A plan as a short text table: every decision with its value and the reason for it."""

from __future__ import annotations

import json
import shutil
import textwrap
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import zip_longest

from autoseg.messages import count_of
from autoseg.plan import (
    MaskRole,
    ModelStart,
    Named,
    Normalisation,
    PatchSize,
    Plan,
    PostStep,
    Preprocessing,
    Reason,
    Stage,
)
from autoseg.plan.overrides import SHOWN_WITH, long_paths
from autoseg.plan.schema import listed

COUNTED_ANEW = "counted for the plan as it was set"
"""Begins the reason of a memory that the user's changes are in."""

AXES = "zyx"
LABEL_WIDTH = 15
VALUE_WIDTH = 33
WIDEST = 130
NARROWEST = 50
BESIDE_FROM = 96
"""From this width on the reasons stand beside the values, below it under them."""


@dataclass(frozen=True)
class PlanRow:
    """One line of the table.

    Attributes:
        label, value: what the reader sees.
        path: into the plan; reasons and overrides are found by it.
    """

    label: str
    value: str
    path: str = ""


def format_plan(plan: Plan, width: int | None = None) -> str:
    """The plan for reading in a terminal.

    Args:
        plan: of any planner; values come from the plan itself, so that what the user has set is shown as well.
        width: of the lines; the terminal's when None.
    """
    width = width or shutil.get_terminal_size((100, 24)).columns
    width = max(NARROWEST, min(width, WIDEST))
    groups = _groups(plan)
    other, notes = _other_reasons(plan, groups)

    lines = _wrap(_title(plan), width)
    lines += ["", *_reason_lines(other, width)]
    for title, rows in groups:
        lines += ["", title, *_row_lines(rows, plan, width)]
    lines += _alternatives(plan, width)
    if notes:
        lines += ["", "NOTES", *_reason_lines(notes, width)]
    return "\n".join(line.rstrip() for line in lines) + "\n"


def decisions(plan: Plan) -> list[tuple[str, list[tuple[PlanRow, str]]]]:
    """What :func:`format_plan` shows, for other kinds of tables: the parts of the plan, each with rows and reasons.

    A row without label continues the one above it.
    """
    groups = _groups(plan)
    reasons = {reason.what: reason for reason in plan.reasons}
    first, last = (
        [(PlanRow(reason.what.removeprefix("note: "), reason.value), reason.why) for reason in some]
        for some in _other_reasons(plan, groups)
    )
    parts = [
        (title, [(row, _why(row, reasons.get(row.path), plan)) for row in rows]) for title, rows in groups
    ]
    return [part for part in (("CONFIGURATION", first), *parts, ("NOTES", last)) if part[1]]


def _groups(plan: Plan) -> list[tuple[str, list[PlanRow]]]:
    """The parts of the plan with their decisions."""
    stages = [
        (_stage_title(plan, stage), _stage(i, stage, plan)) for i, stage in enumerate(plan.recipe.stages)
    ]
    return [
        ("PREPROCESSING", _preprocessing(plan)),
        ("NETWORK", _networks(plan)),
        *stages,
        ("PREDICTION", _prediction(plan)),
    ]


def _other_reasons(
    plan: Plan, groups: Sequence[tuple[str, Sequence[PlanRow]]]
) -> tuple[list[Reason], list[Reason]]:
    """Reasons that belong to no row, and notes."""
    shown = {row.path for _, rows in groups for row in rows}
    if plan.proposals is not None and plan.proposals.families:
        shown.add("method")  # the ranked table says it
    other = [_dated(reason, plan) for reason in plan.reasons if reason.what not in shown]
    notes = [reason for reason in other if reason.what.startswith("note")]
    return [reason for reason in other if reason not in notes], notes


def _dated(reason: Reason, plan: Plan) -> Reason:
    """The memory was estimated for the plan as the planner made it, unless it was counted anew."""
    sizes = ("patch_size", "batch_size", "networks")
    stale = reason.what == "memory" and not reason.why.startswith(COUNTED_ANEW)
    if not stale or not any(name in path for path in plan.overrides for name in sizes):
        return reason
    return reason.model_copy(update={"why": f"before what you set; {reason.why}"})


def _title(plan: Plan) -> str:
    channels = f"{count_of(plan.in_channels, 'channel')} ({', '.join(plan.channel_names)})"
    return f"Plan '{plan.planner}' for {plan.dataset}: {channels}; segments {', '.join(plan.label_set.names)}"


def _stage_title(plan: Plan, stage: Stage) -> str:
    several = len(plan.recipe.stages) > 1 or stage.network != "main"
    return f"TRAINING, stage {stage.name} of network {stage.network}" if several else "TRAINING"


def _preprocessing(plan: Plan) -> list[PlanRow]:
    settings = plan.preprocessing
    axes = [AXES[axis] for axis in settings.transpose]
    fixed = [(axis, f"{s:.4g}") for axis, s in zip(axes, settings.spacing_mm, strict=True) if s is not None]
    spacing = f"{_times(s for _, s in fixed)} mm ({', '.join(axis for axis, _ in fixed)})" if fixed else ""
    kept = [axis for axis, s in zip(axes, settings.spacing_mm, strict=True) if s is None]
    kept_text = f"{', '.join(kept)} as in each case" if kept else ""
    orders = {0: "nearest", 1: "linear", 3: "cubic"}
    image = orders.get(settings.image_order, f"spline order {settings.image_order}")
    label = "label-wise linear" if settings.label_order else "nearest"
    missing = ", ".join(settings.may_be_missing)
    return [
        PlanRow("orientation", settings.orientation or "as stored", "preprocessing.orientation"),
        PlanRow("axes", ", ".join(axes), "preprocessing.transpose"),
        PlanRow(
            "crop",
            _crop(settings),
            "preprocessing.crop_to_object" if settings.crop_to_object else "preprocessing.crop_to_nonzero",
        ),
        PlanRow("spacing", "; ".join(filter(None, [spacing, kept_text])), "preprocessing.spacing_mm"),
        *([PlanRow("mask", _mask(settings.mask), "preprocessing.mask")] if settings.mask else []),
        *([PlanRow("may be 0", missing, "preprocessing.may_be_missing")] if missing else []),
        PlanRow("intensities", _normalisation(settings.normalisation, plan), "preprocessing.normalisation"),
        PlanRow("resampling", f"{image} for images, {label} for masks", "preprocessing.image_order"),
    ]


def _crop(settings: Preprocessing) -> str:
    if settings.crop_to_object:
        return "to the head, with a margin"
    return "to the non-zero box" if settings.crop_to_nonzero else "none"


def _mask(role: MaskRole) -> str:
    """What counts."""
    where = f"channel {role.channel} above 0" if role.channel else f"the files in {role.folder}"
    grown = f", grown by {count_of(role.dilation, 'voxel')}" if role.dilation else ""
    return f"{where}{grown}; background outside"


def _normalisation(entries: Sequence[Normalisation], plan: Plan) -> str:
    texts = [_scheme(entry) for entry in entries]
    if len(set(texts)) == 1:
        return texts[0]
    return "; ".join(f"{name}: {text}" for name, text in zip(plan.channel_names, texts, strict=False))


def _scheme(entry: Normalisation) -> str:
    """One channel in words."""
    before = "N4, then " * (entry.bias_correction == "n4")
    before += "divided by the mode, then " * (entry.divide_by_mode is not None)
    scheme: str = entry.scheme
    if scheme == "fixed":
        scheme = f"mean and {entry.spread.replace('_', ' ')} of the training cases"
    inside = " inside the non-zero mask" * entry.inside_nonzero + " inside the mask" * entry.inside_mask
    return before + scheme + inside + (f", times {entry.factor:.4g}" if entry.factor != 1 else "")


def _networks(plan: Plan) -> list[PlanRow]:
    rows = []
    for key, network in plan.networks.items():
        patch = next((s.patch_size for s in plan.recipe.stages if s.network == key), [])
        stages = _network_stages(network, patch)
        value = f"{network.name}, {len(stages) - 1} stages" if stages else _named(network)
        rows += [PlanRow(key, value, f"networks.{key}"), *(PlanRow("", line) for line in stages)]
    return rows


def _network_stages(network: Named, patch: PatchSize) -> list[str]:
    """One line per resolution, for networks that are described by lists per stage; none for others."""
    arguments = network.arguments
    lists = [arguments.get(name) for name in ("features_per_stage", "kernel_sizes", "strides")]
    if not isinstance(lists[0], (list, tuple)) or not all(map(_is_per_axis, lists[1:])):
        return []
    blocks = arguments.get("n_blocks_per_stage", arguments.get("n_conv_per_stage"))
    title = "blocks" if "n_blocks_per_stage" in arguments else "convolutions"
    size = list(patch)
    table = [["size", "features", "kernel", "stride", title]]
    for i, (features, kernel, stride) in enumerate(zip(*lists, strict=False)):
        size = [
            edge if isinstance(edge, str) else edge // step for edge, step in zip(size, stride, strict=False)
        ]
        count = (blocks[i] if i < len(blocks) else "") if isinstance(blocks, (list, tuple)) else blocks
        table.append([_close(size), str(features), _close(kernel), _close(stride), str(count)])
    return in_columns(table)


def _is_per_axis(entries: object) -> bool:
    """Whether an argument has, for each resolution, one number for each axis; others may use its name otherwise."""
    return isinstance(entries, (list, tuple)) and all(
        isinstance(entry, (list, tuple)) and all(isinstance(n, int) and n > 0 for n in entry)
        for entry in entries
    )


def _stage(index: int, stage: Stage, plan: Plan) -> list[PlanRow]:
    path = f"recipe.stages.{index}"
    passes = {"lesion_pixels": "the lesion pixels", "candidates": "the candidates"}
    steps = (
        f"one pass over {passes.get(stage.sampling.name, 'the cases')}"
        if stage.iterations_per_epoch is None
        else count_of(stage.iterations_per_epoch, "batch", "batches")
    )
    share, batch = stage.sampling.foreground_share, stage.batch_size
    forced = (
        f"{batch - round(batch * (1 - share))} of {batch} patches" if batch > 1 else f"{share:.0%} of patches"
    )
    sampling = f"{forced} on lesions, by {stage.sampling.balance} (share {share:g})"
    if not stage.patch_size:
        sampling = "every image as a whole"
    elif stage.sampling.name != "foreground_share":
        sampling = _named(Named(name=stage.sampling.name, arguments=stage.sampling.arguments))
    if stage.sampling.nonzero_share:
        sampling += f", drawn again where less than {stage.sampling.nonzero_share:.0%} is not 0"
    clip = f", gradient clipped at {stage.gradient_clip:g}" if stage.gradient_clip else ""
    rows = [
        PlanRow("patch", _patch(stage.patch_size), f"{path}.patch_size"),
        PlanRow("batch", str(stage.batch_size), f"{path}.batch_size"),
        PlanRow("length", f"{count_of(stage.epochs, 'epoch')} of {steps}", f"{path}.epochs"),
        PlanRow("loss", _named(stage.loss), f"{path}.loss"),
        PlanRow(
            "optimiser", f"{_named(stage.optimiser)}, {_named(stage.schedule)}{clip}", f"{path}.optimiser"
        ),
        PlanRow("sampling", sampling, f"{path}.sampling"),
        PlanRow("augmentation", _augmentation(stage, plan), f"{path}.augmentation"),
    ]
    optional = [
        (stage.sampling.clones is not None, "clones", _clones(stage), "sampling.clones"),
        (stage.sampling.weights is not None, "weights", _weights(stage), "sampling.weights"),
        (bool(stage.channels), "channels", ", ".join(stage.channels), "channels"),
        (any(stage.context), "context", f"{_times(stage.context)} voxels on each side", "context"),
        (stage.start != "scratch", "start", _start(stage), "start"),
        (bool(stage.frozen), "frozen", ", ".join(stage.frozen), "frozen"),
        (
            bool(stage.snapshots),
            "snapshots",
            "after epochs " + ", ".join(map(str, stage.snapshots)),
            "snapshots",
        ),
        (stage.save_every is not None, "saved", _saved(stage), "save_every"),
        (not isinstance(stage.keep, bool), "predicts", f"after {listed(stage.kept_epochs)}", "keep"),
        (
            stage.patience is not None,
            "patience",
            f"ends after {count_of(stage.patience or 0, 'epoch')} without a better validation Dice",
            "patience",
        ),
        (stage.leave_out is not None, "cases", _left_out(stage), "leave_out"),
    ]
    return rows + [PlanRow(label, value, f"{path}.{name}") for there, label, value, name in optional if there]


def _clones(stage: Stage) -> str:
    """Further training cases, and what stands in their lesions."""
    clones = stage.sampling.clones
    if clones is None:
        return ""
    drawn = "in each epoch" if clones.drawn == "each_epoch" else "once"
    return f"{clones.number} of each training case, {clones.noise} noise in its lesions, drawn {drawn}"


def _weights(stage: Stage) -> str:
    """By what voxels of a kind differ in how often patches are cut around them."""
    weights = stage.sampling.weights
    if weights is None:
        return ""
    if weights.errors_of is not None:
        return "patches rather where the start errs, among voxels of a kind"
    told = {"lesion": weights.foreground, "background": weights.background}
    return "; ".join(f"{kind} voxels by the maps in {folder}" for kind, folder in told.items() if folder)


def length_words(plan: Plan) -> str:
    """How long it trains: ``1000 epochs of 250``; of several stages and members all."""
    stages = [
        f"{count_of(stage.epochs, 'epoch')} of {stage.iterations_per_epoch}"
        if stage.iterations_per_epoch
        else count_of(stage.epochs, "pass", "passes")
        for stage in plan.recipe.stages
    ]
    joined = f"{len(stages)} x {stages[0]}" if len(stages) > 1 and len({*stages}) == 1 else " + ".join(stages)
    return joined + (f", {plan.recipe.members} times" if plan.recipe.members > 1 else "")


def _start(stage: Stage) -> str:
    """Where the weights come from, and the state of the optimiser."""
    start, words = stage.start, f"weights of {stage.start}"
    if isinstance(start, ModelStart):
        fold = "the same fold" if start.fold == "same" else f"fold {start.fold}"
        best = "best " * (start.weights == "best")
        words = f"{best}weights of {start.words}, {f'stage {start.stage}, ' if start.stage else ''}{fold}"
        words += ", as far as they fit" * start.partial
    return words + ", with its optimiser's state" * (stage.optimiser_state == "previous")


def _saved(stage: Stage) -> str:
    """Which weights are written for a prediction to choose among."""
    return f"after every {count_of(stage.save_every or 0, 'epoch')}, for a prediction to choose among"


def _left_out(stage: Stage) -> str:
    part, n = stage.leave_out or (0, 1)
    where = ", in folds without a test part" * (stage.leave_out_in == "two_part_folds")
    return f"without part {part + 1} of {n}{where}"


def _augmentation(stage: Stage, plan: Plan) -> str:
    spec = stage.augmentation
    axes = _axis_names(spec.mirror_axes, stage.patch_size, plan)
    parts = [] if spec.name == "none" else [f"{spec.name}, mirrored on {axes}"]
    parts += [_named(transform) for transform in spec.transforms]
    share = f"; {spec.share:.0%} of the samples" if parts and spec.share < 1 else ""
    return ", then ".join(parts) + share if parts else "none"


def _patch(size: PatchSize) -> str:
    return "the whole image" if _is_whole(size) else f"{_times(size)} voxels"


def _is_whole(size: PatchSize) -> bool:
    """Nothing is cut: no size, or every axis as long as it is."""
    return all(edge == "whole" for edge in size)


def _prediction(plan: Plan) -> list[PlanRow]:
    recipe, inference = plan.recipe, plan.recipe.inference
    in_planes = any(len(stage.patch_size) == 2 for stage in recipe.stages if stage.network == "main")
    tiles = f"whole slices, {inference.batch_size} at once" if in_planes else "the whole image at once"
    if not _is_whole(inference.patch_size):
        weighed = ", Gaussian weights" if inference.gaussian else ""
        tiles = f"{_times(inference.patch_size)} voxels, step {inference.step:g} of that{weighed}"
        if inference.tiles == "centre":
            tiles = f"one of {_times(inference.patch_size)} voxels in the centre, background around it"
        if inference.tiles == "flush":
            tiles = f"{_times(inference.patch_size)} voxels side by side, the last flush with the end"
        if inference.tiles == "chunks":
            seen = f", {_times(inference.halo)} voxels seen around each" if any(inference.halo) else ""
            tiles = f"chunks of {_times(inference.patch_size)} voxels side by side{seen}"
    if any(inference.context):
        tiles += f", {_times(inference.context)} voxels of context on each side"
    mirrored = _axis_names(inference.mirror_axes, inference.patch_size or [0] * 3, plan)
    steps = " -> ".join(_step(step) for step in recipe.postprocessing) or "none"
    chosen = f", of which {', '.join(map(str, recipe.predicting_members))} predict (from 0)"
    chosen *= bool(inference.members)
    return [
        PlanRow("tiles", f"{tiles}; mirrored on {mirrored}", "recipe.inference"),
        PlanRow(
            "members",
            f"{recipe.members} per fold{chosen}, fused by {_named(recipe.fusion)}",
            "recipe.members",
        ),
        PlanRow("post-processing", steps, "recipe.postprocessing"),
    ]


def _step(step: PostStep) -> str:
    """A step of the post-processing, and what it learns from."""
    learns = {
        "validation": "validation cases",
        "held_back": "cases that are held back",
        "train": "training cases",
    }
    learned = f", learnt from {learns[step.fit]}" if step.fit != "none" else ""
    return _named(step) + learned + ("" if step.apply else ", not applied")


def _axis_names(axes: Iterable[int], patch: Sequence[object], plan: Plan) -> str:
    """Working axes by their names in the file; a 2D patch has the last two only."""
    first = 3 - len(patch) if patch else 0
    names = [AXES[plan.preprocessing.transpose[axis]] for axis in axes if first <= axis < 3]
    return ", ".join(names) or "no axis"


def _alternatives(plan: Plan, width: int) -> list[str]:
    """The other configurations that were worked out, one line each."""
    entries = {name: entry for name, entry in plan.alternatives.items() if isinstance(entry, dict)}
    if not entries:
        return []
    keys = list(dict.fromkeys(key for entry in entries.values() for key in entry if key != "chosen"))
    shown = [key for key in keys if key not in ("batch_dice", "n_stages", "median_shape")]
    table = [["", "", *(key.replace("_", " ") for key in shown)]]
    for name, entry in entries.items():
        cells = [_cell(entry.get(key, "")) for key in shown]
        table.append(["*" if entry.get("chosen") else "", name, *cells])
    return ["", "CONFIGURATIONS (* is this plan)", *("  " + line[: width - 2] for line in in_columns(table))]


def _cell(value: object) -> str:
    if isinstance(value, (list, tuple)):
        return _close([f"{v:.4g}" if isinstance(v, float) else v for v in value])
    return str(value)


def _row_lines(rows: Sequence[PlanRow], plan: Plan, width: int) -> Iterator[str]:
    """Label and value, the reason below them."""
    reasons = {reason.what: reason for reason in plan.reasons}
    for row in rows:
        reason = reasons.get(row.path)
        yield from _entry(row.label, row.value, _why(row, reason, plan), width)


def _why(row: PlanRow, reason: Reason | None, plan: Plan) -> str:
    if row.path and any(_covers(path, row.path, plan) for path in plan.overrides):
        return "set by you" + (f"; the planner had: {reason.value}" if reason else "")
    return reason.why if reason else ""


def _covers(override: str, path: str, plan: Plan) -> bool:
    """Whether what the user set lies at, above or below a path of the table."""
    return any(_touch(long.split("."), path, plan) for long in long_paths(plan, override))


def _touch(parts: list[str], path: str, plan: Plan) -> bool:
    names = [stage.name for stage in plan.recipe.stages]
    if parts[:2] == ["recipe", "stages"] and len(parts) > 2:
        parts[2] = str(names.index(parts[2])) if parts[2] in names else parts[2]
    rows = path.split(".")
    parts = [SHOWN_WITH.get(part, part) for part in parts]
    shared = min(len(parts), len(rows))
    return parts[:shared] == rows[:shared]


def _reason_lines(reasons: Sequence[Reason], width: int) -> Iterator[str]:
    for reason in reasons:
        yield from _entry(reason.what.removeprefix("note: "), reason.value, reason.why, width)


def _entry(label: str, value: str, why: str, width: int) -> list[str]:
    """A label in a column of its own, then the value, then the reason: beside it, or below where it is narrow."""
    margin = " " * (LABEL_WIDTH + 3)
    head = f"  {label:<{LABEL_WIDTH}} "
    if not label:
        return [head + value]
    if width < BESIDE_FROM or not why:
        lines = textwrap.wrap(value, width, initial_indent=head, subsequent_indent=margin)
        return [
            *lines,
            *textwrap.wrap(why, width, initial_indent=margin + "- ", subsequent_indent=margin + "  "),
        ]
    values = textwrap.wrap(value, VALUE_WIDTH)
    whys = textwrap.wrap(why, width - len(margin) - VALUE_WIDTH - 2)
    pairs = list(zip_longest(values, whys, fillvalue=""))
    return [f"{margin if i else head}{v:<{VALUE_WIDTH}}  {w}" for i, (v, w) in enumerate(pairs)]


def _wrap(text: str, width: int) -> list[str]:
    return textwrap.wrap(text, width, subsequent_indent="  ")


def _named(item: Named) -> str:
    """``name (key value, ...)``."""
    if not item.arguments:
        return item.name
    return f"{item.name} ({', '.join(f'{key} {_plain(value)}' for key, value in item.arguments.items())})"


def _plain(value: object) -> str:
    return "yes" if value is True else "no" if value is False else json.dumps(value).strip('"')


def _times(numbers: Iterable[object]) -> str:
    return " x ".join(str(n) for n in numbers)


def _close(numbers: Iterable[object]) -> str:
    """For narrow columns."""
    return "x".join(str(n) for n in numbers)


def in_columns(table: Sequence[Sequence[str]]) -> list[str]:
    """Cells padded to the widths of their columns."""
    widths = [max(len(row[i]) for row in table) for i in range(len(table[0]))]
    return ["  ".join(cell.ljust(w) for cell, w in zip(row, widths, strict=True)).rstrip() for row in table]
