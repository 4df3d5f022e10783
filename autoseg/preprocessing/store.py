"""The store: preprocessed cases as compressed arrays, each with a record that says what it was made from.

For each case: ``CASE.image.b2nd``, ``CASE.label.b2nd``, ``CASE.foreground.b2nd`` and, written last, ``CASE.json``. A
case without a record is not there, so one that was interrupted is made again. The record has a checksum of each array
file and of itself; a process verifies a file when it first opens it. docs/formats/store.md describes it.
"""

from __future__ import annotations

import json
import math
import os
import zlib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property, lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from pydantic import (
    BaseModel,
    ConfigDict,
    SerializerFunctionWrapHandler,
    ValidationError,
    field_validator,
    model_serializer,
)

from autoseg.errors import AutosegError
from autoseg.files import checksum_file, read_json, remove_leftovers, write_bytes, write_error, write_json
from autoseg.plan import Preprocessing, without_defaults
from autoseg.preprocessing.case import CaseProperties, Preprocessed
from autoseg.preprocessing.lesion_changes import ClassComponents
from autoseg.preprocessing.unexpected import UnexpectedRange

if TYPE_CHECKING:
    from blosc2 import NDArray

STORE_VERSION = 1
PARTS = ("image", "label", "foreground")
MADE_BY = "autoseg_plan_and_preprocess"

# Measured on BRATS and perfusion cases: LZ4 with shuffle writes and reads at about 1 GB/s on one core; ZSTD saves a
# fifth of the space and costs a fifth more time per patch.
CODEC, LEVEL = "LZ4", 5
BLOCK_VOXELS, CHUNK_VOXELS = 1 << 14, 1 << 19


class CaseKey(BaseModel):
    """What a stored case depends on.

    Attributes:
        content_hash: of the case's raw files.
        preprocessing: the plan's part, without what only matters on the way back and without fields at their
            defaults; of a record that holds these, as version 1 of plans had them, they are taken out.
        ignore: the label value that is not foreground.
        mask_hash: of the file of the plan's mask, where it comes from a folder. None does not ask for it: only who has
            the raw data can tell.
    """

    model_config = ConfigDict(extra="forbid")

    content_hash: str
    preprocessing: dict[str, Any]
    ignore: int | None = None
    store_version: int = STORE_VERSION
    mask_hash: str | None = None

    @model_serializer(mode="wrap")
    def _without_mask_as_before(self, handler: SerializerFunctionWrapHandler) -> dict[str, Any]:
        return _without_unused(handler(self), "mask_hash")

    @field_validator("preprocessing")
    @classmethod
    def _defaults_do_not_count(cls, value: dict[str, Any]) -> dict[str, Any]:
        try:
            plan = Preprocessing.model_validate(value)
        except ValidationError:
            return value  # of another autoseg: it differs, and the case is made again
        return {key: part for key, part in without_defaults(plan).items() if key != "logits_order"}


class ArrayRecord(BaseModel):
    """One array file as it was written.

    Attributes:
        checksum: CRC-32 of the file, hexadecimal; None in records of an earlier autoseg, whose files are not verified.
    """

    model_config = ConfigDict(extra="forbid")

    size_bytes: int
    shape: list[int]
    dtype: str
    checksum: str | None = None


class StoreRecord(BaseModel):
    """CASE.json.

    Attributes:
        arrays: part to what its file holds.
        lesion_voxels_outside, unexpected: see :class:`autoseg.preprocessing.case.Preprocessed`.
        checksum: CRC-32 of all other entries; None in records of an earlier autoseg.
    """

    model_config = ConfigDict(extra="forbid")

    store_version: int = STORE_VERSION
    key: CaseKey
    properties: CaseProperties
    arrays: dict[str, ArrayRecord]
    components: list[ClassComponents] = []
    lesion_voxels_outside: int = 0
    unexpected: list[UnexpectedRange] = []
    checksum: str | None = None

    @model_serializer(mode="wrap")
    def _without_mask_as_before(self, handler: SerializerFunctionWrapHandler) -> dict[str, Any]:
        return _without_unused(handler(self), "lesion_voxels_outside", "unexpected")


def _without_unused(content: dict[str, Any], *names: str) -> dict[str, Any]:
    """A record without entries that say nothing, so that records of other plans stay as they are."""
    return {key: value for key, value in content.items() if key not in names or value}


@dataclass(frozen=True)
class StoredCase:
    """One case of the store; nothing is read before it is asked for.

    ``image`` (float32 ``[c, z, y, x]``) and ``label`` (int16 ``[z, y, x]``, -1 outside the mask) lie on disk:
    slicing them reads and decompresses what the slice touches, ``case.image[...]`` gives the whole as numpy.
    """

    name: str
    record: StoreRecord
    paths: dict[str, Path] = field(repr=False)

    @property
    def properties(self) -> CaseProperties:
        """The way back to the file's grid."""
        return self.record.properties

    @cached_property
    def image(self) -> NDArray:
        """Float32 ``[c, z, y, x]``, on disk."""
        return self._open("image")

    @cached_property
    def label(self) -> NDArray:
        """Int16 ``[z, y, x]``, on disk."""
        return self._open("label")

    @cached_property
    def foreground(self) -> np.ndarray:
        """int32 ``[n, 5]``: z, y, x, label value, lesion; at most 10000 of a value, at least one of each lesion."""
        return self._open("foreground")[...]

    def _open(self, part: str) -> NDArray:
        import blosc2

        path, expected = self.paths[part], self.record.arrays[part]
        if damage := _content_damage(path, expected):
            raise self._damaged(part, damage)
        # processes and threads of the caller work on different cases already
        mapped = {"mmap_mode": "r"} if os.name != "nt" else {"mode": "r"}
        try:
            array = blosc2.open(str(path), dparams={"nthreads": 1}, **mapped)
            if list(array.shape) == expected.shape and str(array.dtype) == expected.dtype:
                return array
            found = f"{array.dtype} {list(array.shape)}"
        except (RuntimeError, OSError, ValueError) as error:
            found = str(error)
        raise self._damaged(part, found)

    def _damaged(self, part: str, found: str) -> AutosegError:
        path, expected = self.paths[part], self.record.arrays[part]
        return AutosegError(
            f"the stored {part} of case {self.name} is missing or damaged",
            where=str(path),
            found=found,
            expected=f"{expected.dtype} {expected.shape}, as it was written",
            fix=_remedy(path.parent),
        )


class Store:
    """A folder of preprocessed cases."""

    def __init__(self, folder: Path) -> None:
        self.folder = Path(folder)
        self._held: dict[str, CaseKey] = {}

    def hold(self, names: Iterable[str]) -> None:
        """From now on these cases must stay what they are made from; :meth:`read` refuses those that do not.

        A training reads cases for hours. Who prepares the dataset otherwise meanwhile must not change what it learns.
        """
        self._held = {name: self.record(name).key for name in names}

    def names(self) -> list[str]:
        """All complete cases, sorted."""
        if not self.folder.is_dir():
            return []
        return sorted(
            p.name.removesuffix(".json") for p in self.folder.glob("*.json") if not p.name.startswith(".")
        )

    def read(self, name: str) -> StoredCase:
        """Open a case.

        Raises:
            AutosegError: it is not in the store, its record or an array is damaged, or it was made anew since
                :meth:`hold`.
        """
        record = self.record(name)
        if name in self._held and (change := _difference(record.key, self._held[name])):
            raise AutosegError(
                f"the stored case {name} was made anew while it was in use",
                where=str(self.folder),
                found=change,
                expected="the case as it was at the start",
                fix="prepare the dataset again as it was and continue with --c, or train anew with --overwrite; keep "
                "several plans under names of their own (-p)",
            )
        damage = self._damage(name, record)
        if damage:
            raise AutosegError(
                f"the stored case {name} is damaged",
                where=str(self.folder),
                found=damage,
                fix=_remedy(self.folder),
            )
        return StoredCase(name, record, {part: self._path(name, part) for part in PARTS})

    def record(self, name: str) -> StoreRecord:
        """What is known of a case.

        Raises:
            AutosegError: it is not in the store, or its record is damaged.
        """
        path = self._record_path(name)
        if not path.exists():
            raise AutosegError(f"case {name} is not preprocessed", where=str(path), fix=_remedy(self.folder))
        content = read_json(path)
        try:
            record = StoreRecord.model_validate(content)
        except ValidationError:
            version = content.get("store_version") if isinstance(content, dict) else None
            problem = f"was made by store version {version}, this is version {STORE_VERSION}"
            raise AutosegError(
                "does not fit the schema of records" if version == STORE_VERSION else problem,
                where=str(path),
                fix=_remedy(self.folder),
            ) from None
        if record.checksum is not None and record.checksum != _checksum(content):
            raise AutosegError(
                "is damaged",
                where=str(path),
                found=f"checksum {_checksum(content)}",
                expected=record.checksum,
                fix=_remedy(self.folder),
            )
        return record

    def write(self, name: str, case: Preprocessed, key: CaseKey) -> None:
        """Write a case; it counts only when its record, the last file, is there.

        Raises:
            AutosegError: the folder cannot be written to or the disk is full; the case is not in the store then.
        """
        if case.label is None:
            raise ValueError(f"case {name} has no label; only labelled cases are stored")
        self.remove(name)
        arrays = {"image": case.image, "label": case.label, "foreground": case.foreground}
        written = {}
        for part, array in arrays.items():
            content = _compress(array)
            write_bytes(self._path(name, part), content)
            written[part] = ArrayRecord(
                size_bytes=len(content),
                shape=list(array.shape),
                dtype=str(array.dtype),
                checksum=f"{zlib.crc32(content):08x}",
            )
        record = StoreRecord(
            key=key,
            properties=case.properties,
            arrays=written,
            components=case.components,
            lesion_voxels_outside=case.lesion_voxels_outside,
            unexpected=case.unexpected,
        )
        entries = json.loads(record.model_dump_json())
        write_json(self._record_path(name), {**entries, "checksum": _checksum(entries)})

    def remove(self, name: str) -> None:
        """Forget a case: its record first.

        Raises:
            AutosegError: the folder cannot be written to.
        """
        for path in (self._record_path(name), *(self._path(name, part) for part in PARTS)):
            try:
                path.unlink(missing_ok=True)
            except OSError as error:
                raise write_error(path, error) from error

    def remove_leftovers(self) -> None:
        """Delete temporary files of runs that were killed. Nobody else may be writing."""
        remove_leftovers(self.folder, owned=True)

    def is_current(self, name: str, key: CaseKey, *, verify: bool = False) -> str | None:
        """Why a case must be made (again), in a few words; None when it is as ``key`` wants it.

        Args:
            name: of the case.
            key: what it should be made from.
            verify: read the array files as a whole and hold them against their checksums, which they must have.
        """
        if not self._record_path(name).exists():
            begun = any(self._path(name, part).exists() for part in PARTS)
            return "interrupted while it was written" if begun else "not preprocessed yet"
        try:
            record = self.record(name)
        except AutosegError as error:
            problem = error.fault.problem
            return problem.removeprefix("was ") if problem.startswith("was made") else f"its record {problem}"
        why = _difference(record.key, key) or self._damage(name, record)
        return self._content_damage(name, record) if verify and why is None else why

    def _damage(self, name: str, record: StoreRecord) -> str | None:
        for part in PARTS:
            path, expected = self._path(name, part), record.arrays[part].size_bytes
            found = path.stat().st_size if path.exists() else None
            if found is None:
                return f"{path.name} is missing"
            if found != expected:
                return f"{path.name} is damaged ({found} bytes, expected {expected})"
        return None

    def _content_damage(self, name: str, record: StoreRecord) -> str | None:
        if record.checksum is None:
            return "made by an earlier autoseg, without checksums"
        paths = {part: self._path(name, part) for part in PARTS}
        found = ((path, _content_damage(path, record.arrays[part])) for part, path in paths.items())
        return next((f"{path.name} is damaged ({damage})" for path, damage in found if damage), None)

    def _record_path(self, name: str) -> Path:
        return self.folder / f"{name}.json"

    def _path(self, name: str, part: str) -> Path:
        return self.folder / f"{name}.{part}.b2nd"


def _remedy(folder: Path) -> str:
    """What mends a damaged case of the store ``DATASET/PLAN/store``."""
    named = f"-d {folder.parent.parent.name} -p {folder.parent.name}"
    return f"run {MADE_BY} {named} --keep_plan; it makes what is missing or damaged"


def _checksum(record: Mapping[str, Any]) -> str:
    """Of the entries of a record as JSON has them, but for the checksum itself."""
    entries = {key: value for key, value in record.items() if key != "checksum"}
    return f"{zlib.crc32(json.dumps(entries, sort_keys=True).encode()):08x}"


def _content_damage(path: Path, expected: ArrayRecord) -> str | None:
    """How the bytes of an array file differ from what was written; None when they do not, or nothing is known."""
    if expected.checksum is None:
        return None
    try:
        state = path.stat()
        found = _checksum_of(str(path), (state.st_size, state.st_mtime_ns, state.st_ino))
    except OSError as error:
        return error.strerror or str(error)
    return None if found == expected.checksum else f"checksum {found}, written with {expected.checksum}"


@lru_cache(maxsize=1 << 17)
def _checksum_of(path: str, state: tuple[int, ...]) -> str:
    """Of a file in this state, computed once in a process: a case is opened again for every patch."""
    return checksum_file(Path(path))


def _difference(found: CaseKey, wanted: CaseKey) -> str | None:
    """What has changed since a case was made."""
    if found.store_version != wanted.store_version:
        return f"made by store version {found.store_version}, this is version {wanted.store_version}"
    if found.content_hash != wanted.content_hash:
        return "the raw file changed"
    if wanted.mask_hash is not None and found.mask_hash != wanted.mask_hash:
        return "the file of its mask changed"
    if found.ignore != wanted.ignore:
        return "the label 'ignore' changed in dataset.json"
    names = sorted(set(found.preprocessing) | set(wanted.preprocessing))
    changed = [n for n in names if found.preprocessing.get(n) != wanted.preprocessing.get(n)]
    return f"the plan's preprocessing changed: {', '.join(changed)}" if changed else None


def _compress(array: np.ndarray) -> bytes:
    import blosc2

    array = np.ascontiguousarray(array)
    if not array.size:
        return blosc2.asarray(array).to_cframe()
    blocks = _block(array.shape[-3:], BLOCK_VOXELS) if array.ndim > 2 else array.shape
    chunks = _chunk(array.shape[-3:], blocks) if array.ndim > 2 else array.shape
    channel = (1,) * (array.ndim - len(blocks))
    parameters = {
        "codec": blosc2.Codec[CODEC],
        "clevel": LEVEL,
        "filters": [blosc2.Filter.SHUFFLE],
        "nthreads": 1,
    }
    compressed = blosc2.empty(
        array.shape,
        array.dtype,
        chunks=(*channel, *chunks),
        blocks=(*channel, *blocks),
        cparams=parameters,
        contiguous=True,
    )
    compressed[...] = array
    return compressed.to_cframe()


def _block(shape: Sequence[int], limit: int) -> tuple[int, ...]:
    """Edges of a block of at most ``limit`` voxels, as cubic as the volume allows."""
    edges = list(shape)
    while math.prod(edges) > limit:
        longest = edges.index(max(edges))
        edges[longest] = -(-edges[longest] // 2)
    return tuple(edges)


def _chunk(shape: Sequence[int], block: Sequence[int]) -> tuple[int, ...]:
    """Edges of a chunk: whole blocks, about ``CHUNK_VOXELS`` in all."""
    edges = list(block)
    while math.prod(edges) * 2 <= CHUNK_VOXELS and any(e < n for e, n in zip(edges, shape, strict=True)):
        growing = min((a for a in range(len(edges)) if edges[a] < shape[a]), key=lambda a: edges[a])
        edges[growing] *= 2
    return tuple(edges)
