"""Kills a whole study of small cases by SIGKILL at random times, goes on, and compares its end with an untouched one.

    python tests/kills_of_study.py --kills 5 --seed 1

Real processes: autoseg_run, and each task one of its own. Every second kill takes the tasks too; after the others they
are left to notice. Both studies go on from one copy of the state after measuring, as measured times decide lengths.
It takes minutes, most of them to start Python: the suite has tests/study/test_run.py, which cuts a study off in its
own process after every third task.
"""

import argparse
import hashlib
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

os.environ.setdefault("OMP_NUM_THREADS", "1")

import small

from autoseg.study.state import read_task_record, runs, states
from autoseg.study.study_json import FILE_NAME, Study, read_study

SHORT = ["planner.length=quick", "epochs=2", "iterations_per_epoch=2", "validation.cases=1"]
RUN = "import sys; from autoseg.cli.run import main; sys.exit(main(sys.argv[1:]))"


FAMILIES = ["ratlesnetv2"]


def start(root: Path) -> subprocess.Popen:
    """autoseg_run in a session of its own."""
    words = ["1", "--families", *FAMILIES, "--devices", "cpu", "--set", *SHORT]
    words += [w for kind in ("raw", "preprocessed", "results") for w in (f"--{kind}", str(root / kind))]
    said = open(root / "said", "ab")  # noqa: SIM115 - the process has it
    return subprocess.Popen(
        [sys.executable, "-c", RUN, *words], stdout=said, stderr=said, start_new_session=True
    )


def to_the_end(root: Path) -> float:
    """Seconds that it took; it must end well."""
    began = time.monotonic()
    code = start(root).wait()
    if code:
        raise SystemExit(f"it ended with {code}:\n{(root / 'said').read_text()[-3000:]}")
    return time.monotonic() - began


def kill(root: Path, process: subprocess.Popen, tasks: bool) -> str:
    """The whole group of autoseg_run, and those of its tasks; what they were at."""
    os.killpg(process.pid, signal.SIGKILL)
    process.wait()
    study = read_study(folder(root))
    at = []
    for task in study.tasks:
        record = read_task_record(study.folder, task)
        if runs(record):
            at.append(task.id)
            if tasks:
                os.killpg(record.process, signal.SIGKILL)
    return ", ".join(at) or "between tasks"


def folder(root: Path) -> Path:
    """Of the study."""
    return root / "results" / small.NAME / "study"


def outcome(root: Path) -> dict[str, object]:
    """What has to be the same: who went on, with which lengths, the order and the choice, and every mask."""
    study = read_study(folder(root))
    masks = {
        str(path.relative_to(study.folder)): hashlib.sha256(path.read_bytes()).hexdigest()
        for part in ("trial_1", "folds", "out_of_fold")
        for path in sorted((study.folder / part).rglob("*.nii.gz"))
    }
    return {
        "masks": masks,
        "winners": study.winners,
        "lengths": {name: one.settings for name, one in study.lengths.items()},
        "choice": study.choice.method,
        "scores": {one.name: (one.dice, one.lesion_f1, one.steps) for one in study.choice.methods},
        "done": set(states(study).values()),
    }


def ended(root: Path) -> dict[str, float]:
    """Id of each task that is done to when it was started last: one that is redone has another time."""
    study: Study = read_study(folder(root))
    records = {task.id: read_task_record(study.folder, task) for task in study.tasks}
    found = states(study)
    return {name: one.started for name, one in records.items() if one and found[name] == "done"}


def measured(root: Path) -> None:
    """Until the next phase has begun, which is when its lengths stand."""
    process = start(root)
    path = folder(root) / FILE_NAME
    while process.poll() is None and not (path.exists() and json.loads(path.read_text())["measures"]):
        time.sleep(0.05)
    if process.poll() is not None:
        raise SystemExit(f"it ended:\n{(root / 'said').read_text()[-3000:]}")
    kill(root, process, tasks=True)


def main() -> int:
    """Attack as often as asked for; 1 where anything differs."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--kills", type=int, default=5)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--families", nargs="+", default=FAMILIES, help="beside unet; unet alone is quicker")
    arguments = parser.parse_args()
    FAMILIES[:] = arguments.families
    random_ = random.Random(arguments.seed)
    with tempfile.TemporaryDirectory() as name:
        root, copy = Path(name) / "root", Path(name) / "copy"
        small.dataset(root / "raw", n=2, n_test=1)
        measured(root)
        shutil.copytree(root, copy)
        seconds = to_the_end(root)
        untouched = outcome(root)
        print(
            f"untouched: {seconds:.0f} s, {len(untouched['masks'])} masks, {untouched['choice']} chosen",
            flush=True,
        )
        shutil.rmtree(root)
        copy.rename(root)  # the paths in study.json stay true
        made, redone = attacks(root, random_, arguments.kills, seconds)
        to_the_end(root)
        found = outcome(root)
    differs = [key for key in untouched if untouched[key] != found[key]]
    for key in differs:
        print(f"{key}: {untouched[key]} untouched, {found[key]} after kills")
    print(
        f"{made} kills: {', '.join(differs) or 'nothing'} differs; redone: {', '.join(redone) or 'nothing'}"
    )
    return 1 if differs or redone else 0


def attacks(root: Path, random_: random.Random, kills: int, seconds: float) -> tuple[int, list[str]]:
    """Kill so often, each time a random while after the start, or until it ends first.

    Returns:
        How many kills there were, and the tasks that were done and were begun again.
    """
    redone, done = [], ended(root)
    for n in range(kills):
        process = start(root)
        time.sleep(random_.uniform(1, max(3.0, seconds / kills)))
        if process.poll() is not None:
            print("it had ended", flush=True)
            return n, redone
        at = kill(root, process, tasks=n % 2 == 0)
        now = ended(root)
        redone += [name for name in done if now.get(name) != done[name]]
        done = now
        print(f"killed{' with its tasks' if n % 2 == 0 else ''} at {at}; {len(done)} tasks done", flush=True)
    return kills, redone


if __name__ == "__main__":
    raise SystemExit(main())
