"""autoseg_threshold: the simplest method to compare with, one threshold on the intensities for all cases.

The threshold with the highest Dice on the training cases of a fold segments the cases that the fold is scored on.
"""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING

from autoseg.cli import common

if TYPE_CHECKING:
    from pathlib import Path

    from autoseg.dataset.folds import Fold
    from autoseg.dataset.raw_layout import Case
    from autoseg.preparation.prepared import Prepared

EXAMPLES = """  autoseg_threshold 11 0 -o masks/threshold
  autoseg_threshold 11 0 -p few -i scans -o masks/threshold
  autoseg_compare masks/threshold masks/unet -g truth"""


def build_parser() -> argparse.ArgumentParser:
    """The command's options."""
    command = common.parser(__doc__ or "", examples=EXAMPLES)
    command.add_argument("dataset", metavar="DATASET", help="id or name, such as 11 or RatT2")
    command.add_argument(
        "fold", metavar="FOLD", help="whose training cases are learned from: a number, or all (then with -i)"
    )
    command.add_argument("-o", dest="out", required=True, metavar="FOLDER", help="where the masks go")
    command.add_argument(
        "-p",
        dest="plan_name",
        metavar="NAME",
        help="the plan that preprocesses, where the dataset has several",
    )
    command.add_argument(
        "-i",
        dest="images",
        metavar="FOLDER",
        help="images to segment (default: the cases that the fold is scored on)",
    )
    command.add_argument("-channel", metavar="NAME", help="whose intensities (default: the best)")
    command.add_argument(
        "--overwrite", action="store_true", help="replace results of other images or settings that lie there"
    )
    common.add_folders(command, "raw", "preprocessed")
    return command


def main(argv: list[str] | None = None) -> int:
    """Run the command."""
    return common.run(_main, build_parser().parse_args(argv))


def _main(arguments: argparse.Namespace) -> None:
    from pathlib import Path

    from autoseg import messages, paths
    from autoseg.comparison.best_threshold import learn_threshold, mask_name, write_masks
    from autoseg.comparison.threshold_files import begin_folder, check_folder_of_masks
    from autoseg.evaluation.output_folder import recorded
    from autoseg.plan import hash_plan
    from autoseg.preparation.prepared import open_prepared

    raw_root, preprocessed = paths.roots(raw=arguments.raw, preprocessed=arguments.preprocessed)
    prepared, out = open_prepared(preprocessed, arguments.dataset, arguments.plan_name), Path(arguments.out)
    fold, raw = prepared.fold(common.fold(arguments.fold)), raw_root / prepared.dataset
    cases = _cases(arguments, prepared, fold, raw)
    images, names = arguments.images or str(raw), [mask_name(case, prepared.info) for case in cases]
    settings = recorded(
        dataset=prepared.dataset,
        fold=arguments.fold,
        plan=prepared.plan_name,
        plan_hash=hash_plan(prepared.plan),
        channel=arguments.channel,
    )
    check_folder_of_masks(out, images, names, settings, overwrite=arguments.overwrite)
    found = learn_threshold(prepared, fold.train, arguments.channel)
    messages.info(
        f"{found.channel} {found.side} {found.threshold:.6g} after the preprocessing of plan {prepared.plan_name}: "
        f"mean Dice {found.dice:.3f} on the training cases with a lesion ({len(fold.train)} in all)"
    )
    out.mkdir(parents=True, exist_ok=True)
    begin_folder(out, found, images, names, settings)
    write_masks(cases, prepared.plan, prepared.info, found, out)
    print(f"{messages.count_of(len(cases), 'case')} segmented: {out}")


def _cases(arguments: argparse.Namespace, prepared: Prepared, fold: Fold, raw: Path) -> list[Case]:
    """The images that were given, or the cases that the fold is scored on."""
    from autoseg.dataset.images_to_predict import list_images
    from autoseg.dataset.raw_layout import load_raw
    from autoseg.errors import AutosegError

    if arguments.images:
        cases = list_images(arguments.images, prepared.info)
    else:
        scored = set(fold.test or fold.validation)
        cases = [case for case in load_raw(raw).cases if case.name in scored]
    if not cases:
        raise AutosegError(
            f"fold {arguments.fold} scores no case", fix="give images to segment with -i, or another fold"
        )
    return cases


if __name__ == "__main__":
    raise SystemExit(main())
