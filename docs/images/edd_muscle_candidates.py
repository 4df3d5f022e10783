"""Draws docs/images/edd-muscle-candidates.png: what MUSCLE Net keeps and removes of what EDD Net found.

    python docs/images/edd_muscle_candidates.py MODEL DATASET_FOLDER CASE [CASE ...] -o PICTURE

MODEL is a trained model of the family, DATASET_FOLDER its raw dataset with labelsTr.
"""

from __future__ import annotations

import argparse
from dataclasses import dataclass
from pathlib import Path

import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt
import numpy as np
import torch

from autoseg.dataset.imageio import read_channels
from autoseg.inference.predictor import Predictor
from autoseg.preprocessing.resample import resample_label
from autoseg.trainers import _edd_muscle_judging as judging
from autoseg.trainers._edd_muscle_candidates import lesion_probability

KEPT, REMOVED, TRUTH = "#1baf7a", "#e8590c", "white"
AROUND_PX = 36  # pixels shown on each side of the middle of what is drawn


@dataclass(frozen=True)
class Slice:
    """One slice of a case: image, truth, EDD Net's candidates and what is left of them, all ``[y, x]``."""

    title: str
    image: np.ndarray
    truth: np.ndarray
    candidates: np.ndarray
    kept: np.ndarray
    removed: int

    def box(self) -> tuple[slice, slice]:
        """A square around the pixels that matter, within the image."""
        drawn = self.candidates & ~self.kept if self.removed else self.kept
        middle = [int(np.median(where)) for where in np.nonzero(drawn)]
        low = [
            min(max(m - AROUND_PX, 0), max(n - 2 * AROUND_PX, 0))
            for m, n in zip(middle, drawn.shape, strict=True)
        ]
        return tuple(slice(a, a + 2 * AROUND_PX) for a in low)


def slices_of(predictor: Predictor, alone: Predictor, folder: Path, case: str) -> list[Slice]:
    """The slices of a case in which EDD Net has candidates."""
    image, geometry = read_channels([folder / "imagesTr" / f"{case}_0000.nii.gz"])
    prepared = alone.preprocess(case, image, geometry)
    before, after = (next(p.logits(prepared)) for p in (alone, predictor))
    found = judging.find_candidates(lesion_probability(before)).labels
    left = (lesion_probability(after) > 0.5) & (found > 0)
    truth_file, _ = read_channels([folder / "labelsTr" / f"{case}.nii.gz"])
    truth = resample_label(truth_file[0].astype(np.uint8), found.shape)
    slices = []
    for z in np.unique(np.nonzero(found)[0]):
        numbers = set(np.unique(found[z])) - {0}
        gone = len(numbers - set(np.unique(found[z][left[z]])))
        if gone == 0 and not left[z].any():
            continue
        title = f"{case}, slice {z}: {len(numbers) - gone} kept, {gone} removed"
        slices.append(Slice(title, prepared.image[0, z], truth[z] > 0, found[z] > 0, left[z], gone))
    return slices


def draw(chosen: list[Slice], path: Path) -> None:
    """One panel for each slice: truth outlined, candidates filled by what became of them."""
    figure, axes = plt.subplots(1, len(chosen), figsize=(3.4 * len(chosen), 3.9), squeeze=False)
    for axis, part in zip(axes[0], chosen, strict=True):
        box = part.box()
        axis.imshow(part.image[box], cmap="gray", vmin=-0.7, vmax=np.percentile(part.image, 99.9))
        removed = part.candidates[box] & ~part.kept[box] if part.removed else np.zeros_like(part.kept[box])
        for mask, colour in ((removed, REMOVED), (part.kept[box], KEPT)):
            overlay = np.zeros((*mask.shape, 4))
            overlay[mask] = matplotlib.colors.to_rgba(colour, 0.85)
            axis.imshow(overlay, interpolation="nearest")
        if part.truth[box].any():
            axis.contour(part.truth[box], levels=[0.5], colors=TRUTH, linewidths=0.9)
        axis.set_title(part.title, fontsize=8)
        axis.set_axis_off()
    figure.tight_layout(pad=0.4)
    figure.savefig(path, dpi=130)


def main() -> None:
    """Draw the slices with most removed candidates, and those with kept ones."""
    command = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    command.add_argument("model", type=Path)
    command.add_argument("dataset", type=Path)
    command.add_argument("cases", nargs="+")
    command.add_argument("-o", dest="output", type=Path, required=True)
    command.add_argument("-n", type=int, default=4, help="slices")
    arguments = command.parse_args()
    torch.set_num_threads(1)
    predictor = Predictor(arguments.model, device="cpu")
    alone = Predictor(arguments.model, device="cpu", overrides={"postprocessing.muscle": "off"})
    found = [s for case in arguments.cases for s in slices_of(predictor, alone, arguments.dataset, case)]
    removing = sorted(found, key=lambda s: -int((s.candidates & ~s.kept).sum()) * (s.removed > 0))[
        : arguments.n - arguments.n // 2
    ]
    keeping = [s for s in sorted(found, key=lambda s: -int(s.kept.sum())) if s not in removing]
    draw(removing + keeping[: arguments.n - len(removing)], arguments.output)


if __name__ == "__main__":
    main()
