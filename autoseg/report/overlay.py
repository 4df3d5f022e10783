"""Which cases are drawn, and the ``overlay_*.png`` that autoseg_evaluate puts beside the scores."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from autoseg import messages
from autoseg.dataset.raw_layout import listed_cases
from autoseg.errors import AutosegError
from autoseg.evaluation.summary import CaseScores, Summary
from autoseg.files import atomic_path
from autoseg.report.montage import DPI, draw
from autoseg.report.picture import read_picture

RANKS = ("worst", "median", "best")


def choose_cases(summary: Summary, n: int) -> list[tuple[str, CaseScores]]:
    """``n`` cases with their ranks, spread evenly over the order of their mean Dice over classes; one is the median.

    Three are the worst, the median and the best. Cases that are empty in truth and prediction score 1 and show nothing;
    they are taken only when there is no other.
    """
    with_mask = [case for case in summary.cases if not case.is_empty] or summary.cases
    ordered = sorted(with_mask, key=lambda case: (case.mean_dice, case.name))
    last, middle = len(ordered) - 1, (len(ordered) - 1) // 2
    places = [middle] if n == 1 else [i * last // (n - 1) for i in range(n)]
    return [(_rank(place, last), ordered[place]) for place in dict.fromkeys(places)]


def _rank(place: int, last: int) -> str:
    if last == 0:
        return "only"
    names = {last // 2: "median", 0: "worst", last: "best"}
    return names.get(place, f"number {place + 1} of {last + 1} from the worst,")


def find_images(truths: Path) -> Path | None:
    """The folder of images that belongs to ``labelsTr`` or ``labelsTs`` in the raw layout; None without one.

    A raw dataset that lists its files in dataset.json stands for its images too.
    """
    truths = truths.resolve()
    if listed_cases(truths):
        return truths
    images = truths.with_name(truths.name.replace("labels", "images", 1))
    return images if images != truths and images.is_dir() else None


def draw_overlays(
    summary: Summary, images: Path, out: Path, *, channel: int = 0, channel_names: Mapping[str, str]
) -> list[Path]:
    """Write ``overlay_worst.png``, ``overlay_median.png`` and ``overlay_best.png`` for a scored folder.

    Pictures of an earlier run are removed. Cases whose image is missing or does not fit are left out and said at once.

    Args:
        summary: of the folder.
        images: folder of ``CASE_0000.nii.gz``.
        out: where the pictures go.
        channel: of the image.
        channel_names: number to name, as in dataset.json; may be empty.
    """
    remove_overlays(out)
    written, problems = [], []
    for rank, case in choose_cases(summary, len(RANKS)):
        name = RANKS[0] if rank == "only" else rank
        try:
            picture = read_picture(summary, case, images, channel, channel_names)
        except AutosegError as error:
            problems.append(f"of the {name} case: {' '.join(str(error).split())}")
            continue
        path = out / f"overlay_{name}.png"
        with atomic_path(path) as temporary:
            draw(picture, rank).savefig(temporary, dpi=DPI, facecolor="black")
        written.append(path)
    if problems:
        messages.warn(f"no overlay {'; '.join(problems)}")
    return written


def remove_overlays(out: Path) -> None:
    """Remove the pictures of an earlier run, which would not belong to the new scores."""
    for rank in RANKS:
        (out / f"overlay_{rank}.png").unlink(missing_ok=True)
