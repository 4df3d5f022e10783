"""Headers of NRRD and MHA files: their fields, their unit, and where the pixels lie.

The pixels of such a file may lie in another one. That file is read only when it lies in the folder of the header:
a header from elsewhere must not be able to point to any file of the machine.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

from autoseg.dataset.unpacking import first_bytes
from autoseg.errors import AutosegError
from autoseg.files import hash_file

TEXT_BYTES = 1 << 20
"""A header is not longer."""

NRRD, MHA = (".nrrd", ".nhdr"), (".mha", ".mhd")
MM = {
    "mm": 1.0, "millimeter": 1.0, "millimeters": 1.0, "millimetre": 1.0, "millimetres": 1.0,
    "um": 1e-3, "µm": 1e-3, "μm": 1e-3, "micron": 1e-3, "microns": 1e-3,
    "micrometer": 1e-3, "micrometers": 1e-3, "micrometre": 1e-3, "micrometres": 1e-3,
    "cm": 10.0, "centimeter": 10.0, "centimeters": 10.0, "centimetre": 10.0, "centimetres": 10.0,
    "m": 1e3, "meter": 1e3, "meters": 1e3, "metre": 1e3, "metres": 1e3,
}  # fmt: skip
"""Units of NRRD in mm; an unknown one counts as mm."""


@dataclass(frozen=True)
class TextHeader:
    """The header of a NRRD or MHA file.

    Attributes:
        is_nrrd: else it is MHA.
        fields: by name, as written; names of NRRD in small letters.
        n_bytes: length of the header where the pixels follow it; None where they lie in another file.
        data_file: the file with the pixels; None where they follow the header.
    """

    is_nrrd: bool
    fields: dict[str, str]
    n_bytes: int | None
    data_file: Path | None

    @property
    def unit(self) -> tuple[str, float]:
        """Name and mm of the unit of space."""
        words = re.findall(r'"([^"]*)"', self.fields.get("space units", self.fields.get("units", "")))
        name = next((word.strip() for word in words if word.strip()), "mm")
        return (name, MM[name.lower()]) if name.lower() in MM else ("mm", 1.0)

    @property
    def spacing_field(self) -> tuple[str, str]:
        """The field that holds the spacing, and what stands there."""
        for name in ("ElementSpacing", "ElementSize", "space directions", "spacings"):
            if name in self.fields:
                return name, self.fields[name]
        return "the spacing", "not given"


def read_text_header(path: Path) -> TextHeader | None:
    """The header of a NRRD or MHA file; None for other endings, and where the file is no such thing.

    Raises:
        AutosegError: the file cannot be read, or its pixels lie where they are not read from.
    """
    if not path.name.endswith((*NRRD, *MHA)):
        return None
    text = first_bytes(path, TEXT_BYTES)
    if text.startswith(b"NRRD"):
        return _nrrd(path, text)
    return _mha(path, text)


def hash_image(path: Path) -> str:
    """SHA-256 of an image file, as :attr:`autoseg.dataset.imageio.ImageFile.sha256`, without a look at its pixels.

    Raises:
        OSError: it cannot be read.
        AutosegError: its header names a file for the pixels that is missing or lies elsewhere.
    """
    return hash_file(*files_of(path))


def files_of(path: Path) -> list[Path]:
    """The files that an image lies in: itself, and the one that its header names for the pixels.

    Raises:
        AutosegError: as for :func:`read_text_header`.
    """
    text = read_text_header(path)
    return [path, *([text.data_file] if text and text.data_file else [])]


def _nrrd(path: Path, text: bytes) -> TextHeader:
    end = re.search(rb"\n\r?\n", text)
    lines = text[: end.start() if end else len(text)].decode("utf-8", "replace").split("\n")[1:]
    fields = {}
    for line in lines:
        name, colon, value = line.partition(":")
        if colon and not line.startswith("#") and not value.startswith("="):
            fields[" ".join(name.lower().split())] = value.strip()
    data = fields.get("data file", fields.get("datafile"))
    if data is not None:
        return TextHeader(True, fields, None, _data_file(path, data))
    return TextHeader(True, fields, end.end() if end else len(text), None)


def _mha(path: Path, text: bytes) -> TextHeader | None:
    last = re.search(rb"^[ \t]*ElementDataFile[ \t]*[=:]([^\n]*)(\n|$)", text, re.MULTILINE)
    if last is None:
        return None
    lines = text[: last.start()].decode("utf-8", "replace").split("\n")
    pairs = (re.split(r"[=:]", line, maxsplit=1) for line in lines)
    fields = {pair[0].strip(): pair[1].strip() for pair in pairs if len(pair) == 2}
    name = last[1].decode("utf-8", "replace").strip()
    if name == "LOCAL":
        return TextHeader(False, fields, last.end(), None)
    return TextHeader(False, fields, None, _data_file(path, name))


def _data_file(path: Path, name: str) -> Path:
    """The file with the pixels of a header.

    Raises:
        AutosegError: there are several, it lies outside the folder of the header, or it is missing.
    """
    if not name.isprintable() or not name or "%" in name or name.upper().startswith("LIST"):
        raise AutosegError(
            "its pixels lie in a list of files, which is not read",
            where=str(path),
            found=repr(name[:80]),
            expected="the pixels in the file itself, or in one file beside it",
            fix="save the image as one file",
        )
    folder, data = path.parent.resolve(), path.parent / name
    if Path(name).is_absolute() or ".." in Path(name).parts or not data.resolve().is_relative_to(folder):
        raise AutosegError(
            "its pixels lie outside the folder of the header, where nothing is read from",
            where=str(path),
            found=name,
            expected=f"a file in {folder.name}",
            fix="put the file with the pixels beside its header and name it there, or save the image as one file",
        )
    if not data.is_file():
        raise AutosegError(
            "the file with its pixels is missing",
            where=str(path),
            found=f"no {name}",
            expected="the file that the header names, beside it",
            fix="copy both files, or save the image as one file",
        )
    return data
