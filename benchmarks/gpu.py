"""All that only a card can tell, in less than eight minutes: is it right there, how fast is it, what does it need.

    pip install --no-deps --no-build-isolation -e .
    python benchmarks/gpu.py

needs torch, numpy and scipy, and of wheels beyond them those in WHEELS; what is missing is said first. Without a card
it runs through on the CPU with tiny sizes, which shows that the script works and nothing else.

The most important comes first, each line is printed and kept in gpu.json (in $OUT, else in this folder) as soon as it
is known, and what does not fit the time is left out:

1. every registered network: two steps and a prediction, against the CPU, float32 without TF32
2. every family: a whole training on five small cases, against the CPU; the same stopped and continued
3. every family at its planned size: ms a step, against the counted floor (docs/speed.md), eager and compiled; memory
   against the count; share of the time that a training waits for its batches
4. a case from file to file, by part; float32 against mixed precision: voxels of the mask that differ
5. nnU-Net's own U-Net and loss at the same size, where it is installed: patches a second, both sides
"""

from __future__ import annotations

import argparse
import contextlib
import importlib.util
import json
import os
import signal
import sys
import tempfile
import time
import traceback
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from unittest import mock

WHEELS = {
    "SimpleITK": "SimpleITK",
    "acvl_utils": "acvl-utils",
    "batchgenerators": "batchgenerators",
    "blosc2": "blosc2",
    "cc3d": "connected-components-3d",
    "dynamic_network_architectures": "dynamic-network-architectures",
    "filelock": "filelock",
    "matplotlib": "matplotlib",
    "pydantic": "pydantic",
    "safetensors": "safetensors",
    "skimage": "scikit-image",
    "sklearn": "scikit-learn",
    "threadpoolctl": "threadpoolctl",
    "tqdm": "tqdm",
}
"""Modules that must be there beyond torch, numpy and scipy, and the wheels that bring them."""

HERE = Path(__file__).resolve().parent
SECONDS = 450.0
CLOSE = 1e-3
"""Of the largest number: what rounding may make of two steps in float32."""
H100 = {"flop": 790e12, "bytes": 3.35e12}
"""A second, of the card that the floor is worked out for where none could be measured."""


def missing() -> list[str]:
    """Wheels that are not there."""
    return [wheel for module, wheel in WHEELS.items() if importlib.util.find_spec(module) is None]


# -------------------------------------------------------------------------------------------------------- results


@dataclass
class Results:
    """What was found: printed line by line, and written after each."""

    path: Path
    until: float
    rows: list[dict[str, Any]] = field(default_factory=list)
    facts: dict[str, Any] = field(default_factory=dict)

    def add(self, part: str, what: str, **found: Any) -> None:
        """One line of the table."""
        shown = {key: f"{value:.4g}" if isinstance(value, float) else value for key, value in found.items()}
        words = "  ".join(f"{key.replace('_', ' ')} {value}" for key, value in shown.items())
        print(f"| {part:9} | {what:34} | {words} |", flush=True)
        self.rows.append({"part": part, "what": what, **found})
        self.write()

    def write(self) -> None:
        """The whole, so that an early end leaves what is known."""
        self.path.write_text(json.dumps({"facts": self.facts, "rows": self.rows}, indent=1))

    @property
    def left(self) -> float:
        """Seconds."""
        return self.until - time.monotonic()

    def attempt(self, part: str, what: str, work: Callable[[], dict[str, Any]], needs: float = 5.0) -> None:
        """One line of what ``work`` finds; an error is a line too, and what there is no time for."""
        if self.left < needs:
            self.add(part, what, left_out=f"{self.left:.0f} s were left")
            return
        started = time.monotonic()
        try:
            found = work()
        except Exception as error:  # the next line may still tell something
            self.facts.setdefault("errors", []).append(traceback.format_exc())
            found = {"ok": False, "error": f"{type(error).__name__}: {str(error)[:200]}"}
        self.add(part, what, **found, took_s=round(time.monotonic() - started, 1))


@dataclass(frozen=True)
class Machine:
    """Where it runs.

    Attributes:
        device: a card, or the CPU.
        tiny: sizes for a try without one.
    """

    device: Any
    tiny: bool

    def shape(self, study: Study) -> tuple[int, ...]:
        """Of a case."""
        return tuple(min(n, 40) for n in study.shape) if self.tiny else study.shape

    def wait(self) -> None:
        """Until the device has done all its work."""
        import torch

        if not self.tiny or self.device.type == "cuda":
            torch.cuda.synchronize(self.device)

    def seconds(self, work: Callable[[], object], times: int, warm: int) -> float:
        """Of one run, the mean of some after the first ones."""
        for _ in range(warm):
            work()
        self.wait()
        started = time.perf_counter()
        for _ in range(times):
            work()
        self.wait()
        return (time.perf_counter() - started) / times


def describe(machine: Machine, results: Results) -> None:
    """The card, the versions, and the two rates that the floor is worked out from."""
    import torch

    facts: dict[str, Any] = {"torch": torch.__version__, "python": sys.version.split()[0], **H100}
    facts |= {"device": "CPU, tiny sizes"} if machine.tiny else {}
    if machine.device.type == "cuda":
        properties = torch.cuda.get_device_properties(machine.device)
        facts |= {"device": properties.name, "memory_gb": properties.total_memory / 1e9}
        facts |= {"cudnn": torch.backends.cudnn.version(), "cuda": torch.version.cuda}
    n, half = (256 if machine.tiny else 8192), torch.bfloat16
    a, b = (torch.rand(n, n, device=machine.device, dtype=half) for _ in range(2))
    facts["flop"] = 2 * n**3 / machine.seconds(lambda: a @ b, 10, 3)
    large = torch.empty(n * n * 8, device=machine.device, dtype=half)
    other = torch.empty_like(large)
    facts["bytes"] = 2 * large.nbytes / machine.seconds(lambda: other.copy_(large), 10, 3)
    results.facts |= facts
    rates = {"tflop_s": facts["flop"] / 1e12, "gb_s": facts["bytes"] / 1e9}
    results.add("machine", str(facts["device"]), torch=facts["torch"], cudnn=facts.get("cudnn"), **rates)


# ------------------------------------------------------------------------------------------------ 1. every network


def try_network(machine: Machine, name: str) -> dict[str, Any]:
    """Two steps and a prediction on the device and on the CPU: the largest difference of weights and outputs."""
    import torch

    from autoseg import networks

    row = networks.REGISTRY.get(name)
    edges = zip(row.divisor_of({}), row.context_of({}), strict=True)
    image = torch.rand(
        2, 1, *(-(-13 // d) * d + 2 * c for d, c in edges), generator=torch.Generator().manual_seed(1)
    )
    found = []
    for device in (machine.device, torch.device("cpu")):
        torch.manual_seed(0)
        network = networks.build(name, in_channels=1, out_channels=2).to(device)
        optimiser = torch.optim.SGD(network.parameters(), lr=1e-3)
        for module in network.modules():
            if isinstance(module, torch.nn.modules.dropout._DropoutNd):
                module.p = 0.0  # each device draws its own
        for _ in range(2):
            optimiser.zero_grad()
            outputs = network.train()(image.to(device))
            outputs = outputs if isinstance(outputs, (list, tuple)) else [outputs]
            sum(output.square().mean() for output in outputs).backward()
            optimiser.step()
        with torch.no_grad():
            output = network.eval()(image.to(device))
        output = output[0] if isinstance(output, (list, tuple)) else output
        found.append([value.detach().cpu().float() for value in (*network.state_dict().values(), output)])
    worst = max(difference(ours, theirs) for ours, theirs in zip(*found, strict=True))
    return {"ok": worst <= CLOSE, "difference": worst}


def difference(one: Any, other: Any) -> float:
    """The largest difference of two tensors as a share of the largest number, or of 1 where all are small."""
    return float((one - other).abs().max() / other.abs().max().clamp_min(1)) if one.numel() else 0.0


def network_names() -> list[str]:
    """All that are registered."""
    from autoseg import networks

    return networks.REGISTRY.names()


def smoke(machine: Machine, results: Results) -> None:
    """Part 1."""
    import torch

    kept = torch.backends.cudnn.allow_tf32, torch.backends.cuda.matmul.allow_tf32
    torch.backends.cudnn.allow_tf32 = torch.backends.cuda.matmul.allow_tf32 = False
    for name in network_names():
        results.attempt("network", name, lambda name=name: try_network(machine, name))
    torch.backends.cudnn.allow_tf32, torch.backends.cuda.matmul.allow_tf32 = kept


# ------------------------------------------------------------------------------------------------- 2. every family

QUICK = ["planner.length=quick", "epochs=1", "validation.every=1", "validation.cases=1", "precision=float32"]


def from_tests(name: str) -> Any:
    """A helper of the tests, which are not installed."""
    spec = importlib.util.spec_from_file_location(Path(name).stem, HERE.parent / "tests" / f"{name}.py")
    if spec is None or spec.loader is None:
        raise FileNotFoundError(name)
    module = importlib.util.module_from_spec(spec)
    sys.modules[Path(name).stem] = module
    spec.loader.exec_module(module)
    return module


@contextlib.contextmanager
def quietly(folder: Path) -> Iterator[None]:
    """Commands keep their folders here and their words to themselves."""
    kept = dict(os.environ)
    for kind in ("raw", "preprocessed", "results"):
        os.environ[f"autoseg_{kind}"] = str(folder / kind)
    with (
        open(folder / "said.txt", "a") as said,
        contextlib.redirect_stdout(said),
        contextlib.redirect_stderr(said),
    ):
        try:
            yield
        finally:
            os.environ.clear()
            os.environ.update(kept)


def try_family(machine: Machine, planner: str, folder: Path) -> dict[str, Any]:
    """Whole trainings on the CPU and on the device, one of these stopped and continued: how their weights differ."""
    import torch

    from autoseg.cli import plan_and_preprocess, train
    from autoseg.files import read_model
    from autoseg.plan import Plan

    raw = from_tests("small").dataset(folder / "raw", n=5, n_test=1)
    with quietly(folder), mock.patch.object(torch.nn.Dropout, "forward", lambda self, x: x):
        command = ["-d", "1", "-pl", planner, "-p", "p", "-np", "1", "--set", *QUICK]
        refuse_failure(plan_and_preprocess.main(command), folder)
        plan = read_model(folder / "preprocessed" / raw.name / "p" / "plan.json", Plan)
        options = ["1", "0", "-p", "p", "-workers", "0"]
        found = []
        for name, device in (("cpu", "cpu"), ("one", machine.device.type), ("two", machine.device.type)):
            place = ["--results", str(folder / name), "-device", device]
            settings = ["--set", *alike(plan)]
            if name == "two":
                with stopped_after(1):
                    train.main([*options, *place, *settings])
                settings = ["--c"]
            refuse_failure(train.main([*options, *place, *settings]), folder)
            found.append(final_weights(folder / name))
    worst, again = (
        max(difference(found[1][key], other[key]) for key in found[1]) for other in (found[0], found[2])
    )
    return {"ok": worst <= 10 * CLOSE and again <= CLOSE, "to_cpu": worst, "after_resume": again}


def refuse_failure(code: int, folder: Path) -> None:
    """A command that failed, with its last words."""
    if code:
        raise RuntimeError((folder / "said.txt").read_text()[-300:])


def alike(plan: Any) -> list[str]:
    """Two iterations of each stage, and nothing drawn on the device itself."""
    settings = []
    for stage in plan.recipe.stages:
        settings.append(f"stages.{stage.name}.augmentation.backend=torch")
        if stage.augmentation.name == "nnunet":
            settings.append(f"stages.{stage.name}.augmentation.arguments.noise_p=0")
        if stage.sampling.name != "candidates":
            settings.append(f"stages.{stage.name}.iterations_per_epoch=2")
    return settings


@contextlib.contextmanager
def stopped_after(iterations: int) -> Iterator[None]:
    """A training within is stopped as by a signal."""
    from autoseg.training import stage

    step, done = stage._step, []

    def counted(run: Any, running: Any, batch: Any, progress: float) -> None:
        step(run, running, batch, progress)
        done.append(1)
        if len(done) == iterations:
            run.stop.set(signal.SIGTERM)

    with mock.patch.object(stage, "_step", counted):
        yield


def final_weights(results: Path) -> dict[str, Any]:
    """All tensors of all weight files."""
    from autoseg.bundle import weights

    files = [path for path in sorted(results.rglob("*.safetensors")) if "weights" in path.parts]
    return {
        f"{path.name}:{key}": value.float()
        for path in files
        for key, value in weights.read(path).tensors.items()
    }


def planner_names() -> list[str]:
    """All that are installed."""
    from autoseg import plugins

    return plugins.names(plugins.PLANNERS)


def families(machine: Machine, results: Results) -> None:
    """Part 2."""
    for planner in planner_names():
        with tempfile.TemporaryDirectory() as work:
            results.attempt(
                "family", planner, lambda planner=planner, work=work: try_family(machine, planner, Path(work))
            )


# ------------------------------------------------------------------------------------- 3. at the planned size


@dataclass(frozen=True)
class Study:
    """A dataset that a family is planned for: what its fingerprint has.

    Attributes:
        planner: of the family.
        spacing, shape: of a case, z, y, x, in mm and voxels; of the brain's box.
    """

    planner: str
    name: str
    spacing: tuple[float, float, float]
    shape: tuple[int, int, int]
    channels: tuple[str, ...] = ("T1",)
    inside: float = 1.0


STUDIES = (
    Study("unet", "ATLAS", (1.0, 1.0, 1.0), (121, 168, 132), inside=0.31),
    Study("unet", "DWI", (6.0, 1.8, 1.8), (21, 128, 128), ("DWI",)),
    Study("unet", "rat T2", (1.0, 0.117, 0.117), (18, 256, 256), ("T2",)),
    Study("ratlesnetv2", "rat T2", (1.0, 0.117, 0.117), (18, 256, 256), ("T2",)),
    Study("edd_muscle", "DWI", (6.0, 1.8, 1.8), (21, 128, 128), ("DWI",)),
    Study("resunet", "ATLAS", (1.0, 1.0, 1.0), (189, 233, 197)),
    Study(
        "brainsegnet",
        "perfusion",
        (5.0, 1.2, 1.2),
        (22, 139, 113),
        ("ADC", "MTT", "rCBF", "rCBV", "Tmax", "TTP"),
    ),
    Study("deepmedic", "perfusion", (5.0, 1.2, 1.2), (22, 139, 113), ("ADC", "MTT", "rCBF")),
)


def planned(study: Study, quick: bool) -> Any:
    """The plan for the study, at its full size unless ``quick``."""
    from autoseg.plugins.planner import Budget
    from autoseg.preparation.choice import make_plan

    made = from_tests("planners/fingerprints").fingerprint(
        [study.spacing], [study.shape] * 12, channels=study.channels, relative_size=study.inside
    )
    return make_plan(made, study.planner, Budget(), {"planner.length": "quick"} if quick else {})


def time_stage(machine: Machine, results: Results, study: Study, plan: Any, stage: Any) -> dict[str, Any]:
    """ms a step with data that lie there, of autoseg's own step; then with batches from its source."""
    import torch

    from autoseg import plugins
    from autoseg.device import lower_precision
    from autoseg.plugins.parts import Batch
    from autoseg.training.stage import _step
    from autoseg.training.step_count import batch_of, count_step

    trainer = plugins.load(plugins.TRAINERS, plan.trainer)
    dtype = lower_precision(machine.device, plan.recipe.precision)
    counted = count_step(plan, stage, trainer, dtype=dtype, shape=machine.shape(study))
    floor = max(counted.flop / results.facts["flop"], counted.moved_gb * 1e9 / results.facts["bytes"])
    found: dict[str, Any] = {
        "tflop": counted.flop / 1e12,
        "gb_moved": counted.moved_gb,
        "floor_ms": 1000 * floor,
    }
    images, target = batch_of(plan, stage, trainer, machine.device, shape=machine.shape(study))
    batch = Batch(images.normal_(), target.zero_(), ("a",) * len(images), 0.0)
    times, warm = (1, 1) if machine.tiny else (15, 4)
    on_card = machine.device.type == "cuda"
    for kind in ("eager", "compiled"):
        if kind == "compiled" and (machine.tiny or results.left < 90):
            break
        running, run = set_up(machine, plan, stage, trainer, compiled=kind == "compiled")
        if on_card:
            torch.cuda.reset_peak_memory_stats(machine.device)
        step = machine.seconds(lambda run=run, running=running: _step(run, running, batch, 0.0), times, warm)
        running.pending.clear()
        found |= {f"{kind}_ms": 1000 * step, f"{kind}_of_floor": floor / step}
        if on_card:
            peak = torch.cuda.max_memory_allocated(machine.device) / 1e9
            found |= {f"{kind}_peak_gb": peak, f"{kind}_peak_of_count": peak / counted.peak_gb}
        if kind == "eager":
            found |= waiting(machine, study, plan, stage, trainer, run, running, step)
    return found


def set_up(machine: Machine, plan: Any, stage: Any, trainer: Any, *, compiled: bool) -> tuple[Any, Any]:
    """The moving parts of a stage as its training makes them, and the run that they belong to."""
    from autoseg.training.distributed import World
    from autoseg.training.stage import _set_up

    recipe = plan.recipe.model_copy(update={"compile": compiled})
    run = SimpleNamespace(
        plan=plan.model_copy(update={"recipe": recipe}),
        stage=stage.model_copy(update={"start": "scratch", "optimiser_state": "fresh"}),
        trainer=trainer,
        seed_key=(1, 0, 0, 0),
        device=machine.device,
        world=World(),
        member=0,
        index=0,
        folder=Path("."),
    )
    running = _set_up(run, None)  # type: ignore[arg-type]
    running.forward.train()
    return running, run


class InMemory:
    """A store of two made cases of the study's size, with a lesion each."""

    def __init__(self, shape: Sequence[int], channels: int) -> None:
        import numpy as np

        random = np.random.default_rng(0)
        self.image = random.normal(size=(channels, *shape)).astype(np.float32)
        self.label = np.zeros(shape, np.int16)
        middle = tuple(slice(n // 3, n // 2) for n in shape)
        self.label[middle] = 1
        voxels = np.argwhere(self.label == 1)
        self.foreground = np.pad(voxels, ((0, 0), (0, 2)), constant_values=1).astype(np.int32)

    def read(self, name: str) -> Any:
        """The same for each name."""
        return SimpleNamespace(image=self.image, label=self.label, foreground=self.foreground)


def waiting(
    machine: Machine, study: Study, plan: Any, stage: Any, trainer: Any, run: Any, running: Any, step: float
) -> dict[str, Any]:
    """The share of the time that a training waits for its batches; nothing for a family with a source of its own."""
    from autoseg.sampling.loader import BatchSource
    from autoseg.training.sources import source_part
    from autoseg.training.stage import _step

    if source_part(stage.sampling.name, trainer) is not None:
        return {}
    iterations = 2 if machine.tiny else 20
    short = stage.model_copy(update={"iterations_per_epoch": iterations + 2})
    store, n = InMemory(machine.shape(study), plan.in_channels), plan.in_channels
    with BatchSource(
        store,
        ["a", "b"],
        short,
        (1, 0),
        machine.device,
        inside_nonzero=[False] * n,
        label_values=plan.label_set.values,
        channels=plan.channels_of(stage.network),
        divisor=running.network.takes.divisor,
        trainer=trainer,
    ) as source:
        batches = source.batches(0)
        for _ in range(2):
            _step(run, running, next(batches), 0.0)
        machine.wait()
        started = time.perf_counter()
        for batch in batches:
            _step(run, running, batch, 0.0)
        machine.wait()
        each = (time.perf_counter() - started) / iterations
    running.pending.clear()
    return {"loop_ms": 1000 * each, "waiting": max(0.0, 1 - step / each)}


def speed(machine: Machine, results: Results) -> None:
    """Part 3."""
    for study in STUDIES:
        if results.left < 40:
            results.add("speed", f"{study.planner}, {study.name}", left_out=f"{results.left:.0f} s were left")
            continue
        plan = planned(study, machine.tiny)
        seen = set()
        for stage in plan.recipe.stages:
            alike_stages = (stage.network, tuple(stage.patch_size), stage.batch_size)
            if alike_stages in seen:
                continue
            seen.add(alike_stages)
            size = "x".join(map(str, stage.patch_size or study.shape))
            results.attempt(
                "speed",
                f"{study.planner} {study.name} {size} b{stage.batch_size}",
                lambda study=study, plan=plan, stage=stage: time_stage(machine, results, study, plan, stage),
                needs=30,
            )


# ------------------------------------------------------------------------------------------------- 4. a prediction


def time_prediction(machine: Machine, study: Study, work: Path) -> dict[str, Any]:
    """Seconds of each part of one case, mirrored as by default; and what mixed precision changes in the mask.

    The weights are those of a fresh network, whose mask is noise: the differing voxels are a worst case.
    """
    import numpy as np
    import SimpleITK as sitk

    from autoseg.dataset.raw_layout import Case
    from autoseg.inference.predictor import Predictor

    case_path, random = work / "case_0000.nii.gz", np.random.default_rng(0)
    image = sitk.GetImageFromArray(random.normal(100, 20, machine.shape(study)).astype(np.float32))
    image.SetSpacing(study.spacing[::-1])
    sitk.WriteImage(image, str(case_path))
    model = fresh_model(planned(study, machine.tiny), work)
    case, masks, found = Case("case", (case_path,), None), {}, {}
    for precision in ("auto", "float32"):
        predictor = Predictor(model, device=machine.device, overrides={"precision": precision})
        for _ in range(2):  # the first one warms up
            masks[precision], parts = predict_by_part(machine, predictor, case, work)
        found |= {f"{precision}_{part}_ms": 1000 * seconds for part, seconds in parts.items()}
        found[f"{precision}_s"] = sum(parts.values())
    differing = int((masks["auto"] != masks["float32"]).sum())
    return {**found, "differing_voxels": differing, "of": masks["auto"].size}


def fresh_model(plan: Any, work: Path) -> Path:
    """A model folder with untrained weights."""
    from autoseg import plugins
    from autoseg.bundle import weights
    from autoseg.bundle.layout import weight_file_name
    from autoseg.bundle.networks import build_network
    from autoseg.files import write_json
    from autoseg.plan import hash_plan

    folder, stage = work / "model", plan.recipe.stages[-1]
    write_json(folder / "plan.json", plan)
    info = {"channel_names": dict(enumerate(plan.channel_names)), "labels": plan.labels, "numTraining": 1}
    write_json(folder / "dataset.json", {**info, "file_ending": ".nii.gz"})
    network = build_network(plan, stage.network, plugins.load(plugins.TRAINERS, plan.trainer)).module
    facts: dict[str, Any] = {
        "network": stage.network,
        "stage": stage.name,
        "member": 0,
        "epoch": stage.epochs,
    }
    path = folder / "fold_0" / "weights" / weight_file_name(stage.name)
    weights.save(path, network, **facts, plan_hash=hash_plan(plan))
    write_json(folder / "fold_0" / "fold.json", {"fold": 0})
    return folder


def predict_by_part(machine: Machine, predictor: Any, case: Any, work: Path) -> tuple[Any, dict[str, float]]:
    """The mask of a case, and the seconds of each part."""
    from autoseg.dataset.imageio import write_mask

    parts: dict[str, float] = {}

    def timed(part: str, function: Callable[[], Any]) -> Any:
        started = time.perf_counter()
        result = function()
        machine.wait()
        parts[part] = time.perf_counter() - started
        return result

    raw = timed("read", lambda: predictor.read(case))
    ready = timed("preprocess", lambda: predictor.preprocess(case.name, raw.image, raw.geometry))
    fused = predictor.fusion(ready)
    for logits in timed("network", lambda: list(predictor.logits(ready))):
        fused.add(logits)
    mask = timed("restore", lambda: predictor.finish(fused, raw.geometry.spacing_mm).mask)
    timed("write", lambda: write_mask(work / "mask.nii.gz", raw.turn.back.array(mask), raw.stored))
    return mask, parts


def prediction(machine: Machine, results: Results) -> None:
    """Part 4."""
    for study in STUDIES[:2]:
        with tempfile.TemporaryDirectory() as work:
            results.attempt(
                "predict",
                f"{study.planner} {study.name} {'x'.join(map(str, study.shape))}",
                lambda study=study, work=work: time_prediction(machine, study, Path(work)),
                needs=20,
            )


# ------------------------------------------------------------------------------------------------------ 5. nnU-Net


def time_nnunet(machine: Machine, results: Results, study: Study) -> dict[str, Any]:
    """nnU-Net's network, loss, optimiser and step on the same patch, in its own words, without its loader."""
    import torch
    from nnunetv2.training.loss.compound_losses import DC_and_CE_loss
    from nnunetv2.training.loss.deep_supervision import DeepSupervisionWrapper
    from nnunetv2.training.loss.dice import MemoryEfficientSoftDiceLoss
    from nnunetv2.utilities.get_network_from_plans import get_network_from_plans

    plan = planned(study, machine.tiny)
    stage, arguments = plan.recipe.stages[0], dict(plan.networks["main"].arguments)
    layers = {
        "conv_op": "torch.nn.modules.conv.Conv3d",
        "norm_op": "torch.nn.modules.instancenorm.InstanceNorm3d",
    }
    layers |= {"nonlin": "torch.nn.LeakyReLU", "dropout_op": None}
    options = {
        "conv_bias": True,
        "norm_op_kwargs": {"eps": 1e-5, "affine": True},
        "nonlin_kwargs": {"inplace": True},
    }
    arguments.pop("deep_supervision", None)
    network = get_network_from_plans(
        "dynamic_network_architectures.architectures.unet.PlainConvUNet",
        {**arguments, **layers, **options, "dropout_op_kwargs": None},
        ["conv_op", "norm_op", "dropout_op", "nonlin"],
        plan.in_channels,
        2,
        deep_supervision=True,
    ).to(machine.device)
    network = torch.compile(network)
    dice = {"batch_dice": False, "smooth": 1e-5, "do_bg": False, "ddp": False}
    strides, n = arguments["strides"], len(arguments["strides"]) - 1
    weights = [0.5**i if i < n - 1 else 0.0 for i in range(n)]
    loss = DeepSupervisionWrapper(
        DC_and_CE_loss(dice, {}, weight_ce=1, weight_dice=1, dice_class=MemoryEfficientSoftDiceLoss),
        [weight / sum(weights) for weight in weights],
    )
    optimiser = torch.optim.SGD(network.parameters(), 0.01, momentum=0.99, nesterov=True, weight_decay=3e-5)
    image = torch.randn(stage.batch_size, plan.in_channels, *stage.patch_size, device=machine.device)
    size, targets = list(stage.patch_size), []
    for stride in strides[:n]:
        size = [edge // step for edge, step in zip(size, stride, strict=True)]
        targets.append(torch.zeros(stage.batch_size, 1, *size, device=machine.device))

    def step() -> None:
        optimiser.zero_grad(set_to_none=True)
        with torch.autocast(
            machine.device.type, torch.float16 if machine.device.type == "cuda" else torch.bfloat16
        ):
            value = loss(network(image), targets)
        value.backward()
        torch.nn.utils.clip_grad_norm_(network.parameters(), 12)
        optimiser.step()

    seconds = machine.seconds(step, 1 if machine.tiny else 15, 1 if machine.tiny else 4)
    rows = [row for row in results.rows if row["part"] == "speed" and study.name in row["what"]]
    ours = min([row[key] for row in rows for key in ("eager_ms", "compiled_ms") if key in row], default=0.0)
    return {"nnunet_ms": 1000 * seconds, "autoseg_ms": ours, "nnunet_patches_s": stage.batch_size / seconds}


def nnunet(machine: Machine, results: Results) -> None:
    """Part 5."""
    if importlib.util.find_spec("nnunetv2") is None:
        results.add("nnU-Net", "at the same size", left_out="nnunetv2 is not installed")
        return
    for study in STUDIES[:2]:
        results.attempt(
            "nnU-Net", study.name, lambda study=study: time_nnunet(machine, results, study), needs=60
        )


# ------------------------------------------------------------------------------------------------------------- all


def main(arguments: Sequence[str] | None = None) -> int:
    """Run all parts."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--out", type=Path, default=Path(os.environ.get("OUT", ".")), help="folder of gpu.json"
    )
    parser.add_argument(
        "--seconds", type=float, default=SECONDS, help=f"time that it may take (default: {SECONDS:.0f})"
    )
    options = parser.parse_args(arguments)
    if wheels := missing():
        print(f"first: pip install {' '.join(wheels)}")
        return 2
    import torch

    if "unet" not in planner_names():
        print("first: pip install --no-deps --no-build-isolation -e .")
        return 2
    card = torch.cuda.is_available()
    machine = Machine(torch.device("cuda" if card else "cpu"), tiny=not card)
    results = Results(options.out / "gpu.json", time.monotonic() + options.seconds)
    print(f"| part      | {'what':34} | found |\n|---|---|---|")
    for part in (describe, smoke, families, speed, prediction, nnunet):
        part(machine, results)
    wrong = [row for row in results.rows if row.get("ok") is False or "error" in row]
    print(f"\n{len(results.rows)} lines, {len(wrong)} of them wrong; {results.path}")
    return 1 if wrong else 0


if __name__ == "__main__":
    raise SystemExit(main())
