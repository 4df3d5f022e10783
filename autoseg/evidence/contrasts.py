"""Which MR contrast a channel has by its name, and what lesions look like in it."""

from __future__ import annotations

import re
from typing import Literal

Lesions = Literal["bright", "dark"]

PATTERNS = {
    "FLAIR": r"flair|darkfluid|tirm",
    "ADC": r"adc|apparentdiff",
    "b0": r"b0(?!\d)",
    "DWI": r"dwi|diffusion|ep2ddiff|diff?tra|trace(?!r)|b[5-9]00|b[1-3]\d00(?!\d)",
    "Tmax": r"tmax|timetomax",
    "TTP": r"ttp|timetopeak",
    "MTT": r"mtt|meantransit",
    "rCBF": r"cbf|bloodflow",
    "rCBV": r"cbv|bloodvolume",
    "PWI": r"pwi|perf|dscmr",
    "T2*": r"t2\*|t2star|t2s(?![epa])|swi|swan",
    "T1rho": r"t1rho",
    "T1c": r"t1.?(c(?!or|ube)|gd|gad|post|\+|km)|(^|\b)ce.?t1|post.*t1|t1.*(post|gad|contrast)|contrast.*t1",
    "T1": r"t1|mprage|spgr|bravo|mp2rage",
    "T2": r"t2",
    "PD": r"^pdw?$|protondens",
    "CT": r"^n?cct|^ct",
}
"""Contrast to how its names read, without blanks, underscores, hyphens and equals signs; the first that is found in a
name counts, so that a T2 FLAIR is FLAIR and a map of the ADC is no DWI."""

PERFUSION = ("Tmax", "TTP", "MTT", "rCBF", "rCBV", "PWI")
"""What is computed from a bolus of contrast agent, and the series itself."""
DIFFUSION = ("ADC", "DWI")
MAPS = (*PERFUSION, *DIFFUSION)
QUANTITIES = ("ADC", "Tmax", "TTP", "MTT", "rCBF", "rCBV")
"""Values that mean something by themselves: no coil has shaded them."""

LESIONS: dict[str, Lesions] = {
    **dict.fromkeys(("FLAIR", "DWI", "T2", "Tmax", "TTP", "MTT"), "bright"),
    **dict.fromkeys(("T1", "ADC", "rCBF"), "dark"),
}
"""What most lesions are beside the tissue around them; of other contrasts either."""


def contrast_of(channel: str) -> str:
    """The contrast of a channel by its name, one of :data:`PATTERNS`; empty where the name does not say it."""
    name = re.sub(r"[\s_=.-]", "", channel.casefold())
    return next((kind for kind, pattern in PATTERNS.items() if re.search(pattern, name)), "")
