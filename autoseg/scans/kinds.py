"""What kind of sequence a text means: the channel of a model, the suffix of a BIDS file, the words of a DICOM series.

A kind is a short word such as ``t1`` or ``flair``. A name that is in no list stands for itself, so that a channel
``rCBF`` is found where a scan says rCBF.
"""

from __future__ import annotations

import re

NAMES = {
    "t1": ("t1", "t1w", "t1n", "t1weighted", "mprage", "mp2rage"),
    "t1c": ("t1c", "t1ce", "t1gd", "t1post", "t1contrast", "t1cw", "t1wce", "t1km"),
    "t2": ("t2", "t2w", "t2weighted"),
    "flair": ("flair", "t2f", "t2flair", "flairw"),
    "t2star": ("t2*", "t2star", "t2starw", "t2*w"),
    "pd": ("pd", "pdw"),
    "swi": ("swi",),
    "dwi": ("dwi", "trace", "b1000", "diffusion"),
    "adc": ("adc",),
    "ct": ("ct", "ncct"),
}
"""Kind to what channels and suffixes of this kind are called, in small letters, without signs."""

STEMS = {
    "adc": ("adc", "apparent"),
    "swi": ("swi", "swan", "susceptibility"),
    "dwi": ("dwi", "diff", "trace", "dti"),
    "t2star": ("t2*", "t2star", "hemo"),
    "t1": ("t1", "mprage", "mp2rage", "spgr", "fspgr", "bravo", "vibe", "tfl3d"),
    "flair": ("flair", "tirm", "darkfluid"),
    "t2": ("t2",),
    "pd": ("pd", "proton"),
    "ct": ("ct", "ncct"),
}
"""Kind to how words of a description begin; the first kind that is met counts, so that T1 FLAIR is T1."""

CONTRAST = re.compile(r"\+ ?(c|gd|km)\b|\b(post|gd|gad\w*|km|ce|contrast|c\+)(?!\w)")
"""Words of a contrast agent."""
LOCALISER = re.compile(r"\b(loc\b|locali[sz]er|scout|survey|3[- ]?plane|planscan|smartbrain|aahead\w*)", re.I)
"""Words of scans that are made to plan others."""


def kind_of_name(name: str) -> str:
    """The kind of a channel or suffix by its name; the name itself, in small letters, where it is in no list."""
    bare = re.sub(r"[^a-z0-9*]", "", name.casefold())
    return next((kind for kind, names in NAMES.items() if bare in names), bare)


def kind_of_text(text: str, contrast: bool = False) -> str | None:
    """The kind that a description tells of; None where it has no word of one.

    Args:
        text: such as ``AX T2 FLAIR fs``.
        contrast: whether a contrast agent was given, as far as other fields say.
    """
    words = re.findall(r"[a-z0-9*]+", re.sub("dark[-_ ]fluid", "darkfluid", text.casefold()))
    for kind, stems in STEMS.items():
        if any(word.startswith(stem) for word in words for stem in stems):
            given = contrast or CONTRAST.search(text.casefold().replace("_", " ")) is not None
            return "t1c" if kind == "t1" and given else kind
    return None


def says(text: str, kind: str) -> bool:
    """Whether a description has the word of a kind that is in no list, such as ``rcbf``."""
    return kind not in NAMES and kind in re.findall(r"[a-z0-9*]+", text.casefold())
