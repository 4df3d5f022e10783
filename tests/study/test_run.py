"""A whole study in this process, on a dataset of three small cases: to its end, cut off, with a family that fails."""

import json
import shutil
import time
from importlib import import_module

import pytest
import runs
import small

from autoseg.cli import predict, run, status
from autoseg.dataset.imageio import read_mask
from autoseg.errors import AutosegError, StaleError
from autoseg.files import hash_json, read_model
from autoseg.fingerprint import Fingerprint
from autoseg.preparation.choice import ask_all
from autoseg.study import phases as module
from autoseg.study.executor import filled
from autoseg.study.phases import run_study
from autoseg.study.state import TaskRecord, before, settled, states, write_task_record
from autoseg.study.study_json import Folders, Settings, Study, read_study

SHORT = ["planner.length=quick", "epochs=2", "iterations_per_epoch=2", "validation.cases=1"]
pytestmark = pytest.mark.slow


class Inline:
    """Runs the commands in this process, which has imported everything; after some tasks it is cut off.

    Args:
        tasks: so many, then it is killed; None for no such thing.
        failing: ids of tasks that fail.
    """

    def __init__(self, tasks=None, failing=()):
        self.left, self.failing, self.ran = tasks, failing, []

    def run(self, study):
        while not settled(found := states(study)):
            task = next(
                one
                for one in study.tasks
                if found[one.id] == "waiting" and all(found[b.id] == "done" for b in before(one, study.tasks))
            )
            if self.left is not None and len(self.ran) >= self.left:
                raise KeyboardInterrupt
            self.ran.append(task.id)
            started = time.time()
            command, *arguments = filled(task.command, "cpu", 1)
            if task.id in self.failing:
                code = 1
            else:
                code = import_module(f"autoseg.cli.{command.removeprefix('autoseg_')}").main(arguments)
            record = TaskRecord(
                made_by=hash_json(task.command),
                code=code,
                seconds=time.time() - started,
                error="error: it was told to" if code else "",
            )
            write_task_record(study.folder, task, record)


def wanted(root, **settings):
    folders = {kind: str(root / kind) for kind in ("raw", "preprocessed", "results")}
    settings = Settings(**{"families": ["ratlesnetv2"], "options": SHORT, **settings})
    return Study(autoseg_version="0", dataset=small.NAME, folders=Folders(**folders), settings=settings)


def masks_of(folder):
    """Case to the voxels of its mask."""
    return {path.name: read_mask(path)[0].tobytes() for path in sorted(folder.glob("*.nii.gz"))}


@pytest.fixture(scope="module")
def patch():
    with pytest.MonkeyPatch.context() as context:
        yield context


@pytest.fixture(scope="module")
def finished(tmp_path_factory, patch):
    """A study that nobody touched."""
    root = tmp_path_factory.mktemp("study")
    small.dataset(root / "raw", n=3, n_test=1)
    runs.set_folders(patch, root)
    study = run_study(wanted(root), Inline())
    return root, study


def test_it_ends_in_a_report_and_one_folder_that_predicts(finished, tmp_path, capsys):
    root, study = finished
    assert set(states(study).values()) == {"done"}
    assert [one.family for one in study.candidates] == ["ratlesnetv2", "unet"]
    matches = ask_all(read_model(root / "preprocessed" / small.NAME / "fingerprint.json", Fingerprint))
    assert {one.family: one.score for one in study.candidates} == {
        name: matches[name].score for name in ("ratlesnetv2", "unet")
    }
    assert study.folds == 3
    (one,) = study.rounds
    assert {row.family for row in one.standings} == {"ratlesnetv2", "unet"} and one.cases == 1
    assert [method.name for method in study.choice.methods] == sorted(
        ("ratlesnetv2", "unet", "ensemble_mean", "ensemble_votes"),
        key=[method.name for method in study.choice.methods].index,
    )
    page = (study.folder / "report.html").read_text()
    for words in ("Leaderboard", "ensemble_votes", "0 of unet", "2 of ratlesnetv2"):
        assert words in page
    images = root / "raw" / small.NAME / "imagesTs"
    assert (
        predict.main(["-i", str(images), "-o", str(tmp_path / "masks"), "-m", str(study.folder / "final")])
        == 0
    )
    assert len(masks_of(tmp_path / "masks")) == 1


def test_no_task_is_told_of_the_test_set(finished):
    _, study = finished
    assert "imagesTs" not in (study.folder / "study.json").read_text()
    assert not any("case_003" in path.name for path in study.folder.rglob("*"))


def test_the_status_says_what_was_done(finished, capsys):
    root, study = finished
    assert status.main(["1", "--tasks"]) == 0
    said = capsys.readouterr().out
    assert f"{len(study.tasks)} done" in said and "autoseg_train" in said and study.choice.method in said


def test_a_finished_study_does_nothing_twice(finished):
    root, study = finished
    again = Inline()
    found = run_study(wanted(root), again)
    assert again.ran == [] and found.choice == study.choice


def test_cut_off_anywhere_it_ends_with_the_same_choice_and_the_same_masks(
    finished, tmp_path, patch, monkeypatch
):
    """Its measured times are taken from the untouched study: everything after follows from them."""
    _, study = finished
    root = tmp_path / "cut"
    small.dataset(root / "raw", n=3, n_test=1)
    measures = dict(study.measures)

    def take(found, folder, prefix, families):
        found.measures |= {family: measures[family] for family in families}

    monkeypatch.setattr(module, "_take_measures", take)
    ran = []
    for _ in range(60):
        executor = Inline(tasks=3)
        try:
            found = run_study(wanted(root), executor)
            break
        except KeyboardInterrupt:
            continue
        finally:
            ran += executor.ran
    assert len(ran) == len(set(ran)) == len(study.tasks)  # nothing was done twice
    assert found.winners == study.winners
    assert [set(one.lengths) for one in found.rounds] == [set(one.lengths) for one in study.rounds]
    for method in ("unet", "ratlesnetv2", "ensemble_mean"):
        there, here = (masks_of(one.folder / "out_of_fold" / method) for one in (study, found))
        assert here == there and len(here) == 3


def test_a_family_that_fails_is_on_the_leaderboard_and_the_rest_goes_on(finished, tmp_path):
    root = tmp_path / "failing"
    small.dataset(root / "raw", n=3, n_test=1)
    found = run_study(wanted(root), Inline(failing=("measure_ratlesnetv2",)))
    assert found.winners == ["unet"] and found.choice.method == "unet"
    board = json.loads((found.folder / "leaderboard.json").read_text())
    assert [row[0] for row in board["rows"]] == ["unet", "ratlesnetv2"]
    assert board["rows"][1][-1] == "error: it was told to"
    assert (found.folder / "report.html").exists()


def test_nothing_goes_on_without_the_first_task(tmp_path):
    small.dataset(tmp_path / "raw", n=3, n_test=1)
    with pytest.raises(AutosegError, match="(?s)cannot go on without prepare_unet.*it was told to"):
        run_study(wanted(tmp_path), Inline(failing=("prepare_unet",)))


def test_changed_data_and_other_settings_are_refused(finished, tmp_path):
    root, study = finished
    copy = tmp_path / "copy"
    shutil.copytree(root, copy)
    text = (copy / "results" / small.NAME / "study" / "study.json").read_text().replace(str(root), str(copy))
    (copy / "results" / small.NAME / "study" / "study.json").write_text(text)
    with pytest.raises(AutosegError, match=r"(?s)begun with other settings.*winners 2 there, 1 now"):
        run_study(wanted(copy, winners=1), Inline())
    image, _ = small.case(9)
    small.write(copy / "raw" / small.NAME / "imagesTr" / "case_001_0000.nii.gz", image[0])
    with pytest.raises(StaleError, match=r"(?s)raw data have changed since the study was begun.*case_001"):
        run_study(wanted(copy), Inline())


def test_too_little_time_is_said_before_the_first_training_that_counts(finished, tmp_path):
    root = tmp_path / "little"
    small.dataset(root / "raw", n=3, n_test=1)
    executor = Inline()
    with pytest.raises(AutosegError, match=r"(?s)--hours 0\.0001.*too short.*expected: at least --hours"):
        run_study(wanted(root, hours=0.0001), executor)
    assert {name.partition("_")[0] for name in executor.ran} == {"prepare", "measure"}
    assert read_study(wanted(root).folder).rounds == []


def test_a_second_run_on_the_dataset_is_refused(tmp_path, capsys):
    """It is begun while the first one is at work, and changes nothing."""
    small.dataset(tmp_path / "raw", n=3, n_test=1)
    codes = []

    class Meanwhile:
        def run(self, study):
            before = (study.folder / "study.json").read_bytes()
            roots = [
                w for kind in ("raw", "preprocessed", "results") for w in (f"--{kind}", str(tmp_path / kind))
            ]
            codes.append(run.main(["1", "--devices", "cpu", "--overwrite", *roots]))
            assert (study.folder / "study.json").read_bytes() == before
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run_study(wanted(tmp_path), Meanwhile())
    said = capsys.readouterr().err
    assert codes == [1]
    assert f"study: another process is running the study of {small.NAME}" in said
    assert "one process at a time" in said and "wait until it ends or stop it" in said


def test_one_case_is_refused_at_once(tmp_path):
    small.dataset(tmp_path / "raw", n=1, n_test=0)
    with pytest.raises(AutosegError, match="one case cannot be divided"):
        run_study(wanted(tmp_path), Inline())
