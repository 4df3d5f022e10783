"""autoseg_threshold: the simplest method to compare with, one threshold on the intensities for all cases.

The threshold with the highest Dice on the training cases of a fold segments the cases that the fold is scored on.
"""

from __future__ import annotations

import argparse

from autoseg.cli import common

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
    command.add_argument("--overwrite", action="store_true", help="replace masks that are there")
    common.add_folders(command, "raw", "preprocessed")
    return command


def main(argv: list[str] | None = None) -> int:
    """Run the command."""
    return common.run(_main, build_parser().parse_args(argv))


def _main(arguments: argparse.Namespace) -> None:
    from pathlib import Path

    from autoseg import messages, paths
    from autoseg.comparison.best_threshold import learn_threshold, write_masks
    from autoseg.dataset.images_to_predict import list_images
    from autoseg.dataset.raw_layout import load_raw
    from autoseg.errors import AutosegError
    from autoseg.evaluation.output_folder import check_folder
    from autoseg.preparation.prepared import open_prepared

    raw_root, preprocessed = paths.roots(raw=arguments.raw, preprocessed=arguments.preprocessed)
    prepared, out = open_prepared(preprocessed, arguments.dataset, arguments.plan_name), Path(arguments.out)
    if out.is_dir() and any(out.iterdir()) and not arguments.overwrite:
        raise AutosegError(
            "the folder is not empty", where=str(out), fix="choose another with -o, or give --overwrite"
        )
    check_folder(out)
    fold = prepared.fold(common.fold(arguments.fold))
    if arguments.images:
        cases = list_images(arguments.images, prepared.info)
    else:
        scored = set(fold.test or fold.validation)
        cases = [case for case in load_raw(raw_root / prepared.dataset).cases if case.name in scored]
    if not cases:
        raise AutosegError(
            f"fold {arguments.fold} scores no case", fix="give images to segment with -i, or another fold"
        )
    found = learn_threshold(prepared, fold.train, arguments.channel)
    messages.info(
        f"{found.channel} {found.side} {found.threshold:.6g} after the preprocessing of plan {prepared.plan_name}: "
        f"mean Dice {found.dice:.3f} on the training cases with a lesion ({len(fold.train)} in all)"
    )
    out.mkdir(parents=True, exist_ok=True)
    write_masks(cases, prepared.plan, prepared.info, found, out)
    print(f"{messages.count_of(len(cases), 'case')} segmented: {out}")


if __name__ == "__main__":
    raise SystemExit(main())
