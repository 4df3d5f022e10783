"""A whole dataset: what is made, reused, stale, wrong, lost; in one process and in several."""

import os
import signal
import subprocess
import sys

import numpy as np
import pytest

from autoseg import messages
from autoseg.dataset.examine import extract_fingerprint
from autoseg.dataset.imageio import Geometry, write_image, write_mask
from autoseg.dataset.raw_layout import load_raw
from autoseg.errors import AutosegError, FaultsError
from autoseg.files import write_json
from autoseg.plan import Inference, Named, Normalisation, Plan, Preprocessing, Recipe, Stage
from autoseg.preprocessing import fill_store
from autoseg.preprocessing.store import Store

IDENTITY = (1.0, 0, 0, 0, 1, 0, 0, 0, 1)
GRID = Geometry((12, 20, 22), (2.0, 1.0, 1.0), (0.0, 0.0, 0.0), IDENTITY)


def write_case(folder, name, seed=0, geometry=GRID, lesions=((4, 5, 6, 4),)):
    rng = np.random.default_rng(seed)
    mask = np.zeros(geometry.shape, np.uint8)
    for z, y, x, size in lesions:
        mask[z : z + size, y : y + size, x : x + size] = 1
    image = rng.normal(100, 10, geometry.shape).astype(np.float32)
    write_image(folder / "imagesTr" / f"{name}_0000.nii.gz", image, geometry)
    write_mask(folder / "labelsTr" / f"{name}.nii.gz", mask, geometry)


@pytest.fixture
def dataset(tmp_path):
    folder = tmp_path / "Dataset001_Tiny"
    for i, name in enumerate(("a", "b", "c")):
        write_case(folder, name, i)
    describe(folder, 3)
    messages.forget_warnings()
    return folder


def describe(folder, n):
    content = {"channel_names": {"0": "T2"}, "labels": {"background": 0, "lesion": 1}, "numTraining": n}
    write_json(folder / "dataset.json", {**content, "file_ending": ".nii.gz"})


def a_plan(fingerprint, **settings):
    stage = Stage(
        name="train",
        patch_size=[8, 8, 8],
        batch_size=1,
        epochs=1,
        loss=Named(name="x"),
        optimiser=Named(name="x"),
        schedule=Named(name="x"),
    )
    return Plan(
        planner="test",
        trainer="test",
        dataset=fingerprint.dataset,
        fingerprint_hash=fingerprint.content_hash,
        channel_names=fingerprint.channel_names,
        labels=fingerprint.labels,
        preprocessing=Preprocessing(
            **{"spacing_mm": (None, None, None), "normalisation": [Normalisation()], **settings}
        ),
        networks={"main": Named(name="x")},
        recipe=Recipe(stages=[stage], inference=Inference(patch_size=[8, 8, 8])),
    )


def prepare(dataset, processes=1, **settings):
    raw = load_raw(dataset)
    fingerprint = extract_fingerprint(raw, 1)
    store = dataset.parent / "store"
    return fill_store.preprocess_dataset(
        raw, fingerprint, a_plan(fingerprint, **settings), store, processes
    ), Store(store)


def test_made_once_then_reused(dataset):
    report, store = prepare(dataset)
    assert report.done == ["a", "b", "c"] and report.reused == [] and report.stale == {}
    before = {path: path.stat().st_mtime_ns for path in store.folder.iterdir()}
    report, store = prepare(dataset, logits_order=0)  # only matters on the way back
    assert report.done == [] and report.reused == ["a", "b", "c"]
    assert before == {path: path.stat().st_mtime_ns for path in store.folder.iterdir()}
    assert "0 cases preprocessed" in report.summary() and "3 were up to date" in report.summary()


def test_a_store_of_an_earlier_autoseg_stays_where_cases_lie_as_the_plan_says(dataset):
    """Plans did not name an orientation: what was stored without is what is stored with it."""
    from storage import store_as  # here, because a process of another test imports this file by itself

    _, store = prepare(dataset)
    store_as(dataset / "imagesTr" / "c_0000.nii.gz", "SRA")
    store_as(dataset / "labelsTr" / "c.nii.gz", "SRA")
    report, _ = prepare(dataset)
    assert report.stale == {"c": "the raw file changed"}
    report, _ = prepare(dataset, orientation="LPS")
    assert report.reused == ["a", "b"] and list(report.stale) == ["c"] and "orientation" in report.stale["c"]
    report, _ = prepare(dataset, orientation="LPS")
    assert report.reused == ["a", "b", "c"]


def test_exactly_the_affected_cases_are_stale_and_it_is_said(dataset):
    _, store = prepare(dataset)
    write_case(dataset, "b", seed=9)
    store._path("c", "label").unlink()
    (store.folder / "a.json").unlink()
    report, _ = prepare(dataset)
    assert report.done == ["a", "b", "c"]
    assert report.stale == {
        "a": "interrupted while it was written",
        "b": "the raw file changed",
        "c": "c.label.b2nd is missing",
    }
    write_case(dataset, "b", seed=10)
    report, _ = prepare(dataset)
    assert report.done == ["b"] and report.reused == ["a", "c"]
    assert "made again: b: the raw file changed" in report.summary()
    report, _ = prepare(dataset, spacing_mm=(1.5, None, None))
    assert report.done == ["a", "b", "c"]
    assert "made again: a, b, c: the plan's preprocessing changed: spacing_mm" in report.summary()


def test_a_case_that_is_gone_is_ignored_and_named(dataset):
    prepare(dataset)
    for path in (dataset / "imagesTr" / "c_0000.nii.gz", dataset / "labelsTr" / "c.nii.gz"):
        path.unlink()
    describe(dataset, 2)
    report, store = prepare(dataset)
    assert report.reused == ["a", "b"] and report.extra == ["c"]
    assert "ignored, no longer in the raw data: c" in report.summary()


def test_processes_make_the_same_store(dataset, monkeypatch):
    def contents(store):
        cases = [store.read(name) for name in store.names()]
        return [(c.name, c.properties, c.image[...], c.label[...], c.foreground) for c in cases]

    one = contents(prepare(dataset, spacing_mm=(1.5, 1.5, 1.5))[1])
    for path in (dataset.parent / "store").iterdir():
        path.unlink()
    monkeypatch.setattr(fill_store, "VALUES_PER_PROCESS", 1)
    several = contents(prepare(dataset, 2, spacing_mm=(1.5, 1.5, 1.5))[1])
    assert len(one) == len(several) == 3
    for a, b in zip(one, several, strict=True):
        assert a[:2] == b[:2]
        assert all(np.array_equal(x, y) for x, y in zip(a[2:], b[2:], strict=True))


def test_small_datasets_do_not_pay_for_processes(dataset):
    raw = load_raw(dataset)
    fingerprint = extract_fingerprint(raw, 1)
    tasks = [fill_store._StoreTask(case, None, None, None) for case in raw.cases]
    assert fill_store._useful(8, tasks, fingerprint) == 1
    large = fingerprint.model_copy(deep=True)
    for case in large.cases:
        case.shape = (160, 256, 256)
    assert fill_store._useful(8, tasks, large) == 2 and fill_store._useful(1, tasks, large) == 1


def test_a_fault_does_not_stop_the_others_and_all_are_shown(dataset):
    raw = load_raw(dataset)
    fingerprint = extract_fingerprint(raw, 1)
    for name in ("a", "b"):  # broken between the check and the preprocessing
        path = dataset / "imagesTr" / f"{name}_0000.nii.gz"
        path.write_bytes(path.read_bytes()[:5000])
    with pytest.raises(
        FaultsError, match=r"2 of 3 cases could not be preprocessed; all others(.|\n)*a_0000(.|\n)*b_0000"
    ):
        fill_store.preprocess_dataset(raw, fingerprint, a_plan(fingerprint), dataset.parent / "store", 1)
    assert Store(dataset.parent / "store").names() == ["c"]


def test_an_unwritable_folder_is_explained(dataset):
    (dataset.parent / "store").write_text("a file where the folder should be")
    with pytest.raises(AutosegError, match=r"cannot be written(.|\n)*choose another folder"):
        prepare(dataset)


def test_lost_lesions_are_warned_of_and_recorded_also_when_reused(dataset):
    write_case(dataset, "b", seed=7, lesions=((4, 5, 6, 4), (1, 15, 15, 1), (9, 15, 1, 1)))
    report, store = prepare(dataset, spacing_mm=(4.0, 2.0, 2.0))
    assert list(report.lost) == ["b"]
    (part,) = report.lost["b"]
    assert (part.before, part.lost_voxels, part.lost_ml) == (3, [1, 1], pytest.approx(0.004))
    assert store.record("b").components == [part]
    (warning,) = [text for text in messages.warning_counts() if "no voxel left" in text]
    assert "2 lesion components of 1 case have" in warning
    assert "b: 2 of 3 of lesion (1 1 voxels, 0.004 ml)" in warning
    report, _ = prepare(dataset, spacing_mm=(4.0, 2.0, 2.0))
    assert report.reused == ["a", "b", "c"] and list(report.lost) == ["b"]


KILLED = """
import os, signal, sys
from pathlib import Path
sys.path.insert(0, {tests!r})
from autoseg.preprocessing import store
import test_fill_store

def die(path, content):
    if path.name == "b.json":
        os.kill(os.getpid(), signal.SIGKILL)
    write_json(path, content)

write_json, store.write_json = store.write_json, die
test_fill_store.prepare(Path({dataset!r}))
"""


def test_killed_and_started_again_it_goes_on(dataset):
    script = KILLED.format(tests=os.path.dirname(__file__), dataset=str(dataset))
    ended = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True)
    assert ended.returncode == -signal.SIGKILL, ended.stderr
    report, store = prepare(dataset)
    assert report.reused == ["a"] and report.done == ["b", "c"]
    assert report.stale == {"b": "interrupted while it was written"}


def test_stale_cases_of_names_that_nobody_knows(dataset):
    _, store = prepare(dataset)
    fingerprint = extract_fingerprint(load_raw(dataset), 1)
    plan = a_plan(fingerprint)
    assert fill_store.stale_cases(store, fingerprint, plan, ["a", "x"]) == {"x": "not in the fingerprint"}


def test_preprocessing_does_not_import_torch():
    code = "import sys, autoseg.preprocessing.fill_store, autoseg.preprocessing.restore; print('torch' in sys.modules)"
    ended = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert ended.stdout.strip() == "False", ended.stderr
