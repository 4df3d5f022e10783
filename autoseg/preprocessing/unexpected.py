"""A single case whose intensities are in another unit than those that a fixed factor was made for.

A plan that divides all cases by 255 is right for scans of 0 to 255. Among them there may be one of 0 to 1, which would
become black, one of 0 to 4095, which would become far too bright, or one with negative values; in training it spoils
what is learned, and in prediction an empty mask comes out without a word. To refuse it would stop the work for one scan
that can be used; to scale it and say nothing would hide that it was exported in another way than the others. So it is
brought to 0 to 1 by a rule of its own, named in a warning, and recorded.
"""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np
from pydantic import BaseModel, ConfigDict

from autoseg import messages
from autoseg.messages import count_of
from autoseg.plan import Normalisation

LOWER, UPPER = 0.1, 99.9
"""Percentiles that become 0 and 1: single voxels far beyond the others, which scanners make, do not count. (The card of
the method proposes 0 and the upper one; the lower one counts where values are negative.)"""


SHOWN = 5


class UnexpectedRange(BaseModel):
    """One channel of a case that was not as the plan expects it.

    Attributes:
        channel: its number.
        found: its least and largest intensity.
        to_0_and_1: what became 0 and 1.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    channel: int
    found: tuple[float, float]
    to_0_and_1: tuple[float, float]

    def words(self, channel: str) -> str:
        """For the user; ``channel`` is its name."""
        (least, largest), (low, high) = self.found, self.to_0_and_1
        return f"{channel} from {least:.4g} to {largest:.4g}; {low:.4g} became 0 and {high:.4g} became 1"


def bring_into_range(values: np.ndarray, entry: Normalisation, number: int) -> UnexpectedRange | None:
    """Bring values that the entry does not expect to what its scheme turns into 0 to 1, in place.

    Args:
        values: float32, at least one, of any shape: those that are normalised.
        entry: of the plan.
        number: of the channel.

    Returns:
        What was done; None for values as they are expected.
    """
    if entry.expected_maximum is None:
        return None
    least, largest = float(values.min()), float(values.max())
    if entry.expects(least, largest):
        return None
    low, high = (float(value) for value in np.percentile(values, (LOWER, UPPER)))
    low = min(low, 0.0) if least < 0 else 0.0
    high = high if high > low else largest  # hardly any voxel is not air
    values -= np.float32(low)
    values /= np.float32(max(high - low, np.finfo(np.float32).tiny))
    np.clip(values, 0, 1, out=values)
    values *= np.float32(255 if entry.scheme == "rgb_0_1" else 1 / entry.factor)
    return UnexpectedRange(channel=number, found=(least, largest), to_0_and_1=(low, high))


def _expected(numbers: Iterable[int], entries: list[Normalisation]) -> str:
    """What is odd about some channels."""
    ranges = [entries[number].expected_maximum for number in sorted(numbers)]
    wanted = ", ".join(f"{low:g} to {high:g}" for low, high in dict.fromkeys(pair for pair in ranges if pair))
    return f"other intensities than the plan was made for (none below 0, the largest within {wanted})"


def note(case: str, some: list[UnexpectedRange], entries: list[Normalisation], names: list[str]) -> None:
    """Note a case of many that come one after another: the first is told at once, all others together at the end.

    Args:
        case: its name.
        some: what was done, at least once.
        entries: of the plan.
        names: of the channels.
    """
    expected = _expected({found.channel for found in some}, entries)
    done = ", ".join(found.words(names[found.channel]) for found in some)
    messages.note_first(
        f"{expected}, brought to 0 to 1 case by case; check how they were exported", f"{case} ({done})"
    )


def warning(cases: dict[str, list[UnexpectedRange]], entries: list[Normalisation], names: list[str]) -> str:
    """What is said of some cases: in one sentence, and a line for each.

    Args:
        cases: by name, at least one, each with what was done.
        entries: of the plan.
        names: of the channels.
    """
    expected = _expected({found.channel for some in cases.values() for found in some}, entries)
    lines = [
        f"1 case has {expected} and is brought to 0 to 1 by itself; check how it was exported"
        if len(cases) == 1
        else f"{len(cases)} cases have {expected} and are brought to 0 to 1, each by itself; "
        "check how they were exported"
    ]
    lines += [
        f"    {name}: {', '.join(found.words(names[found.channel]) for found in some)}"
        for name, some in list(cases.items())[:SHOWN]
    ]
    if len(cases) > SHOWN:
        lines.append(
            f"    and {count_of(len(cases) - SHOWN, 'more case')}; each is in its record in the store"
        )
    return "\n".join(lines)
