"""Files that are whole or absent: atomic writes, hashes, typed JSON, tables, locks."""

from __future__ import annotations

import contextlib
import csv
import errno
import hashlib
import io
import json
import math
import os
import re
import shutil
import zlib
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any, TypeVar

from pydantic import BaseModel, ConfigDict, ValidationError

from autoseg import strict_json
from autoseg.errors import MOST_SHOWN, AutosegError, Fault, FaultsError
from autoseg.messages import count_of

Model = TypeVar("Model", bound=BaseModel)


LARGEST_JSON_BYTES = 256 << 20
"""A fingerprint of ten thousand cases has fewer."""
MOST_LISTED = 10_000


_FORMULA = re.compile("'* *[=+@\t\r\n\uff1d\uff0b\uff0d\uff20-]")
"""How a text starts that a spreadsheet would run, with the apostrophes that it may have been given already."""


class ExactModel(BaseModel):
    """A typed JSON file, or a part of one, that refuses entries it does not know."""

    model_config = ConfigDict(extra="forbid")


@contextlib.contextmanager
def atomic_path(path: Path) -> Iterator[Path]:
    """A temporary path beside ``path``, which takes its place when the block ends without an error.

    The temporary name keeps the ending, for writers that choose the format by it.

    Raises:
        AutosegError: the folder cannot be written to or the disk is full. ``path`` is untouched then.
    """
    path = Path(path)
    temporary = path.with_name(f".tmp-{os.getpid()}-{path.name}")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        yield temporary
        with open(temporary, "rb+") as handle:
            os.fsync(handle.fileno())
        os.replace(temporary, path)
    except OSError as error:
        raise write_error(path, error) from error
    finally:
        with contextlib.suppress(OSError):
            temporary.unlink()


def write_error(path: Path, error: OSError) -> AutosegError:
    """The error to raise when ``path`` could not be written."""
    full = error.errno in (errno.ENOSPC, errno.EDQUOT)
    return AutosegError(
        "the disk is full" if full else "cannot be written",
        where=str(path),
        found=error.strerror or str(error),
        expected="a folder with free space" if full else "a folder that you may write to",
        fix="free some space and run the command again; it continues where it stopped"
        if full
        else "choose another folder or change its permissions",
    )


def check_writable(folder: Path) -> None:
    """Refuse an output folder that cannot be written to before any time is spent.

    Raises:
        AutosegError: it cannot be made or written to.
    """
    probe = folder / f".probe-{os.getpid()}"
    try:
        folder.mkdir(parents=True, exist_ok=True)
        probe.write_bytes(b"autoseg")
        probe.unlink()
    except OSError as error:
        raise write_error(folder, error) from error


def replace_folder(new: Path, target: Path) -> None:
    """A finished folder takes its place; what was there is removed, or comes back when that fails.

    Args:
        new: on the same disk as ``target``; gone afterwards.
        target: may be there or not.

    Raises:
        AutosegError: the folder around ``target`` cannot be written to.
    """
    replaced = target.with_name(f".replaced-{os.getpid()}-{target.name}")
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        if target.exists():
            os.replace(target, replaced)
        try:
            os.replace(new, target)
        except OSError:
            if replaced.exists():
                os.replace(replaced, target)
            raise
    except OSError as error:
        raise write_error(target, error) from error
    shutil.rmtree(replaced, ignore_errors=True)


def write_bytes(path: Path, content: bytes) -> None:
    """Write a file atomically."""
    with atomic_path(path) as temporary:
        temporary.write_bytes(content)


def write_text(path: Path, text: str) -> None:
    """Write a text file (UTF-8) atomically."""
    write_bytes(path, text.encode("utf-8"))


def write_json(path: Path, content: BaseModel | dict[str, Any] | list[Any]) -> None:
    """Write JSON atomically, indented for reading; NaN and infinite numbers become null."""
    if isinstance(content, BaseModel):
        text = content.model_dump_json(indent=1)
    else:
        text = json.dumps(_finite(content), indent=1, allow_nan=False)
    write_text(path, text + "\n")


def csv_text(rows: Iterable[Sequence[object]]) -> str:
    """The text of a CSV file; None is an empty cell.

    Spreadsheets run a text that starts like a formula, so it gets an apostrophe before it; numbers stay as they are.
    """
    out = io.StringIO()
    csv.writer(out, lineterminator="\n").writerows([_no_formula(cell) for cell in row] for row in rows)
    return out.getvalue()


def _no_formula(cell: object) -> object:
    if not isinstance(cell, str) or not _FORMULA.match(cell):
        return cell
    try:
        float(cell)
    except ValueError:
        return "'" + cell
    return cell


def csv_words(cell: str) -> str:
    """A cell of a CSV file as it was before :func:`csv_text`."""
    return cell[1:] if cell.startswith("'") and _FORMULA.match(cell) else cell


def _finite(value: Any) -> Any:
    """JSON has no NaN and no infinity: a missing number is null."""
    if isinstance(value, float) and not math.isfinite(value):
        return None
    if isinstance(value, dict):
        return {key: _finite(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_finite(item) for item in value]
    return value


def read_json(path: Path, *, made_by: str = "") -> Any:
    """Read a JSON file.

    Args:
        path: the file.
        made_by: the command that makes it, for the message when it is missing.

    Raises:
        AutosegError: it is missing, cannot be read, or is not JSON within the limits of
            :mod:`autoseg.strict_json`.
    """
    path = Path(path)
    try:
        with open(path, "rb") as handle:
            content = handle.read(LARGEST_JSON_BYTES + 1)
        if len(content) > LARGEST_JSON_BYTES:
            raise ValueError(f"it is larger than {LARGEST_JSON_BYTES >> 20} MiB")
        return strict_json.parse(content.decode("utf-8"))
    except FileNotFoundError:
        fix = f"run {made_by} first" if made_by else "check the path"
        raise AutosegError("the file is missing", where=str(path), fix=fix) from None
    except OSError as error:
        raise AutosegError(
            "cannot be read", where=str(path), found=error.strerror or str(error), fix="check the file"
        ) from None
    except ValueError as error:
        raise AutosegError(
            "is not valid JSON", where=str(path), found=str(error), fix="correct the file or make it again"
        ) from None


def read_model(path: Path, model: type[Model], *, made_by: str = "") -> Model:
    """Read a JSON file that must fit a typed schema; all its faults are shown at once.

    Raises:
        AutosegError: it is missing or is not JSON.
        FaultsError: some of its entries do not fit the schema.
    """
    return validate(read_json(path, made_by=made_by), model, where=str(path))


def read_version(path: Path, model: type[Model], version: int, *, what: str, made_by: str) -> Model:
    """Read a JSON file of one version of its format.

    Args:
        path: the file.
        model: its schema, with an entry ``version``.
        version: the only one that is read.
        what: is in the file, such as ``the scores are``, for the message.
        made_by: the command that makes it.

    Raises:
        AutosegError: it is missing, is not JSON or is of another version.
        FaultsError: some of its entries do not fit the schema.
    """
    content = read_json(path, made_by=made_by)
    found = content.get("version") if isinstance(content, dict) else None
    if found != version:
        raise AutosegError(
            f"{what} of another version of the format",
            where=str(path),
            found=f"version {found}",
            expected=f"version {version}",
            fix=f"run {made_by} again",
        )
    return validate(content, model, where=str(path))


def validate(content: Any, model: type[Model], *, where: str) -> Model:
    """Hold plain data against a typed schema; all faults are shown at once.

    Raises:
        FaultsError: some entries do not fit the schema.
    """
    try:
        return model.model_validate(content)
    except ValidationError as error:
        if error.error_count() > MOST_LISTED:  # each takes a kilobyte to be told
            raise AutosegError(
                f"{error.error_count()} entries do not fit",
                where=where,
                fix="use another file, or make it again",
            ) from None
        faults = [
            Fault(
                where=".".join(str(part) for part in item["loc"]) or "the whole",
                problem=item["msg"].removeprefix("Value error, "),
                found=_short(item.get("input")),
            )
            for item in error.errors(include_url=False, include_context=False)
        ]
        some = count_of(len(faults), "entry does", "entries do")
        raise FaultsError(f"{where}: {some} not fit", faults[:MOST_SHOWN]) from None


def _short(value: Any, limit: int = 60) -> str:
    text = repr(value)
    return text if len(text) <= limit else text[: limit - 1] + "…"


def hash_file(*paths: Path) -> str:
    """SHA-256 of a file's bytes, hexadecimal; of several files as if they were one."""
    digest = hashlib.sha256()
    for path in paths:
        with open(path, "rb") as handle:
            while block := handle.read(1 << 20):
                digest.update(block)
    return digest.hexdigest()


def checksum_file(path: Path) -> str:
    """CRC-32 of a file's bytes, eight hexadecimal digits: finds damage faster than a hash, and is none."""
    found = 0
    with open(path, "rb") as handle:
        while block := handle.read(1 << 20):
            found = zlib.crc32(block, found)
    return f"{found:08x}"


def hash_json(content: Any) -> str:
    """SHA-256 of plain data, independent of the order of keys."""
    if isinstance(content, BaseModel):
        content = content.model_dump(mode="json")
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode("utf-8")).hexdigest()


@contextlib.contextmanager
def exclusive(path: Path, *, doing: str) -> Iterator[None]:
    """Hold a lock file for the length of the block.

    Args:
        path: the lock file.
        doing: what is being done, for the message to whoever comes second.

    Raises:
        AutosegError: another process holds it.
    """
    from filelock import FileLock, Timeout

    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        lock = FileLock(path, timeout=0)
        lock.acquire()
    except Timeout:
        raise AutosegError(
            f"another process is {doing}",
            where=str(path.parent),
            found="a lock that is held",
            expected="one process at a time",
            fix="wait until it ends or stop it",
        ) from None
    except OSError as error:
        raise write_error(path, error) from error
    try:
        yield
    finally:
        lock.release()
