"""autoseg_agreement: how well raters agree with each other and with themselves, and a method with them."""

from __future__ import annotations

import argparse

from autoseg.cli import common, scoring_options

EXAMPLES = """  autoseg_agreement -r anna anna/run1 anna/run2 anna/run3 -r ben ben/run1 ben/run2 ben/run3
  autoseg_agreement -r anna masks_anna -r ben masks_ben -m unet masks_unet --metrics dice hd95_mm
  autoseg_agreement -r anna anna/* -djfile Dataset011_RatT2/dataset.json -o agreement_anna"""


def build_parser() -> argparse.ArgumentParser:
    """The command's options."""
    command = common.parser(__doc__ or "", examples=EXAMPLES)
    command.add_argument(
        "-r",
        dest="raters",
        nargs="+",
        action="append",
        default=[],
        metavar=("NAME", "FOLDER"),
        help="a rater, and one folder of masks for each time the cases were drawn; once for each rater",
    )
    command.add_argument(
        "-m",
        dest="methods",
        nargs="+",
        action="append",
        default=[],
        metavar=("NAME", "FOLDER"),
        help="a method to hold against each rater; it is in no row about all raters",
    )
    command.add_argument(
        "--metrics",
        "--metric",
        nargs="+",
        default=["dice"],
        metavar="METRIC",
        help="how agreement is measured (default: dice)",
    )
    command.add_argument(
        "-o",
        dest="out",
        default="agreement",
        metavar="FOLDER",
        help="where the results go (default: %(default)s)",
    )
    command.add_argument(
        "-djfile",
        dest="dataset_json",
        metavar="FILE",
        help="dataset.json (default: the one in or beside the first folder; without it, every value is a class)",
    )
    command.add_argument(
        "-np", dest="processes", type=int, metavar="N", help="processes (default: all cores, at most 8)"
    )
    scoring_options.add_overwrite(command)
    return command


def main(argv: list[str] | None = None) -> int:
    """Run the command."""
    command = build_parser()
    arguments = command.parse_args(argv)
    if not arguments.raters and not arguments.methods:
        command.error("the following arguments are required: -r NAME FOLDER")
    arguments.command = scoring_options.typed("autoseg_agreement", argv)
    return common.run(_main, arguments)


def _main(arguments: argparse.Namespace) -> None:
    from functools import partial
    from pathlib import Path

    from autoseg.comparison.agreement_figure import draw_agreement
    from autoseg.comparison.agreement_schema import JSON_NAME, folders_of, format_agreement
    from autoseg.comparison.raters import check_raters, parse_rater, rate_folders
    from autoseg.evaluation.case_files import find_dataset_json
    from autoseg.evaluation.output_folder import check_output, recorded

    raters = [parse_rater(words) for words in arguments.raters]
    raters += [parse_rater(words, method=True) for words in arguments.methods]
    raters, out = check_raters(raters), Path(arguments.out)
    settings = recorded(
        metrics=None if arguments.metrics == ["dice"] else arguments.metrics,
        dataset_json=arguments.dataset_json,
    )
    inputs = [folder for rater in raters for folder in rater.folders]
    info = find_dataset_json(raters[0].folders[0], raters[0].folders[0], arguments.dataset_json)
    table = rate_folders(
        raters,
        info,
        metrics=arguments.metrics,
        processes=arguments.processes or common.default_processes(),
        ready=partial(
            check_output,
            out / JSON_NAME,
            inputs,
            folders_of,
            settings=settings,
            overwrite=arguments.overwrite,
        ),
    ).model_copy(update={"command": arguments.command, "settings": settings})
    written = [*table.write(out), *draw_agreement(table, out)]
    print(format_agreement(table))
    print()
    for path in written:
        print(path)


if __name__ == "__main__":
    raise SystemExit(main())
