"""The interactive slice viewer of a case: nilearn's, around an overlay of what was found, missed and falsely found."""

from __future__ import annotations

import json
import math
import re
import warnings
from dataclasses import dataclass

import numpy as np

from autoseg.errors import AutosegError
from autoseg.evaluation.metrics.catalogue import union_box
from autoseg.report.picture import PREDICTION, TRUTH, Picture, head_extent

LARGEST_BYTES = 2_000_000
"""Of the viewer's HTML; the grid is made coarser until it fits."""
MOST_VOXELS = 4_000_000
"""Of the viewer's grid: 2000 x 2000 pixels, which phones can hold."""
GREY_LEVELS = 64
"""Noise below this costs bytes and is not seen."""
LEAST_VOXELS = 200
"""Along the longest edge: the cross-hair is a voxel wide and would hide a lesion on a coarser grid."""
COARSEST_VOXELS = 64
"""Along the longest edge: a coarser grid would show nothing, whatever it takes."""
MARGIN_MM = 3.0
OPACITY = 0.65

FOUND, FALSE, MISSED, MIXED_UP = 1, 2, 3, 4
LEGEND = {
    FOUND: ("found (truth and prediction)", "#009E73"),
    FALSE: ("false (prediction only)", PREDICTION),
    MISSED: ("missed (truth only)", TRUTH),
    MIXED_UP: ("wrong class", "#CC79A7"),
}
"""Meaning and colour (Okabe and Ito) of each value of the overlay; truth and prediction as in the contours."""

_CALL = re.compile(r"brainsprite\((\{.*?\})\);")
_EMPTY_PICTURE = "data:image/gif;base64,R0lGODlhAQABAIAAAAAAAP///yH5BAEAAAAALAAAAAABAAEAAAIBRAA7"
_STYLE = """<style>
body { margin: 0; background: #000; color: #ddd; font: 13px system-ui, sans-serif; overflow: hidden; }
canvas { display: block; cursor: crosshair; }
img.hidden { display: none; }
p { margin: 4px 0 4px 8px; }
</style>"""


@dataclass(frozen=True)
class Viewer:
    """A page of its own, to be put into an iframe.

    Attributes:
        html: the page; it loads nothing.
        height_share: height of the slices as a share of the width, below which :data:`SLIDER_PX` follow.
        legend: meaning and colour of what can occur.
        voxel_mm: of its grid.
        coarser: whether this grid is coarser than the image's.
        planes: what its three slices are, in a sentence.
    """

    html: str
    height_share: float
    legend: tuple[tuple[str, str], ...]
    voxel_mm: float
    coarser: bool
    planes: str


SLIDER_PX = 34


def make_viewer(picture: Picture) -> Viewer:
    """Sagittal, coronal and axial slices of a case, which a click moves; patient's right is at the left.

    Args:
        picture: of :func:`autoseg.report.picture.read_picture`.

    Raises:
        AutosegError: nilearn's viewer cannot be used.
    """
    grey, codes = _grey(picture.to_patient(picture.image)), picture.to_patient(compare_masks(picture))
    grid = _Grid.of(grey, codes, picture.patient_spacing_mm)
    while True:
        image, overlay = grid.nearest(grey), grid.overlay(codes)
        html = _nilearn(image, overlay, grid)
        if len(html) <= LARGEST_BYTES or max(image.shape) < COARSEST_VOXELS:
            break
        grid = grid.coarser((len(html) / LARGEST_BYTES) ** (1 / 3))
    nx, ny, nz = image.shape
    used = [code for code in LEGEND if code != MIXED_UP or len(picture.truth) > 1]
    return Viewer(
        html=html,
        height_share=1.1 * max(ny, nz) / (2 * nx + ny),  # the viewer adds a tenth for the slice numbers
        legend=tuple(LEGEND[code] for code in used),
        voxel_mm=grid.voxel_mm,
        coarser=grid.is_coarser,
        planes=picture.view.three,
    )


def compare_masks(picture: Picture) -> np.ndarray:
    """int8 ``[n, rows, columns]``: 0 or a key of :data:`LEGEND`.

    Voxels that both masks have, but for other classes, are :data:`MIXED_UP`.
    """
    shape = picture.image.shape
    truth, prediction = np.zeros(shape, np.int64), np.zeros(shape, np.int64)
    for bit, name in enumerate(picture.truth):
        truth |= picture.truth[name].astype(np.int64) << bit
        prediction |= picture.prediction[name].astype(np.int64) << bit
    codes = np.zeros(shape, np.int8)
    codes[prediction > 0] = FALSE
    codes[truth > 0] = MISSED
    both = (truth > 0) & (prediction > 0)
    codes[both] = np.where(truth[both] == prediction[both], FOUND, MIXED_UP)
    return codes


# ------------------------------------------------------------------------------------------------------- the grid


@dataclass(frozen=True)
class _Grid:
    """Cubic voxels over the head; axes x, y, z run to the patient's left, back and top.

    Attributes:
        box: of the head, in voxels of the image.
        spacing_mm: of the image.
        voxel_mm: edge of the cubes.
    """

    box: tuple[slice, slice, slice]
    spacing_mm: tuple[float, float, float]
    voxel_mm: float

    @classmethod
    def of(cls, grey: np.ndarray, codes: np.ndarray, spacing_mm: tuple[float, float, float]) -> _Grid:
        """The finest grid that is worth it: voxels of the image are split evenly or, where there are many, merged."""
        box = _head_box(grey, codes, spacing_mm)
        extent, finest = (
            [(s.stop - s.start) * mm for s, mm in zip(box, spacing_mm, strict=True)],
            min(spacing_mm),
        )
        least = math.prod([*extent, 1 / MOST_VOXELS]) ** (1 / 3)
        splits = range(math.ceil(LEAST_VOXELS * finest / max(extent)), 0, -1)
        return cls(box, spacing_mm, next((finest / n for n in splits if finest / n >= least), least))

    def coarser(self, factor: float) -> _Grid:
        """A grid with voxels that are at least so much larger; unsplit ones of the image when that is enough."""
        whole = min(self.spacing_mm)
        larger = self.voxel_mm * max(1.05, factor)
        return _Grid(self.box, self.spacing_mm, whole if self.voxel_mm < 0.99 * whole else larger)

    @property
    def is_coarser(self) -> bool:
        """Whether voxels of the image can get lost."""
        return any(self.voxel_mm > 1.001 * mm for mm in self.spacing_mm)

    @property
    def step(self) -> tuple[float, ...]:
        """Voxels of the image for each of the grid."""
        return tuple(self.voxel_mm / mm for mm in self.spacing_mm)

    def nearest(self, volume: np.ndarray) -> np.ndarray:
        """A volume of the image, resampled to the nearest voxels."""
        cropped = volume[self.box]
        for axis, (n, step) in enumerate(zip(cropped.shape, self.step, strict=True)):
            places = (np.arange(max(1, round(n / step))) + 0.5) * step
            cropped = cropped.take(np.minimum(places.astype(int), n - 1), axis)
        return cropped

    def overlay(self, codes: np.ndarray) -> np.ndarray:
        """The comparison of the masks, nearest voxels; on a coarser grid no voxel of it gets lost."""
        resampled = self.nearest(codes)
        if self.is_coarser:
            fine = codes[self.box]
            where = np.nonzero(fine)
            place = tuple(
                np.minimum((i + 0.5) / step, n - 1).astype(int)
                for i, step, n in zip(where, self.step, resampled.shape, strict=True)
            )
            resampled[place] = np.where(resampled[place] == 0, fine[where], resampled[place])
        return resampled

    def numbering(self, shape: tuple[int, ...]) -> list[list[float]]:
        """What turns the viewer's slice ``i + 1`` into the number of the image's slice, counted from 1.

        y is the only axis that the viewer has the other way round.
        """
        rows = []
        for axis, (n, step, s) in enumerate(zip(shape, self.step, self.box, strict=True)):
            slope, offset = (-step, (n + 0.5) * step) if axis == 1 else (step, -0.5 * step)
            rows.append([slope if i == axis else 0.0 for i in range(3)] + [s.start + 0.5 + offset])
        return [*rows, [0.0, 0.0, 0.0, 1.0]]


def _head_box(
    grey: np.ndarray, codes: np.ndarray, spacing_mm: tuple[float, float, float]
) -> tuple[slice, slice, slice]:
    """The box around head and masks, with a margin."""
    bright = grey > 0.15 * GREY_LEVELS
    box = []
    for axis, (n, mask, mm) in enumerate(zip(grey.shape, union_box(codes), spacing_mm, strict=True)):
        head = head_extent(bright, axis)
        low, high = (head.start, head.stop) if head.stop > head.start else (0, n)
        if mask.stop > mask.start:
            low, high = min(low, mask.start), max(high, mask.stop)
        margin = round(MARGIN_MM / mm)
        box.append(slice(max(0, low - margin), min(n, high + margin)))
    return box[0], box[1], box[2]


def _grey(image: np.ndarray) -> np.ndarray:
    """float32, 0 for background and 1 to :data:`GREY_LEVELS` for the rest, of which the extremes are cut."""
    image = np.nan_to_num(image.astype(np.float32), posinf=0.0, neginf=0.0)
    background = image.flat[0]
    inside = image[image != background] if np.any(image != background) else image.ravel()
    low, high = np.percentile(inside[:: max(1, inside.size // 500_000)], [1, 99.9])
    scaled = (image - low) / (high - low if high > low else 1.0)
    grey = np.round(1 + (GREY_LEVELS - 1) * np.clip(scaled, 0, 1)).astype(np.float32)
    return np.where(image == background, np.float32(0), grey)


def _first_cut(codes: np.ndarray) -> tuple[int, int, int]:
    """A voxel inside the overlay, near the middle of its largest axial slice; the middle without an overlay."""
    if not codes.any():
        x, y, z = (n // 2 for n in codes.shape)
        return x, y, z
    z = int(np.count_nonzero(codes, axis=(0, 1)).argmax())
    inside = np.argwhere(codes[:, :, z])
    x, y = inside[((inside - inside.mean(0)) ** 2).sum(1).argmin()]
    return int(x), int(y), z


# -------------------------------------------------------------------------------------------------------- nilearn


def _nilearn(image: np.ndarray, codes: np.ndarray, grid: _Grid) -> str:
    """nilearn's page for a grid, open at a slice that shows the overlay."""
    x, y, z = _first_cut(codes)
    parameters: dict[str, object] = {
        "numSlice": {"X": x, "Y": codes.shape[1] - 1 - y, "Z": z},
        "affine": grid.numbering(codes.shape),
        "colorCrosshair": "#FFFFFF90",
    }
    return _adapted(_page(image, codes, grid.voxel_mm), parameters)


def _page(image: np.ndarray, codes: np.ndarray, voxel_mm: float) -> str:
    """nilearn's page as it is."""
    import nibabel
    from matplotlib.colors import ListedColormap

    affine = np.diag([voxel_mm] * 3 + [1.0])  # its axes run to the right, the front and the top
    overlay, background = (
        nibabel.Nifti1Image(np.ascontiguousarray(volume[::-1, ::-1], np.float32), affine)
        for volume in (codes, image)
    )
    with warnings.catch_warnings():
        # from what nilearn imports, and about an overlay with no voxel below its threshold or none at all
        warnings.simplefilter("ignore")
        from nilearn.plotting import view_img

        return view_img(
            overlay,
            bg_img=background,
            cut_coords=(0, 0, 0),
            colorbar=False,
            threshold=0.5,
            vmin=0.5,
            vmax=len(LEGEND) + 0.5,
            cmap=ListedColormap([colour for _, colour in LEGEND.values()]),
            symmetric_cmap=False,
            black_bg=True,
            dim=0,
            resampling_interpolation="nearest",
            opacity=OPACITY,
            radiological=True,
        ).html


def _adapted(html: str, parameters: dict[str, object]) -> str:
    """The page with our parameters, without the icon from the network and without pictures that are empty.

    In radiological views nilearn 0.14 opens and numbers the mirrored sagittal slice
    (github.com/nilearn/nilearn/issues/6134), and its numbers are mm; so first slice and numbering are set here.
    """
    found = _CALL.search(html)
    if found is None:
        raise AutosegError(
            "nilearn's viewer is not the one that this version of autoseg knows",
            expected="nilearn 0.14",
            fix="install that version, or make the report with --no_viewer",
        )
    call = json.dumps({**json.loads(found[1]), **parameters})
    html = html[: found.start(1)] + call + html[found.end(1) :]
    html = re.sub(r"<link\b[^>]*>", "", html)
    html = html.replace('src="data:image/png;base64,"', f'src="{_EMPTY_PICTURE}"')
    html = html.replace('value="100"', f'value="{round(100 * OPACITY)}"').replace(
        "<p>Opacity</p>", "<p>Overlay</p>"
    )
    return html.replace("</head>", f"{_STYLE}</head>")
