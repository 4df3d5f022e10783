"""Which folders are compared, what their methods are called, and which cases all of them have."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from autoseg import messages
from autoseg.comparison.comparison_schema import Method
from autoseg.errors import AutosegError
from autoseg.evaluation.case_files import masks_in, true_masks
from autoseg.messages import count_of, some_of

GENERIC = ("validation", "masks", "predictions", "labels", "results", "output")
"""Names of folders that say nothing about the method in them."""


def method_names(folders: Sequence[Path]) -> list[str]:
    """A readable name for each folder: its own name where these differ, otherwise what distinguishes the paths.

    ``results/unet/fold_0/validation`` and ``results/ratlesnetv2/fold_0/validation`` are ``unet`` and ``ratlesnetv2``.
    """
    paths = [folder.resolve().parts for folder in folders]
    last = [parts[-1] for parts in paths]
    if _distinct(last) and not any(map(_says_nothing, last)):
        return last
    while min(map(len, paths)) > 1 and len({parts[0] for parts in paths}) == 1:
        paths = [parts[1:] for parts in paths]
    while min(map(len, paths)) > 1 and len({parts[-1] for parts in paths}) == 1:
        paths = [parts[:-1] for parts in paths]
    telling = [[part for part in parts if not _says_nothing(part)] or [parts[-1]] for parts in paths]
    for parts_of_all in (telling, paths):
        names = ["/".join(parts) for parts in parts_of_all]
        if _distinct(names):
            return names
    return [str(folder) for folder in folders]


def _says_nothing(part: str) -> bool:
    return part.startswith("fold_") or part in GENERIC


def _distinct(names: Sequence[str]) -> bool:
    return len(set(names)) == len(names)


def find_methods(folders: Sequence[Path | str], truths: Path, names: Sequence[str] = ()) -> list[Method]:
    """The methods to compare; whether their folders hold masks is not looked at yet.

    Args:
        folders: of predictions, at least two.
        truths: folder of the true masks.
        names: one for each folder; by default they come from the paths.

    Raises:
        AutosegError: fewer than two folders, one of them twice or the same as the truths, names that do not fit.
    """
    paths = [Path(folder) for folder in folders]
    if len(paths) < 2:
        raise AutosegError(
            "there is nothing to compare with",
            found=f"{len(paths)} folder of predictions: {', '.join(map(str, paths))}"
            if paths
            else "no folder",
            expected="two or more folders of predictions, one for each method",
            fix="name the other folders too, before -g; one method alone is scored by autoseg_evaluate",
        )
    seen: dict[Path, Path] = {truths.resolve(): truths}
    for path in paths:
        if (same := seen.get(path.resolve())) is not None:
            what = (
                "predictions and truths are the same folder" if same is truths else "a folder is given twice"
            )
            raise AutosegError(
                what,
                where=str(path),
                found=f"also given as {same}",
                expected="another folder for each method",
                fix="check the paths",
            )
        seen[path.resolve()] = path
    return [
        Method(name=name, folder=str(path)) for name, path in zip(_names(paths, names), paths, strict=True)
    ]


def _names(paths: Sequence[Path], names: Sequence[str]) -> Sequence[str]:
    if not names:
        return method_names(paths)
    if len(names) != len(paths) or not _distinct(names) or not all(name.strip() for name in names):
        raise AutosegError(
            "the names of the methods do not fit",
            where="--names",
            found=f"{len(names)} names for {len(paths)} folders: {', '.join(names)}",
            expected="a different name for each folder, in the same order",
            fix="give as many names as folders, or none",
        )
    return names


@dataclass(frozen=True)
class CommonCases:
    """Cases of several methods.

    Attributes:
        names: that have a truth and a prediction of every method, sorted; never empty.
        left_out: other truths, with the methods that lack them.
        methods: with what each of them has in vain.
    """

    names: tuple[str, ...]
    left_out: Mapping[str, list[str]]
    methods: tuple[Method, ...]


def common_cases(methods: Sequence[Method], truths: Path) -> CommonCases:
    """The cases that all methods have; the others are said in counted warnings.

    Raises:
        AutosegError: a folder is missing or holds no mask, or there is no common case.
    """
    true = set(true_masks(truths))
    masks = {m.name: set(masks_in(Path(m.folder), f"predictions of {m.name}")) for m in methods}
    names = sorted(true.intersection(*masks.values()))
    if not names:
        counts = (f"{len(found & true)} of {method}" for method, found in masks.items())
        raise AutosegError(
            "no case has a truth and a prediction of every method",
            found=f"{count_of(len(true), 'truth')}, such as {min(true)}; of these, predictions: {', '.join(counts)}",
            expected="files of the same names in all folders",
            fix="check the paths; folds of a cross-validation hold different cases and cannot be compared",
        )
    left_out = {
        case: [method for method, found in masks.items() if case not in found]
        for case in sorted(true - set(names))
    }
    _say_left_out(left_out)
    kept = []
    for method in methods:
        found = masks[method.name]
        ignored, lost = sorted(found - true), sorted((found & true) - set(names))
        if ignored:
            n = count_of(len(ignored), "prediction")
            messages.warn(f"{n} of {method.name} without truth not scored: {some_of(ignored)}")
        kept.append(method.model_copy(update={"left_out": lost, "ignored": ignored}))
    return CommonCases(tuple(names), left_out, tuple(kept))


def _say_left_out(left_out: Mapping[str, list[str]]) -> None:
    if left_out:
        lacking = [f"{case} (not in {', '.join(missing)})" for case, missing in left_out.items()]
        n = count_of(len(left_out), "case")
        messages.warn(f"{n} not compared, because not every method has it: {some_of(lacking)}")
