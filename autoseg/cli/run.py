"""autoseg_run: a whole study, from raw files to a cross-validated, compared, ensembled and reported model.

The planners propose families, a short trial on your own cases decides which go on, all their folds are trained,
post-processing and ensembles are chosen out of fold. Stopped or killed at any moment, the same command goes on.
"""

from __future__ import annotations

import argparse

from autoseg.cli import common, scoring_options

EXAMPLES = """  autoseg_run 11 --hours 8
  autoseg_run RatT2 --hours 24 --devices cuda:0 cuda:1
  autoseg_run 11 --hours 2 --families unet ratlesnetv2 --winners 1
  autoseg_run 11 --hours 24 --executor slurm --devices cuda --profile my_cluster
  autoseg_status 11"""


def build_parser() -> argparse.ArgumentParser:
    """The command's options."""
    command = common.parser(__doc__ or "", examples=EXAMPLES)
    command.add_argument("dataset", metavar="DATASET", help="id or name, such as 11 or RatT2")
    command.add_argument(
        "--hours",
        type=float,
        metavar="H",
        help="wall time for all of it; trainings are cut to fit (default: as published, which may take weeks)",
    )
    command.add_argument(
        "--families",
        nargs="+",
        default=["auto"],
        metavar="NAME",
        help="auto: those that fit, and unet; all: all that can run; or names (unet always takes part)",
    )
    command.add_argument(
        "--winners",
        type=int,
        default=2,
        metavar="N",
        help="how many families at most go on from the trial (default: %(default)s)",
    )
    command.add_argument(
        "--devices",
        nargs="+",
        metavar="DEVICE",
        help="cuda:0 cuda:1, or cpu cpu: one task on each, the threads divided (default: cuda if there is one)",
    )
    command.add_argument(
        "--executor",
        metavar="NAME",
        help="hand the tasks to Snakemake: slurm, or another of its installed executors",
    )
    command.add_argument(
        "--jobs",
        type=int,
        default=8,
        metavar="N",
        help="with --executor: at once, at most (default: %(default)s)",
    )
    command.add_argument(
        "--profile",
        metavar="DIR",
        help="with --executor: a Snakemake profile (account, partition, resources)",
    )
    command.add_argument(
        "--snakemake",
        default="",
        metavar="OPTIONS",
        help="with --executor: further options of Snakemake, in one text that starts with a space",
    )
    command.add_argument(
        "--set",
        dest="options",
        nargs="+",
        action="extend",
        default=[],
        metavar="PATH=VALUE",
        help="for every plan, such as planner.length=quick",
    )
    command.add_argument(
        "--overwrite", action="store_true", help="begin again: an earlier study of this dataset is removed"
    )
    common.add_folders(command, "raw", "preprocessed", "results")
    return command


def main(argv: list[str] | None = None) -> int:
    """Run the command."""
    arguments = build_parser().parse_args(argv)
    arguments.command = scoring_options.typed("autoseg_run", argv)
    return common.run(
        _main, arguments, again="the same command goes on; autoseg_status DATASET shows where it stands"
    )


def _main(arguments: argparse.Namespace) -> None:
    import shlex
    from pathlib import Path

    from autoseg import paths
    from autoseg.device import choose_device
    from autoseg.study.executor import LocalExecutor
    from autoseg.study.leaderboard import format_study
    from autoseg.study.phases import Executor, run_study
    from autoseg.study.snakemake import SnakemakeExecutor
    from autoseg.study.study_json import Folders, Settings, Study
    from autoseg.version import __version__

    raw, preprocessed, results = (
        folder.resolve()
        for folder in paths.roots(
            raw=arguments.raw, preprocessed=arguments.preprocessed, results=arguments.results
        )
    )
    _refuse(arguments)
    devices = arguments.devices or [str(choose_device(None))]
    for device in dict.fromkeys(devices) if not arguments.executor else ():
        choose_device(device)
    wanted = Study(
        autoseg_version=__version__,
        dataset=paths.dataset_name(raw, arguments.dataset),
        command=arguments.command,
        folders=Folders(raw=str(raw), preprocessed=str(preprocessed), results=str(results)),
        settings=Settings(
            hours=arguments.hours,
            families=arguments.families,
            winners=arguments.winners,
            options=arguments.options,
        ),
        devices=arguments.jobs if arguments.executor else len(devices),
    )
    executor: Executor = LocalExecutor(devices)
    if arguments.executor:
        executor = SnakemakeExecutor(
            name=arguments.executor,
            device=devices[0],
            jobs=arguments.jobs,
            profile=Path(arguments.profile).resolve() if arguments.profile else None,
            options=shlex.split(arguments.snakemake),
        )
    study = run_study(wanted, executor, overwrite=arguments.overwrite)
    print(format_study(study))
    final = study.folder / "final"
    print(f"\nreport: {study.folder / 'report.html'}")
    print(f"next: autoseg_predict -i IMAGES -o MASKS -m {shlex.quote(str(final))}")


def _refuse(arguments: argparse.Namespace) -> None:
    """What is wrong with the options, before anything is done."""
    from autoseg import plugins
    from autoseg.errors import AutosegError, nearest_names

    known = plugins.names(plugins.PLANNERS)
    words = ("auto", "all")
    for name in arguments.families:
        if name not in (*known, *words) or (name in words and len(arguments.families) > 1):
            raise AutosegError(
                f"--families {' '.join(arguments.families)}: {name} is no family",
                expected=f"auto, all, or names among {', '.join(known)}",
                fix=nearest_names(name, known),
            )
    if arguments.hours is not None and not 0 < arguments.hours <= 24 * 365:
        raise AutosegError(f"--hours {arguments.hours:g} is no time", expected="hours above 0, such as 8")
    if arguments.winners < 1:
        raise AutosegError(f"--winners {arguments.winners}: nobody would go on", expected="at least 1")
    common.parse_overrides(arguments.options)


if __name__ == "__main__":
    raise SystemExit(main())
