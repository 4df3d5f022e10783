"""autoseg_train: train one fold of a prepared dataset and score it on the fold's validation cases.

Ctrl-C, SIGTERM and SIGHUP save and leave; --c continues exactly where it stopped.
Several GPUs: torchrun --nproc_per_node=2 -m autoseg.cli.train DATASET FOLD
"""

from __future__ import annotations

import argparse
import shlex
from typing import TYPE_CHECKING, Any

from autoseg.cli import common, scoring_options

if TYPE_CHECKING:
    from autoseg.plan import Plan
    from autoseg.preparation.prepared import Prepared
    from autoseg.training.job import FoldJob

EXAMPLES = """  autoseg_train 11 0
  autoseg_train RatT2 0 --c
  autoseg_train RatT2 all -device cuda --set epochs=200 -name unet__short
  autoseg_train 11 0 --overwrite
  autoseg_train 13 0 -p deepmedic --set experiment=E3
  autoseg_train DWI 0 --redo_from muscle --set stages.muscle.epochs=100"""


def build_parser() -> argparse.ArgumentParser:
    """The command's options."""
    command = common.parser(__doc__ or "", examples=EXAMPLES)
    command.add_argument("dataset", metavar="DATASET", help="id or name, such as 11 or RatT2")
    command.add_argument(
        "fold", metavar="FOLD", help="0 to 4, or all (trains on every case, no honest validation)"
    )
    command.add_argument(
        "-p", dest="plan_name", metavar="NAME", help="which plan, where the dataset has several"
    )
    command.add_argument("-tr", dest="trainer", metavar="NAME", help="trainer (default: the plan's)")
    command.add_argument(
        "-name", dest="model_name", metavar="NAME", help="name of the model (default: TRAINER__PLAN)"
    )
    again = command.add_mutually_exclusive_group()
    again.add_argument("--c", dest="resume", action="store_true", help="continue an interrupted training")
    again.add_argument(
        "--go_on",
        action="store_true",
        help="begin, or continue an interrupted training; a finished one is left as it is",
    )
    again.add_argument("--overwrite", action="store_true", help="train a fold again that has a result")
    again.add_argument(
        "--redo_from",
        metavar="STAGE",
        help="train a fold again from this stage on; the stages before keep their weights",
    )
    command.add_argument("-device", metavar="DEVICE", help="cuda, cpu or mps (default: cuda if there is one)")
    command.add_argument(
        "-workers",
        type=int,
        default=0,
        metavar="N",
        help="processes that augment on the CPU (default: 0, augment on the training device)",
    )
    command.add_argument(
        "--save_probabilities",
        action="store_true",
        help="also CASE.npz of the scored cases, for autoseg_find_postprocessing and autoseg_ensemble",
    )
    common.add_set(command)
    common.add_folders(command, "raw", "preprocessed", "results")
    return command


def main(argv: list[str] | None = None) -> int:
    """Run the command."""
    arguments = build_parser().parse_args(argv)
    arguments.command = scoring_options.typed("autoseg_train", argv)
    return common.run(_main, arguments, again=lambda: _again(arguments))


def _again(arguments: argparse.Namespace) -> str:
    """How to go on after a stop that saved nothing; the job is known from when it was begun."""
    job: FoldJob | None = getattr(arguments, "job", None)
    if job is not None:
        from autoseg.training.check_fold_folder import can_be_continued

        if can_be_continued(job):
            return "not saved; --c continues from the last checkpoint"
    return "nothing was changed; run it again"


def _main(arguments: argparse.Namespace) -> int:
    import sys

    from autoseg import paths
    from autoseg.preparation.prepared import model_folder, open_prepared, plan_to_continue

    fold = common.fold(arguments.fold)
    raw_root, preprocessed, results = paths.roots(
        raw=arguments.raw, preprocessed=arguments.preprocessed, results=arguments.results
    )
    plan_name = arguments.plan_name
    if arguments.resume and not (plan_name or arguments.model_name):
        plan_name = plan_to_continue(preprocessed, results, arguments.dataset, fold, arguments.trainer)
    prepared = open_prepared(preprocessed, arguments.dataset, plan_name)
    raw = raw_root / prepared.dataset
    plan, variant, told = _planned(arguments, prepared)

    from autoseg.device import choose_device
    from autoseg.training.chain import train_chain
    from autoseg.training.interrupt import Interrupted
    from autoseg.training.job import FoldJob
    from autoseg.training.start_model import with_reasons_there

    device = choose_device(arguments.device)
    name = arguments.model_name or "__".join(filter(None, [plan.trainer, prepared.plan_name, told]))
    model = model_folder(results, prepared.dataset, plan.trainer, prepared.plan_name, name)
    if variant is not None:
        variant = with_reasons_there(variant, model)
        plan = plan.model_copy(update={"reasons": variant.reasons})
    job = FoldJob(
        prepared=prepared,
        plan=plan,
        fold=fold,
        model=model,
        raw=raw,
        device=device,
        workers=arguments.workers,
        resume=arguments.resume,
        overwrite=arguments.overwrite,
        redo_from=arguments.redo_from,
        save_probabilities=arguments.save_probabilities,
        command=arguments.command,
        variant=variant,
    )
    if arguments.go_on:
        from dataclasses import replace

        from autoseg.training.check_fold_folder import can_be_continued, is_finished

        if is_finished(job):
            print(f"fold {job.fold} is finished already: {job.folder}")
            return 0
        job = replace(job, resume=can_be_continued(job))
    arguments.job = job
    try:
        record = train_chain(job)
    except Interrupted as stopped:
        print(f"\nstopped by {stopped} and saved; continue with --c", file=sys.stderr)
        return 128 + stopped.number
    if record:
        _report(job, record)
    return 0


def _planned(arguments: argparse.Namespace, prepared: Prepared) -> tuple[Plan, Plan | None, str]:
    """The plan to follow, the variant that it has changes to, if any, and what tells that from the prepared plan."""
    from autoseg import plugins
    from autoseg.plan import apply_overrides
    from autoseg.preparation.variant import make_variant, parted, typed_options, variant_name

    options, overrides = parted(prepared.plan, common.parse_overrides(arguments.overrides))
    variant = make_variant(prepared, options) if options else None
    plan = variant or prepared.plan
    if arguments.trainer:
        plugins.load(plugins.TRAINERS, arguments.trainer)
        if arguments.trainer != plan.trainer:
            overrides["trainer"] = arguments.trainer
    told = variant_name(prepared.plan, typed_options(plan, options)) if options else ""
    return apply_overrides(plan, overrides) if overrides else plan, variant, told


def _report(job: FoldJob, record: dict[str, Any]) -> None:
    """Where the result lies, and what comes next."""
    print(f"\nfold {job.fold} finished in {record['seconds']:.0f} s: {job.folder}")
    print(f"next: autoseg_predict -i IMAGES -o MASKS -m {shlex.quote(str(job.model))}")


if __name__ == "__main__":
    raise SystemExit(main())
