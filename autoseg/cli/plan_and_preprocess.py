"""autoseg_plan_and_preprocess: look at a dataset, decide how to treat it, say why, prepare it for training."""

from __future__ import annotations

import argparse
import contextlib
import math
from typing import TYPE_CHECKING

from autoseg import plugins
from autoseg.cli import common
from autoseg.errors import AutosegError

if TYPE_CHECKING:
    from autoseg.dataset.folds import Fold
    from autoseg.fingerprint import Fingerprint
    from autoseg.plan import Plan
    from autoseg.plugins.planner import Budget
    from autoseg.preparation.prepared import Prepared

EXAMPLES = """  autoseg_plan_and_preprocess -d 11
  autoseg_plan_and_preprocess -d RatT2 -pl unet -gpu_memory_target 24 -np 4
  autoseg_plan_and_preprocess -d 11 -p night --hours 8
  autoseg_plan_and_preprocess -d 11 -p quick --set planner.length=quick
  autoseg_plan_and_preprocess -d 11 -pl unet -p unet_L --set planner.preset=L
  autoseg_plan_and_preprocess -d 14 --folds 182/26/31
  autoseg_plan_and_preprocess -d 13 -pl deepmedic --test_part --stratify subtype
  autoseg_plan_and_preprocess -d 11 -p unet --keep_plan --part 3/10
  autoseg_plan_and_preprocess -d 11 -pl unet --set patch_size='[20,128,128]' epochs=100"""


def build_parser() -> argparse.ArgumentParser:
    """The command's options."""
    command = common.parser(__doc__ or "", examples=EXAMPLES)
    command.add_argument(
        "-d", dest="dataset", required=True, metavar="ID|NAME", help="dataset, such as 11 or RatT2"
    )
    command.add_argument(
        "-pl",
        dest="planner",
        default="auto",
        metavar="PLANNER",
        help=f"which method: auto, the one that fits best, or {', '.join(plugins.names(plugins.PLANNERS))}",
    )
    command.add_argument(
        "-p",
        dest="plan_name",
        metavar="NAME",
        help="name of the plan (default: that of the method), to keep several",
    )
    command.add_argument(
        "-gpu_memory_target",
        type=float,
        metavar="GB",
        help="memory of the card that will train (default: the planner's own target)",
    )
    command.add_argument(
        "-device",
        metavar="DEVICE",
        help="that will train, on which a step is timed: cuda, cpu or mps (default: cuda if there is one)",
    )
    command.add_argument(
        "--hours",
        type=_hours,
        metavar="H",
        help="cut the epochs and the schedule so that a fold takes at most so many hours on this device",
    )
    command.add_argument(
        "-np",
        dest="processes",
        type=int,
        default=None,
        metavar="N",
        help="processes (default: all cores, at most 8)",
    )
    command.add_argument(
        "--folds",
        metavar="K|A/B/C|FILE",
        help="make K folds now; or one, in the proportions A/B/C of training, validation and test cases, such as "
        "182/26/31; or take those of a list: nnU-Net's splits_final.json, or a CSV with the columns case and part "
        "(default: the first training makes 5, or takes those of the raw dataset)",
    )
    command.add_argument(
        "--test_part",
        action="store_true",
        help="make folds with a third part, which is scored: each tests once, and what is tuned is tuned on another",
    )
    command.add_argument(
        "--stratify",
        metavar="COLUMN|lesion_volume",
        help="with a number of folds: spread the groups in this column of groups.csv evenly over them, such as "
        "subtype; or the thirds of the cases by the volume of their lesions",
    )
    command.add_argument("--no_pp", action="store_true", help="plan only, do not preprocess")
    command.add_argument(
        "--keep_plan",
        action="store_true",
        help="use the plan.json that is there, for example after editing it",
    )
    command.add_argument(
        "--part",
        metavar="I/N",
        help="with --keep_plan: preprocess the I-th of N parts of the cases, by sorted name; parts may run at the same "
        "time",
    )
    command.add_argument(
        "--overwrite",
        action="store_true",
        help="replace a plan that other settings made, and what was prepared by it",
    )
    common.add_set(command)
    common.add_folders(command, "raw", "preprocessed")
    return command


def _hours(text: str) -> float:
    """A number of hours.

    Raises:
        ArgumentTypeError: it is none, or not above 0.
    """
    try:
        hours = float(text)
    except ValueError:
        hours = math.nan
    if not 0 < hours < math.inf:
        raise argparse.ArgumentTypeError(f"'{text}' is no number of hours above 0, such as 8 or 0.5")
    return hours


def main(argv: list[str] | None = None) -> int:
    """Run the command."""
    return common.run(
        _main,
        build_parser().parse_args(argv),
        again="run the command again: it redoes only what is missing",
    )


def _main(arguments: argparse.Namespace) -> None:
    from autoseg import messages, paths
    from autoseg.dataset.folds import refuse_damaged
    from autoseg.dataset.part import CasesPart
    from autoseg.files import check_writable, exclusive
    from autoseg.plan.proposal_table import format_proposals
    from autoseg.plan.table import format_plan
    from autoseg.plugins.planner import Budget
    from autoseg.preparation import steps
    from autoseg.preparation.prepared import Prepared

    _refuse_unfit(arguments)
    part = CasesPart.parse(arguments.part) if arguments.part is not None else None
    raw_root, preprocessed = paths.roots(raw=arguments.raw, preprocessed=arguments.preprocessed)
    raw_folder = raw_root / paths.dataset_name(raw_root, arguments.dataset)
    folder = preprocessed / raw_folder.name
    processes = arguments.processes or common.default_processes()
    check_writable(folder)
    with messages.LogFile(folder / "prepare.log"):
        with exclusive(folder / ".lock", doing=f"checking {folder.name}", wait=True):
            wanted = (arguments.folds, arguments.test_part)
            asked = wanted != (None, False) or arguments.stratify is not None

            def folds(*measured: Fingerprint) -> list[Fold]:
                strata = steps.strata_asked_for(raw_folder, arguments.stratify, *measured)
                return steps.folds_asked_for(raw_folder, *wanted, strata) if asked else []

            folds()  # what cannot be is refused before a case is read
            raw, fingerprint = steps.take_fingerprint(raw_folder, folder, processes)
            if found := folds(fingerprint):
                steps.use_folds(folder, found)
            refuse_damaged(folder / "splits.json")
        budget = Budget(memory_gb=arguments.gpu_memory_target)
        name, plan = steps.decide(
            fingerprint,
            folder,
            planner=arguments.planner,
            plan_name=arguments.plan_name,
            budget=budget,
            overrides=common.parse_overrides(arguments.overrides),
            keep=arguments.keep_plan,
            check=_check,
        )
        plan = _with_memory(plan, fingerprint)
        replace, there = arguments.keep_plan or arguments.overwrite, Prepared(folder, name)
        if not arguments.keep_plan:
            if not replace and arguments.hours is None:  # before a step is timed
                steps.refuse_other_settings(there, plan, fingerprint)
            plan = _completed(plan, fingerprint, there, budget, arguments)
        with steps.written(plan, folder, name, replace=replace, part=part) as prepared:
            print(format_proposals(prepared.plan), end="")
            print(format_plan(prepared.plan))
            if not arguments.no_pp:
                print(f"{steps.preprocess(raw, prepared, processes, part).summary()}\n")
        print(f"plan: {prepared.plan_path}")
        folders = common.folder_options(raw=arguments.raw, preprocessed=arguments.preprocessed)
        if arguments.no_pp:  # a training would find nothing to read
            print(f"next: autoseg_plan_and_preprocess -d {raw_folder.name} -p {name} --keep_plan{folders}")
        else:
            fold = "0" if len(raw.cases) > 1 else "all"  # one case cannot be divided
            print(f"next: autoseg_train {raw_folder.name} {fold} -p {name}{folders}")


def _refuse_unfit(arguments: argparse.Namespace) -> None:
    """A plan that is kept is not cut, and the device must be there: before any case is read.

    Raises:
        AutosegError: it is not so.
    """
    if arguments.device is not None:
        from autoseg.device import choose_device

        choose_device(arguments.device)
    if arguments.part is not None and (not arguments.keep_plan or arguments.no_pp):
        raise AutosegError(
            f"--part {arguments.part} is of the preprocessing by a plan that is there",
            found="--no_pp" if arguments.no_pp else "no --keep_plan",
            fix="make the plan first, with --no_pp and without --part; then give --keep_plan --part I/N",
        )
    if arguments.keep_plan and arguments.hours is not None:
        raise AutosegError(
            "--hours makes another plan than the one that is kept",
            found="--keep_plan and --hours",
            fix="leave one of them out; a plan that is there is replaced with --overwrite",
        )


def _completed(
    plan: Plan,
    fingerprint: Fingerprint,
    there: Prepared,
    budget: Budget,
    arguments: argparse.Namespace,
) -> Plan:
    """The plan with the ranked table and the time that it takes here, cut where hours were given."""
    from autoseg.dataset.folds import read_folds
    from autoseg.device import choose_device
    from autoseg.files import read_model
    from autoseg.plan import Plan
    from autoseg.training.planned import complete

    splits, path = there.splits_path, there.plan_path
    before = None
    with contextlib.suppress(AutosegError):  # one that cannot be read is refused when the new one is written
        before = read_model(path, Plan) if path.exists() else None
    names = [case.name for case in fingerprint.cases]
    return complete(
        plan,
        fingerprint,
        budget,
        choose_device(arguments.device),
        ranked=arguments.planner == "auto",
        hours=arguments.hours,
        folds=read_folds(splits, names) if splits.exists() else None,
        before=before,
    )


def _with_memory(plan: Plan, fingerprint: Fingerprint) -> Plan:
    """What the user set may take another memory than the planner foretold."""
    from autoseg.training.memory import with_memory

    return with_memory(plan, fingerprint)


def _check(plan: Plan) -> None:
    """What a training would refuse is refused now: it comes after hours of preprocessing, or on another machine."""
    from autoseg.training.check_recipe import check_recipe

    check_recipe(plan, plugins.load(plugins.TRAINERS, plan.trainer))


if __name__ == "__main__":
    raise SystemExit(main())
