"""autoseg_import: check an exported model and put it among the results."""

from __future__ import annotations

import argparse

from autoseg.cli import common

EXAMPLES = """  autoseg_import rat_t2.zip
  autoseg_import rat_t2.zip --results elsewhere"""


def build_parser() -> argparse.ArgumentParser:
    """The command's options."""
    command = common.parser(__doc__ or "", examples=EXAMPLES)
    command.add_argument("bundle", metavar="FILE.zip", help="written by autoseg_export")
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

    results = paths.root("results", arguments.results)
    folder = import_bundle(Path(arguments.bundle), results, overwrite=arguments.overwrite)
    print(f"imported: {folder}")
    elsewhere = common.folder_options(results=arguments.results)
    print(f"next: autoseg_predict -i IMAGES -o MASKS -d {folder.parent.name} -name {folder.name}{elsewhere}")


if __name__ == "__main__":
    raise SystemExit(main())
