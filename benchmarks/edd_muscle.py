"""Seconds a scan of EDD Net and MUSCLE Net, stage by stage, and how long their training waits for data.

    python benchmarks/edd_muscle.py [--raw FOLDER] [--model FOLDER] [--device cuda] [--threads 1]

The data are Dataset012_DWI in the folder --raw, or phantoms where it is not there. Without --model the networks are
those of the plan with made weights: EDD Net finds whatever is brighter than a threshold, at the cost of any other
weights, and the threshold gives the median scan 10 candidates; MUSCLE Net's weights are random.

A stage's time is the minimum of the repetitions for each scan, then the mean over the scans; that of the processor
counts for all threads and hardly depends on what else the machine does. "Overlapped" is
predict_cases, which reads the next scan and writes the last one while the network works; without EDD Net the
threshold itself stands in its place, so that the rest shows. Training is that of autoseg_train, after its first epoch.
"""

from __future__ import annotations

import argparse
import json
import math
import sys
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import torch
from measure import measure
from threadpoolctl import threadpool_limits
from torch import nn

from autoseg.bundle import weights
from autoseg.bundle.networks import build_network, load
from autoseg.bundle.opening import Model, open_model
from autoseg.dataset.imageio import write_mask
from autoseg.dataset.raw_layout import Case, load_raw
from autoseg.device import choose_device
from autoseg.files import hash_json, write_json
from autoseg.inference.folder import predict_cases
from autoseg.inference.prediction_record import input_hash
from autoseg.inference.predictor import Predictor
from autoseg.phantoms import make_dataset
from autoseg.plan import Plan, apply_overrides
from autoseg.plugins.trainer import Companion
from autoseg.preparation.prepared import Prepared, open_prepared
from autoseg.preprocessing.case import preprocess_case
from autoseg.preprocessing.raw_case import read_raw_case
from autoseg.trainers import _edd_muscle_judging as judging
from autoseg.trainers import edd_muscle as family
from autoseg.trainers._edd_muscle_candidates import FALSE, REAL, lesion_probability, windows

DATASET = "Dataset012_DWI"
PHANTOMS = 12
PRECISIONS = ("float32", "bfloat16")
CANDIDATES = 10  # of the median scan; the planner's guess for a training scan
STEEP = 4.0  # logits per standard deviation of the image
MUSCLE_EPOCHS = 10
SHORT_SECONDS = 0.3
MUSCLE = f"postprocessing.{family.KEY}"
GOALS = {"preprocess": "at most 100 ms on one core", "MUSCLE": "at most 0.10 of EDD's"}

T = TypeVar("T")


# ------------------------------------------------------------------------------------------------------ the data


@dataclass(frozen=True)
class Data:
    """Raw cases, the plans "both" and "edd" (without MUSCLE Net), and the folders as the commands take them."""

    cases: tuple[Case, ...]
    both: Prepared
    environment: Mapping[str, str]

    @property
    def results(self) -> Path:
        """Where models of the dataset go."""
        return Path(self.environment["autoseg_results"]) / self.both.dataset


def prepare(raw: Path | None, work: Path, threads: int) -> Data:
    """Plan and preprocess; phantoms are made where ``raw`` has no such dataset."""
    there = raw is not None and (raw / DATASET).is_dir()
    folder = raw / DATASET if there else make_dataset("dwi", PHANTOMS, work / "raw", seed=1)
    environment = {
        "autoseg_raw": str(folder.parent),
        "autoseg_preprocessed": str(work / "preprocessed"),
        "autoseg_results": str(work / "results"),
        "OMP_NUM_THREADS": str(threads),
    }
    tool = [tool_path("autoseg_plan_and_preprocess"), "-d", folder.name, "-pl", "edd_muscle", "-np", "1"]
    measure([*tool, "-p", "both"], environment)
    measure([*tool, "-p", "edd", "--set", "planner.muscle=false"], environment)
    both = open_prepared(work / "preprocessed", folder.name, "both")
    print(f"{folder.name}, {len(load_raw(folder).cases)} scans")
    return Data(load_raw(folder).cases, both, environment)


def tool_path(name: str) -> str:
    """A command of this environment."""
    return str(Path(sys.executable).parent / name)


# ---------------------------------------------------------------------------------------------------- the models


def make_model(folder: Path, prepared: Prepared, plan: Plan, threshold: float) -> Path:
    """A model whose EDD Net finds what is brighter than ``threshold`` standard deviations above the mean."""
    write_json(folder / "plan.json", plan)
    write_json(folder / "dataset.json", prepared.info)
    torch.manual_seed(0)
    for stage, facts in (("edd", None), ("muscle", {REAL: 100, FALSE: 100})):
        key = plan.stage(stage).network
        network = build_network(plan, key).module
        if key == "main":
            find_bright(network, threshold)
        weights.save(
            folder / "fold_0" / "weights" / f"member0.{stage}.safetensors",
            network,
            network=key,
            stage=stage,
            member=0,
            epoch=1,
            plan_hash=hash_json(plan),
            facts=facts,
        )
    return folder


@torch.no_grad()
def find_bright(network: nn.Module, threshold: float) -> None:
    """Make EDD Net's refinement pass the image on to the score, whatever its branches say."""
    hidden, score = network.refinement
    convolutions = [module for module in hidden if isinstance(module, nn.Conv2d)]
    for convolution in (*convolutions, score):
        convolution.weight.zero_()
    for convolution in convolutions:
        convolution.weight[0, 0, 1, 1] = 1
    score.weight[1, 0, 1, 1], score.bias[1] = STEEP, -STEEP * threshold


class Bright(nn.Module):
    """What a network after :func:`find_bright` puts out, at hardly any cost."""

    def __init__(self, threshold: float) -> None:
        super().__init__()
        self.threshold = threshold

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        """``[b, c, y, x]`` to logits ``[b, 2, y, x]``."""
        logit = STEEP * (image[:, :1] - self.threshold)
        return torch.cat([torch.zeros_like(logit), logit], 1)


def find_threshold(cases: Sequence[Case], plan: Plan) -> float:
    """What gives the median scan :data:`CANDIDATES` candidates, in standard deviations."""
    read = {c.name: read_raw_case(c.name, c.images, plan.preprocessing) for c in cases}
    images = [preprocess_case(n, r.image, r.geometry, plan.preprocessing).image[0] for n, r in read.items()]

    def distance(threshold: float) -> float:
        counts = [len(judging.find_candidates(image, threshold)) for image in images]
        return abs(float(np.median(counts)) - CANDIDATES)

    return min(np.arange(8.0, 1.0, -0.25), key=distance)


def load_companion(model: Model, device: torch.device) -> Companion:
    """MUSCLE Net of the first member, as :func:`autoseg.trainers.edd_muscle.judge_candidates` takes it."""
    file = weights.read(model.members[0].companions[family.KEY])
    network = load(build_network(model.plan, family.KEY), file, where=family.KEY)
    return Companion(network.module.to(device).eval(), network.arguments, file.info.facts)


# ------------------------------------------------------------------------------------------------ a scan, in stages


class Stopwatch:
    """The least seconds of each stage over some repetitions, by the clock and by the processor."""

    def __init__(self, repeats: int) -> None:
        self.seconds: dict[str, float] = {}
        self.processor: dict[str, float] = {}
        self._repeats = repeats

    def time(self, stage: str, function: Callable[[], T]) -> T:
        """Run it several times, and for a while where it is short; what it returned last."""
        taken: list[tuple[float, float]] = []
        while len(taken) < self._repeats or sum(seconds for seconds, _ in taken) < SHORT_SECONDS:
            started = time.perf_counter(), time.process_time()
            result = function()
            taken.append((time.perf_counter() - started[0], time.process_time() - started[1]))
        self.seconds[stage], self.processor[stage] = map(min, zip(*taken, strict=True))
        return result


@dataclass(frozen=True)
class Scan:
    """What was measured of one scan: see :class:`Stopwatch`, and how many candidates it has."""

    seconds: dict[str, float]
    processor: dict[str, float]
    n_candidates: int


def time_scan(
    case: Case, predictors: Mapping[str, Predictor], companion: Companion, work: Path, repeats: int
) -> Scan:
    """Every stage of one scan; ``predictors`` by precision, without MUSCLE Net."""
    watch, first = Stopwatch(repeats), next(iter(predictors.values()))
    raw = watch.time("read", lambda: (input_hash(case), first.read(case))[1])
    scan = watch.time("preprocess", lambda: first.preprocess(case.name, raw.image, raw.geometry))
    for precision, predictor in reversed(predictors.items()):
        logits = watch.time(f"EDD, {precision}", lambda p=predictor: next(p.logits(scan)))
    steps = {step.name: step.arguments for step in first.model.plan.recipe.postprocessing}
    n = time_muscle(watch, logits, scan.image, companion, steps[family.KEY])

    def restored() -> np.ndarray:
        fused = first.fusion(scan)
        fused.add(logits)
        return raw.turn.back.array(first.finish(fused, raw.geometry.spacing_mm).mask)

    mask = watch.time("restore", restored)
    watch.time("write", lambda: write_mask(work / "mask.nii.gz", mask, raw.stored))
    return Scan(watch.seconds, watch.processor, n)


def time_muscle(
    watch: Stopwatch, logits: torch.Tensor, image: np.ndarray, companion: Companion, arguments: dict[str, Any]
) -> int:
    """MUSCLE Net's part as a whole, then step by step; the number of candidates."""
    everything, seen = {family.KEY: companion}, torch.from_numpy(image)
    watch.time("MUSCLE", lambda: family.judge_candidates(logits, seen, everything, **arguments))
    which = {name: arguments[name] for name in ("threshold", "largest_px", "connectivity")}

    def find() -> tuple[np.ndarray, judging.Candidates]:
        probability = lesion_probability(logits)
        return probability, judging.find_candidates(probability, **which)

    p, found = watch.time("- candidates", find)
    cut = partial(judging.cut_patches, image, p, found.centres, **windows(companion.arguments))
    patches = watch.time("- patches", cut)
    judge = partial(family.judgements, companion.network, patches)
    q = watch.time("- network", judge if len(found) else lambda: np.zeros(0))
    watch.time("- fusion", lambda: family.with_probability(logits, found.pixels, judging.fuse(p, found, q)))
    return len(found)


def print_stages(scans: Sequence[Scan]) -> None:
    """The means over the scans."""
    wall, processor = (
        {stage: float(np.mean([getattr(scan, kind)[stage] for scan in scans])) for stage in scans[0].seconds}
        for kind in ("seconds", "processor")
    )
    counts = [scan.n_candidates for scan in scans]
    print(f"\n{len(scans)} scans; {np.median(counts):.0f} candidates in the median, {max(counts)} at most")
    print(
        "\n| stage | ms a scan | ms of processor |"
        + "".join(f" of EDD, {p} |" for p in PRECISIONS)
        + " goal |"
    )
    print("|---|---|---|---|---|---|")
    for stage, seconds in wall.items():
        shares = "".join(f" {seconds / wall[f'EDD, {p}']:.3f} |" for p in PRECISIONS)
        goal = GOALS.get(stage, "")
        print(f"| {stage} | {1000 * seconds:.1f} | {1000 * processor[stage]:.1f} |{shares} {goal} |")
    for p in PRECISIONS:
        stages = ("read", "preprocess", f"EDD, {p}", "MUSCLE", "restore", "write")
        sums = (1000 * sum(taken[stage] for stage in stages) for taken in (wall, processor))
        print(f"| all, {p} |" + "".join(f" {ms:.1f} |" for ms in sums) + " | | |", flush=True)


# ----------------------------------------------------------------------------------------------------- overlapped


def overlapped(predictor: Predictor, cases: Sequence[Case], work: Path, repeats: int) -> tuple[float, float]:
    """Seconds a scan of predict_cases in the long run, by the clock and by the processor.

    That is what as many scans once more add.
    """
    many = [replace(case, name=f"{case.name}_{k}") for k in range(2) for case in cases]
    watches = []
    for n in (len(cases), len(many)):
        watch = Stopwatch(repeats)
        watch.time("all", partial(predict_cases, predictor, many[:n], work / str(n)))
        watches.append(watch)
    once, twice = watches
    return (
        (twice.seconds["all"] - once.seconds["all"]) / len(cases),
        (twice.processor["all"] - once.processor["all"]) / len(cases),
    )


def print_overlapped(
    model: Model,
    threshold: float,
    cases: Sequence[Case],
    device: torch.device,
    work: Path,
    repeats: int,
) -> None:
    """With EDD Net in both precisions, and without it."""
    print("\n| overlapped | ms a scan | ms of processor | goal |")
    print("|---|---|---|---|")
    for name in (*PRECISIONS, "without EDD Net"):
        precision = name if name in PRECISIONS else "auto"
        predictor = Predictor(model, device=device, overrides={"precision": precision})
        if name not in PRECISIONS:
            predictor._network = Bright(threshold).to(device)
        seconds, processor = overlapped(predictor, cases, work / name, repeats)
        goal = "at most 50 ms on a GPU"
        print(f"| {name} | {1000 * seconds:.1f} | {1000 * processor:.1f} | {goal} |", flush=True)


# ------------------------------------------------------------------------------------------------------- training


def train(data: Data, stage: str, model: Path, device: torch.device, *settings: str) -> list[str]:
    """What one training took: batches a second, share of time without a batch, GB."""
    plan = "edd" if stage == "edd" else "both"
    again = [] if stage == "edd" else ["--redo_from", stage]
    command = [tool_path("autoseg_train"), data.both.dataset, "0", "-p", plan, "-name", model.name, *again]
    taken = measure([*command, "-device", str(device), "--set", *settings], dict(data.environment))
    fold = model / "fold_0"
    epochs = [json.loads(line) for line in (fold / "log.jsonl").read_text().splitlines()]
    later = [epoch for epoch in epochs if epoch["stage"] == stage and epoch["epoch"]]
    seconds = sum(epoch["seconds"] for epoch in later)
    waited = sum(epoch["seconds"] * epoch["wait_share"] for epoch in later)
    batches = len(later) * batches_an_epoch(fold, stage, settings)
    return [f"{batches / seconds:.2f}", f"{waited / seconds:.2%}", f"{taken.process_gb:.2f}"]


def batches_an_epoch(fold: Path, stage: str, settings: Sequence[str]) -> int:
    """As set for EDD Net; for MUSCLE Net one pass over the candidates."""
    if stage == "edd":
        return next(int(s.partition("=")[2]) for s in settings if "iterations_per_epoch" in s)
    facts = weights.read_info(fold / "weights" / f"member0.{stage}.safetensors").facts
    size = Plan.model_validate_json((fold.parent / "plan.json").read_text()).stage(stage).batch_size
    return math.ceil((facts[REAL] + facts[FALSE]) / size)


def print_training(data: Data, threshold: float, device: torch.device, iterations: int) -> None:
    """Both stages in both precisions."""
    print(
        "\n| training | precision | batches of 128 a second | waiting for data | GB of main memory | goal |"
    )
    print("|---|---|---|---|---|---|")
    short = {
        "edd": ["stages.edd.epochs=2", f"stages.edd.iterations_per_epoch={iterations}", "validation.cases=0"],
        "muscle": [f"stages.muscle.epochs={MUSCLE_EPOCHS}"],
    }
    for stage, settings in short.items():
        for precision in PRECISIONS:
            model = data.results / f"{stage}_{precision}"
            if stage == "muscle":
                plan = apply_overrides(data.both.plan, {"precision": precision})
                make_model(model, data.both, plan, threshold)
            found = train(data, stage, model, device, *settings, f"precision={precision}")
            print(f"| {stage} | {precision} | {' | '.join(found)} | waiting under 5 % |", flush=True)


# ----------------------------------------------------------------------------------------------------------- all


def run(arguments: argparse.Namespace, work: Path) -> None:
    """Everything, in this order: models, stages, overlapped, training."""
    device = choose_device(arguments.device)
    data = prepare(arguments.raw, work, arguments.threads)
    cases = data.cases[:: max(1, len(data.cases) // arguments.cases)][: arguments.cases]
    plan, threshold = data.both.plan, find_threshold(cases, data.both.plan)
    model = open_model(arguments.model or make_model(work / "made", data.both, plan, threshold))
    made = f"made weights: lesion where the image is {threshold} standard deviations above its mean"
    source = str(model.folder) if arguments.model else made
    print(f"{device}, {arguments.threads} threads; EDD Net {model.plan.networks['main'].arguments}; {source}")
    predictors = {
        p: Predictor(model, device=device, overrides={"precision": p, MUSCLE: "off"}) for p in PRECISIONS
    }
    companion = load_companion(model, device)
    print_stages([time_scan(case, predictors, companion, work, arguments.repeats) for case in cases])
    print_overlapped(model, threshold, cases, device, work, arguments.repeats)
    if arguments.iterations:
        print_training(data, threshold, device, arguments.iterations)


def main() -> None:
    """Run the benchmark."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--raw", type=Path, help="folder of raw datasets")
    parser.add_argument("--model", type=Path, help="a trained model of the family instead of made weights")
    parser.add_argument("--device", help="cuda or cpu (default: cuda if there is one)")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--cases", type=int, default=6, help="scans that are timed (default: 6)")
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument(
        "--iterations", type=int, default=4, help="of EDD Net in an epoch (default: 4; 0: no training)"
    )
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    with threadpool_limits(arguments.threads), tempfile.TemporaryDirectory() as work:
        run(arguments, Path(work))


if __name__ == "__main__":
    main()
