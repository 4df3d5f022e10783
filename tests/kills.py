"""Kills commands at random times, goes on as they say, and compares the end with that of a run that nobody touched.

    python tests/kills.py --kills 200 --seed 1

Each attack takes a command (planning and preprocessing, training, prediction, evaluation), kills it up to three times
by SIGKILL, SIGTERM, SIGINT or SIGHUP, lets it end, and compares every file bit for bit, but for times and the words of
the command. Processes are forked from one that has loaded everything, so that the kills hit work and not imports.
"""

import argparse
import contextlib
import importlib
import itertools
import json
import os
import random
import re
import shutil
import signal
import sys
import tempfile
import time
import traceback
from collections import Counter
from pathlib import Path

os.environ.setdefault("OMP_NUM_THREADS", "1")

import small
import torch

from autoseg.cli import evaluate, plan_and_preprocess, predict, train

LOADED_BEFORE = ("autoseg.evaluation.score_masks", "autoseg.inference.folder", "autoseg.training.train_fold")
SIGNALS = (signal.SIGKILL, signal.SIGKILL, signal.SIGTERM, signal.SIGINT, signal.SIGHUP)
MODEL = f"results/{small.NAME}/unet__unet"
STAGES = ["stages.0.epochs=2", "stages.0.iterations_per_epoch=2", "members=2"]
COMMANDS = {
    "plan": (plan_and_preprocess.main, ["-d", "1", "-pl", "unet", "-np", "2", "--set", *small.TINY, *STAGES]),
    "train": (train.main, ["1", "0", "-device", "cpu"]),
    "predict": (
        predict.main,
        ["-i", f"raw/{small.NAME}/imagesTs", "-o", "masks", "-d", "1", "-device", "cpu"],
    ),
    "evaluate": (evaluate.main, ["-p", "masks", "-g", f"raw/{small.NAME}/labelsTs", "-np", "1"]),
}
OUTPUTS = {"plan": "preprocessed", "train": "results", "predict": "masks", "evaluate": "masks"}
UNTOLD = ("seconds", "wait_share", "command", "created", "step_seconds", "fold_seconds", "run")
"""Entries of JSON files that depend on the time."""


def start(name: str, root: Path, *again: str) -> int:
    """The command in a process of its own; what it says goes to ``root/said``."""
    process = os.fork()
    if process:
        return process
    code = 70
    try:
        os.setsid()
        # not ignored, as in the background or under nohup
        signal.signal(signal.SIGINT, signal.default_int_handler)
        signal.signal(signal.SIGHUP, signal.SIG_DFL)
        said = os.open(root / "said", os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
        os.dup2(said, 1)
        os.dup2(said, 2)
        os.chdir(root)
        for kind in ("raw", "preprocessed", "results"):
            os.environ[f"autoseg_{kind}"] = str(root / kind)
        torch.set_num_threads(1)
        main, arguments = COMMANDS[name]
        code = main([*arguments, *again])
    except BaseException:
        traceback.print_exc()
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)


def run(name: str, root: Path, *again: str) -> tuple[int, str]:
    """The command to its end: its exit code, and what it said."""
    _, status = os.waitpid(start(name, root, *again), 0)
    return os.waitstatus_to_exitcode(status), (root / "said").read_text(errors="replace")


def killed(
    name: str, root: Path, random_: random.Random, seconds: float, *again: str
) -> tuple[int, int | None]:
    """The signal, and the exit code where the command ended in order."""
    number = random_.choice(SIGNALS)
    process = start(name, root, *again)
    time.sleep(random_.uniform(0, seconds))
    os.kill(process, number)
    _, status = os.waitpid(process, 0)
    code = os.waitstatus_to_exitcode(status)
    said = (root / "said").read_text(errors="replace") if (root / "said").exists() else ""
    assert "Traceback" not in said, said
    expected = (0, -number) if number == signal.SIGKILL else (0, -number, 128 + number)
    assert code in expected, f"exit code {code} after {signal.Signals(number).name}: {said}"
    return number, code


def way_on(name: str, root: Path) -> list[str]:
    """The options with which a command goes on, as its own message names them."""
    if name == "predict":
        return ["--continue_prediction"]
    if name != "train":
        return []
    fold = root / MODEL / "fold_0"
    if (fold / "fold.json").exists():
        return ["--overwrite"]  # killed after the very last change
    if not list(fold.glob("weights/*.safetensors")):
        return ["--c"]
    code, said = run(name, root)
    assert code == 1 and "was begun and not finished" in said, said
    return [re.search(r"do: +(--\w+)", said)[1]]


def digest(folder: Path) -> dict[str, object]:
    """Every file's content, without what depends on the time."""
    found: dict[str, object] = {}
    for path in sorted(folder.rglob("*")):
        name = path.relative_to(folder).as_posix()
        if (
            path.is_dir()
            or path.suffix in (".log", ".png", ".html")
            or path.name == ".lock"
            or "tensorboard" in name
        ):
            continue
        if path.suffix in (".json", ".jsonl"):
            lines = path.read_text().splitlines() if path.suffix == ".jsonl" else [path.read_text()]
            found[name] = [without_times(json.loads(line)) for line in lines]
        elif "checkpoint" not in name:  # it holds seconds
            found[name] = path.read_bytes()
        else:
            found[name] = None
    return found


def without_times(content: object) -> object:
    if isinstance(content, dict):
        return {key: without_times(value) for key, value in content.items() if key not in UNTOLD}
    return [without_times(value) for value in content] if isinstance(content, list) else content


def prepare(root: Path) -> dict[str, tuple[Path, dict[str, object], float]]:
    """For each command the state before it, the digest after it, and its seconds."""
    known = {}
    for module in LOADED_BEFORE:
        importlib.import_module(module)
    small.dataset(root / "work" / "raw", n=4, n_test=2)
    for name in COMMANDS:
        before = root / f"before_{name}"
        shutil.copytree(root / "work", before)
        started = time.monotonic()
        code, said = run(name, root / "work")
        assert code == 0, said
        known[name] = (before, digest(root / "work" / OUTPUTS[name]), time.monotonic() - started)
    return known


def attack(
    name: str, before: Path, expected: dict[str, object], seconds: float, root: Path, seed: str
) -> list[int]:
    """One to three kills of a command, and its end."""
    random_, signals, again = random.Random(seed), [], []
    shutil.rmtree(root, ignore_errors=True)
    shutil.copytree(before, root)
    for _ in range(random_.choice((1, 1, 2, 3))):
        number, code = killed(name, root, random_, seconds, *again)
        if code == 0:
            break
        signals.append(number)
        again = way_on(name, root)
    else:
        code, said = run(name, root, *again)
        assert code == 0 and "Traceback" not in said, said
    found = digest(root / OUTPUTS[name])
    different = [key for key in {**found, **expected} if found.get(key, 0) != expected.get(key, 0)]
    assert not different, f"different: {different[:5]}"
    return signals


def main() -> int:
    command = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    command.add_argument("--kills", type=int, default=40, help="at least so many (default: %(default)s)")
    command.add_argument("--seed", type=int, default=0)
    command.add_argument("--commands", nargs="+", choices=tuple(COMMANDS), default=list(COMMANDS))
    arguments = command.parse_args()
    counts: Counter[str] = Counter()
    failures: list[str] = []
    with (
        tempfile.TemporaryDirectory(prefix="autoseg-kills-") as temporary,
        contextlib.suppress(KeyboardInterrupt),
    ):
        known = prepare(Path(temporary))
        for number in itertools.count():
            name, seed = arguments.commands[number % len(arguments.commands)], f"{arguments.seed} {number}"
            try:
                found = attack(name, *known[name], Path(temporary) / "work", seed)
                counts.update(f"{name} {signal.Signals(one).name}" for one in found)
            except AssertionError as error:
                failures.append(f"attack {seed!r} on {name}: {error}")
                print(failures[-1], flush=True)
            if counts.total() >= arguments.kills:
                break
    print(f"seed {arguments.seed}: {counts.total()} kills in {number + 1} attacks, {len(failures)} failures")
    for key, n in sorted(counts.items()):
        print(f"  {n:4} {key}")
    return 1 if failures else 0


if __name__ == "__main__":
    raise SystemExit(main())
