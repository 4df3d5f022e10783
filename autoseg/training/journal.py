"""The record of a training: one line per epoch, in log.jsonl, as curves, in TensorBoard; and that line in words."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from autoseg import messages
from autoseg.files import write_error, write_text
from autoseg.messages import count_of
from autoseg.training.estimate import Left, left_words

LOG = "log.jsonl"


class Journal:
    """Keeps log.jsonl and what is drawn from it.

    Args:
        folder: of the fold.
        tensorboard: also write TensorBoard events when the package is installed.
    """

    def __init__(self, folder: Path, *, tensorboard: bool = True) -> None:
        self.path = folder / LOG
        self.curves = folder / "curves.png"
        self._board = _tensorboard_writer(folder / "tensorboard") if tensorboard else None

    def entries(self) -> list[dict[str, Any]]:
        """All epochs that are recorded; a line that a killed process left half written is not one."""
        return _entries(self.path)

    def keep(self, epochs: Mapping[tuple[int, int], int]) -> None:
        """Forget all else, which is about to be done again.

        Args:
            epochs: member and stage (counted from 0) to how many of its epochs still count.
        """
        kept = [e for e in self.entries() if e["epoch"] < epochs.get((e["member"], e["stage_index"]), 0)]
        write_text(self.path, "".join(json.dumps(entry) + "\n" for entry in kept))

    def record(self, entry: dict[str, Any]) -> None:
        """Record one epoch.

        Args:
            entry: member, stage, stage_index, epoch (from 0), loss, lr, iterations, seconds, wait_share, and where it
                was measured ``validation_dice`` (class to mean over cases) with ``validation_cases``, how many those
                are, and ``validation_view`` where it is not of whole cases. With samples: ``validation_samples``, class
                to its ``accuracy``, ``tpr``, ``tnr`` and ``dice``, and ``sample_count``.
        """
        try:
            with open(self.path, "a", encoding="utf-8") as handle:
                handle.write(json.dumps(entry) + "\n")
        except OSError as error:
            raise write_error(self.path, error) from error
        if self._board is not None:
            _to_board(self._board, entry)

    def draw(self) -> None:
        """Draw the curves; they are a convenience, so a failure is a warning."""
        from autoseg.training import curves

        try:
            curves.plot(self.path, self.curves)
        except Exception as error:  # a broken font cache must not end a training of days
            messages.warn(f"the curves could not be drawn: {type(error).__name__}: {error}")

    def close(self) -> None:
        """Flush what is buffered."""
        if self._board is not None:
            self._board.close()


def _to_board(board: Any, entry: dict[str, Any]) -> None:
    prefix = f"member{entry['member']}/{entry['stage']}"
    for name in ("loss", "lr", "seconds", "wait_share"):
        board.add_scalar(f"{prefix}/{name}", entry[name], entry["epoch"])
    scores = {f"dice/{name}": value for name, value in (entry.get("validation_dice") or {}).items()}
    for name, of_class in (entry.get("validation_samples") or {}).items():
        scores |= {f"samples_{metric}/{name}": value for metric, value in of_class.items()}
    for name, value in scores.items():
        if value is not None:
            board.add_scalar(f"{prefix}/validation_{name}", value, entry["epoch"])


def final_dice(folder: Path) -> float | None:
    """The mean Dice, over classes, of the last validation within a training; None where there was none.

    Args:
        folder: of the fold.
    """
    for entry in reversed(_entries(folder / LOG)):
        known = [value for value in (entry.get("validation_dice") or {}).values() if value is not None]
        if known:
            return float(sum(known) / len(known))
    return None


def _entries(path: Path) -> list[dict[str, Any]]:
    if not path.exists():
        return []
    return [entry for line in path.read_text(encoding="utf-8").splitlines() if (entry := _parsed(line))]


def _parsed(line: str) -> dict[str, Any] | None:
    try:
        return json.loads(line)
    except json.JSONDecodeError:
        return None


def epoch_line(entry: dict[str, Any], epochs: int, left: Left | None = None) -> str:
    """The line that the user sees after an epoch.

    Args:
        entry: as of :meth:`Journal.record`, with ``members`` and ``stages``, how many there are.
        epochs: of the stage.
        left: until the end of the stage and of the fold.
    """
    width, members = len(str(epochs)), entry.get("members", 1)
    parts = [
        f"member {entry['member'] + 1}/{members}" if members > 1 else "",
        f"stage {entry['stage']}" if entry.get("stages", 1) > 1 else "",
        f"epoch {entry['epoch'] + 1:>{width}}/{epochs}",
        f"loss {entry['loss']:.4f}",
        _samples_text(entry),
        _dice_text(entry),
        f"lr {entry['lr']:.3g}",
        f"{entry['seconds']:.1f} s",
        f"waiting {100 * entry['wait_share']:.0f} %",
        f"left: {left_words(left)}" if left is not None else "",
    ]
    return "  ".join(part for part in parts if part)


def _dice_text(entry: dict[str, Any]) -> str:
    scores = entry.get("validation_dice")
    if not scores:
        return ""
    crops = "crops of " * (entry.get("validation_view") == "lesion_crop")
    what = f"Dice of {crops}{count_of(entry['validation_cases'], 'case')}"
    known = {name: value for name, value in scores.items() if value is not None}
    if not known:
        return f"{what} -"
    mean = sum(known.values()) / len(known)
    each = ", ".join(f"{name} {value:.3f}" for name, value in known.items()) if len(known) > 1 else ""
    return f"{what} {mean:.3f}" + (f" ({each})" if each else "")


def _samples_text(entry: dict[str, Any]) -> str:
    """The mean Dice of the samples."""
    scores = [of_class["dice"] for of_class in (entry.get("validation_samples") or {}).values()]
    known = [value for value in scores if value is not None]
    if not scores:
        return ""
    return f"Dice of samples {sum(known) / len(known):.3f}" if known else "Dice of samples -"


def _tensorboard_writer(folder: Path) -> Any | None:
    try:
        from torch.utils.tensorboard import SummaryWriter
    except ImportError:
        return None
    return SummaryWriter(str(folder))
