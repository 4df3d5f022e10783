"""autoseg_import: check an exported model and put it among the results."""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING

from autoseg.cli import common

if TYPE_CHECKING:
    from pathlib import Path

EXAMPLES = """  autoseg_import rat_t2.zip
  autoseg_import rat_t2.zip --results elsewhere"""


def build_parser() -> argparse.ArgumentParser:
    """The command's options."""
    command = common.parser(__doc__ or "", examples=EXAMPLES)
    command.add_argument(
        "bundle", metavar="FILE.zip", help="written by autoseg_export; a folder of --onnx is checked"
    )
    command.add_argument("--overwrite", action="store_true", help="replace a model of the same name")
    common.add_folders(command, "results")
    return command


def main(argv: list[str] | None = None) -> int:
    """Run the command."""
    return common.run(_main, build_parser().parse_args(argv))


def _main(arguments: argparse.Namespace) -> None:
    from pathlib import Path

    from autoseg import paths
    from autoseg.bundle.transfer import import_bundle

    if (Path(arguments.bundle) / "onnx_model.json").is_file():
        _check_onnx(Path(arguments.bundle))
        return
    results = paths.root("results", arguments.results)
    folder = import_bundle(Path(arguments.bundle), results, overwrite=arguments.overwrite)
    print(f"imported: {folder}")
    elsewhere = common.folder_options(results=arguments.results)
    print(f"next: autoseg_predict -i IMAGES -o MASKS -d {folder.parent.name} -name {folder.name}{elsewhere}")


def _check_onnx(folder: Path) -> None:
    """Hold an export as ONNX against its check; it stays where it is, as it is for other programs."""
    from autoseg.bundle.onnx_export import check_onnx
    from autoseg.messages import count_of

    apart = check_onnx(folder)
    print(
        f"{folder}: {count_of(len(apart), 'network gives', 'networks give')} the logits of autoseg, "
        f"at most {max(apart.values()):.1e} apart"
    )


if __name__ == "__main__":
    raise SystemExit(main())
