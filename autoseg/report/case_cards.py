"""The cases that are shown: which, as a montage with contours, as surfaces, and in the slice viewer."""

from __future__ import annotations

import io
import struct
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from autoseg import messages
from autoseg.dataset.text_header import hash_image
from autoseg.errors import AutosegError
from autoseg.evaluation import probabilities
from autoseg.evaluation.case_files import file_of, true_mask
from autoseg.evaluation.summary import CaseScores
from autoseg.labels import LabelSet
from autoseg.report.collect import Material, ScoredFolder
from autoseg.report.group_montage import draw_groups, representatives, rule
from autoseg.report.montage import DPI, draw
from autoseg.report.overlay import choose_cases
from autoseg.report.picture import Picture, read_picture
from autoseg.report.probability_maps import draw_probabilities
from autoseg.report.side_by_side import choose_compared, draw_beside, read_beside
from autoseg.report.surfaces import draw_surfaces
from autoseg.report.viewer import Viewer, make_viewer

if TYPE_CHECKING:
    from matplotlib.figure import Figure


@dataclass(frozen=True)
class Drawn:
    """A picture of a case.

    Attributes:
        webp, png: for the page and for a paper.
        alt: what it shows.
    """

    webp: bytes
    png: bytes
    alt: str

    @property
    def size(self) -> tuple[int, int]:
        """Width and height in pixels, which stand at this place in every PNG."""
        width, height = struct.unpack(">II", self.png[16:24])
        return width, height


@dataclass(frozen=True)
class ShownCase:
    """One case of the report.

    Attributes:
        rank: such as ``worst``.
        case: its scores.
        place: fold that it was validated in; may be empty.
        montage: slices with outlines.
        surfaces: truth and prediction in 3D; None where there is nothing to see.
        probabilities: in colour over the image; None where there are none.
        viewer: None when viewers are not wanted.
    """

    rank: str
    case: CaseScores
    place: str
    montage: Drawn
    surfaces: Drawn | None
    probabilities: Drawn | None
    viewer: Viewer | None


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
        maps, problem = _probabilities(place, original, picture, material.outputs)
        problems += [f"{case.name}: probabilities are not shown: {problem}"] if problem else []
        shown.append(_shown(rank, case, place, picture, maps, viewers))
    return shown, problems


def _probabilities(
    place: ScoredFolder, case: CaseScores, picture: Picture, outputs: LabelSet | None
) -> tuple[dict[str, np.ndarray] | None, str]:
    """The probability of each class on the grid of the picture, or why there are none; neither without a file."""
    folder, scored = Path(place.summary.predictions), LabelSet.from_labels(place.summary.labels)
    path = probabilities.find(folder, case.name, place.prediction, [probabilities.PROBABILITIES_ENDING])
    if path is None:
        return None, ""
    try:
        shape = picture.view.turned_back(picture.image.shape)
        maps = probabilities.read_of_classes(path, shape, outputs or scored, scored)
    except AutosegError as error:
        return None, " ".join(str(error).split())
    return {name: picture.view.turn(one) for name, one in maps.items()}, ""


def show_compared(
    material: Material, n: int, *, channel: int = 0
) -> tuple[list[tuple[str, Drawn]], list[str]]:
    """Cases of a comparison, with the masks of all methods and the truth beside each other.

    Args:
        material: with a comparison, or without.
        n: how many.
        channel: of the images.

    Returns:
        Titles and pictures, and why there are fewer.
    """
    found = material.comparison
    if found is None or not n:
        return [], []
    if material.compared_images is None:
        return [], ["the folder of images is not known: give it with -i"]
    shown, problems = [], []
    for rank, case in choose_compared(found, n):
        messages.info(f"drawing {case}")
        try:
            beside = read_beside(found, case, material.compared_images, channel, material.compared_channels)
        except AutosegError as error:
            problems.append(f"{case}: {' '.join(str(error).split())}")
            continue
        title = f"{rank} case: {case}"
        alt = f"Slices of {case}: {', '.join([*beside.images, *beside.masks])}; {'; '.join(beside.lines)}"
        shown.append((title, as_drawn(draw_beside(beside, title), alt, lossless=True)))
    return shown, problems


def show_groups(material: Material, *, channel: int = 0) -> tuple[list[tuple[str, Drawn]], list[str]]:
    """For each stratum of a comparison a picture with one case of every level, see :mod:`autoseg.report.group_montage`.

    Args:
        material: with a comparison, or without.
        channel: of the images.

    Returns:
        Titles and pictures, and why there are fewer.
    """
    found = material.comparison
    if found is None or material.compared_images is None:
        return [], []
    made, problems = [], []
    for stratum in found.strata:
        shown = []
        for one in representatives(found, stratum):
            try:
                names = material.compared_channels
                shown.append((one, read_beside(found, one.case, material.compared_images, channel, names)))
            except AutosegError as error:
                problems.append(f"{one.case}: {' '.join(str(error).split())}")
        if shown:
            messages.info(f"drawing a case of each level of {stratum.name}")
            title = f"One case of each level of {stratum.name}"
            said = [f"{one.words}: {', '.join(beside.lines)}" for one, beside in shown]
            alt = f"{rule(found)} {'; '.join(said)}"
            made.append((title, as_drawn(draw_groups(found, shown, title), alt, lossless=True)))
    return made, problems


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


def _shown(
    rank: str,
    case: CaseScores,
    place: ScoredFolder,
    picture: Picture,
    maps: dict[str, np.ndarray] | None,
    viewers: bool,
) -> ShownCase:
    montage = as_drawn(
        draw(picture, rank),
        f"{picture.channel} of {case.name}, {picture.view.words}, bare and with the outlines of truth and "
        f"prediction; {_scores(case)}",
        lossless=True,  # thin lines of one colour on another blur otherwise
    )
    scene = draw_surfaces(picture, f"{rank} case: {case.name}")
    alt = f"Surfaces of truth and prediction of {case.name} from two sides; {_scores(case)}"
    return ShownCase(
        rank=rank,
        case=case,
        place=place.name,
        montage=montage,
        surfaces=as_drawn(scene, alt, quality=90) if scene else None,
        probabilities=_drawn_maps(picture, maps, f"{rank} case: {case.name}") if maps else None,
        viewer=make_viewer(picture) if viewers else None,
    )


def _drawn_maps(picture: Picture, maps: dict[str, np.ndarray], head: str) -> Drawn:
    alt = f"Probability of {', '.join(maps)} in colour over {picture.channel} of {picture.case.name}, with the truth"
    return as_drawn(draw_probabilities(picture, maps, head), alt, quality=90)


def as_drawn(figure: Figure, alt: str, **of_webp: Any) -> Drawn:
    """A figure on black, drawn once."""
    from PIL import Image

    png, webp = io.BytesIO(), io.BytesIO()
    figure.savefig(png, format="png", dpi=DPI, facecolor="black")
    Image.open(png).convert("RGB").save(webp, format="webp", **of_webp)
    return Drawn(webp.getvalue(), png.getvalue(), alt)


def _scores(case: CaseScores) -> str:
    return ", ".join(f"Dice of {label} {_number(scores['dice'])}" for label, scores in case.classes.items())


def _number(value: float | int | None) -> str:
    return "undefined" if value is None else f"{value:.3f}"


def picture_files(shown: Sequence[ShownCase]) -> dict[str, bytes]:
    """The pictures of each case as PNG, by names of files."""
    files = {}
    for i, one in enumerate(shown):
        name = f"case_{i + 1}_{_safe(one.case.name)}"
        files[f"{name}.png"] = one.montage.png
        if one.surfaces is not None:
            files[f"{name}_surfaces.png"] = one.surfaces.png
        if one.probabilities is not None:
            files[f"{name}_probabilities.png"] = one.probabilities.png
    return files


def compared_files(compared: Sequence[tuple[str, Drawn]]) -> dict[str, bytes]:
    """The same for cases of a comparison."""
    names = (_safe(title.partition(": ")[2]) for title, _ in compared)
    return {f"compared_{i + 1}_{name}.png": compared[i][1].png for i, name in enumerate(names)}


def group_files(groups: Sequence[tuple[str, Drawn]]) -> dict[str, bytes]:
    """The same for groups of a comparison."""
    return {f"groups_{i + 1}.png": drawn.png for i, (_, drawn) in enumerate(groups)}


def _safe(name: str) -> str:
    """A name without characters that file systems refuse."""
    return "".join(c if c.isalnum() or c in "-_." else "_" for c in name)
