"""autoseg_export: write a trained model as one zip, to be used elsewhere with autoseg_import or autoseg_predict -m."""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING

from autoseg.cli import common

if TYPE_CHECKING:
    from pathlib import Path

EXAMPLES = """  autoseg_export -d 11 -o rat_t2.zip
  autoseg_export -d RatT2 -f 0 1 -o rat_t2_two_folds.zip
  autoseg_export -d 11 --onnx -o rat_t2_onnx"""


def build_parser() -> argparse.ArgumentParser:
    """The command's options."""
    command = common.parser(__doc__ or "", examples=EXAMPLES)
    command.add_argument("-d", dest="dataset", required=True, metavar="DATASET", help="id or name")
    command.add_argument(
        "-o", dest="output", required=True, metavar="FILE.zip", help="the zip to write; with --onnx a folder"
    )
    command.add_argument(
        "--onnx",
        action="store_true",
        help="write the networks as ONNX for other programs, with onnx_model.json, which says all around them",
    )
    command.add_argument("-p", dest="plan_name", metavar="NAME", help="the model of this plan")
    command.add_argument("-tr", dest="trainer", metavar="NAME", help="the model of this trainer")
    command.add_argument("-name", dest="model_name", metavar="NAME", help="the model of this name")
    command.add_argument(
        "-f", dest="folds", nargs="+", metavar="FOLD", help="folds to export (default: every finished one)"
    )
    command.add_argument("--overwrite", action="store_true", help="replace a zip that is there")
    common.add_folders(command, "results")
    return command


def main(argv: list[str] | None = None) -> int:
    """Run the command."""
    return common.run(_main, build_parser().parse_args(argv))


def _main(arguments: argparse.Namespace) -> None:
    from pathlib import Path

    from autoseg import paths
    from autoseg.bundle.opening import find_model
    from autoseg.bundle.transfer import export_bundle
    from autoseg.errors import AutosegError
    from autoseg.messages import file_size

    target = Path(arguments.output)
    if arguments.onnx and target.suffix == ".zip":
        raise AutosegError("--onnx writes a folder", found=target.name, fix="give a folder with -o")
    if not arguments.onnx and target.suffix != ".zip":
        raise AutosegError(
            "the output is not named as a zip",
            found=target.name,
            expected="FILE.zip",
            fix="end its name in .zip",
        )
    folder = find_model(
        paths.root("results", arguments.results),
        arguments.dataset,
        trainer=arguments.trainer,
        plan_name=arguments.plan_name,
        model_name=arguments.model_name,
    )
    if arguments.onnx:
        _export_onnx(folder, target, arguments)
        return
    card = export_bundle(folder, target, arguments.folds, overwrite=arguments.overwrite)
    size = file_size(target.stat().st_size)
    folds = ", ".join(fold.fold for fold in card.folds)
    print(f"{target}: {card.name} of {card.dataset}, fold{'s' * (len(card.folds) != 1)} {folds}, {size}")


def _export_onnx(folder: Path, target: Path, arguments: argparse.Namespace) -> None:
    from autoseg.bundle.onnx_export import export_onnx
    from autoseg.messages import count_of

    made = export_onnx(folder, target, arguments.folds, overwrite=arguments.overwrite)
    print(f"{target}: {made.model} of {made.dataset}, {count_of(len(made.networks), 'network')} as ONNX")
    print(f"next: autoseg_import {target}   (runs each in onnxruntime and compares its logits)")


if __name__ == "__main__":
    raise SystemExit(main())
