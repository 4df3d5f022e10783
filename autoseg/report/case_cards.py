"""The cases that are shown: which, as a montage with contours, and in the slice viewer."""

from __future__ import annotations

import io
import struct
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from autoseg import messages
from autoseg.dataset.text_header import hash_image
from autoseg.errors import AutosegError
from autoseg.evaluation.case_files import file_of, true_mask
from autoseg.evaluation.summary import CaseScores
from autoseg.report.collect import Material, ScoredFolder
from autoseg.report.montage import DPI, draw
from autoseg.report.overlay import choose_cases
from autoseg.report.picture import Picture, read_picture
from autoseg.report.viewer import Viewer, make_viewer

if TYPE_CHECKING:
    from matplotlib.figure import Figure


@dataclass(frozen=True)
class ShownCase:
    """One case of the report.

    Attributes:
        rank: such as ``worst``.
        case: its scores.
        place: fold that it was validated in; may be empty.
        webp, png: the montage; without loss, because thin lines of one colour on another blur otherwise.
        alt: what the montage shows.
        viewer: None when viewers are not wanted.
    """

    rank: str
    case: CaseScores
    place: str
    webp: bytes
    png: bytes
    alt: str
    viewer: Viewer | None

    @property
    def size(self) -> tuple[int, int]:
        """Width and height of the montage in pixels, which stand at this place in every PNG."""
        width, height = struct.unpack(">II", self.png[16:24])
        return width, height


def show_cases(
    material: Material, n: int, *, channel: int = 0, viewers: bool = True
) -> tuple[list[ShownCase], list[str]]:
    """Draw the chosen cases; one that cannot be drawn is left out.

    Args:
        material: with scores.
        n: how many.
        channel: of the images.
        viewers: also make the slice viewers, which take seconds each.

    Returns:
        The cases, and for each one that was left out why.
    """
    shown, problems = [], []
    chosen = choose_cases(material.summary, n) if material.summary else []
    for rank, case in chosen:
        messages.info(f"drawing {case.name}")
        place, original = material.place(case.name)
        try:
            picture = _read(place, original, channel, material.channel_names)
        except AutosegError as error:
            problems.append(f"{case.name}: {' '.join(str(error).split())}")
            continue
        shown.append(_shown(rank, case, place, picture, viewers))
    return shown, problems


def _read(place: ScoredFolder, case: CaseScores, channel: int, channel_names: Mapping[str, str]) -> Picture:
    """The files of a case, if they are those that were scored."""
    if place.images is None:
        raise AutosegError("the folder of images is not known", fix="give it with -i")
    for find, folder, scored, what in (
        (file_of, place.summary.predictions, case.prediction_sha256, "predicted mask"),
        (true_mask, place.summary.truths, case.truth_sha256, "true mask"),
    ):
        path = find(Path(folder), case.name)
        if path is None:
            raise AutosegError(f"the {what} is missing", expected=f"{case.name}.nii.gz in {folder}")
        if hash_image(path) != scored:
            raise AutosegError(
                f"the {what} has changed since it was scored", fix="run autoseg_evaluate again"
            )
    return read_picture(place.summary, case, place.images, channel, channel_names)


def _shown(rank: str, case: CaseScores, place: ScoredFolder, picture: Picture, viewers: bool) -> ShownCase:
    figure = draw(picture, rank)
    return ShownCase(
        rank=rank,
        case=case,
        place=place.name,
        webp=_saved(figure, "webp", pil_kwargs={"lossless": True}),
        png=_saved(figure, "png"),
        alt=f"{picture.channel} of {case.name}, {picture.view.words}, bare and with the outlines of truth and "
        f"prediction; {_scores(case)}",
        viewer=make_viewer(picture) if viewers else None,
    )


def _saved(figure: Figure, kind: str, **options: Any) -> bytes:
    buffer = io.BytesIO()
    figure.savefig(buffer, format=kind, dpi=DPI, facecolor="black", **options)
    return buffer.getvalue()


def _scores(case: CaseScores) -> str:
    return ", ".join(f"Dice of {label} {_number(scores['dice'])}" for label, scores in case.classes.items())


def _number(value: float | int | None) -> str:
    return "undefined" if value is None else f"{value:.3f}"


def file_names(shown: Sequence[ShownCase]) -> list[str]:
    """A name for the montage of each case, without characters that file systems refuse."""
    names = []
    for i, one in enumerate(shown):
        safe = "".join(c if c.isalnum() or c in "-_." else "_" for c in one.case.name)
        names.append(f"case_{i + 1}_{safe}.png")
    return names
