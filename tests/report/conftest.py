"""Folders to report on, written file by file."""

import json
from pathlib import Path

import pytest
from reports import Read, write_raw, write_scores

from autoseg.files import write_json
from autoseg.report.page import PageOptions, make_report


@pytest.fixture(scope="session")
def report():
    """A function that makes a report of a folder and reads it."""

    def make(folder: Path, out: Path | None = None, **options) -> Read:
        places = {key: options.pop(key) for key in ("images", "truths") if key in options}
        path = make_report(
            folder, out, **places, options=PageOptions(**{"viewers": False, "cases": 1, **options})
        )
        page = Read(path.read_text(encoding="utf-8"))
        page.path = path
        return page

    return make


@pytest.fixture
def sketch(report, monkeypatch):
    """The same without figures and cases, which take most of the time."""
    monkeypatch.setattr("autoseg.report.page.page_svg", lambda *_: "<svg></svg>")
    monkeypatch.setattr("autoseg.report.page.paper_files", lambda _: {})
    return lambda folder, out=None, **options: report(folder, out, **{"cases": 0, **options})


@pytest.fixture(scope="session")
def raw(tmp_path_factory) -> Path:
    """Twelve cases of one class."""
    return write_raw(tmp_path_factory.mktemp("data"), [f"case_{i:02}" for i in range(12)])


@pytest.fixture(scope="session")
def scored(tmp_path_factory, raw) -> Path:
    """A folder of autoseg_evaluate with probabilities, strata and a groups file."""
    folder = tmp_path_factory.mktemp("scored") / "masks"
    groups = folder.parent / "groups.csv"
    groups.write_text("case,scanner\n" + "".join(f"case_{i:02},{'AB'[i % 2]}\n" for i in range(12)))
    write_scores(folder, raw, range(12), probabilities=True, strata=["voxels_truth=q2"], groups=groups)
    return folder


@pytest.fixture
def write_model(model_folder, raw):
    """A function that writes a model folder with scored folds."""

    def write(root: Path, folds=((0, range(0, 6)), (1, range(6, 12))), **options) -> Path:
        folder = root / "results" / "Dataset901_Synthetic" / "unet__unet"
        write_json(folder / "plan.json", model_folder.make_plan())
        (folder / "dataset.json").write_text((raw / "dataset.json").read_text())
        for fold, indices in folds:
            entries = [
                {"member": 0, "stage": "train", "stage_index": 0, "epoch": e, "loss": 1 / (e + 1 + fold)}
                | {"lr": 0.01, "seconds": 1.0, "wait_share": 0.1, "validation_dice": {"lesion": 0.1 * e}}
                for e in range(4)
            ]
            log = folder / f"fold_{fold}" / "log.jsonl"
            log.parent.mkdir(parents=True, exist_ok=True)
            log.write_text("".join(json.dumps(entry) + "\n" for entry in entries))
            if indices:
                write_scores(folder / f"fold_{fold}" / "validation", raw, indices, **options)
                write_json(
                    folder / f"fold_{fold}" / "fold.json",
                    {
                        "fold": fold,
                        "command": f"autoseg_train 901 {fold}",
                        "torch_version": "2.9",
                        "seconds": 60,
                    },
                )
        return folder

    return write
