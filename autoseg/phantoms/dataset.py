"""A whole raw dataset of phantoms in nnU-Net's layout, written by several processes, whole or not at all."""

from __future__ import annotations

from functools import partial
from pathlib import Path

from autoseg import parallel
from autoseg.dataset.dataset_json import DatasetJson
from autoseg.dataset.imageio import Geometry, write_image, write_mask
from autoseg.dataset.raw_layout import refuse_taken_number
from autoseg.errors import AutosegError
from autoseg.files import half_made_folder, read_json, replace_folder, write_error, write_json
from autoseg.phantoms.phantom import PhantomCase, case_name, make_case
from autoseg.phantoms.settings import Setting, check_scale, check_seed, setting_of

ENDING = ".nii.gz"
DESCRIPTION = "synthetic phantom, not real data"
RAS = (-1.0, 0.0, 0.0, 0.0, -1.0, 0.0, 0.0, 0.0, 1.0)
"""File axes x, y, z point to the right, the front, the top."""


def make_dataset(
    kind: str,
    n: int,
    folder: Path | str,
    seed: int = 0,
    scale: float = 1.0,
    n_test: int = 0,
    processes: int = 1,
    *,
    number: int | None = None,
    overwrite: bool = False,
) -> Path:
    """Make a raw dataset of phantoms: ``FOLDER/DatasetNNN_PhantomKind``.

    Cases 0 to n - 1 are for training, the next ``n_test`` are held out in imagesTs and labelsTs. The folder appears
    when everything in it is written; what was there before stays until then.

    Args:
        kind: rat_t2, dwi, perfusion or t1.
        n: training cases.
        folder: of raw datasets.
        seed: case i depends on seed, kind, i and scale alone.
        scale: matrix size over the published one.
        n_test: held-out cases.
        processes: that make cases at the same time; the result does not depend on it.
        number: of the dataset, 1 to 999; None takes the kind's own.
        overwrite: replace an earlier dataset of phantoms.

    Returns:
        The dataset's folder.

    Raises:
        AutosegError: an argument is out of range, the folder is taken or cannot be written to.
    """
    setting, scale, seed = setting_of(kind), check_scale(scale), check_seed(seed)
    _check_counts(n, n_test, processes)
    number = setting.number if number is None else number
    target = Path(folder) / phantom_folder_name(setting, number)
    _check_target(target, overwrite)
    with half_made_folder(target) as temporary:
        half_made = temporary / target.name
        work = partial(_write_case, kind=kind, seed=seed, scale=scale, folder=half_made, n=n)
        _make_folders(half_made, n_test)
        for _ in parallel.each(
            work, range(n + n_test), processes, name_of=partial(case_name, kind), doing="making phantoms"
        ):
            pass
        write_json(
            half_made / "dataset.json",
            describe(setting, n, n_test, seed, scale).model_dump(exclude_none=True),
        )
        replace_folder(half_made, target)
    return target


def phantom_folder_name(setting: Setting, number: int) -> str:
    """``Dataset911_PhantomRatT2`` and the like.

    Raises:
        AutosegError: the number is not one of 1 to 999.
    """
    if 1 <= number <= 999:
        return f"Dataset{number:03d}_{setting.dataset}"
    raise AutosegError(
        "not a number for a dataset",
        found=number,
        expected="1 to 999",
        fix=f"for example -id {setting.number}",
    )


def describe(setting: Setting, n: int, n_test: int, seed: int, scale: float) -> DatasetJson:
    """The dataset.json, which says that the data are synthetic and how to make them again."""
    return DatasetJson.model_validate(
        {
            "name": setting.dataset,
            "description": f"{DESCRIPTION}: {setting.title}",
            "licence": "CC0-1.0",
            "synthetic": True,
            "made_by": {
                "command": "autoseg_make_phantom",
                "kind": setting.kind,
                "n": n,
                "test": n_test,
                "seed": seed,
                "scale": scale,
            },
            "channel_names": {str(i): name for i, name in enumerate(setting.channels)},
            "labels": {"background": 0, "lesion": 1},
            "numTraining": n,
            "file_ending": ENDING,
        }
    )


def geometry_of(case: PhantomCase) -> Geometry:
    """Where the phantom lies: origin in the middle of the volume, axes right, front, top."""
    z, y, x = case.mask.shape
    halves = [(n - 1) / 2 * mm for n, mm in zip((z, y, x), case.spacing_mm, strict=True)]
    return Geometry(
        shape=(z, y, x),
        spacing_mm=case.spacing_mm,
        origin_mm=(halves[2], halves[1], -halves[0]),
        direction=RAS,
    )


def _write_case(index: int, *, kind: str, seed: int, scale: float, folder: Path, n: int) -> None:
    case = make_case(kind, index, seed, scale)
    part, geometry = ("Tr" if index < n else "Ts"), geometry_of(case)
    for channel, image in enumerate(case.image):
        write_image(folder / f"images{part}" / f"{case.name}_{channel:04d}{ENDING}", image, geometry)
    write_mask(folder / f"labels{part}" / f"{case.name}{ENDING}", case.mask, geometry)


def _check_counts(n: int, n_test: int, processes: int) -> None:
    for title, value, least, fix in (
        ("number of training cases", n, 1, "for example -n 12"),
        ("number of held-out cases", n_test, 0, "for example --test 4"),
        ("number of processes", processes, 1, "for example -np 2"),
    ):
        if value < least:
            raise AutosegError(
                f"the {title} is too small", found=value, expected=f"at least {least}", fix=fix
            )


def _check_target(target: Path, overwrite: bool) -> None:
    """Refuse to replace anything that was not asked for, and to give one number to two datasets."""
    refuse_taken_number(target, "-id")
    if not _holds_something(target):
        return
    if not overwrite:
        raise AutosegError(
            "the output folder is not empty",
            where=str(target),
            expected="a new or empty folder",
            fix="choose another folder with -o or another number with -id, or replace it with --overwrite",
        )
    if not _is_phantoms(target):
        raise AutosegError(
            "the output folder holds something that is not phantoms, which is never overwritten",
            where=str(target),
            expected="a dataset that autoseg_make_phantom made",
            fix="choose another folder with -o or another number with -id",
        )


def _holds_something(target: Path) -> bool:
    return target.is_file() or (target.is_dir() and any(target.iterdir()))


def _is_phantoms(target: Path) -> bool:
    """Whether a folder was made here and nothing else was put into it."""
    if not (target / "dataset.json").is_file():
        return False
    content = read_json(target / "dataset.json")
    ours = isinstance(content, dict) and str(content.get("description", "")).startswith(DESCRIPTION)
    files = (path for path in target.rglob("*") if path.is_file())
    return ours and all(p.name == "dataset.json" or p.name.startswith("phantom_") for p in files)


def _make_folders(folder: Path, n_test: int) -> None:
    try:
        for part in ("Tr", "Ts")[: 2 if n_test else 1]:
            (folder / f"images{part}").mkdir(parents=True)
            (folder / f"labels{part}").mkdir()
    except OSError as error:
        raise write_error(folder, error) from error
