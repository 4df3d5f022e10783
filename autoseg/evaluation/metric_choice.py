"""What is computed of each pair of masks: a preset, less the groups that are left out, plus what was asked for."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property

from autoseg.errors import AutosegError, nearest_names
from autoseg.evaluation.metrics.catalogue import METRICS
from autoseg.evaluation.metrics.metric import GROUPS, Metric
from autoseg.evaluation.metrics.surface import nsd
from autoseg.evaluation.presets import PRESETS, FalseLesionList, Preset, find_preset

NEEDED = (
    "dice",
    "voxels_truth",
    "voxels_prediction",
    "tp",
    "fp",
    "fn",
    "volume_truth_ml",
    "volume_prediction_ml",
)
"""Always computed, because means over cases with truth, cohort values, agreement and pictures need them."""


@dataclass(frozen=True)
class MetricChoice:
    """What is computed, as small data: a preset's functions cannot be sent to another process, its name can.

    Attributes:
        preset: a name of :data:`autoseg.evaluation.presets.PRESETS`, or a preset of the caller's own.
        without: groups that are left out.
        nsd_mm: tolerances of further normalised surface Dice.
        also: names of further metrics, by which cases are split.

    Raises:
        AutosegError: an unknown preset, group or metric, a tolerance that is not positive, or nothing is left.
    """

    preset: str | Preset = "autoseg"
    without: tuple[str, ...] = ()
    nsd_mm: tuple[float, ...] = ()
    also: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        if isinstance(self.preset, Preset) and PRESETS.get(self.preset.name) is self.preset:
            object.__setattr__(self, "preset", self.preset.name)
        _ = self.metrics

    def __reduce__(self) -> tuple[type[MetricChoice], tuple[object, ...]]:
        """Without the metrics, which are looked up again on the other side."""
        return type(self), (self.preset, self.without, self.nsd_mm, self.also)

    @property
    def sendable(self) -> bool:
        """Whether it can be sent to another process."""
        return isinstance(self.preset, str)

    @cached_property
    def full_preset(self) -> Preset:
        """The preset itself."""
        return find_preset(self.preset) if isinstance(self.preset, str) else self.preset

    @cached_property
    def metrics(self) -> tuple[Metric, ...]:
        """Those of the preset in its order, then the others."""
        _refuse_unknown_groups(self.without)
        preset = self.full_preset
        chosen = {m.name: m for m in preset.metrics if m.group not in self.without}
        for tolerance in self.nsd_mm:
            _refuse_tolerance(tolerance)
            further = nsd(tolerance)
            chosen.setdefault(further.name, further)
        if not chosen:
            raise AutosegError(
                f"nothing is left of the preset {preset.name}",
                found=f"without {', '.join(self.without)}",
                expected=f"one of its groups: {', '.join(_groups(preset.metrics))}",
                fix="name fewer groups in --without",
            )
        for name in (*self.also, *NEEDED):
            if name not in chosen:
                chosen[name] = self._further(name)
        return tuple(chosen.values())

    @cached_property
    def table(self) -> tuple[str, ...]:
        """Names of those that are shown first: the preset's, as far as they are computed, and what was asked for."""
        computed = {metric.name for metric in self.metrics}
        names = (*self.full_preset.table, *(nsd(tolerance).name for tolerance in self.nsd_mm))
        return tuple(name for name in dict.fromkeys(names) if name in computed)

    @property
    def false_lesions(self) -> FalseLesionList | None:
        """How false lesions are listed, where they are."""
        return None if "lesion" in self.without else self.full_preset.false_lesions

    def _further(self, name: str) -> Metric:
        """A metric that the preset leaves out, by the preset's own definition where it has one."""
        known = METRICS | {metric.name: metric for metric in self.full_preset.metrics}
        if name not in known:
            raise AutosegError(f"there is no metric {name!r}", fix=nearest_names(name, known))
        return known[name]


def _groups(metrics: Sequence[Metric]) -> list[str]:
    used = {metric.group for metric in metrics}
    return [group for group in GROUPS if group in used]


def _refuse_unknown_groups(names: Iterable[str]) -> None:
    for name in names:
        if name not in GROUPS:
            raise AutosegError(
                f"there is no group of metrics {name!r}",
                expected=", ".join(GROUPS),
                fix=nearest_names(name, GROUPS),
            )


def _refuse_tolerance(tolerance_mm: float) -> None:
    if not 0 < tolerance_mm < float("inf"):
        raise AutosegError(
            "the tolerance does not fit",
            where="--nsd_mm",
            found=tolerance_mm,
            expected="a positive number of mm",
        )
