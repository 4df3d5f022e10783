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
import socket
import tempfile
import time
import warnings
import zlib
from collections.abc import Iterable, Iterator, Sequence
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from pydantic import BaseModel, ConfigDict, ValidationError

from autoseg import messages, strict_json
from autoseg.errors import MOST_SHOWN, AutosegError, Fault, FaultsError, spelled_out
from autoseg.messages import count_of

if TYPE_CHECKING:
    from filelock import BaseFileLock

Model = TypeVar("Model", bound=BaseModel)

TEMPORARY, REPLACED = ".tmp-", ".replaced-"
"""What names begin with that are there while something is written or replaced, and after that only if it was killed."""
FORGOTTEN_SECONDS = 7 * 24 * 3600
"""What nobody has touched for so long is nobody's, wherever it was made."""
_LEFTOVER = re.compile(
    r"(?P<purpose>\.tmp-|\.replaced-)(?:(?P<machine>[0-9a-f]{8})-)?(?P<process>\d+)-(?P<target>.+)"
)


LARGEST_JSON_BYTES = 256 << 20
"""A fingerprint of ten thousand cases has fewer."""
MOST_LISTED = 10_000


_FORMULA = re.compile("'* *[=+@\t\r\n\uff1d\uff0b\uff0d\uff20-]")
"""How a text starts that a spreadsheet would run, with the apostrophes that it may have been given already."""


class ExactModel(BaseModel):
    """A typed JSON file, or a part of one, that refuses entries it does not know."""

    model_config = ConfigDict(extra="forbid")


# ------------------------------------------------------------------------------------------ whole or absent


@contextlib.contextmanager
def atomic_path(path: Path) -> Iterator[Path]:
    """A temporary path beside ``path``, which takes its place when the block ends without an error.

    The temporary name keeps the ending, for writers that choose the format by it. The first write of a process into a
    folder also removes what killed processes have left there.

    Raises:
        AutosegError: the folder cannot be written to or the disk is full. ``path`` is untouched then.
    """
    path = Path(path)
    temporary = _beside(path, TEMPORARY)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        _remove_leftovers_once(path.parent, os.getpid())
        yield temporary
        with open(temporary, "rb+") as handle:
            os.fsync(handle.fileno())
        os.replace(temporary, path)
    except OSError as error:
        raise write_error(path, error) from error
    finally:
        with contextlib.suppress(OSError):
            temporary.unlink()


@contextlib.contextmanager
def half_made_folder(target: Path) -> Iterator[Path]:
    """A new folder beside ``target``, to make in it what :func:`replace_folder` puts in place; gone after the block.

    Args:
        target: the folder that is to be.

    Raises:
        AutosegError: it cannot be made.
    """
    folder = Path(target).parent
    try:
        folder.mkdir(parents=True, exist_ok=True)
        remove_leftovers(folder)
        half_made = Path(tempfile.mkdtemp(prefix=_beside(Path(target), TEMPORARY).name + "-", dir=folder))
    except OSError as error:
        raise write_error(folder, error) from error
    try:
        yield half_made
    finally:
        shutil.rmtree(half_made, ignore_errors=True)


def is_utf8(path: Path | str) -> bool:
    """Whether the name of a file is text; on Linux it may be any bytes, which JSON and SimpleITK cannot take."""
    try:
        str(path).encode("utf-8")
    except UnicodeEncodeError:
        return False
    return True


def readable(path: Path | str) -> str:
    """The name of a file for messages; bytes that are no text are spelled out, such as ``Pati\\xebnt``.

    So are characters that are not seen, such as those that colour a terminal.
    """
    return spelled_out(os.fsencode(path).decode("utf-8", "backslashreplace"))


def refuse_other_encoding(path: Path) -> None:
    """Refuse a path that is not text: SimpleITK would abort the whole process.

    Raises:
        AutosegError: it is not UTF-8.
    """
    if not is_utf8(path):
        raise AutosegError(
            "the name of the file or of a folder above it is not UTF-8",
            where=readable(path),
            found="bytes of another encoding",
            expected="a name in UTF-8",
            fix="rename it, in letters without accents for example",
        )


def replace_folder(new: Path, target: Path) -> None:
    """A finished folder takes its place; what was there is removed, or comes back when that fails.

    Args:
        new: on the same disk as ``target``; gone afterwards.
        target: may be there or not.

    Raises:
        AutosegError: the folder around ``target`` cannot be written to.
    """
    replaced = _beside(target, REPLACED)
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        remove_leftovers(target.parent)
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


def _beside(path: Path, purpose: str) -> Path:
    """``.tmp-MACHINE-PROCESS-NAME``: tells whose it is."""
    return path.with_name(f"{purpose}{_machine()}-{os.getpid()}-{path.name}")


@cache
def _machine() -> str:
    """A short name for where the numbers of processes count: the host, and there the container."""
    with contextlib.suppress(OSError):
        return hashlib.sha256(
            f"{socket.gethostname()} {os.readlink('/proc/self/ns/pid')}".encode()
        ).hexdigest()[:8]
    return hashlib.sha256(socket.gethostname().encode()).hexdigest()[:8]


def files_below(folder: Path, without: Iterable[str] = ()) -> Iterator[Path]:
    """All files below a folder in order, but hidden ones; folders that are links are entered, each folder once.

    Args:
        folder: where to begin.
        without: names of folders that are passed over, at any depth.
    """
    seen, passed_over = set(), set(without)
    for place, folders, names in os.walk(folder, followlinks=True):
        real = os.path.realpath(place)
        kept = [name for name in folders if not name.startswith(".") and name not in passed_over]
        folders[:] = [] if real in seen else sorted(kept)
        if real not in seen:
            yield from (Path(place) / name for name in sorted(names) if not name.startswith("."))
        seen.add(real)


@cache
def _remove_leftovers_once(folder: Path, process: int) -> None:
    remove_leftovers(folder)


def remove_leftovers(folder: Path, *, owned: bool = False) -> None:
    """Clean a folder of what killed processes were writing; what cannot be removed stays.

    A folder that was about to be replaced comes back when nothing has taken its place.

    Args:
        folder: it may be missing. Folders in it are not looked into.
        owned: the caller holds the lock of the folder, so that nobody else may be writing. Otherwise only that is
            removed which belongs to a process of this machine that is dead, or which nobody has touched for a week.
    """
    with contextlib.suppress(OSError):
        for path in list(folder.iterdir()):
            name = _LEFTOVER.fullmatch(path.name)
            with contextlib.suppress(OSError):  # another process may be cleaning too
                if name is not None and (owned or _is_nobodys(path, name)):
                    _remove_leftover(path, name)


def _is_nobodys(path: Path, name: re.Match[str]) -> bool:
    if name["machine"] == _machine():
        return not _is_alive(int(name["process"]))
    return name["machine"] is not None and time.time() - path.stat().st_mtime > FORGOTTEN_SECONDS


def _is_alive(process: int) -> bool:
    if os.name == "nt":  # there a signal 0 is not a question
        return True
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    except (OSError, OverflowError):
        return True
    return True


def _remove_leftover(path: Path, name: re.Match[str]) -> None:
    target = path.with_name(name["target"])
    if name["purpose"] == REPLACED and not target.exists():
        os.replace(path, target)
    elif path.is_dir() and not path.is_symlink():
        shutil.rmtree(path, ignore_errors=True)
    else:
        path.unlink()


_OTHER_FOLDER = "choose another folder or change its permissions"
_WRITE_PROBLEMS = {
    errno.EROFS: ("the file system is read-only", "a folder that you may write to", _OTHER_FOLDER),
    errno.EFBIG: (
        "the file is too large",
        "limits (ulimit -f) and a file system that allow it",
        "choose another folder",
    ),
    errno.ENAMETOOLONG: ("the name is too long", "a shorter path", "choose another folder"),
    **dict.fromkeys(
        (errno.ENOSPC, errno.EDQUOT),
        (
            "the disk is full",
            "a folder with free space",
            "free some space and run the command again, autoseg_train with --c, autoseg_predict with "
            "--continue_prediction; what is done is kept",
        ),
    ),
}


def write_error(path: Path, error: OSError) -> AutosegError:
    """The error to raise when ``path`` could not be written."""
    other = ("cannot be written", "a folder that you may write to", _OTHER_FOLDER)
    problem, expected, fix = _WRITE_PROBLEMS.get(error.errno or 0, other)
    return AutosegError(
        problem, where=str(path), found=error.strerror or str(error), expected=expected, fix=fix
    )


def check_writable(folder: Path) -> None:
    """Refuse an output folder that cannot be written to before any time is spent; nothing is left in it.

    Raises:
        AutosegError: it cannot be made or written to.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(prefix=".autoseg-", dir=folder) as probe:
            probe.write(b"autoseg")
    except OSError as error:
        raise write_error(folder, error) from error


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
        made_by: the command that makes it, for the message when it is missing or damaged.

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
        return strict_json.parse(content.decode("utf-8-sig"))  # some editors put a mark first
    except FileNotFoundError:
        fix = f"run {made_by} first" if made_by else "check the path"
        raise AutosegError("the file is missing", where=str(path), fix=fix) from None
    except OSError as error:
        raise AutosegError(
            "cannot be read", where=str(path), found=error.strerror or str(error), fix="check the file"
        ) from None
    except ValueError as error:
        fix = f"correct the file, or run {made_by}" if made_by else "correct the file or make it again"
        raise AutosegError("is not valid JSON", where=str(path), found=str(error), fix=fix) from None


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
        raise FaultsError(f"{where}: {some} not fit", faults[:MOST_SHOWN], "entry") from None


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


NO_LOCKS = (errno.ENOLCK, errno.ENOSYS, errno.ENOTSUP, errno.EOPNOTSUPP)
"""What network file systems say that give no locks."""
WAIT_SECONDS = 600


def _acquire(lock: BaseFileLock, doing: str, wait: bool) -> None:
    from filelock import Timeout

    try:
        lock.acquire(timeout=0)
    except Timeout:
        if not wait:
            raise
        messages.info(f"waiting: another process is {doing}")
        lock.acquire(timeout=WAIT_SECONDS)


def is_locked(path: Path) -> bool:
    """Whether another holder of :func:`exclusive` has a lock file now."""
    from filelock import FileLock, Timeout

    if not Path(path).exists():
        return False
    lock = FileLock(path)
    try:
        lock.acquire(timeout=0)
    except Timeout:
        return True
    except (OSError, NotImplementedError):  # no locks here, which :func:`exclusive` says
        return False
    lock.release()
    return False


@contextlib.contextmanager
def exclusive(path: Path, *, doing: str, wait: bool = False) -> Iterator[None]:
    """Hold a lock file for the length of the block; the lock of a process that was killed is free.

    Where the file system gives no locks, the block goes on without, after a warning.

    Args:
        path: the lock file.
        doing: what is being done, for the message to whoever comes second.
        wait: for whoever holds it, ten minutes at most; else refuse at once.

    Raises:
        AutosegError: another process holds it; the folder cannot be written to.
    """
    from filelock import FileLock, SoftFileLock, Timeout

    path = Path(path)
    lock = FileLock(path)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with warnings.catch_warnings():  # filelock's own, where it can only lock by the file's being there
            warnings.simplefilter("ignore")
            _acquire(lock, doing, wait)
    except Timeout:
        there = (
            f"; if it was killed on another machine, delete {path}" if isinstance(lock, SoftFileLock) else ""
        )
        raise AutosegError(
            f"another process is {doing}",
            where=str(path.parent),
            found="a lock that is held",
            expected="one process at a time",
            fix=f"wait until it ends or stop it{there}",
        ) from None
    except (OSError, NotImplementedError) as error:
        if isinstance(error, OSError) and error.errno not in NO_LOCKS:
            raise write_error(path, error) from error
        messages.warn(
            f"{path.parent}: this file system gives no locks ({error}), so a second process that does the same would "
            "not be noticed; start one at a time"
        )
    try:
        yield
    finally:
        lock.release()
