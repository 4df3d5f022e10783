"""autoseg_ensemble: put several models together, or what they have predicted already.

With --make a folder that autoseg_predict -m takes; with -i the masks of folders that autoseg_predict
--save_probabilities made.
"""

from __future__ import annotations

import argparse

from autoseg.cli import common, scoring_options

FUSIONS = ("mean_probabilities", "majority")
"""A copy of a name that lies beside torch; a test holds it against the original."""
EXAMPLES = """  autoseg_ensemble --make both -m models/unet__unet models/ratlesnetv2__ratlesnetv2
  autoseg_predict -i imagesTs -o masks -m both
  autoseg_ensemble -i masks_unet masks_ratlesnetv2 -o masks_both --fusion majority"""


def build_parser() -> argparse.ArgumentParser:
    """The command's options."""
    command = common.parser(__doc__ or "", examples=EXAMPLES)
    what = command.add_mutually_exclusive_group(required=True)
    what.add_argument("--make", metavar="FOLDER", help="a folder with the models of -m, exported")
    what.add_argument("-i", dest="folders", nargs="+", metavar="FOLDER", help="predictions with CASE.npz")
    command.add_argument(
        "-m", dest="models", nargs="+", metavar="MODEL", help="with --make: folders of models"
    )
    command.add_argument("-o", dest="out", metavar="FOLDER", help="with -i: where the masks go")
    command.add_argument(
        "--fusion",
        choices=FUSIONS,
        default=FUSIONS[0],
        help="the mean of probabilities, or a vote of masks (default: %(default)s)",
    )
    command.add_argument(
        "--postprocessing",
        metavar="FILE",
        help="postprocessing.json that autoseg_find_postprocessing -m A B -o OUT found for these together",
    )
    command.add_argument("-djfile", dest="dataset_json", metavar="FILE", help="with -i: dataset.json")
    command.add_argument("--save_probabilities", action="store_true", help="with -i: also CASE.npz")
    scoring_options.add_overwrite(command)
    return command


def main(argv: list[str] | None = None) -> int:
    """Run the command."""
    command = build_parser()
    arguments = command.parse_args(argv)
    if arguments.make and not arguments.models:
        command.error("--make needs the models: -m MODEL MODEL ...")
    if arguments.folders and not (arguments.out and arguments.dataset_json):
        command.error("-i needs -o FOLDER and -djfile dataset.json")
    return common.run(_main, arguments)


def _main(arguments: argparse.Namespace) -> None:
    from pathlib import Path

    from autoseg.dataset.dataset_json import read_dataset_json
    from autoseg.messages import count_of
    from autoseg.study.ensemble_folder import FusedFolder, found_of, fuse_folders, make_ensemble

    found = found_of(Path(arguments.postprocessing) if arguments.postprocessing else None)
    if arguments.make:
        folder = Path(arguments.make)
        models = [Path(model) for model in arguments.models]
        made = make_ensemble(folder, models, arguments.fusion, found, overwrite=arguments.overwrite)
        print(f"{folder}: {count_of(len(made.models), 'model')}")
        print(f"next: autoseg_predict -i IMAGES -o MASKS -m {folder}")
        return
    info = read_dataset_json(Path(arguments.dataset_json))
    how = FusedFolder(info, arguments.fusion, (found.steps or []) if found else [])
    names = fuse_folders(
        [Path(folder) for folder in arguments.folders],
        Path(arguments.out),
        how,
        save_probabilities=arguments.save_probabilities,
        overwrite=arguments.overwrite,
    )
    print(f"{count_of(len(names), 'case')}: {arguments.out}")


if __name__ == "__main__":
    raise SystemExit(main())
