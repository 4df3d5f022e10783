"""autoseg_find_postprocessing: which threshold and steps are best after the network, chosen on out-of-fold predictions.

The figure that it reports is that of nested cross-validation: each fold is scored with what the others chose.
"""

from __future__ import annotations

import argparse

from autoseg.cli import common, scoring_options
from autoseg.cli.ensemble import FUSIONS

EXAMPLES = """  autoseg_find_postprocessing -m $autoseg_results/Dataset011_RatT2/unet__unet
  autoseg_find_postprocessing -m A B --fusion majority -o out_of_fold/votes"""


def build_parser() -> argparse.ArgumentParser:
    """The command's options."""
    command = common.parser(__doc__ or "", examples=EXAMPLES)
    command.add_argument(
        "-m",
        dest="models",
        nargs="+",
        required=True,
        metavar="MODEL",
        help="folder of a model whose folds were trained with --save_probabilities; several are an ensemble",
    )
    command.add_argument(
        "--fusion",
        choices=FUSIONS,
        default=FUSIONS[0],
        help="how several models become one (default: %(default)s)",
    )
    command.add_argument(
        "-o",
        dest="out",
        metavar="FOLDER",
        help="also the out-of-fold masks of nested cross-validation, with their scores",
    )
    command.add_argument(
        "--metric",
        choices=("dice", "lesion_f1"),
        default="dice",
        help="whose mean over cases and classes decides (default: %(default)s)",
    )
    command.add_argument(
        "-np", dest="processes", type=int, metavar="N", help="processes (default: all cores, at most 8)"
    )
    scoring_options.add_overwrite(command)
    common.add_folders(command, "raw")
    return command


def main(argv: list[str] | None = None) -> int:
    """Run the command."""
    return common.run(_main, build_parser().parse_args(argv))


def _main(arguments: argparse.Namespace) -> None:
    from pathlib import Path

    from autoseg import messages, paths
    from autoseg.study.found_files import find_and_write

    models = [Path(model) for model in arguments.models]
    found = find_and_write(
        models,
        paths.root("raw", arguments.raw),
        fusion=arguments.fusion,
        metric=arguments.metric,
        out=Path(arguments.out) if arguments.out else None,
        processes=arguments.processes or common.default_processes(),
        overwrite=arguments.overwrite,
    )
    print(f"{found.words}: chosen on {messages.count_of(found.cases, 'case')} in {found.parts} parts")
    for name in found.nested:
        print(
            f"  {name:10}  {found.planned[name]:.3f} with the plan's own, {found.nested[name]:.3f} by nested "
            f"cross-validation ({found.tuned[name]:.3f} on the cases that chose it)"
        )
    for path in [
        *(model for model in models if len(models) == 1),
        *([arguments.out] if arguments.out else []),
    ]:
        print(f"{path}")


if __name__ == "__main__":
    raise SystemExit(main())
