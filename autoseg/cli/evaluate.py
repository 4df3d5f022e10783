"""autoseg_evaluate: score predicted masks against true ones, and draw the worst, the median and the best case."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING, Any

from autoseg.cli import common, scoring_options

if TYPE_CHECKING:
    from autoseg.dataset.dataset_json import DatasetJson
    from autoseg.evaluation.summary import Summary

EXAMPLES = """  autoseg_evaluate -p masks -g Dataset011_RatT2/labelsTs
  autoseg_evaluate -p masks -g labelsTs -i imagesTs -channel 1 -o scores
  autoseg_evaluate -p masks -g labelsTs --preset isles22 --groups patients.csv --strata voxels_truth=q4
  autoseg_evaluate -p masks -g labelsTs --preset brats --regions whole=1,2,3 core=1,3 enhancing=3
  autoseg_evaluate -p rater2 -g rater1 -djfile dataset.json --chill"""


def build_parser() -> argparse.ArgumentParser:
    """The command's options."""
    command = common.parser(__doc__ or "", examples=EXAMPLES)
    command.add_argument("-p", dest="predictions", required=True, metavar="FOLDER", help="predicted masks")
    command.add_argument("-g", dest="truths", required=True, metavar="FOLDER", help="true masks")
    command.add_argument(
        "-o", dest="out", metavar="FOLDER", help="where the results go (default: with the predicted masks)"
    )
    command.add_argument(
        "-i",
        dest="images",
        metavar="FOLDER",
        help="images to draw on (default: imagesTs beside labelsTs, imagesTr beside labelsTr)",
    )
    command.add_argument("-channel", type=int, default=0, metavar="N", help="channel to draw on (default: 0)")
    command.add_argument(
        "-djfile",
        dest="dataset_json",
        metavar="FILE",
        help="dataset.json (default: the one beside the true masks; without it, every value is a class)",
    )
    command.add_argument(
        "-np", dest="processes", type=int, metavar="N", help="processes (default: all cores, at most 8)"
    )
    command.add_argument(
        "--chill", action="store_true", help="leave out cases without prediction instead of refusing"
    )
    scoring_options.add_scoring(command)
    scoring_options.add_overwrite(command)
    return command


def main(argv: list[str] | None = None) -> int:
    """Run the command."""
    arguments = build_parser().parse_args(argv)
    arguments.command = scoring_options.typed("autoseg_evaluate", argv)
    return common.run(_main, arguments)


def _main(arguments: argparse.Namespace) -> None:
    from autoseg.errors import AutosegError
    from autoseg.evaluation.output_folder import recorded
    from autoseg.evaluation.score_masks import evaluate_folder, find_dataset_json
    from autoseg.evaluation.summary_text import format_table

    predictions, truths = Path(arguments.predictions), Path(arguments.truths)
    if arguments.images and not Path(arguments.images).is_dir():
        raise AutosegError("the folder of images is missing", where=arguments.images, fix="check the path")
    info = find_dataset_json(predictions, truths, arguments.dataset_json)
    out = Path(arguments.out) if arguments.out else predictions
    options = scoring_options.scoring_options(arguments)
    settings = recorded(**options, chill=arguments.chill, dataset_json=arguments.dataset_json)
    summary = evaluate_folder(
        predictions,
        truths,
        info,
        processes=arguments.processes or common.default_processes(),
        chill=arguments.chill,
        ready=lambda: _check_output(out, predictions, truths, settings, arguments.overwrite),
        **options,
    ).model_copy(update={"command": arguments.command, "settings": settings})
    written = [*summary.write(out), *_overlays(summary, info, arguments, out)]
    print(format_table(summary))
    print(f"\n{_intervals(summary)}")
    for path in written:
        print(path)


def _check_output(
    out: Path, predictions: Path, truths: Path, settings: dict[str, Any], overwrite: bool
) -> None:
    """Scores of other masks or settings are replaced only when the user asks; masks beside them are their own."""
    from autoseg.evaluation.output_folder import check_output
    from autoseg.evaluation.summary import JSON_NAME

    inside = out.resolve() == predictions.resolve()
    inputs = [truths] if inside else [predictions, truths]

    def folders_of(content: dict[str, Any]) -> list[str]:
        return [content["truths"]] if inside else [content["predictions"], content["truths"]]

    check_output(out / JSON_NAME, inputs, folders_of, settings=settings, overwrite=overwrite)


def _intervals(summary: Summary) -> str:
    """How many cases there are, and how the intervals were made."""
    from autoseg.evaluation.statistics import FEW_CASES

    n = len(summary.cases)
    if n < 2:
        return "1 case, so there are no intervals"
    narrow = n < FEW_CASES and "Student" not in summary.interval  # which knows how few they are
    few = "; of so few cases they are too narrow" if narrow else ""
    return f"{n} cases; intervals: {summary.interval}{few}"


def _overlays(
    summary: Summary, info: DatasetJson | None, arguments: argparse.Namespace, out: Path
) -> list[Path]:
    from autoseg import messages
    from autoseg.report import overlay

    truths = Path(summary.truths)
    images = Path(arguments.images) if arguments.images else overlay.find_images(truths)
    if images is None:
        overlay.remove_overlays(out)
        messages.info(f"no overlays: there is no folder of images beside {truths}; give one with -i")
        return []
    names = info.channel_names if info else {}
    return overlay.draw_overlays(summary, images, out, channel=arguments.channel, channel_names=names)


if __name__ == "__main__":
    raise SystemExit(main())
