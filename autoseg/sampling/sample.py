"""How one entry of a batch was made, in numbers."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

from autoseg.plugins.parts import Numbers, Place
from autoseg.sampling.parameters import Parameters, tuples


@dataclass(frozen=True)
class Sample:
    """One entry of a batch: enough to make it again.

    Attributes:
        epoch, index: its turn in the run; ``index`` counts over the epoch and over all devices.
        place: where it is cut.
        parameters: what the shipped list of transforms does to it.
        transforms: what those that follow do, one entry for each in the plan's order; None for nothing.
    """

    epoch: int
    index: int
    place: Place
    parameters: Parameters
    transforms: tuple[Numbers | None, ...] = ()

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON-able data."""
        return asdict(self)

    @classmethod
    def from_dict(cls, content: dict[str, Any]) -> Sample:
        """The opposite of :meth:`to_dict`, also after a way through JSON."""
        return cls(
            epoch=content["epoch"],
            index=content["index"],
            place=Place(**{name: tuples(value) for name, value in content["place"].items()}),
            parameters=Parameters.from_dict(content["parameters"]),
            transforms=tuples(content["transforms"]),
        )
