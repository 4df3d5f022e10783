"""Headers of NIfTI-1 and NIfTI-2: where the voxels lie by sform, qform, pixdim and units, and how they are stored.

nibabel takes the fields out of the bytes; what they mean is decided here. The sform counts where its code is not 0 and
it can be used, else the qform, as in nibabel, FSL and SPM. The spacing is that of pixdim unless the form says another.
So consistent files have the numbers that ITK 5.4 reads.

Without either (codes 0 and 0) the axes are taken as ITK takes them: along x, y, z of LPS, from the origin.
"""

from __future__ import annotations

import math
import struct
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from autoseg.dataset.image_geometry import (
    DIRECTION_TOLERANCE,
    EXACT_COSINE,
    ORIGIN_TOLERANCE_MM,
    SHEAR_COSINE,
    SPACING_TOLERANCE,
    Geometry,
    at_right_angles,
    check_spacing,
    largest_cosine,
    sheared,
)
from autoseg.errors import AutosegError

if TYPE_CHECKING:
    from nibabel.nifti1 import Nifti1Header

HEADER_BYTES = {1: 348, 2: 540}
FIRST_VOXEL = {1: 352, 2: 544}
"""The least vox_offset of a single file: the header and the four bytes that tell of extensions."""
UNITS = {1: ("metre", 1e3), 2: ("mm", 1.0), 3: ("micron", 1e-3)}
"""The lower three bits of xyzt_units: name and mm; all else counts as mm."""

FORMS_DISAGREE = "qform and sform disagree; the sform is used, as nibabel, FSL and SPM do"
PIXDIM_NEGATIVE = "pixdim is negative; its size is used"
PIXDIM_CONTRADICTS = "pixdim contradicts the sform, whose spacing is used"
SHEARED = "is sheared"
SLIGHTLY_SHEARED = "the axes are off a right angle by rounding; the nearest right angles are used"


@dataclass(frozen=True)
class NiftiForms:
    """What a NIfTI header says of where its voxels lie, word for word: what a mask of the image gets.

    Attributes:
        version: 1 or 2.
        qform_code, sform_code: 0 where the form does not count.
        pixdim: all eight, the first is qfac.
        quatern, qoffset: of the qform.
        srow: the sform's twelve numbers, row by row.
        xyzt_units: of space and time.
    """

    version: int
    qform_code: int
    sform_code: int
    pixdim: tuple[float, ...]
    quatern: tuple[float, ...]
    qoffset: tuple[float, ...]
    srow: tuple[float, ...]
    xyzt_units: int

    @property
    def unit(self) -> tuple[str, float]:
        """Name and mm of the unit of space."""
        return UNITS.get(self.xyzt_units & 7, UNITS[2])


@dataclass(frozen=True)
class NiftiHeader:
    """A NIfTI header.

    Attributes:
        forms: where the voxels lie.
        magic: ``n+1`` or ``n+2`` for a file that holds its pixels.
        dim: lengths of the axes, x first; those of length 1 after the third are left out.
        datatype: code of the pixel type.
        order: of the bytes, ``<`` or ``>``.
        vox_offset: where the pixels begin, in bytes.
        slope, intercept: of the pixel values.
    """

    forms: NiftiForms
    magic: bytes
    dim: tuple[int, ...]
    datatype: int
    order: str
    vox_offset: float
    slope: float
    intercept: float


def parse_header(start: bytes) -> NiftiHeader | None:
    """The header in the first bytes of a NIfTI file; None when they are something else.

    Args:
        start: the first 540 bytes or more, uncompressed.
    """
    fields = nibabel_header(start)
    if fields is None:
        return None
    dim = [int(n) for n in fields["dim"]]
    if not 1 <= dim[0] <= 7:
        return None
    n_axes = dim[0]
    while n_axes > 3 and dim[n_axes] == 1:
        n_axes -= 1
    return NiftiHeader(
        forms=_forms(fields),
        magic=bytes(fields["magic"].item()),
        dim=tuple(dim[1 : 1 + n_axes]),
        datatype=int(fields["datatype"]),
        order=fields.endianness,
        vox_offset=float(fields["vox_offset"]),
        slope=float(fields["scl_slope"]),
        intercept=float(fields["scl_inter"]),
    )


def nibabel_header(start: bytes) -> Nifti1Header | None:
    """The fields in the first bytes of a NIfTI file, unchecked, in the file's byte order; None for something else."""
    from nibabel.nifti1 import Nifti1Header
    from nibabel.nifti2 import Nifti2Header

    for version, kind in ((1, Nifti1Header), (2, Nifti2Header)):
        length = HEADER_BYTES[version]
        for order in "<>":
            if len(start) >= length and struct.unpack_from(f"{order}i", start)[0] == length:
                return kind(start[:length], order, check=False)
    return None


def _forms(fields: Nifti1Header) -> NiftiForms:
    return NiftiForms(
        version=1 if int(fields["sizeof_hdr"]) == HEADER_BYTES[1] else 2,
        qform_code=int(fields["qform_code"]),
        sform_code=int(fields["sform_code"]),
        pixdim=tuple(fields["pixdim"].tolist()),
        quatern=tuple(float(fields[f"quatern_{part}"]) for part in "bcd"),
        qoffset=tuple(float(fields[f"qoffset_{part}"]) for part in "xyz"),
        srow=tuple(value for part in "xyz" for value in fields[f"srow_{part}"].tolist()),
        xyzt_units=int(fields["xyzt_units"]),
    )


# ------------------------------------------------------------------------------------------------- the geometry


def nifti_geometry(header: NiftiHeader, where: str) -> tuple[Geometry, list[str]]:
    """The geometry of a 3D image, in mm.

    Args:
        header: with three axes.
        where: the file, for messages.

    Returns:
        The geometry, and what is to be warned of.

    Raises:
        AutosegError: neither form can be used, or the voxels have no possible size.
    """
    forms = header.forms
    notes = [PIXDIM_NEGATIVE] if any(mm < 0 for mm in forms.pixdim[1:4]) else []
    form = _used_form(forms, where, notes)
    pixdim, lengths = np.abs(forms.pixdim[1:4]), form.lengths
    follows = bool(np.all(np.abs(pixdim - lengths) <= SPACING_TOLERANCE * np.maximum(pixdim, lengths)))
    if not follows and not notes:
        notes.append(PIXDIM_CONTRADICTS)
    name, scale = forms.unit
    spacing = [float(mm) * scale for mm in (pixdim if follows else lengths)]
    geometry = Geometry(
        shape=(header.dim[2], header.dim[1], header.dim[0]),
        spacing_mm=(spacing[2], spacing[1], spacing[0]),
        origin_mm=(form.offset[0] * scale, form.offset[1] * scale, form.offset[2] * scale),
        direction=tuple(form.direction.ravel().tolist()),
    )
    written = " ".join(f"{mm:.6g}" for mm in (pixdim if follows else lengths))
    field = "pixdim" if follows else "the sform"
    check_spacing(where, geometry.spacing_mm, field=field, written=written, unit=name)
    return geometry, notes


@dataclass(frozen=True)
class _Form:
    """A matrix that puts voxels into the scanner, in the header's unit and LPS coordinates.

    Attributes:
        name: ``sform``, ``qform``, or ``pixdim`` where there is neither.
        steps: ``[3, 3]``; column i is the step along file axis i.
        offset: of the first voxel.
    """

    name: str
    steps: np.ndarray
    offset: tuple[float, ...]

    @property
    def lengths(self) -> np.ndarray:
        """Of the steps along each file axis, in mm, ``[3]``."""
        return np.array([math.sqrt(sum(v * v for v in column)) for column in self.steps.T.tolist()])

    @property
    def cosine(self) -> float:
        """The largest between two of the axes; 0 where all are at right angles."""
        return largest_cosine(self.steps / self.lengths)

    @property
    def direction(self) -> np.ndarray:
        """Of unit length and, beyond what rounding leaves, at right angles."""
        direction = self.steps / self.lengths
        return at_right_angles(direction) if largest_cosine(direction) > EXACT_COSINE else direction

    def why_not(self) -> str:
        """Why this form cannot be used; empty when it can."""
        if not (np.isfinite(self.steps).all() and np.isfinite(self.offset).all()):
            return "holds NaN or Inf"
        if not np.isfinite(self.lengths).all() or self.lengths.min() == 0:
            return "has an axis of length 0" if self.lengths.min() == 0 else "is without bounds"
        return SHEARED if self.cosine > SHEAR_COSINE else ""


def _in_lps(name: str, steps: np.ndarray, offset: Sequence[float]) -> _Form:
    """A form from RAS coordinates."""
    steps[:2] *= -1
    return _Form(name, steps, (-offset[0], -offset[1], offset[2]))


def _used_form(forms: NiftiForms, where: str, notes: list[str]) -> _Form:
    """The form that counts; what is to be warned of is added to the notes."""
    there = [_sform(forms)] if forms.sform_code > 0 else []
    there += [_qform(forms)] if forms.qform_code > 0 else []
    there = there or [_Form("pixdim", np.diag(np.abs(forms.pixdim[1:4])), (0.0, 0.0, 0.0))]
    reasons = {form.name: form.why_not() for form in there}
    usable = [form for form in there if not reasons[form.name]]
    if reasons.get("qform") and not all(0 < abs(mm) < math.inf for mm in forms.pixdim[1:4]):
        reasons["qform"] = "cannot be used, as pixdim is 0, NaN or Inf on an axis"
    if not usable:
        raise _no_form(where, forms, reasons, there)
    notes += [f"the {name} {why}; the {usable[0].name} is used" for name, why in reasons.items() if why]
    form = usable[0]
    if len(usable) == 2 and not _agree(usable[0], usable[1], ORIGIN_TOLERANCE_MM / forms.unit[1]):
        notes.append(FORMS_DISAGREE)
    if form.cosine > EXACT_COSINE:
        notes.append(SLIGHTLY_SHEARED)
    return form


def _sform(forms: NiftiForms) -> _Form:
    rows = np.array(forms.srow, np.float64).reshape(3, 4)
    return _in_lps("sform", rows[:, :3].copy(), rows[:, 3].tolist())


def _qform(forms: NiftiForms) -> _Form:
    """As the standard has it, in double precision; rounded to single where the file is NIfTI-1, as ITK does."""
    b, c, d = forms.quatern
    a = 1 - (b * b + c * c + d * d)
    if a < 1e-7:
        norm = math.sqrt(b * b + c * c + d * d)
        a, b, c, d = 0.0, b / norm, c / norm, d / norm
    else:
        a = math.sqrt(a)
    rotation = (
        (a * a + b * b - c * c - d * d, 2 * (b * c - a * d), 2 * (b * d + a * c)),
        (2 * (b * c + a * d), a * a + c * c - b * b - d * d, 2 * (c * d - a * b)),
        (2 * (b * d - a * c), 2 * (c * d + a * b), a * a + d * d - c * c - b * b),
    )
    x, y, z = (abs(mm) for mm in forms.pixdim[1:4])
    steps = np.array(rotation) * (x, y, -z if forms.pixdim[0] < 0 else z)
    if forms.version == 1:
        with np.errstate(over="ignore"):
            steps = steps.astype(np.float32).astype(np.float64)
    return _in_lps("qform", steps, forms.qoffset)


def _agree(a: _Form, b: _Form, origin_tolerance: float) -> bool:
    """Whether two forms say the same, within the tolerances of two files; that of the origin in their unit."""
    longest = np.maximum(a.lengths, b.lengths)
    return bool(
        np.all(np.abs(a.lengths - b.lengths) <= SPACING_TOLERANCE * longest)
        and np.abs(np.subtract(a.offset, b.offset)).max() <= origin_tolerance
        and np.abs(a.direction - b.direction).max() <= DIRECTION_TOLERANCE
    )


def _no_form(where: str, forms: NiftiForms, reasons: dict[str, str], there: Sequence[_Form]) -> AutosegError:
    shears = [form.cosine for form in there if reasons[form.name] == SHEARED]
    if shears:
        return sheared(where, min(shears))
    said = ", ".join(f"{name} {why}" for name, why in reasons.items())
    pixdim = " ".join(f"{mm:g}" for mm in forms.pixdim[1:4])
    return AutosegError(
        "the header does not say where its voxels lie",
        where=where,
        found=f"{said}; pixdim[1] to pixdim[3]: {pixdim}",
        expected="a valid sform or qform, or at least spacings above 0",
        fix="correct these fields in the header, or export the image again",
    )
