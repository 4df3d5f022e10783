"""Damaged and hostile files, many of them, in a process of limited memory and time; each must cost only itself.

    python tests/fuzz/attack.py plan.json --seed 1 --count 100000

File number i of a seed is the same on every machine and in every run. Each is read as the commands read it, up to what
follows from it without an image: it must be taken, or refused by an error of autoseg whose text is one page. Anything
else (another exception, more than a few seconds, memory that grows) is printed with its number, and the exit code is 1;
``--first NUMBER --count 1 --keep FILE`` writes the file itself, to look at.
"""

from __future__ import annotations

import argparse
import gzip
import json
import random
import resource
import signal
import sys
import tempfile
import traceback
import types
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

sys.path[:0] = [
    str(Path(__file__).parents[1]),
    str(Path(__file__).parents[1] / "planners"),
    str(Path(__file__).parent),
]

import mutations  # noqa: E402

SECONDS = 5.0  # of the processor, for one file; most take milliseconds
MEMORY = 1 << 30  # beyond what the process has when it starts
LINES, LETTERS = 60, 12_000  # one page

Attack = tuple[Callable[[random.Random], bytes], Callable[[Path], object], str]
"""What makes a file, what reads it, and its name."""


class Hang(BaseException):
    """A file took too long."""


# ------------------------------------------------------------------------------------------------------ the files


def dataset_json(folder: Path) -> Attack:
    """dataset.json, with the files of the dataset beside it."""
    import small

    from autoseg.dataset.raw_layout import load_raw

    raw = small.dataset(folder, n=2, n_test=0)
    content = json.loads((raw / "dataset.json").read_text())
    content["dataset"] = {
        f"case_{i:03}": {
            "images": [f"imagesTr/case_{i:03}_0000.nii.gz"],
            "label": f"labelsTr/case_{i:03}.nii.gz",
        }
        for i in range(2)
    }
    regions = {
        **content,
        "labels": {"background": 0, "whole": [1, 2], "core": 2},
        "regions_class_order": [1, 2],
    }
    bases = [content, {key: content[key] for key in content if key != "dataset"}, regions]

    def read(path: Path) -> None:
        info = load_raw(raw).info
        assert len(info.label_set.known_values) <= 256 and info.label_set.n_outputs <= 257

    return lambda rng: mutations.changed_json(rng.choice(bases), rng), read, str(raw / "dataset.json")


def a_plan(**settings: Any) -> Any:
    """A plan of the general U-Net whose network is small."""
    import fingerprints
    import small

    from autoseg.plugins.planner import Budget
    from autoseg.preparation.choice import make_plan

    overrides = dict(pair.split("=", 1) for pair in small.TINY)
    changes = {path: json.loads(value) for path, value in overrides.items()} | settings
    return make_plan(fingerprints.fingerprint([(2, 1, 1)] * 5, [(10, 24, 24)] * 5), "unet", Budget(), changes)


def plan_json(folder: Path) -> Attack:
    """plan.json: read, shown, hashed, and built on trial."""
    from autoseg import plugins
    from autoseg.bundle.layout import expected_members
    from autoseg.files import read_model, write_json
    from autoseg.plan import Plan, hash_plan, is_hash_of
    from autoseg.plan.table import format_plan
    from autoseg.training.check_recipe import check_recipe

    plan = a_plan()
    content = plan.model_dump(mode="json")
    second = json.loads(json.dumps(content))
    stage = {**second["recipe"]["stages"][0], "name": "second", "start": "previous", "snapshots": [1, 2]}
    stage["augmentation"] = {"name": "nnunet", "arguments": {"rotation_p": 0.5, "scaling_range": [0.7, 1.4]}}
    stage["augmentation"]["transforms"] = [{"name": "flip", "arguments": {"axis": 0}}]
    second["recipe"]["stages"].append(stage)
    second["preprocessing"]["mask"] = {"folder": "brains"}
    second["preprocessing"]["normalisation"] = [{"scheme": "zscore", "inside_mask": True}]
    second["recipe"]["postprocessing"] = [{"name": "keep_largest_component"}]
    bases = [{key: value for key, value in base.items() if key != "reasons"} for base in (content, second)]
    write_json(folder / "plan.json", second)

    def read(path: Path) -> None:
        found = read_model(path, Plan)
        assert is_hash_of(hash_plan(found), found) and format_plan(found)
        expected_members(found, "best")
        check_recipe(found, plugins.load(plugins.TRAINERS, found.trainer))
        write_json(folder / "again.json", found)

    return lambda rng: mutations.changed_json(rng.choice(bases), rng), read, str(folder / "plan.json")


def settings(folder: Path) -> Attack:
    """What a user may give with --set: one or two paths of a plan, with values that do not belong there."""
    from autoseg import plugins
    from autoseg.plan import apply_overrides
    from autoseg.training.check_recipe import check_recipe

    plan = a_plan()
    paths = mutations.paths(plan.model_dump(mode="json", exclude={"reasons"}))
    (folder / "set.json").write_text("{}")

    def make(rng: random.Random) -> bytes:
        return json.dumps(
            {rng.choice(paths): mutations.value(rng) for _ in range(rng.choice((1, 1, 2)))}
        ).encode()

    def read(path: Path) -> None:
        changed = apply_overrides(plan, json.loads(path.read_bytes()))
        check_recipe(changed, plugins.load(plugins.TRAINERS, changed.trainer))

    return make, read, str(folder / "set.json")


def splits_json(folder: Path) -> Attack:
    """splits.json, against the cases of a dataset and their subjects."""
    from autoseg.dataset.folds import make_folds, read_folds, write_folds

    names = [f"case_{i:03}" for i in range(10)]
    subjects = {name: f"s{i // 2}" for i, name in enumerate(names)}
    path = folder / "splits.json"
    bases = []
    for with_test in (False, True):
        write_folds(path, make_folds(names, with_test=with_test, subjects=subjects))
        bases.append(json.loads(path.read_text()))

    def read(path: Path) -> None:
        for fold in read_folds(path, names) + read_folds(path, names, subjects):
            assert set(fold.train) <= set(names)

    return lambda rng: mutations.changed_json(rng.choice(bases), rng), read, str(path)


def model_card(folder: Path) -> Attack:
    """model_card.json of a bundle."""
    from model_folder import make_model

    from autoseg.bundle.transfer import check_unpacked

    model = make_model(folder, (0.3, 0.6))
    content = json.loads((model / "model_card.json").read_text())

    def read(path: Path) -> None:
        assert check_unpacked(model, where="the card").name

    return lambda rng: mutations.changed_json(content, rng), read, str(model / "model_card.json")


def bundle(folder: Path) -> Attack:
    """A whole bundle, packed and stored, changed in any of its bytes."""
    from model_folder import make_model

    from autoseg.bundle.transfer import export_bundle, import_bundle

    export_bundle(make_model(folder / "models", (0.3, 0.6)), folder / "bundle.zip")
    content = (folder / "bundle.zip").read_bytes()
    with zipfile.ZipFile(folder / "bundle.zip") as archive:
        directory = archive.start_dir

    def make(rng: random.Random) -> bytes:
        return mutations.changed_bytes(content, rng, first=rng.choice((0, 0, directory)))

    def read(path: Path) -> None:
        import_bundle(path, folder / "results", overwrite=True)

    return make, read, str(folder / "bundle.zip")


def weights(folder: Path) -> Attack:
    """A weight file, changed in its header: as entries, and as bytes."""
    from model_folder import make_plan, threshold_network, write_weights

    from autoseg.bundle.weights import load_network, read

    plan, network = make_plan(), threshold_network(1, 0.5)
    write_weights(
        folder / "w.safetensors", network, plan, facts={"seen": 3}, start={"model": "a", "sha256": "b"}
    )
    content = (folder / "w.safetensors").read_bytes()
    size = int.from_bytes(content[:8], "little")
    header = json.loads(content[8 : 8 + size])

    def make(rng: random.Random) -> bytes:
        if rng.random() < 0.3:
            return mutations.changed_bytes(content, rng, last=size + 8)
        changed = mutations.changed_json(header, rng)
        return len(changed).to_bytes(8, "little") + changed + content[8 + size :]

    def load(path: Path) -> None:
        load_network(network, read(path).tensors, where="the file")

    return make, load, str(folder / "w.safetensors")


def checkpoint(folder: Path) -> Attack:
    """A checkpoint, changed in its metadata."""
    import torch

    from autoseg.training import checkpoint as checkpoints
    from autoseg.training.start import fill_optimiser

    network = torch.nn.Linear(3, 2)
    optimiser = torch.optim.SGD(network.parameters(), 0.1, momentum=0.9)
    network(torch.ones(4, 3)).sum().backward()
    optimiser.step()
    path, state = folder / "latest.safetensors", optimiser.state_dict()
    checkpoints.save(
        path, checkpoints.Checkpoint(checkpoints.Position(), "hash", network.state_dict(), state)
    )
    content = path.read_bytes()
    size = int.from_bytes(content[:8], "little")
    header = json.loads(content[8 : 8 + size])

    def make(rng: random.Random) -> bytes:
        found = json.loads(json.dumps(header))
        entry = rng.choice(("position", "optimiser_groups", "optimiser_plain", "scaler", "start"))
        changed = mutations.changed_json(json.loads(found["__metadata__"][entry]), rng)
        found["__metadata__"][entry] = changed.decode("utf-8", "replace")
        text = json.dumps(found).encode()
        return len(text).to_bytes(8, "little") + text + content[8 + size :]

    def read(path: Path) -> None:
        fill_optimiser(optimiser, checkpoints.load(path).optimiser, where="the file")

    return make, read, str(path)


def nifti(folder: Path, name: str = "read.nii") -> Attack:
    """The header of a NIfTI file; the image behind it has 24 kB."""
    import small

    from autoseg.dataset.imageio import read_geometry, read_image, read_mask

    image, mask = small.case(0)
    small.write(folder / "image.nii", image[0])
    small.write(folder / "mask.nii", mask)
    small.write(folder / "read.nii.gz", mask)
    small.write(folder / "read.nii", mask)
    bases = [(folder / one).read_bytes() for one in ("image.nii", "mask.nii")]

    def make(rng: random.Random) -> bytes:
        content = mutations.changed_bytes(rng.choice(bases), rng, last=352)
        return content if name.endswith(".nii") else packed(content, rng)

    def read(path: Path) -> None:
        geometry = read_geometry(path)
        read_image(path)
        assert geometry.shape
        read_mask(path)

    return make, read, str(folder / name)


def packed(content: bytes, rng: random.Random) -> bytes:
    """Compressed, and sometimes damaged after that."""
    found = gzip.compress(content, 1, mtime=0)
    return mutations.changed_bytes(found, rng) if rng.random() < 0.4 else found


ATTACKS: dict[str, Callable[[Path], Attack]] = {
    "dataset.json": dataset_json,
    "plan.json": plan_json,
    "--set": settings,
    "splits.json": splits_json,
    "model_card.json": model_card,
    "bundle.zip": bundle,
    "weights.safetensors": weights,
    "checkpoint.safetensors": checkpoint,
    "header.nii": nifti,
    "header.nii.gz": lambda folder: nifti(folder, "read.nii.gz"),
}


# ------------------------------------------------------------------------------------------------------- the attack


def attack(name: str, seed: int, first: int, count: int, keep: Path | None = None) -> dict[str, Any]:
    """Read many changed files of one kind.

    Returns:
        How many were taken and refused, and for each failure the number, what happened and where.
    """
    from autoseg import messages

    result: dict[str, Any] = {"taken": 0, "refused": 0, "failures": []}
    with tempfile.TemporaryDirectory(prefix="autoseg-fuzz-") as temporary:
        make, read, place = ATTACKS[name](Path(temporary))
        path = Path(place)
        read(path)  # unchanged; what is imported late is there before memory is limited
        limit_memory()
        before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        for i in range(first, first + count):
            content = make(random.Random(f"{name}/{seed}/{i}"))
            path.write_bytes(content)
            if keep is not None:
                keep.write_bytes(content)
            messages.forget_warnings()
            kind, text = outcome(read, path)
            if kind in ("taken", "refused"):
                result[kind] += 1
            else:
                result["failures"].append({"number": i, "kind": kind, "text": text})
        grown = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before
    result["grown_mb"] = grown / (1024 if sys.platform != "darwin" else 1 << 20)
    return result


def outcome(read: Callable[[Path], object], path: Path) -> tuple[str, str]:
    """What becomes of one file: taken, refused, or a kind of failure with its text."""
    from autoseg.errors import AutosegError

    signal.setitimer(signal.ITIMER_PROF, SECONDS)
    try:
        read(path)
        return "taken", ""
    except AutosegError as error:
        return refusal(str(error))
    except Hang:
        return "hang", _where()
    except Exception as error:
        return type(error).__name__, _where()
    finally:
        signal.setitimer(signal.ITIMER_PROF, 0)


def refusal(text: str) -> tuple[str, str]:
    """A refusal is one page of characters that can be shown and written to a log."""
    try:
        text.encode("utf-8")
    except UnicodeEncodeError:
        return "no text", ascii(text)[:400]
    lines = text.splitlines()
    if not text.strip() or len(lines) > LINES or len(text) > LETTERS:
        return "not one page", f"{len(lines)} lines, {len(text)} characters: {text[:400]}"
    return "refused", ""


def _where() -> str:
    return "".join(traceback.format_exc().splitlines(keepends=True)[-8:])[-1500:]


def limit_memory() -> None:
    """At most :data:`MEMORY` more address space than now, where the system counts it."""
    status = Path("/proc/self/status")
    if status.exists():
        size = next(
            int(line.split()[1]) for line in status.read_text().splitlines() if line.startswith("VmSize")
        )
        limit = (size << 10) + MEMORY
        resource.setrlimit(resource.RLIMIT_AS, (limit, limit))


def _hang(signum: int, frame: types.FrameType | None) -> None:
    raise Hang


def main() -> int:
    """Run one attack and print the result as JSON."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("name", choices=ATTACKS)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--first", type=int, default=0)
    parser.add_argument("--count", type=int, default=300)
    parser.add_argument("--keep", type=Path, help="write the last file that was tried here")
    options = parser.parse_args()
    signal.signal(signal.SIGPROF, _hang)
    result = attack(options.name, options.seed, options.first, options.count, options.keep)
    print(json.dumps(result, indent=1))
    return 1 if result["failures"] else 0


if __name__ == "__main__":
    raise SystemExit(main())
