"""autoseg_report: one self-contained HTML page about a model, one of its folds, or scored predictions."""

from __future__ import annotations

import argparse
from pathlib import Path

from autoseg.cli import common, scoring_options

EXAMPLES = """  autoseg_report results/Dataset011_RatT2/unet__unet
  autoseg_report masks -o report.html
  autoseg_report masks -i imagesTs -g labelsTs --cases 6
  autoseg_report results/Dataset011_RatT2/unet__unet/fold_0 --no_viewer"""


def build_parser() -> argparse.ArgumentParser:
    """The command's options."""
    command = common.parser(__doc__ or "", examples=EXAMPLES)
    command.add_argument(
        "folder",
        metavar="DIR",
        help="a model folder, one of its folds, a folder of autoseg_evaluate or autoseg_compare, or a study",
    )
    command.add_argument(
        "-o", dest="out", metavar="FILE", help="the page, or the folder for it (default: DIR/report.html)"
    )
    command.add_argument("-i", dest="images", metavar="FOLDER", help="images, where they cannot be found")
    command.add_argument("-g", dest="truths", metavar="FOLDER", help="true masks, where they have moved")
    command.add_argument("-channel", type=int, default=0, metavar="N", help="channel to draw on (default: 0)")
    command.add_argument("--cases", type=int, default=3, metavar="N", help="cases to show (default: 3)")
    command.add_argument(
        "--volume_sign",
        choices=("pred_minus_gt", "gt_minus_pred"),
        default="pred_minus_gt",
        help="what is subtracted from what in Bland-Altman plots of volumes; some papers plot truth minus prediction "
        "(default: %(default)s)",
    )
    command.add_argument(
        "--no_viewer",
        action="store_true",
        help="without interactive slice viewers, which take 1 to 2 MB per case",
    )
    return command


def main(argv: list[str] | None = None) -> int:
    """Run the command."""
    arguments = build_parser().parse_args(argv)
    arguments.command = scoring_options.typed("autoseg_report", argv)
    return common.run(_main, arguments)


def _main(arguments: argparse.Namespace) -> None:
    from autoseg.messages import file_size
    from autoseg.report.page import PageOptions, make_report

    path = make_report(
        Path(arguments.folder),
        arguments.out,
        images=Path(arguments.images) if arguments.images else None,
        truths=Path(arguments.truths) if arguments.truths else None,
        options=PageOptions(
            cases=arguments.cases,
            viewers=not arguments.no_viewer,
            channel=arguments.channel,
            volume_sign=arguments.volume_sign,
            command=arguments.command,
        ),
    )
    print(f"{path} ({file_size(path.stat().st_size)})")
    files = path.with_name(f"{path.stem}_files")
    if files.is_dir():
        print(f"figures and tables: {files}")


if __name__ == "__main__":
    raise SystemExit(main())
