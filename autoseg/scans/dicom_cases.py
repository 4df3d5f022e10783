"""A folder of DICOM files as cases: patients and studies are cases, series are channels.

A series is taken for a channel by its modality and by the words of its description, by its times where the
description says nothing, or by what the user says. Where two could be meant, that is said, and none is taken.
"""

from __future__ import annotations

import fnmatch
import re
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from autoseg import messages
from autoseg.dataset.raw_layout import Case, Origin, name_fault
from autoseg.errors import AutosegError, Fault
from autoseg.files import files_below, readable
from autoseg.messages import count_of, some_of
from autoseg.names import is_name
from autoseg.scans import kinds
from autoseg.scans.dicom_headers import IMAGES, SeriesFacts, Slice, read_file
from autoseg.scans.dicom_series import DicomStack, stacks_of

SECONDARY_CAPTURE = "1.2.840.10008.5.1.4.1.1.7"
FEW = 3
"""A stack of fewer slices beside one of more is no volume."""


@dataclass
class _Series:
    facts: SeriesFacts
    slices: list[Slice] = field(default_factory=list)


@dataclass(frozen=True)
class DicomStudy:
    """The scans of one patient at one time.

    Attributes:
        name: of the case: the patient's, with the date where there are several studies.
        subject: the patient's.
        stacks: what could be a channel.
        left_out: what could not, with the reason.
    """

    name: str
    subject: str
    stacks: tuple[DicomStack, ...]
    left_out: tuple[str, ...]


def dicom_cases(path: Path, names: Sequence[str], chosen: Mapping[str, str]) -> list[Case]:
    """The cases of a folder.

    Args:
        path: a folder, looked into at any depth, or one file, which stands for its series.
        names: of the model's channels.
        chosen: name of a channel to a series: its number, or a pattern for its description such as ``*MPRAGE*``.

    Raises:
        AutosegError: there is no series that could be a scan.
    """
    studies = find_studies(path)
    for study in studies:
        if study.left_out and study.stacks:
            messages.info(f"{study.name}: left out: " + "; ".join(study.left_out))
    if len(studies) > 1:
        messages.info(
            f"{readable(path)} holds {count_of(len(studies), 'case')}: {some_of([s.name for s in studies])}"
        )
    return [_case(path, study, names, chosen) for study in studies]


def find_studies(path: Path) -> list[DicomStudy]:
    """All studies below a folder, or that of one file, sorted by name; some may have no series that could be a scan.

    Raises:
        AutosegError: there is none with a series that could be a scan.
    """
    series, odd = _read_series(path)
    studies: dict[tuple[str, str], list[_Series]] = defaultdict(list)
    for one in series:
        studies[(one.facts.patient, one.facts.study)].append(one)
    named = _names(list(studies), {key: found[0].facts.date for key, found in studies.items()})
    found = [
        _study(named[key], named[key] if not key[0] else _clean(key[0]), group)
        for key, group in studies.items()
    ]
    if not any(study.stacks for study in found):
        left = [text for study in found for text in study.left_out] + odd
        raise AutosegError(
            "there is no DICOM series that could be a scan",
            where=readable(path),
            found=some_of(left, 8) or "no readable DICOM file",
            expected=f"images of modality {', '.join(IMAGES)}",
            fix="check the path, or export the images again",
        )
    for text in odd:
        messages.warn(text)
    return sorted(found, key=lambda study: study.name)


def _read_series(path: Path) -> tuple[list[_Series], list[str]]:
    """The series below a folder, by their headers, and what is wrong with files that are of none."""
    found: dict[tuple[str, str], _Series] = {}
    odd: list[str] = []
    only = None
    if path.is_file():
        given, path = read_file(path), path.parent
        only = given.facts.uid if given is not None else ""
    for file in files_below(path):
        read = read_file(file)
        if read is None or (only is not None and read.facts.uid != only):
            continue
        one = found.setdefault((read.facts.study, read.facts.uid), _Series(read.facts))
        one.slices += read.slices
        odd += [read.problem] if read.problem else []
    return list(found.values()), odd


def _study(name: str, subject: str, series: Sequence[_Series]) -> DicomStudy:
    """Stacks that could be channels, and why the others could not."""
    stacks, left_out = [], []
    for one in sorted(series, key=lambda s: (s.facts.number or 0, s.facts.uid)):
        found = stacks_of(one.facts, one.slices)
        why = _why_no_scan(one.facts) or _why_localiser(one.facts, found)
        if why is None and not found:
            why = "no slice that could be read"
        if why is not None:
            left_out.append(f"{(found or [DicomStack(one.facts, '', ())])[0].label}: {why}")
            continue
        largest = max(len(stack.slices) for stack in found)
        for stack in found:
            if len(stack.slices) < FEW <= largest:
                left_out.append(
                    f"{stack.label}: {count_of(len(stack.slices), 'slice')} beside a stack of {largest}"
                )
            else:
                stacks.append(stack)
    return DicomStudy(name, subject, tuple(stacks), tuple(left_out))


def _why_no_scan(facts: SeriesFacts) -> str | None:
    if facts.modality not in IMAGES:
        return f"modality {facts.modality or 'not said'}, no scan"
    if facts.sop_class.startswith(SECONDARY_CAPTURE):
        return "a secondary capture (a picture of a screen)"
    if "MOSAIC" in facts.image_type:
        return "a mosaic of slices in one picture; convert it with dcm2niix"
    return None


def _why_localiser(facts: SeriesFacts, stacks: Sequence[DicomStack]) -> str | None:
    """Whether a series was made to plan others: it says so, or it has a few slices along several axes."""
    if "LOCALIZER" in facts.image_type or kinds.LOCALISER.search(facts.description.replace("_", " ")):
        return "a localiser"
    turned = {tuple(round(v, 1) for v in stack.slices[0].orientation or ()) for stack in stacks}
    if len(turned) > 1 and sum(len(stack.slices) for stack in stacks) <= 5 * len(turned):
        return "a localiser: a few slices along several axes"
    return None


# ------------------------------------------------------------------------------------------------------- names


def _names(
    keys: Sequence[tuple[str, str]], dates: Mapping[tuple[str, str], str]
) -> dict[tuple[str, str], str]:
    """A name for each (patient, study): the patient, the date where there are several, a number where that is alike."""
    counts = Counter(_clean(patient) for patient, _ in keys)
    wanted = {}
    for key in keys:
        name = _clean(key[0])
        wanted[key] = f"{name}_{dates[key]}" if counts[name] > 1 and dates[key] else name
    used: Counter[str] = Counter()
    again = Counter(wanted.values())
    result = {}
    for key in sorted(keys):
        used[wanted[key]] += 1
        result[key] = f"{wanted[key]}_{used[wanted[key]]}" if again[wanted[key]] > 1 else wanted[key]
    return result


def _clean(patient: str) -> str:
    """A patient's name or number as that of a file."""
    name = re.sub(r"[^\w .+-]|\^", "_", patient).strip(" ._") or "patient"
    return name if is_name(name) else "patient"


# ---------------------------------------------------------------------------------------------------- channels


def _case(path: Path, study: DicomStudy, names: Sequence[str], chosen: Mapping[str, str]) -> Case:
    """A study as a case, or with what keeps it from being one."""
    taken: list[tuple[DicomStack, str]] = []
    fault = name_fault(study.name)
    for name in names:
        if fault is None:
            found = channel_of(study, name, chosen.get(name), alone=len(names) == 1)
            if isinstance(found, Fault):
                fault = found
            else:
                taken.append(found)
    if fault is None:
        fault = _unreadable(study.name, [stack for stack, _ in taken])
    if fault is None and len({stack.facts.frame for stack, _ in taken}) > 1:
        messages.warn(
            f"{study.name}: the channels have different frames of reference (the patient was moved between them), "
            "so their headers do not say how they lie to each other: look at the result, or register them first"
        )
    origin = Origin(
        tuple(f"{stack.label}, {count_of(len(stack.slices), 'slice')}{why}" for stack, why in taken),
        tuple(stack for stack, _ in taken),
        root=path if path.is_dir() else path.parent,
    )
    images = tuple(stack.slices[0].path for stack, _ in taken)
    return Case(study.name, images, fault=fault, origin=origin)


def _unreadable(name: str, stacks: Iterable[DicomStack]) -> Fault | None:
    """What is wrong with the slices, as far as headers say; so it is known before any network is loaded."""
    for stack in stacks:
        try:
            stack.geometry()
        except AutosegError as error:
            fault = error.fault
            return Fault(name, f"{fault.where}: {fault.problem}", fault.found, fault.expected, fault.fix)
    return None


def channel_of(
    study: DicomStudy, name: str, pattern: str | None, *, alone: bool = False
) -> tuple[DicomStack, str] | Fault:
    """The stack that is a channel, and how that was known; a fault where there is none, or more than one.

    Args:
        study: with its stacks.
        name: of the channel.
        pattern: what the user said of it.
        alone: the model has this channel only, so that the only series may be it even if it says nothing of itself.
    """
    if not study.stacks:
        left_out = some_of(study.left_out, 4)
        return Fault(
            study.name,
            "has no series that could be a scan",
            left_out,
            f"one series for {name}",
            "leave it out, or export its images again",
        )
    if pattern is not None:
        found = [stack for stack in study.stacks if _fits(stack, pattern)]
        why = ", as --series says"
    else:
        kind = kinds.kind_of_name(name)
        found, why = _of_kind(study.stacks, kind)
        if not found and alone and len(study.stacks) == 1 and _kind(study.stacks[0])[0] is None:
            messages.warn(f"{study.name}: the only series does not say what it is, and is taken for {name}")
            found = list(study.stacks)
    if len(found) == 1:
        return found[0], why
    there = some_of([_with_slices(stack) for stack in found or study.stacks], 12)
    example = (found or study.stacks)[0]
    meant = f"--series {name}={_selector(example, found or study.stacks)}"
    if not found:
        problem = f"no series is {name}" if pattern is None else f"no series fits --series {name}={pattern}"
        fix = f"add it, or say which one it is, such as {meant}" if alone else _no_series_fix(name)
        return Fault(study.name, problem, there, f"one series for {name}", fix)
    return Fault(
        study.name, f"{len(found)} series could be {name}", there, "one series", f"say which: {meant}"
    )


def _no_series_fix(name: str) -> str:
    """Which series of several channels is missing nobody knows here, so none is proposed."""
    return f"add it, or say which one it is by its number: --series {name}=NUMBER"


def _with_slices(stack: DicomStack) -> str:
    return f"{stack.label}, {count_of(len(stack.slices), 'slice')}" if stack.parted_by else stack.label


def _selector(stack: DicomStack, others: Sequence[DicomStack]) -> str:
    """What chooses a stack among others, as the user would type it."""
    number = stack.facts.number
    if number is not None and sum(other.facts.number == number for other in others) == 1:
        return str(number)
    text = (
        f"{stack.facts.description} {stack.parted_by}".strip() if stack.parted_by else stack.facts.description
    )
    return f'"{text}"'


def _fits(stack: DicomStack, pattern: str) -> bool:
    """Whether the user means this stack: by number, by UID, or by a pattern for its description."""
    if pattern in (str(stack.facts.number), stack.facts.uid):
        return True
    texts = (stack.facts.description, f"{stack.facts.description} {stack.parted_by}".strip())
    return any(fnmatch.fnmatchcase(text.casefold(), pattern.casefold()) for text in texts)


def _of_kind(stacks: Sequence[DicomStack], kind: str) -> tuple[list[DicomStack], str]:
    """The stacks of a kind: by what they say; of diffusion images those with the highest b-value."""
    told = [(stack, *_kind(stack)) for stack in stacks]
    by_kind = [
        (stack, why) for stack, its, why in told if its == kind or kinds.says(stack.facts.description, kind)
    ]
    found = [stack for stack, _ in by_kind]
    b_values = {stack: _b_value(stack) for stack in found}
    if kind == "dwi" and len(found) > 1 and all(b is not None for b in b_values.values()):
        highest = max(b or 0 for b in b_values.values())
        found = [stack for stack in found if b_values[stack] == highest]
        return found, f", the highest of {count_of(len(by_kind), 'b-value')}"
    return found, by_kind[0][1] if by_kind else ""


def _b_value(stack: DicomStack) -> float | None:
    match = re.search(r"\bb(\d+(?:\.\d+)?)\b", " ".join(stack.slices[0].parted_by))
    return float(match[1]) if match else None


def _kind(stack: DicomStack) -> tuple[str | None, str]:
    """The kind of a stack, and how it is known if not by its description."""
    facts = stack.facts
    if facts.modality == "CT":
        return "ct", ""
    if any("ADC" in word for word in stack.slices[0].parted_by[0].split("/")):
        return "adc", ", by its image type"
    kind = kinds.kind_of_text(facts.description, facts.contrast)
    if kind is not None:
        return kind, ""
    kind = _kind_by_times(*facts.times_ms)
    return (
        kind,
        f", by its times ({' / '.join(f'{t:g}' for t in facts.times_ms if t is not None)} ms)"
        if kind
        else "",
    )


def _kind_by_times(repetition: float | None, echo: float | None, inversion: float | None) -> str | None:
    """The kind by the usual times of a spin echo at 1.5 to 3 T; None between them."""
    if repetition is None or echo is None:
        return None
    if inversion is not None and inversion > 1500 and echo > 60:
        return "flair"
    if echo < 30 and repetition < 1000:
        return "t1"
    return "t2" if echo > 60 and repetition > 2000 and not inversion else None
