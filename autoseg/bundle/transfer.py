"""Models that travel: export to one zip, import with every file checked.

A bundle holds plain files under an allow-list of names: JSON with a schema and safetensors. Nothing in it is
executed and there is no pickle. ``model_card.json`` names every other file with its SHA-256; that guards against
damage and mixed-up files, not against a forger, who can write a card of his own.
"""

from __future__ import annotations

import contextlib
import errno
import os
import re
import shutil
import stat
import struct
import tempfile
import zipfile
import zlib
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any, BinaryIO

from autoseg import messages
from autoseg.bundle.card import ModelCard, bundle_files, is_allowed, make_card
from autoseg.bundle.layout import BUNDLE_VERSION, CARD, WeightsKind
from autoseg.bundle.opening import open_model, read_plan, refuse_changed, refuse_other_version
from autoseg.dataset.dataset_json import DatasetJson
from autoseg.errors import AutosegError, Fault, FaultsError
from autoseg.files import (
    atomic_path,
    half_made_folder,
    hash_file,
    read_json,
    read_model,
    replace_folder,
    validate,
    write_error,
)
from autoseg.messages import count_of
from autoseg.names import shown
from autoseg.plan import Plan, hash_plan, is_hash_of

LARGEST_JSON_BYTES = 64 << 20
LARGEST_BUNDLE_BYTES = 32 << 30
MOST_FILES = 10_000
DAMAGED = (
    zipfile.BadZipFile,
    zlib.error,
    struct.error,
    EOFError,
    NotImplementedError,
    RuntimeError,
    ValueError,
)
"""What Python's reader raises on damaged zips."""
LARGEST_RATIO = 200
"""Weights do not compress and JSON does by less than this; more is a zip made to fill the disk."""


# ------------------------------------------------------------------------------------------------------ export


def export_bundle(
    folder: Path,
    target: Path,
    folds: Sequence[int | str] | None = None,
    checkpoint: WeightsKind = "final",
    *,
    overwrite: bool = False,
) -> ModelCard:
    """Write a model folder as one zip.

    Args:
        folder: of the model.
        target: the zip.
        folds: None takes every finished fold.
        checkpoint: weights that must be there; all weight files of the folds are exported.
        overwrite: replace a zip that is there.

    Raises:
        AutosegError: the model is incomplete, or the zip is there or cannot be written.
        FaultsError: weights are not those of the model's card.
    """
    model = open_model(folder, folds, checkpoint)
    if target.exists() and not overwrite:
        raise AutosegError(
            "the file is there already",
            where=str(target),
            fix="choose another name with -o, or replace it with --overwrite",
        )
    names = bundle_files(folder, model.folds)
    refuse_changed(folder, [folder / name for name in names if name.endswith(".safetensors")])
    card = make_card(folder, names)
    with atomic_path(target) as temporary:
        with zipfile.ZipFile(temporary, "w", allowZip64=True) as archive:
            _store(archive, CARD, (card.model_dump_json(indent=1) + "\n").encode())
            for name in names:
                _store(archive, name, folder / name)
    return card


def _store(archive: zipfile.ZipFile, name: str, content: bytes | Path) -> None:
    """Add one file; the same content makes the same zip, so no times are stored."""
    entry = zipfile.ZipInfo(name)
    entry.external_attr = (stat.S_IFREG | 0o644) << 16
    entry.compress_type = zipfile.ZIP_DEFLATED if name.endswith(".json") else zipfile.ZIP_STORED
    with archive.open(entry, "w", force_zip64=True) as target:
        if isinstance(content, bytes):
            target.write(content)
        else:
            with open(content, "rb") as source:
                shutil.copyfileobj(source, target, 1 << 20)


# ------------------------------------------------------------------------------------------------------ import


def import_bundle(path: Path, results: Path, *, overwrite: bool = False) -> Path:
    """Unpack a bundle into ``results/DATASET/TRAINER__PLAN``, checked as a whole before anything appears there.

    Args:
        path: the zip.
        results: root of the results.
        overwrite: replace a model of the same name.

    Returns:
        The model folder.

    Raises:
        AutosegError: the file is no bundle of this version, is damaged, or the model is there already.
        FaultsError: it holds names or sizes that a bundle never has; nothing was unpacked.
    """
    try:
        with half_made_folder(results / "import") as temporary:
            unpacked = temporary / "model"
            card = unpack(path, unpacked)
            target = results / card.dataset / card.name
            if target.exists() and not overwrite:
                raise AutosegError(
                    "there is a model of this name already",
                    where=str(target),
                    expected="a new model",
                    fix="import into other results with --results, or replace it with --overwrite",
                )
            replace_folder(unpacked, target)
    except OSError as error:
        raise write_error(results, error) from error
    return target


@contextlib.contextmanager
def opened(path: Path) -> Iterator[Path]:
    """A model folder for the length of the block: the folder itself, or a zip unpacked and checked.

    Raises:
        AutosegError: as of :func:`import_bundle`.
    """
    if path.is_dir() or path.suffix != ".zip":
        yield path
        return
    with half_made_folder(Path(tempfile.gettempdir()) / "autoseg") as temporary:
        card = unpack(path, temporary / "unpacked")
        folder = temporary / card.name
        os.replace(temporary / "unpacked", folder)
        yield folder


def unpack(path: Path, folder: Path) -> ModelCard:
    """Check a bundle and unpack it into a new folder; on an error the folder is of no use.

    Raises:
        AutosegError: it is no bundle of this version, or is damaged.
        FaultsError: it holds names or sizes that a bundle never has.
    """
    if path.is_dir():
        fix = "a model folder is given to autoseg_predict as it is: -m"
        raise AutosegError(
            "is a folder", where=str(path), expected="a zip, or a folder of autoseg_export --onnx", fix=fix
        )
    if not path.is_file():
        raise AutosegError("there is no such file", where=str(path), fix="check the path")
    try:
        with zipfile.ZipFile(path) as archive:
            entries = archive.infolist()
            _refuse_hostile(path, entries)
            for entry in entries:
                _unpack_one(archive, entry, folder)
    except OSError as error:
        if error.errno != errno.EINVAL:  # a place before the start, where a damaged entry leads
            raise write_error(folder, error) from error
        raise _damaged(path, error) from None
    except DAMAGED as error:
        raise _damaged(path, error) from None
    return check_unpacked(folder, where=str(path))


def _damaged(path: Path, error: Exception) -> AutosegError:
    return AutosegError(
        "is not a whole zip file",
        where=str(path),
        found=f"{error}" or type(error).__name__,
        expected="a bundle written by autoseg_export",
        fix="copy or download it again",
    )


def _refuse_hostile(path: Path, entries: Sequence[zipfile.ZipInfo]) -> None:
    """Look at names, kinds and sizes before a byte is unpacked."""
    faults = [fault for entry in entries if (fault := _entry_fault(entry))]
    seen: set[str] = set()
    for entry in entries:
        if entry.filename.lower() in seen:
            faults.append(Fault(shown(entry.filename), "the name is there twice"))
        seen.add(entry.filename.lower())
    total = sum(entry.file_size for entry in entries)
    if total > LARGEST_BUNDLE_BYTES or len(entries) > MOST_FILES:
        found, limit = (
            f"{count_of(len(entries), 'file')}, {total / 1e9:.1f} GB",
            f"{LARGEST_BUNDLE_BYTES / 1e9:.0f} GB",
        )
        faults.append(Fault("the whole", "is too large", found, f"up to {MOST_FILES} files, {limit}"))
    if faults:
        raise FaultsError(
            f"{path} is refused, nothing was unpacked: {count_of(len(faults), 'fault')}", faults[:20]
        )


def _entry_fault(entry: zipfile.ZipInfo) -> Fault | None:
    """What is wrong with one entry of a zip; None for a file that a bundle may hold."""
    name, mode = entry.filename, entry.external_attr >> 16
    where, fix = shown(name), "do not use this file; ask its sender for one made by autoseg_export"
    parts = re.split(r"[/\\]", name)
    if name.startswith(("/", "\\")) or ".." in parts or ":" in name or "\0" in entry.orig_filename:
        return Fault(where, "the path leads out of the folder", "", "a plain name inside the bundle", fix)
    if stat.S_IFMT(mode) not in (0, stat.S_IFREG):
        kind = "a symbolic link" if stat.S_ISLNK(mode) else "a folder or special file"
        return Fault(where, "is not a plain file", kind, "plain files only", fix)
    if not is_allowed(name):
        return Fault(where, "does not belong in a bundle", "", "plan, dataset, card, weights, summaries", fix)
    if entry.flag_bits & 0x1:
        return Fault(where, "is encrypted", "", "plain files only", fix)
    if entry.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
        return Fault(
            where, "is packed in another way", f"method {entry.compress_type}", "stored or deflated", fix
        )
    if name.endswith(".json") and entry.file_size > LARGEST_JSON_BYTES:
        return Fault(where, "is too large", f"{entry.file_size} bytes", f"up to {LARGEST_JSON_BYTES}", fix)
    if entry.file_size > LARGEST_RATIO * max(entry.compress_size, 1024):
        found = f"{entry.compress_size} bytes become {entry.file_size}"
        return Fault(where, "is a zip bomb", found, f"at most {LARGEST_RATIO} times as many", fix)
    return None


def _unpack_one(archive: zipfile.ZipFile, entry: zipfile.ZipInfo, folder: Path) -> None:
    """Write one entry; its size is held against the header while it is read."""
    target = folder / entry.filename
    target.parent.mkdir(parents=True, exist_ok=True)
    with archive.open(entry) as source, open(target, "xb") as copy:
        _copy_at_most(source, copy, entry.file_size)


def _copy_at_most(source: Any, target: BinaryIO, n_bytes: int) -> None:
    left = n_bytes
    while block := source.read(1 << 20):
        left -= len(block)
        if left < 0:
            raise zipfile.BadZipFile("a file is larger than its header says")
        target.write(block)


def check_unpacked(folder: Path, *, where: str) -> ModelCard:
    """Hold every file of an unpacked bundle against its card, and the card against the plan.

    Raises:
        AutosegError: a version that is not known, a card that does not fit the rest.
        FaultsError: files that are missing, left over or damaged.
    """
    if not (folder / CARD).is_file():
        raise AutosegError("there is no model_card.json in it", where=where, fix="export the model again")
    content = read_json(folder / CARD)
    refuse_other_version(content, "bundle_version", BUNDLE_VERSION, where=where, what="bundle")
    card = validate(content, ModelCard, where=f"{where}: {CARD}")
    faults = list(_file_faults(folder, card))
    if faults:
        raise FaultsError(f"{where} is damaged: {count_of(len(faults), 'file')}", faults)
    plan = read_plan(folder)
    read_model(folder / "dataset.json", DatasetJson)
    _refuse_contradictions(card, plan, where)
    return card


def _file_faults(folder: Path, card: ModelCard) -> Iterable[Fault]:
    there, fix = set(bundle_files(folder)), "copy or export it again"
    for name in sorted({"plan.json", "dataset.json"} - set(card.files)):
        yield Fault(name, "is not on the card", fix=fix)
    for name in sorted(there - set(card.files)):
        yield Fault(name, "is not on the card", fix=fix)
    for name, expected in sorted(card.files.items()):
        if name not in there:
            yield Fault(shown(name), "is missing", fix=fix)
        elif (found := hash_file(folder / name)) != expected:
            yield Fault(name, "was changed or damaged", f"SHA-256 {found[:12]}", expected[:12], fix)
        elif name.endswith(".safetensors") and (problem := _weights_problem(folder / name)):
            yield Fault(name, "is not a safetensors file", problem, fix=fix)


def _weights_problem(path: Path) -> str | None:
    """Why safetensors does not open a file (header and sizes are checked, torch is not needed)."""
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(path, framework="np"):
            return None
    except (SafetensorError, OSError) as error:
        return str(error)


def _refuse_contradictions(card: ModelCard, plan: Plan, where: str) -> None:
    """The plan that the card tells of must be the one that is there."""
    found = {"dataset": plan.dataset, "trainer": plan.trainer, "plan_hash": hash_plan(plan)}
    for key, value in found.items():
        same = is_hash_of(card.plan_hash, plan) if key == "plan_hash" else getattr(card, key) == value
        if not same:
            raise AutosegError(
                "the card and the plan do not belong together",
                where=where,
                found=f"{key} {getattr(card, key)!r} on the card",
                expected=f"{value!r} as in plan.json",
                fix="export the model again",
            )
    from autoseg import plugins

    if card.trainer not in plugins.names(plugins.TRAINERS):
        messages.warn(f"its trainer '{card.trainer}' is not installed: install the package that provides it")
