"""autoseg_status: where the study of a dataset stands: what is done, running, waiting and failed, and the time left."""

from __future__ import annotations

import argparse

from autoseg.cli import common

EXAMPLES = """  autoseg_status 11
  autoseg_status RatT2 --tasks"""
ORDER = ("failed", "running", "waiting", "left out", "done")


def build_parser() -> argparse.ArgumentParser:
    """The command's options."""
    command = common.parser(__doc__ or "", examples=EXAMPLES)
    command.add_argument("dataset", metavar="DATASET", help="id or name, such as 11 or RatT2")
    command.add_argument(
        "--tasks",
        action="store_true",
        help="every task with its command, to be run by itself (default: those that are not done)",
    )
    common.add_folders(command, "results")
    return command


def main(argv: list[str] | None = None) -> int:
    """Run the command."""
    return common.run(_main, build_parser().parse_args(argv))


def _main(arguments: argparse.Namespace) -> None:
    import shlex

    from autoseg import paths
    from autoseg.messages import duration
    from autoseg.study.leaderboard import format_study, table
    from autoseg.study.state import left_seconds, read_task_record, spent_seconds, states
    from autoseg.study.study_json import read_study

    results = paths.root("results", arguments.results)
    dataset = paths.dataset_name(
        results, arguments.dataset, first=f"run it first: autoseg_run {arguments.dataset}"
    )
    study = read_study(results / dataset / "study")
    found = states(study)
    counts = {state: sum(one == state for one in found.values()) for state in ORDER}
    print(f"study of {dataset}: " + ", ".join(f"{n} {state}" for state, n in counts.items() if n))
    if study.choice is None:
        left = left_seconds(study, found)
        more = "; further phases follow" if study.choice is None else ""
        print(f"spent {duration(spent_seconds(study))}, left of the tasks so far {duration(left)}{more}")
    body = []
    for task in study.tasks:
        record = read_task_record(study.folder, task)
        if found[task.id] != "done" or arguments.tasks:
            took = duration(record.seconds) if record and record.seconds else "-"
            said = (
                record.error.splitlines()[0] if record and record.error and found[task.id] == "failed" else ""
            )
            body.append((task.id, found[task.id], took, said))
    if body:
        print("\n" + "\n".join(table(("task", "state", "time", ""), body)))
    if arguments.tasks:
        print()
        for task in study.tasks:
            print(shlex.join(task.command))
    if any(study.rounds) or study.choice:
        print("\n" + format_study(study))


if __name__ == "__main__":
    raise SystemExit(main())
