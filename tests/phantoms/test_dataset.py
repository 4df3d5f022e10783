"""A whole dataset of phantoms: layout, honesty, independence of processes, refusals, the command."""

import json
import subprocess
import sys

import numpy as np
import pytest
import SimpleITK as sitk

from autoseg.cli import make_phantom
from autoseg.dataset.dataset_json import read_dataset_json
from autoseg.errors import AutosegError
from autoseg.phantoms import make_case, make_dataset
from autoseg.phantoms.settings import KINDS, SETTINGS

SMALL = {"seed": 1, "scale": 0.125}


def files_in(folder):
    return {str(p.relative_to(folder)): p.read_bytes() for p in sorted(folder.rglob("*")) if p.is_file()}


@pytest.mark.parametrize("kind", KINDS)
def test_layout(kind, tmp_path):
    folder = make_dataset(kind, 2, tmp_path, **SMALL, n_test=1)
    setting = SETTINGS[kind]
    assert folder == tmp_path / f"Dataset{setting.number}_{setting.dataset}"
    info = read_dataset_json(folder / "dataset.json")
    assert tuple(info.channel_names.values()) == setting.channels
    assert info.labels == {"background": 0, "lesion": 1} and info.numTraining == 2
    names = {part: sorted(p.name for p in (folder / part).iterdir()) for part in ("imagesTr", "imagesTs")}
    n_channels = len(setting.channels)
    assert names["imagesTr"] == [
        f"phantom_{kind}_{i:03d}_{c:04d}.nii.gz" for i in range(2) for c in range(n_channels)
    ]
    assert names["imagesTs"] == [f"phantom_{kind}_002_{c:04d}.nii.gz" for c in range(n_channels)]
    assert sorted(p.name for p in (folder / "labelsTs").iterdir()) == [f"phantom_{kind}_002.nii.gz"]
    assert sorted(p.name for p in tmp_path.iterdir()) == [folder.name]


def test_files_hold_the_case_and_its_geometry(tmp_path):
    folder = make_dataset("dwi", 2, tmp_path, **SMALL)
    case = make_case("dwi", 1, **SMALL)
    image = sitk.ReadImage(str(folder / "imagesTr/phantom_dwi_001_0000.nii.gz"))
    mask = sitk.ReadImage(str(folder / "labelsTr/phantom_dwi_001.nii.gz"))
    assert np.array_equal(sitk.GetArrayFromImage(image), case.image[0])
    assert np.array_equal(sitk.GetArrayFromImage(mask), case.mask)
    for each in (image, mask):
        assert each.GetSpacing() == pytest.approx(case.spacing_mm[::-1], rel=1e-6)
        assert each.GetDirection() == (-1, 0, 0, 0, -1, 0, 0, 0, 1)
        middle = each.TransformContinuousIndexToPhysicalPoint([(n - 1) / 2 for n in each.GetSize()])
        assert middle == pytest.approx((0, 0, 0), abs=1e-3)
    assert not (folder / "imagesTs").exists()


def test_the_raw_dataset_is_accepted(tmp_path):
    layout = pytest.importorskip("autoseg.dataset.raw_layout")
    raw = layout.load_raw(make_dataset("perfusion", 2, tmp_path, **SMALL))
    assert [case.name for case in raw.cases] == ["phantom_perfusion_000", "phantom_perfusion_001"]


def test_says_that_it_is_synthetic(tmp_path):
    content = json.loads((make_dataset("rat_t2", 1, tmp_path, **SMALL) / "dataset.json").read_text())
    assert content["synthetic"] is True and content["licence"] == "CC0-1.0"
    assert content["description"].startswith("synthetic phantom, not real data")
    assert content["made_by"] == {
        "command": "autoseg_make_phantom",
        "kind": "rat_t2",
        "n": 1,
        "test": 0,
        "seed": 1,
        "scale": 0.125,
    }
    assert "regions_class_order" not in content


def test_processes_do_not_matter(tmp_path):
    one = make_dataset("rat_t2", 3, tmp_path / "a", **SMALL, n_test=1)
    two = make_dataset("rat_t2", 3, tmp_path / "b", **SMALL, n_test=1, processes=2)
    assert files_in(one) == files_in(two)


def test_refuses_a_folder_that_is_not_empty(tmp_path):
    folder = make_dataset("rat_t2", 2, tmp_path, **SMALL)
    before = files_in(folder)
    with pytest.raises(AutosegError, match="the output folder is not empty") as caught:
        make_dataset("rat_t2", 1, tmp_path, **SMALL)
    assert "--overwrite" in str(caught.value) and folder.name in str(caught.value)
    assert files_in(folder) == before
    make_dataset("rat_t2", 1, tmp_path, **SMALL, overwrite=True)
    assert len(list((folder / "labelsTr").iterdir())) == 1


@pytest.mark.parametrize("foreign", ["imagesTr/patient_1_0000.nii.gz", "notes.txt"])
def test_never_overwrites_what_is_not_phantoms(tmp_path, foreign):
    folder = make_dataset("rat_t2", 1, tmp_path, **SMALL)
    (folder / foreign).write_text("precious")
    with pytest.raises(AutosegError, match="not phantoms, which is never overwritten"):
        make_dataset("rat_t2", 1, tmp_path, **SMALL, overwrite=True)
    assert (folder / foreign).read_text() == "precious"


def test_a_number_belongs_to_one_dataset(tmp_path):
    make_dataset("rat_t2", 1, tmp_path, **SMALL, number=900)
    with pytest.raises(AutosegError, match="the number 900 is taken") as caught:
        make_dataset("dwi", 1, tmp_path, **SMALL, number=900)
    assert "Dataset900_PhantomRatT2" in str(caught.value) and "-id" in str(caught.value)


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"n": 0}, "number of training cases is too small"),
        ({"n_test": -1}, "number of held-out cases is too small"),
        ({"processes": 0}, "number of processes is too small"),
        ({"number": 0}, "not a number for a dataset"),
        ({"kind": "dvi"}, "did you mean dwi"),
        ({"scale": 0.01}, "0.125 to 1"),
    ],
)
def test_refusals_leave_nothing_behind(tmp_path, given, message):
    arguments = {"kind": "dwi", "n": 1, "folder": tmp_path / "raw", **SMALL} | given
    with pytest.raises(AutosegError, match=message):
        make_dataset(**arguments)
    assert not (tmp_path / "raw").exists()


def test_an_unwritable_place_is_said(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(AutosegError, match="cannot be written"):
        make_dataset("rat_t2", 1, tmp_path / "file", **SMALL)


def test_a_failure_leaves_nothing_half_made(tmp_path, monkeypatch):
    def fail(*_, **__):
        raise AutosegError("the disk is full")

    monkeypatch.setattr("autoseg.phantoms.dataset.write_mask", fail)
    with pytest.raises(AutosegError, match="the disk is full"):
        make_dataset("rat_t2", 1, tmp_path, **SMALL)
    assert list(tmp_path.iterdir()) == []


def test_command(tmp_path, capsys):
    arguments = [
        "rat_t2",
        "-n",
        "1",
        "--test",
        "1",
        "-o",
        str(tmp_path),
        "--scale",
        "0.125",
        "-id",
        "77",
        "-np",
        "1",
    ]
    assert make_phantom.main(arguments) == 0
    folder = tmp_path / "Dataset077_PhantomRatT2"
    output = capsys.readouterr().out
    assert "2 synthetic phantoms" in output and str(folder) in output and "-d 077" in output
    assert make_phantom.main(arguments) == 1
    assert "the output folder is not empty" in capsys.readouterr().err
    assert make_phantom.main([*arguments, "--overwrite"]) == 0
    assert make_phantom.main(["brain", "-n", "1", "-o", str(tmp_path)]) == 1
    assert "no kind of phantom 'brain'" in capsys.readouterr().err


def test_command_without_a_folder_names_the_variable(monkeypatch, capsys):
    monkeypatch.delenv("autoseg_raw", raising=False)
    assert make_phantom.main(["dwi", "-n", "1"]) == 1
    assert "autoseg_raw" in capsys.readouterr().err


def test_help_says_synthetic_and_imports_nothing_heavy():
    code = (
        "import sys\nfrom autoseg.cli import make_phantom\n"
        "try: make_phantom.main(['--help'])\nexcept SystemExit as end: code = end.code\n"
        "heavy = {'numpy', 'scipy', 'torch', 'SimpleITK'} & set(sys.modules)\n"
        "sys.exit(code or (f'imported {heavy}' if heavy else 0))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    assert "synthetic" in done.stdout
    assert all(kind in done.stdout for kind in KINDS)
