"""autoseg_convert: turn a public dataset, as it is downloaded, into a raw dataset of autoseg.

The format comes first: autoseg_convert FORMAT --help shows its layout and its own options, autoseg_convert --list all
formats. Whatever the format does not recognise is refused, and nothing is written then.
"""

from __future__ import annotations

import argparse
import sys
from typing import TYPE_CHECKING, Any

from autoseg.cli import common
from autoseg.messages import count_of

if TYPE_CHECKING:
    from autoseg.dataset.raw_writer import Converted
    from autoseg.plugins.converter import Converter

EXAMPLES = """  autoseg_convert --list
  autoseg_convert ratlesnet --help
  autoseg_convert ratlesnet ~/RATS -d 21 --shams shams.txt --division heterogeneous
  autoseg_convert ratlesnet ~/RATS -d Dataset022_Annotator2 --annotator scan_second.nii.gz --shams_without_label"""


def build_parser() -> argparse.ArgumentParser:
    """What the command says without a format."""
    command = common.parser(__doc__ or "", examples=EXAMPLES)
    command.usage = (
        "autoseg_convert FORMAT ROOT -d DATASET [options of the format]\n       autoseg_convert --list"
    )
    command.add_argument("--list", action="store_true", help="list the formats (as without any argument)")
    return command


def build_format_parser(converter: Converter) -> argparse.ArgumentParser:
    """The options of all formats, and those of one."""
    summary = f"autoseg_convert {converter.name}: {converter.summary}\n\n{converter.layout}"
    example = f"  autoseg_convert {converter.name} ROOT -d 21"
    command = common.parser(summary.rstrip(), examples=example)
    command.prog = f"autoseg_convert {converter.name}"
    command.add_argument(
        "root", metavar="ROOT", help="folder of the download, or the file that the format reads"
    )
    command.add_argument(
        "-d",
        dest="dataset",
        required=True,
        metavar="DATASET",
        help="number of the raw dataset, such as 21, or its whole name, such as Dataset021_MyRats",
    )
    command.add_argument(
        "-np", dest="processes", type=int, metavar="N", help="processes (default: all cores, at most 8)"
    )
    command.add_argument("--no_test", action="store_true", help="leave the test cases out")
    command.add_argument(
        "--ignore_mask_headers",
        action="store_true",
        help="masks lie voxel by voxel on their images, whatever their headers say",
    )
    command.add_argument(
        "--leave_out_faulty",
        action="store_true",
        help="leave out cases with a fault, each by name and reason, instead of refusing the whole",
    )
    command.add_argument(
        "--subject",
        dest="subject_pattern",
        metavar="PATTERN",
        help="which part of a case's name is its subject, as a regular expression such as '(sub-[^_]+)'; cases of one "
        "subject stay together in folds (default: what the format says)",
    )
    command.add_argument("--overwrite", action="store_true", help="replace an earlier conversion")
    common.add_folders(command, "raw")
    converter.add_arguments(command)
    return command


def main(argv: list[str] | None = None) -> int:
    """Run the command."""
    words = sys.argv[1:] if argv is None else argv
    if words and not words[0].startswith("-"):
        return common.run(_convert, argparse.Namespace(words=words))
    return common.run(_list, build_parser().parse_args(words))


def _list(_: argparse.Namespace) -> None:
    from autoseg import messages, plugins
    from autoseg.errors import AutosegError

    for name in plugins.names(plugins.CONVERTERS):
        try:
            print(f"{name:<16}{plugins.load(plugins.CONVERTERS, name).summary}")
        except AutosegError as error:
            messages.warn(str(error))
    print("\nautoseg_convert FORMAT --help shows the layout and the options of a format")


def _convert(arguments: argparse.Namespace) -> None:
    from autoseg import plugins

    converter: Converter = plugins.load(plugins.CONVERTERS, arguments.words[0])
    options = build_format_parser(converter).parse_args(arguments.words[1:])

    from dataclasses import replace
    from pathlib import Path

    from autoseg import paths
    from autoseg.dataset.raw_writer import check_target, dataset_folder_name, write_dataset

    conversion = converter.describe(Path(options.root), options)
    if options.subject_pattern:
        from autoseg.dataset.subjects import with_subjects

        conversion = replace(conversion, cases=with_subjects(conversion.cases, options.subject_pattern))
    if options.no_test:
        conversion = replace(conversion, cases=tuple(c for c in conversion.cases if not c.test))
    name = dataset_folder_name(options.dataset, conversion.dataset)
    target = paths.root("raw", options.raw) / name
    check_target(target, options.overwrite)
    done = write_dataset(
        conversion,
        target,
        made_by={"command": "autoseg_convert", "format": converter.name, "options": _recorded(options)},
        processes=options.processes or common.default_processes(),
        overwrite=options.overwrite,
        ignore_mask_headers=options.ignore_mask_headers,
        leave_out_faulty=options.leave_out_faulty,
    )
    _report(done, options)


def _recorded(options: argparse.Namespace) -> dict[str, Any]:
    """The options for dataset.json: those that change the result, and of paths only the last part."""
    elsewhere = ("root", "dataset", "raw", "processes", "overwrite")
    chosen = {name: value for name, value in vars(options).items() if name not in elsewhere}
    return {name: _without_folder(value) for name, value in chosen.items() if value}


def _without_folder(value: Any) -> Any:
    if isinstance(value, list):
        return [_without_folder(item) for item in value]
    return value.rpartition("/")[2] if isinstance(value, str) else value


def _report(done: Converted, options: argparse.Namespace) -> None:
    parts = [count_of(done.n_training, "training case")]
    parts += [count_of(done.n_test, "test case")] if done.n_test else []
    parts += [count_of(done.n_folds, "given fold")] if done.n_folds else []
    print(f"{', '.join(parts)}: {done.folder}")
    if done.n_left_out:
        print(
            f"{done.n_left_out} left out; conversion.csv in the folder says why, and what became of each case"
        )
    print(f"next: autoseg_plan_and_preprocess -d {done.folder.name}{common.folder_options(raw=options.raw)}")


if __name__ == "__main__":
    raise SystemExit(main())
