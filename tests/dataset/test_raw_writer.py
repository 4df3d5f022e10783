"""Converters: what they describe is checked and written, whole or not at all."""

from __future__ import annotations

import csv
import gzip
import json
import re
import shutil
import struct
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
import SimpleITK as sitk
import small

from autoseg import messages
from autoseg.cli import convert as command
from autoseg.dataset import raw_writer
from autoseg.dataset.folds import Fold, load_or_make_folds
from autoseg.dataset.imageio import differences, read_geometry, read_image
from autoseg.dataset.raw_writer import check_target, dataset_folder_name, write_dataset
from autoseg.errors import AutosegError, FaultsError, StaleError
from autoseg.files import write_error
from autoseg.plugins.converter import Conversion, MergedMask, SourceCase, Volume
from autoseg.preparation import steps

OBLIQUE = (0.8, -0.6, 0.0, 0.6, 0.8, 0.0, 0.0, 0.0, 1.0)
SHAPE = (4, 6, 5)


def image(seed: int, kind=np.int16) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 500, SHAPE).astype(kind)


def mask(value: int = 1) -> np.ndarray:
    array = np.zeros(SHAPE, np.uint8)
    array[1:3, 2:4, 1:3] = value
    return array


def write_series(path: Path, *volumes: np.ndarray) -> None:
    """A NIfTI file with a fourth axis."""
    parts = [sitk.GetImageFromArray(volume) for volume in volumes]
    for part in parts:
        part.SetSpacing((0.5, 0.75, 2.0))
        part.SetOrigin((3.0, -4.0, 5.0))
        part.SetDirection(OBLIQUE)
    sitk.WriteImage(sitk.JoinSeries(parts), str(path))


def patch(path: Path, offset: int, layout: str, *values: float) -> None:
    """Change header fields of a ``.nii.gz`` file."""
    data = bytearray(gzip.decompress(path.read_bytes()))
    struct.pack_into(layout, data, offset, *values)
    path.write_bytes(gzip.compress(bytes(data)))


@pytest.fixture
def source(tmp_path: Path) -> Conversion:
    """A download of three training cases, one of them lesion-free, and one test case."""
    root = tmp_path / "download"
    cases = []
    for i, name in enumerate(("a", "b", "c", "d")):
        small.write(root / f"{name}.nii.gz", image(i))
        with_mask = name != "c"
        if with_mask:
            small.write(root / f"{name}_mask.nii.gz", mask())
        cases.append(
            SourceCase(
                name=name,
                images=(Volume(root / f"{name}.nii.gz"),),
                mask=Volume(root / f"{name}_mask.nii.gz") if with_mask else None,
                lesion_free=not with_mask,
                test=name == "d",
                groups={"stage": "24h, early" if i % 2 else "2h"},
            )
        )
    return Conversion(
        root=root,
        dataset="Toy",
        channel_names=("T2",),
        labels={"background": 0, "lesion": 1},
        cases=tuple(cases),
        folds=(Fold(("a", "c"), ("b",)),),
        notes={"licence": "CC0"},
    )


@pytest.fixture
def target(tmp_path: Path) -> Path:
    return tmp_path / "raw" / "Dataset021_Toy"


def write(conversion: Conversion, target: Path, **options: object) -> None:
    write_dataset(conversion, target, made_by={"format": "toy"}, **options)


def changed(conversion: Conversion, index: int = 0, **changes: object) -> Conversion:
    cases = list(conversion.cases)
    cases[index] = replace(cases[index], **changes)
    return replace(conversion, cases=tuple(cases))


def refused(conversion: Conversion, target: Path, **options: object) -> str:
    """The message of a conversion that leaves nothing behind."""
    with pytest.raises(AutosegError) as error:
        write(conversion, target, **options)
    assert not target.parent.exists() or list(target.parent.iterdir()) == []
    return str(error.value)


# ---------------------------------------------------------------------------------------------- what is written


def test_a_described_dataset_is_written_with_its_tables(source, target):
    write(source, target)
    files = sorted(p.relative_to(target).as_posix() for p in target.rglob("*") if p.is_file())
    assert files == [
        "conversion.csv",
        "dataset.json",
        "groups.csv",
        *(f"imagesTr/{n}_0000.nii.gz" for n in "abc"),
        "imagesTs/d_0000.nii.gz",
        *(f"labelsTr/{n}.nii.gz" for n in "abc"),
        "labelsTs/d.nii.gz",
        "splits.json",
    ]
    info = json.loads((target / "dataset.json").read_text())
    assert info["numTraining"] == 3 and info["channel_names"] == {"0": "T2"} and info["licence"] == "CC0"
    assert info["converted"]["format"] == "toy"
    rows = list(csv.DictReader((target / "groups.csv").open()))
    assert rows[1] == {"case": "b", "stage": "24h, early"} and len(rows) == 4
    assert json.loads((target / "splits.json").read_text()) == [{"train": ["a", "c"], "val": ["b"]}]


def test_volumes_are_copied_byte_for_byte(source, target):
    write(source, target)
    for name in "abd":
        there = target / ("imagesTs" if name == "d" else "imagesTr") / f"{name}_0000.nii.gz"
        assert there.read_bytes() == (source.root / f"{name}.nii.gz").read_bytes()


def test_a_case_declared_lesion_free_gets_an_empty_mask_on_its_grid(source, target):
    write(source, target)
    made = read_image(target / "labelsTr/c.nii.gz")
    assert not made.pixels.any()
    assert differences(read_geometry(target / "imagesTr/c_0000.nii.gz"), made.geometry) == []


def test_two_processes_write_the_same(source, target, tmp_path):
    write(source, target)
    other = tmp_path / "other" / target.name
    write(source, other, processes=2)
    for path in target.rglob("*.nii.gz"):
        assert path.read_bytes() == (other / path.relative_to(target)).read_bytes()


@pytest.mark.parametrize("order", ["little", "big"])
def test_one_volume_of_four_axes_keeps_type_and_geometry(source, target, order):
    volumes = [image(7), image(8)]
    path = source.root / "a.nii.gz"
    write_series(path, *volumes)
    if order == "big":
        swap_bytes(path)
    small.write(source.root / "a_mask.nii.gz", mask(), (2.0, 0.75, 0.5), OBLIQUE, (3.0, -4.0, 5.0))
    write(changed(source, images=(Volume(path, 1),)), target)
    made = read_image(target / "imagesTr/a_0000.nii.gz")
    assert made.pixels.dtype == np.int16 and np.array_equal(made.pixels, volumes[1])
    assert made.geometry.spacing_mm == (2.0, 0.75, 0.5) and made.geometry.origin_mm == (3.0, -4.0, 5.0)
    assert np.allclose(made.geometry.direction, OBLIQUE, atol=1e-6)


def swap_bytes(path: Path) -> None:
    """Store an int16 NIfTI file of four axes the other way round."""
    data = gzip.decompress(path.read_bytes())
    fields = [(0, "i"), (40, "8h"), (68, "3h"), (76, "8f"), (108, "3f"), (252, "2h"), (256, "18f")]
    swapped = bytearray(data)
    for offset, layout in fields:
        struct.pack_into(f">{layout}", swapped, offset, *struct.unpack_from(f"<{layout}", data, offset))
    (start,) = struct.unpack_from("<f", data, 108)
    pixels = np.frombuffer(data, "<i2", offset=int(start))
    path.write_bytes(gzip.compress(bytes(swapped[: int(start)]) + pixels.astype(">i2").tobytes()))


def test_a_fourth_axis_of_length_one_is_one_volume(source, target):
    write_series(source.root / "c.nii.gz", image(3))
    write(source, target)
    assert np.array_equal(read_image(target / "imagesTr/c_0000.nii.gz").pixels, image(3))


def test_a_rescaling_header_is_kept(source, target):
    path = source.root / "c.nii.gz"
    write_series(path, image(3), image(4))
    patch(path, 112, "<2f", 2.0, 1.0)
    write(changed(source, 2, images=(Volume(path, 0),)), target)
    assert np.array_equal(read_image(target / "imagesTr/c_0000.nii.gz").pixels, 2 * image(3) + 1)


def test_other_formats_and_uncompressed_files_become_nii_gz(source, target):
    small.write(source.root / "a.nii", image(0))
    small.write(source.root / "c.nrrd", image(2))
    conversion = changed(source, images=(Volume(source.root / "a.nii"),))
    write(changed(conversion, 2, images=(Volume(source.root / "c.nrrd"),)), target)
    for name, seed in (("a", 0), ("c", 2)):
        assert np.array_equal(read_image(target / f"imagesTr/{name}_0000.nii.gz").pixels, image(seed))


def test_a_test_case_may_be_without_mask(source, target):
    write(changed(source, 3, mask=None), target)
    assert not (target / "labelsTs/d.nii.gz").exists() and (target / "imagesTs/d_0000.nii.gz").exists()


def test_undeclared_empty_masks_are_warned_of(source, target):
    messages.forget_warnings()
    small.write(source.root / "a_mask.nii.gz", np.zeros(SHAPE, np.uint8))
    write(source, target)
    assert list(messages.warning_counts()) == ["1 mask is empty though nothing declares it: a"]


# ---------------------------------------------------------------------------------------------- what is refused


def test_all_faults_of_all_cases_come_together(source, target):
    small.write(source.root / "a_mask.nii.gz", mask(2))
    small.write(source.root / "b_mask.nii.gz", mask()[:, :-1])
    whole = (source.root / "d.nii.gz").read_bytes()
    (source.root / "d.nii.gz").write_bytes(whole[: len(whole) // 2])
    text = refused(source, target)
    assert "is not converted: 3 faults" in text
    assert "a_mask.nii.gz  label values that the format does not have" in text and "2 (8 voxels)" in text
    assert "b_mask.nii.gz  its shape is not that of the image" in text and "4 x 5 x 5" in text
    assert "d.nii.gz       the file is truncated" in text


def test_two_channels_where_one_is_expected(source, target):
    write_series(source.root / "a.nii.gz", image(0), image(1))
    text = refused(source, target)
    assert "holds 2 volumes where one is expected" in text and "--channel" in text


@pytest.mark.parametrize("index", [2, -1])
def test_a_channel_that_is_not_there(source, target, index):
    write_series(source.root / "a.nii.gz", image(0), image(1))
    text = refused(changed(source, images=(Volume(source.root / "a.nii.gz", index),)), target)
    assert f"has no channel {index}" in text and "from 0 to 1" in text


def test_a_declared_case_must_be_without_lesion(source, target):
    text = refused(changed(source, lesion_free=True), target)
    assert "a_mask.nii.gz  declared to have no lesion" in text and "8 voxels of lesion" in text


def test_a_training_case_needs_a_mask(source, target):
    assert re.search("^b +has no mask", refused(changed(source, 1, mask=None), target), re.M)


def test_a_mask_on_another_grid_is_refused_unless_its_header_is_to_be_ignored(source, target):
    small.write(source.root / "a_mask.nii.gz", mask(), spacing=(1.0, 1.0, 1.0), origin=(0, 0, 0))
    text = refused(source, target)
    assert "its spacing is not that of the image" in text and "--ignore_mask_headers" in text
    write(source, target, ignore_mask_headers=True)
    made = read_image(target / "labelsTr/a.nii.gz")
    assert np.array_equal(made.pixels, mask())
    assert differences(read_geometry(target / "imagesTr/a_0000.nii.gz"), made.geometry) == []


@pytest.mark.parametrize("mask_of", ["ignored header", "lesion-free case"])
def test_masks_that_are_written_carry_the_images_own_header(source, target, mask_of):
    """The image is placed by its sform alone; its codes are 1 and 2."""
    name = "a" if mask_of == "ignored header" else "c"
    path = source.root / f"{name}.nii.gz"
    picture = nib.load(path)
    moved = picture.affine + np.outer([1, 0, 0, 0], [0, 0, 0, 6.0])
    picture.set_qform(picture.affine, 1)
    picture.set_sform(moved, 2)
    nib.save(picture, source.root / "moved.nii.gz")
    (source.root / "moved.nii.gz").replace(path)
    write(source, target, ignore_mask_headers=True)
    made = nib.load(target / f"labelsTr/{name}.nii.gz")
    assert np.array_equal(made.affine, moved) and made.header["sform_code"] == 2
    assert np.array_equal(made.get_qform(), picture.get_qform()) and made.header["qform_code"] == 1


@pytest.mark.parametrize(
    ("name", "message"), [("b", "the same case name twice"), ("x:y", "no name for a case follows")]
)
def test_names_that_cannot_be(source, target, name, message):
    assert message in refused(changed(source, name=name), target)


def test_a_full_disk_is_not_the_fault_of_a_case(source, target, monkeypatch):
    def fail(path: Path, content: bytes) -> None:
        raise write_error(path, OSError(28, "No space left on device"))

    monkeypatch.setattr(raw_writer, "write_bytes", fail)
    text = refused(source, target)
    assert "the disk is full" in text and "faults" not in text


def test_a_missing_file_is_named(source, target):
    (source.root / "b.nii.gz").unlink()
    assert re.search(r"^b\.nii\.gz +cannot be read", refused(source, target), re.M)


# ------------------------------------------------------------------------------------------------- the target


def test_an_earlier_conversion_is_replaced_only_when_asked(source, target):
    write(source, target)
    with pytest.raises(AutosegError, match="the dataset is there already"):
        write(source, target)
    write(replace(source, cases=source.cases[:3]), target, overwrite=True)
    assert not (target / "imagesTs").exists()
    assert [p.name for p in target.parent.iterdir()] == [target.name]


def test_a_failed_replacement_leaves_what_was_there(source, target):
    write(source, target)
    before = {p: p.read_bytes() for p in target.rglob("*") if p.is_file()}
    small.write(source.root / "a_mask.nii.gz", mask(3))
    with pytest.raises(FaultsError):
        write(source, target, overwrite=True)
    assert {p: p.read_bytes() for p in target.parent.rglob("*") if p.is_file()} == before


def test_other_data_are_never_replaced(source, target):
    small.dataset(target.parent, n=1, n_test=0, name=target.name)
    with pytest.raises(AutosegError, match="was not made by autoseg_convert"):
        write(source, target, overwrite=True)


def test_one_number_for_one_dataset(target):
    (target.parent / "Dataset0021_Other").mkdir(parents=True)
    with pytest.raises(AutosegError, match="the number 21 is taken"):
        check_target(target, overwrite=True)


def test_what_a_killed_conversion_left_is_removed(source, target):
    left = target.with_name(f".converting-{target.name}")
    (left / "imagesTr").mkdir(parents=True)
    (left / "imagesTr/old_0000.nii.gz").touch()
    write(source, target)
    assert [p.name for p in target.parent.iterdir()] == [target.name]
    assert not (target / "imagesTr/old_0000.nii.gz").exists()


def test_names_of_datasets():
    assert dataset_folder_name("21", "Toy") == "Dataset021_Toy"
    assert dataset_folder_name("Dataset022_Mine", "Toy") == "Dataset022_Mine"
    for wrong in ("Toy", "0", "../Dataset001_x", "Dataset1_x"):
        with pytest.raises(AutosegError, match="does not name a dataset"):
            dataset_folder_name(wrong, "Toy")


# -------------------------------------------------------------------------------------------------- the folds


def test_training_uses_the_folds_that_came_with_the_data(source, target, tmp_path):
    write(source, target)
    folder = tmp_path / "preprocessed" / target.name
    steps.take_fingerprint(target, folder, 1)
    assert load_or_make_folds(folder / "splits.json", "abc") == [Fold(("a", "c"), ("b",))]
    steps.take_fingerprint(target, folder, 1)  # once more: nothing has changed


def test_the_third_part_of_published_folds_comes_with_the_data(source, target, tmp_path):
    fold = Fold(("a",), ("b",), ("c",))
    write(replace(source, folds=(fold,)), target)
    folder = tmp_path / "preprocessed" / target.name
    steps.take_fingerprint(target, folder, 1)
    assert load_or_make_folds(folder / "splits.json", "abc") == [fold]


def test_other_folds_in_use_are_not_replaced(source, target, tmp_path):
    write(source, target)
    folder = tmp_path / "preprocessed" / target.name
    folder.mkdir(parents=True)
    in_use = json.dumps([{"train": ["a", "b"], "val": ["c"]}])
    (folder / "splits.json").write_text(in_use)
    with pytest.raises(StaleError, match="the folds in use are not those that came with the raw dataset"):
        steps.take_fingerprint(target, folder, 1)
    assert (folder / "splits.json").read_text() == in_use


def test_given_folds_of_other_cases_are_stale(source, target, tmp_path):
    write(source, target)
    for path in (target / "imagesTr/b_0000.nii.gz", target / "labelsTr/b.nii.gz"):
        path.unlink()
    info = json.loads((target / "dataset.json").read_text()) | {"numTraining": 2}
    (target / "dataset.json").write_text(json.dumps(info))
    with pytest.raises(StaleError, match="no longer in the dataset: b"):
        steps.take_fingerprint(target, tmp_path / "preprocessed", 1)


# ------------------------------------------------------------------------------------------------ the command


def test_the_formats_are_listed(capsys):
    assert command.main([]) == 0
    assert "ratlesnet       rat brain T2" in capsys.readouterr().out
    assert command.main(["--list"]) == 0


def test_an_unknown_format_names_the_nearest(capsys):
    assert command.main(["ratlesnt", "x", "-d", "1"]) == 1
    error = capsys.readouterr().err
    assert "there is no converter 'ratlesnt'" in error and "did you mean ratlesnet" in error


def test_the_help_of_a_format_is_light():
    code = (
        "import sys\nfrom autoseg.cli.convert import main\n"
        "try:\n    main(['ratlesnet', '--help'])\nexcept SystemExit:\n"
        "    print('loaded:', [n for n in ('numpy', 'pydantic', 'SimpleITK', 'torch') if n in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.stdout.rstrip().endswith("loaded: []"), done.stdout + done.stderr
    assert "ROOT/STUDY/TIMEPOINT/SCAN/scan.nii.gz" in done.stdout and "--division" in done.stdout


def test_the_command_writes_and_says_what_comes_next(source, tmp_path, capsys):
    for name in "abc":
        folder = tmp_path / "rats" / "S1" / "24h" / name
        folder.mkdir(parents=True)
        shutil.copy(source.root / f"{name}.nii.gz", folder / "scan.nii.gz")
        if name != "c":
            shutil.copy(source.root / f"{name}_mask.nii.gz", folder / "scan_lesion.nii.gz")
    raw = tmp_path / "raw"
    words = ["ratlesnet", str(tmp_path / "rats"), "-d", "21", "--raw", str(raw), "-np", "1"]
    assert command.main(words) == 1
    assert "S1/24h/c" in capsys.readouterr().err and not raw.exists()
    assert command.main([*words, "--shams_without_label"]) == 0
    out = capsys.readouterr().out
    assert "3 training cases: " in out
    assert f"next: autoseg_plan_and_preprocess -d Dataset021_RatLesNet --raw {raw}" in out
    text = (raw / "Dataset021_RatLesNet/dataset.json").read_text()
    assert str(tmp_path) not in text and "shams_without_label" in text


# ------------------------------------------------------------------------------- masks in several files, left out


def test_a_merged_mask_is_lesion_where_any_file_is_above_zero(source, target):
    """Of three files with values of all kinds; traces below 0, of an interpolation, are background."""
    first, second, third = (np.zeros(SHAPE, np.float32) for _ in range(3))
    first[1, 2, 1], second[1, 2, 1], second[2, 3, 2], third[3, 4, 3] = 0.25, 254, 1e-3, -1e-4
    parts = []
    for i, array in enumerate((first, second, third)):
        small.write(source.root / f"a_{i}.nii.gz", array)
        parts.append(Volume(source.root / f"a_{i}.nii.gz"))
    write(changed(source, mask=MergedMask(tuple(parts))), target)
    made = read_image(target / "labelsTr/a.nii.gz")
    assert made.pixels.dtype == np.uint8 and np.argwhere(made.pixels).tolist() == [[1, 2, 1], [2, 3, 2]]
    assert differences(read_geometry(target / "imagesTr/a_0000.nii.gz"), made.geometry) == []


def test_negative_values_in_a_merged_mask_are_refused(source, target):
    """254 as a signed byte is -2: such a lesion would vanish in silence."""
    small.write(source.root / "signed.nii.gz", (mask() * np.uint8(254)).astype(np.int8))
    volumes = (Volume(source.root / "a_mask.nii.gz"), Volume(source.root / "signed.nii.gz"))
    text = refused(changed(source, mask=MergedMask(volumes)), target)
    n = int((mask() > 0).sum())
    assert re.search(rf"signed.nii.gz +values below 0 in a mask +{n} voxels? below 0, the least -2", text)
    assert "a_mask" not in text


def test_every_file_of_a_merged_mask_is_checked(source, target):
    small.write(source.root / "other.nii.gz", mask(), spacing=(2.0, 1.0, 3.0))
    small.write(source.root / "small.nii.gz", mask()[1:])
    volumes = tuple(Volume(source.root / name) for name in ("a_mask.nii.gz", "other.nii.gz", "small.nii.gz"))
    text = refused(changed(source, mask=MergedMask(volumes)), target)
    assert re.search(r"other.nii.gz +its spacing is not that of the image +2 x 1 x 3", text)
    assert re.search(r"small.nii.gz +its shape is not that of the image", text) and "a_mask" not in text
    assert "declared to have no lesion" in refused(
        changed(source, mask=MergedMask((Volume(source.root / "a_mask.nii.gz"),)), lesion_free=True), target
    )


def test_cases_that_cannot_be_read_are_left_out_where_the_source_says_so(source, target):
    messages.forget_warnings()
    (source.root / "b.nii.gz").write_bytes(b"")
    (source.root / "d_mask.nii.gz").write_bytes(b"nothing")
    whole = replace(source, folds=())
    assert "b.nii.gz" in refused(whole, target)
    write(replace(whole, leave_out_unreadable=True), target)
    names = sorted(path.name for path in target.rglob("*.nii.gz"))
    assert names == ["a.nii.gz", "a_0000.nii.gz", "c.nii.gz", "c_0000.nii.gz"]
    assert json.loads((target / "dataset.json").read_text())["numTraining"] == 2
    assert [row["case"] for row in csv.DictReader((target / "groups.csv").open())] == ["a", "c"]
    said = [text for text in messages.warning_counts() if "is left out" in text]
    assert [text.partition(": ")[0] for text in said] == ["b is left out", "d is left out"]
    assert "b.nii.gz" in said[0] and "d_mask.nii.gz" in said[1]


def test_a_case_that_can_be_read_and_does_not_fit_is_refused_all_the_same(source, target):
    (source.root / "b.nii.gz").write_bytes(b"")
    small.write(source.root / "a_mask.nii.gz", mask(7))
    text = refused(replace(source, folds=(), leave_out_unreadable=True), target)
    assert "label values that the format does not have" in text and "b.nii.gz" not in text


def test_a_conversion_of_which_nothing_to_train_on_is_left_is_refused(source, target):
    for name in "abc":
        (source.root / f"{name}.nii.gz").write_bytes(b"")
    text = refused(replace(source, folds=(), leave_out_unreadable=True), target)
    assert all(f"{name}.nii.gz" in text for name in "abc")
