"""autoseg_compare: which method is better, by how much, how surely, and on which cases."""

from __future__ import annotations

import argparse

from autoseg.cli import common, scoring_options

EXAMPLES = """  autoseg_compare masks_unet masks_ratlesnetv2 -g labelsTs
  autoseg_compare results/Dataset011_RatT2/*/fold_0/validation -g Dataset011_RatT2/labelsTr -o unet_or_ratlesnetv2
  autoseg_compare A B C -g labelsTs --names unet ensemble nnunet --metrics dice hd95_mm lesion_f1
  autoseg_compare A B -g labelsTs --preset isles22 --groups patients.csv --strata voxels_truth=100,1000"""
TESTS = ("permutation", "wilcoxon", "t")


def build_parser() -> argparse.ArgumentParser:
    """The command's options."""
    command = common.parser(__doc__ or "", examples=EXAMPLES)
    command.add_argument(
        "folders",
        nargs="+",
        metavar="FOLDER",
        help="predicted masks, one folder for each method, at least two",
    )
    command.add_argument("-g", dest="truths", required=True, metavar="FOLDER", help="true masks")
    command.add_argument(
        "-o",
        dest="out",
        default="comparison",
        metavar="FOLDER",
        help="where the results go (default: %(default)s)",
    )
    command.add_argument(
        "--names", nargs="+", default=[], metavar="NAME", help="of the methods (default: from the folders)"
    )
    command.add_argument(
        "--metrics",
        nargs="+",
        default=[],
        metavar="METRIC",
        help="what to compare, the most important first (default: the table of the preset)",
    )
    command.add_argument(
        "--test",
        choices=TESTS,
        default="permutation",
        help="whose p-values are corrected and decide; the others stand beside them (default: %(default)s)",
    )
    command.add_argument(
        "--series",
        nargs="+",
        type=float,
        default=[],
        metavar="NUMBER",
        help="a number for each folder, such as the size of its training set: scores against it, by groups",
    )
    command.add_argument(
        "-djfile",
        dest="dataset_json",
        metavar="FILE",
        help="dataset.json (default: the one beside the true masks; without it, every value is a class)",
    )
    command.add_argument(
        "-np", dest="processes", type=int, metavar="N", help="processes (default: all cores, at most 8)"
    )
    scoring_options.add_scoring(command)
    scoring_options.add_overwrite(command)
    return command


def main(argv: list[str] | None = None) -> int:
    """Run the command."""
    arguments = build_parser().parse_args(argv)
    arguments.command = scoring_options.typed("autoseg_compare", argv)
    return common.run(_main, arguments)


def _main(arguments: argparse.Namespace) -> None:
    from functools import partial
    from pathlib import Path

    from autoseg.comparison.compare_methods import compare_folders
    from autoseg.comparison.comparison_files import write_comparison
    from autoseg.comparison.comparison_schema import JSON_NAME, folders_of
    from autoseg.comparison.comparison_text import format_comparison
    from autoseg.comparison.series import check_series, format_series, series_rows, write_series
    from autoseg.evaluation.case_files import find_dataset_json
    from autoseg.evaluation.output_folder import check_output, recorded

    truths, out = Path(arguments.truths), Path(arguments.out)
    options = scoring_options.scoring_options(arguments)
    settings = recorded(
        **options,
        metrics=arguments.metrics,
        names=arguments.names,
        test=None if arguments.test == TESTS[0] else arguments.test,
        series=arguments.series,
        dataset_json=arguments.dataset_json,
    )
    if arguments.series:
        check_series(arguments.series, arguments.folders)
    inputs = [*arguments.folders, truths]
    info = find_dataset_json(arguments.folders[0], truths, arguments.dataset_json)
    comparison = compare_folders(
        arguments.folders,
        truths,
        info,
        metrics=arguments.metrics,
        names=arguments.names,
        test=arguments.test,
        processes=arguments.processes or common.default_processes(),
        ready=partial(
            check_output,
            out / JSON_NAME,
            inputs,
            folders_of,
            settings=settings,
            overwrite=arguments.overwrite,
        ),
        **options,
    ).model_copy(update={"command": arguments.command, "settings": settings})
    written = write_comparison(comparison, out)
    print(format_comparison(comparison))
    print()
    if arguments.series:
        rows = series_rows(comparison, arguments.series)
        written += write_series(comparison, rows, out)
        print(format_series(rows, {name: row.unit for name, row in comparison.metrics.items()}), end="\n\n")
    for path in written:
        print(path)


if __name__ == "__main__":
    raise SystemExit(main())
