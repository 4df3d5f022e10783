"""The layouts of the two releases of ISLES 2022 (Hernandez Petzsche et al., Scientific Data 2022), and what is refused.

The names are those of the downloads: of ISLES-2022.zip on Zenodo, and of rawdata and derivatives of the challenge.
"""

from __future__ import annotations

import argparse
import csv
import gzip
import json
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
from autoseg.dataset.imageio import differences, read_geometry, read_image
from autoseg.dataset.raw_writer import write_dataset
from autoseg.dataset_conversion import isles2022
from autoseg.errors import AutosegError
from autoseg.plugins.converter import Conversion, SourceCase, Volume

CASE, SESSION = "sub-strokecase0001", "ses-0001"
SHAPE = (5, 8, 7)
SPACING = (2.0, 2.0, 2.0)
# As in the published headers: left-anterior-superior, tilted by a few degrees.
TILTED = (0.9983, 0.0581, 0.0, 0.0581, -0.9983, 0.0, 0.0, 0.0, 1.0)


def image(seed: int, shape=SHAPE) -> np.ndarray:
    return np.random.default_rng(seed).normal(300, 90, shape).astype(np.float32)


def lesion(value: int = 1, kind=np.uint16) -> np.ndarray:
    mask = np.zeros(SHAPE, kind)
    mask[1:3, 2:5, 2:4] = value
    return mask


def put(path: Path, array: np.ndarray, **grid: object) -> Path:
    small.write(path, array, **{"spacing": SPACING, "direction": TILTED, **grid})
    return path


def zenodo(root: Path, case: str = CASE, session: str = SESSION, mask: np.ndarray | None = None) -> Path:
    """One case as in ISLES-2022.zip; its folder."""
    folder, stem = root / case / session, f"{case}_{session}"
    put(folder / "dwi" / f"{stem}_dwi.nii.gz", image(1))
    put(folder / "dwi" / f"{stem}_adc.nii.gz", image(2))
    put(folder / "anat" / f"{stem}_FLAIR.nii.gz", image(3, (3, 20, 18)), spacing=(4.5, 0.8, 0.8))
    mask = lesion() if mask is None else mask
    put(root / "derivatives" / case / session / f"{stem}_msk.nii.gz", mask)
    (root / "derivatives" / case / session / f"{stem}_snp.png").touch()
    return root / case


def challenge(root: Path, case: str = CASE, session: str = SESSION) -> Path:
    """One case as in the challenge's download: all images side by side, flair in small letters."""
    folder, stem = root / "rawdata" / case / session, f"{case}_{session}"
    put(folder / f"{stem}_dwi.nii.gz", image(1))
    put(folder / f"{stem}_adc.nii.gz", image(2))
    put(folder / f"{stem}_flair.nii.gz", image(3, (3, 20, 18)), spacing=(4.5, 0.8, 0.8))
    put(root / "derivatives" / case / session / f"{stem}_msk.nii.gz", lesion())
    return root / "rawdata" / case


def move(path: Path, name: str) -> Path:
    """Move a file within the download, making folders."""
    target = path.parent / name
    target.parent.mkdir(parents=True, exist_ok=True)
    return path.rename(target)


def describe(root: Path, *words: str) -> Conversion:
    parser = argparse.ArgumentParser()
    isles2022.add_arguments(parser)
    return isles2022.describe(root, parser.parse_args(list(words)))


def refused(root: Path, *words: str) -> str:
    with pytest.raises(AutosegError) as error:
        describe(root, *words)
    return str(error.value)


def row(text: str, start: str) -> str:
    """The line of a table of faults that starts with a case or file."""
    (line,) = (line for line in text.splitlines() if line.startswith(f"{start} "))
    return line


def below(root: Path, volumes: tuple[Volume, ...]) -> list[str]:
    return [volume.path.relative_to(root).as_posix() for volume in volumes]


def convert(root: Path, raw: Path, *words: str) -> int:
    return command.main(["isles2022", str(root), "-d", "31", "--raw", str(raw), "-np", "1", *words])


# ------------------------------------------------------------------------------------------------ the layouts

ALL = ("--channels", "dwi", "adc", "flair")
STEM = f"{CASE}_{SESSION}"


def test_the_release_on_zenodo(tmp_path):
    zenodo(tmp_path)
    zenodo(tmp_path, "sub-strokecase0250")
    conversion = describe(tmp_path, *ALL)
    first, last = conversion.cases
    assert (first.name, last.name) == (CASE, "sub-strokecase0250")
    folder = f"{CASE}/{SESSION}"
    assert below(tmp_path, first.images) == [
        f"{folder}/dwi/{STEM}_dwi.nii.gz",
        f"{folder}/dwi/{STEM}_adc.nii.gz",
        f"{folder}/anat/{STEM}_FLAIR.nii.gz",
    ]
    assert below(tmp_path, (first.mask,)) == [f"derivatives/{folder}/{STEM}_msk.nii.gz"]
    assert [volume.resample for volume in first.images] == [False, False, True]
    assert conversion.channel_names == ("DWI", "ADC", "FLAIR") and conversion.dataset == "ISLES2022"
    assert conversion.labels == {"background": 0, "lesion": 1} and conversion.folds == ()
    assert "Scientific Data 9:762" in conversion.notes["reference"]


def test_the_release_of_the_challenge(tmp_path):
    root = tmp_path / "dataset-ISLES22^public^unzipped^version"
    challenge(root)
    (case,) = describe(root, *ALL).cases
    names = [f"rawdata/{CASE}/{SESSION}/{STEM}_{kind}.nii.gz" for kind in ("dwi", "adc", "flair")]
    assert below(root, case.images) == names
    assert below(root, (case.mask,)) == [f"derivatives/{CASE}/{SESSION}/{STEM}_msk.nii.gz"]


def test_the_folder_that_an_archive_unpacks_to(tmp_path):
    for make, inner in (
        (zenodo, "ISLES-2022"),
        (challenge, "dataset-ISLES22^public^unzipped^version"),
    ):
        root = tmp_path / make.__name__
        make(root / inner)
        (root / f"__MACOSX/{CASE}/{SESSION}").mkdir(parents=True)
        assert [case.name for case in describe(root).cases] == [CASE]


@pytest.mark.parametrize(
    ("where", "name"),
    [
        ("dwi", f"../anat/{STEM}_adc.nii.gz"),
        ("dwi", f"../{STEM}_adc.nii.gz"),
        ("dwi", f"{STEM}_ADC.nii.gz"),
    ],
)
def test_where_adc_may_lie_and_how_it_may_be_written(tmp_path, where, name):
    session = zenodo(tmp_path) / SESSION
    moved = move(session / where / f"{STEM}_adc.nii.gz", name)
    (case,) = describe(tmp_path, "--channels", "adc").cases
    assert [volume.path.resolve() for volume in case.images] == [moved.resolve()]


def test_uncompressed_files_and_hidden_ones(tmp_path):
    session = zenodo(tmp_path) / SESSION
    (session / f"dwi/{STEM}_dwi.nii.gz").unlink()
    put(session / f"dwi/{STEM}_dwi.nii", image(1))
    (session / f"dwi/._{STEM}_dwi.nii.gz").touch()
    (case,) = describe(tmp_path).cases
    assert case.images[0].path.name == f"{STEM}_dwi.nii"


def test_dwi_alone_is_the_default_and_needs_no_other(tmp_path):
    session = zenodo(tmp_path) / SESSION
    (session / f"dwi/{STEM}_adc.nii.gz").unlink()
    (session / f"anat/{STEM}_FLAIR.nii.gz").unlink()
    conversion = describe(tmp_path)
    assert conversion.channel_names == ("DWI",) and len(conversion.cases[0].images) == 1
    assert "resampled" not in conversion.notes


def test_channels_are_in_the_order_asked_for(tmp_path):
    zenodo(tmp_path)
    conversion = describe(tmp_path, "--channels", "FLAIR", "dwi")
    assert conversion.channel_names == ("FLAIR", "DWI")
    assert [volume.resample for volume in conversion.cases[0].images] == [True, False]


def test_files_that_are_not_used_are_said(tmp_path):
    messages.forget_warnings()
    session = challenge(tmp_path) / SESSION
    put(session / f"{STEM}_flair_registered.nii.gz", image(4))
    (case,) = describe(tmp_path, *ALL).cases
    assert case.images[2].path.name == f"{STEM}_flair.nii.gz"
    assert list(messages.warning_counts()) == ["flair_registered.nii.gz is not used; 1 case has it"]


# ------------------------------------------------------------------------------------------------ what is refused


def test_other_layouts_are_refused(tmp_path):
    assert "there is no such folder" in refused(tmp_path / "none")
    (tmp_path / "ISLES-2022.zip").touch()
    text = refused(tmp_path)
    assert "there is no case in the layout of ISLES 2022" in text and "ISLES-2022.zip" in text
    assert "unpack the archive" in text


def test_cases_without_the_folder_of_masks(tmp_path):
    challenge(tmp_path / "isles")
    text = refused(tmp_path / "isles" / "rawdata")
    assert "there are cases but no masks" in text and "give the folder above rawdata" in text
    text = refused(tmp_path / "isles" / "derivatives")
    assert "there are cases but no masks" in text and "give the folder above derivatives" in text
    zenodo(tmp_path / "half")
    move(tmp_path / "half" / "derivatives", "elsewhere")
    assert "unpack the whole archive" in refused(tmp_path / "half")


def test_two_releases_in_one_folder(tmp_path):
    zenodo(tmp_path / "ISLES-2022")
    challenge(tmp_path / "challenge")
    text = refused(tmp_path)
    assert "cases lie in more than one folder" in text and "ISLES-2022, challenge/rawdata" in text
    zenodo(tmp_path / "both")
    challenge(tmp_path / "both")
    assert "cases lie in more than one folder" in refused(tmp_path / "both")


def test_all_incomplete_cases_are_named_with_what_is_missing(tmp_path):
    for number in range(1, 7):
        zenodo(tmp_path, f"sub-strokecase000{number}")

    def remove(number: int, kind: str) -> None:
        (path,) = tmp_path.rglob(f"sub-strokecase000{number}_*_{kind}.nii.gz")
        path.unlink()

    remove(2, "adc")
    remove(3, "FLAIR")
    remove(3, "msk")
    remove(4, "dwi")
    for kind in ("dwi", "adc", "FLAIR", "msk"):
        remove(5, kind)
    text = refused(tmp_path, *ALL)
    assert "4 faults in 6 cases" in text
    assert "incomplete: no ADC " in row(text, "sub-strokecase0002")
    assert "..._dwi.nii.gz, ..._FLAIR.nii.gz, ..._msk.nii.gz  ..._adc.nii.gz" in row(
        text, "sub-strokecase0002"
    )
    assert "incomplete: no FLAIR, no mask " in row(text, "sub-strokecase0003")
    assert "incomplete: no DWI " in row(text, "sub-strokecase0004")
    assert "incomplete: no DWI, no ADC, no FLAIR, no mask " in row(text, "sub-strokecase0005")
    assert "no image" in row(text, "sub-strokecase0005")
    assert "or move the case out of ROOT" in text
    assert "strokecase0001 " not in text and "strokecase0006" not in text


def test_sessions(tmp_path):
    zenodo(tmp_path, "sub-strokecase0001")
    zenodo(tmp_path, "sub-strokecase0001", "ses-0002")
    (tmp_path / "sub-strokecase0002").mkdir()
    zenodo(tmp_path, "sub-strokecase0003")
    move(tmp_path / "derivatives/sub-strokecase0003/ses-0001", "ses-0002")
    zenodo(tmp_path, "sub-strokecase0004", "ses-0007")
    text = refused(tmp_path)
    assert "3 faults in 4 cases" in text
    assert "more than one session  ses-0001, ses-0002" in row(text, "sub-strokecase0001")
    assert "no session " in row(text, "sub-strokecase0002")
    assert "more than one session  ses-0001, ses-0002" in row(text, "sub-strokecase0003")


def test_masks_without_images(tmp_path):
    zenodo(tmp_path)
    (tmp_path / "derivatives/sub-strokecase0009/ses-0001").mkdir(parents=True)
    text = refused(tmp_path)
    assert "a mask without images" in row(text, "derivatives/sub-strokecase0009")


def test_a_file_of_another_case_and_one_that_is_there_twice(tmp_path):
    session = zenodo(tmp_path) / SESSION
    move(session / f"dwi/{STEM}_dwi.nii.gz", "sub-strokecase0002_ses-0001_dwi.nii.gz")
    put(session / f"{STEM}_ADC.nii.gz", image(2))
    put(tmp_path / f"derivatives/{CASE}/{SESSION}/{STEM}_rater2_msk.nii.gz", lesion())
    text = refused(tmp_path, "--channels", "dwi", "adc")
    assert "its name is not that of its case and session" in row(
        text, f"{CASE}/{SESSION}/dwi/sub-strokecase0002_ses-0001_dwi.nii.gz"
    )
    twice = row(text, f"{CASE}/{SESSION}/{STEM}_ADC.nii.gz")
    assert "there is another for the same" in twice and f"{CASE}/{SESSION}/dwi/{STEM}_adc.nii.gz" in twice
    assert "there is another for the same" in row(
        text, f"derivatives/{CASE}/{SESSION}/{STEM}_msk.nii.gz"
    ) and ("_rater2_msk.nii.gz" in text)


def test_channels_that_do_not_go_together(tmp_path, capsys):
    zenodo(tmp_path)
    text = refused(tmp_path, "--channels", "flair")
    assert "FLAIR alone cannot be converted: the masks are drawn on the DWI" in text
    assert "--channels names a channel twice" in refused(tmp_path, "--channels", "dwi", "adc", "DWI")
    with pytest.raises(SystemExit):
        describe(tmp_path, "--channels", "t2")
    assert "invalid choice: 't2'" in capsys.readouterr().err


# ------------------------------------------------------------------------------------------------- the pixels


def test_dwi_adc_and_masks_keep_their_bytes(tmp_path):
    session = zenodo(tmp_path / "isles") / SESSION
    assert convert(tmp_path / "isles", tmp_path / "raw", "--channels", "dwi", "adc") == 0
    made = tmp_path / "raw/Dataset031_ISLES2022"
    for channel, kind in enumerate(("dwi", "adc")):
        there = session / f"dwi/{STEM}_{kind}.nii.gz"
        assert (made / f"imagesTr/{CASE}_{channel:04}.nii.gz").read_bytes() == there.read_bytes()
    mask = tmp_path / f"isles/derivatives/{CASE}/{SESSION}/{STEM}_msk.nii.gz"
    assert (made / f"labelsTr/{CASE}.nii.gz").read_bytes() == mask.read_bytes()
    info = json.loads((made / "dataset.json").read_text())
    assert info["channel_names"] == {"0": "DWI", "1": "ADC"} and info["numTraining"] == 1
    assert info["converted"]["options"] == {"channels": ["dwi", "adc"]}
    assert not (made / "groups.csv").exists() and not (made / "splits.json").exists()


def positions(shape, spacing, direction, origin) -> np.ndarray:
    """Where the voxels lie in mm, [x y z, z, y, x], worked out by hand from the header."""
    axes = np.reshape(direction, (3, 3))
    z, y, x = np.meshgrid(*(np.arange(n) for n in shape), indexing="ij")
    steps = np.stack([x * spacing[2], y * spacing[1], z * spacing[0]])
    return np.reshape(origin, (3, 1, 1, 1)) + np.einsum("ij,jzyx->izyx", axes, steps)


def ramp(at: np.ndarray) -> np.ndarray:
    """An intensity that is linear in space: linear interpolation gives it exactly, on whatever grid."""
    return (500 + 3 * at[0] - 2 * at[1] + 5 * at[2]).astype(np.float32)


@pytest.mark.parametrize("order", [("dwi", "flair"), ("flair", "dwi"), ("adc", "flair")])
def test_flair_is_resampled_onto_the_grid_of_the_dwi(tmp_path, capsys, order):
    """Other spacing, origin and direction; the FLAIR reaches further than the DWI on all sides."""
    session = zenodo(tmp_path / "isles") / SESSION
    straight = (1.0, 0, 0, 0, 1.0, 0, 0, 0, 1.0)
    grid = {"spacing": (3.0, 1.1, 0.9), "direction": straight, "origin": (-5.0, -30.0, -3.0)}
    flair = ramp(positions((9, 50, 45), **grid))
    put(session / f"anat/{STEM}_FLAIR.nii.gz", flair, **grid)
    messages.forget_warnings()
    assert convert(tmp_path / "isles", tmp_path / "raw", "--channels", *order) == 0
    made = tmp_path / "raw/Dataset031_ISLES2022"
    here = {kind: made / f"imagesTr/{CASE}_{i:04}.nii.gz" for i, kind in enumerate(order)}
    file = read_image(here["flair"])
    dwi = read_geometry(session / f"dwi/{STEM}_dwi.nii.gz")
    assert differences(dwi, file.geometry) == [] and file.pixels.dtype == np.float32
    expected = ramp(positions(dwi.shape, dwi.spacing_mm, dwi.direction, dwi.origin_mm))
    np.testing.assert_allclose(file.pixels, expected, rtol=1e-4)
    assert messages.warning_counts() == {}
    assert "FLAIR onto the grid of the DWI, linearly, by the headers" in capsys.readouterr().err
    assert "without registration" in json.loads((made / "dataset.json").read_text())["resampled"]


def test_flair_is_placed_by_its_sform(tmp_path):
    """Its qform is 6 mm off, as a coregistration leaves it that moves the sform alone."""
    session = zenodo(tmp_path / "isles") / SESSION
    grid = {"spacing": (3.0, 1.1, 0.9), "direction": np.eye(3).ravel(), "origin": (-5.0, -30.0, -3.0)}
    path = put(session / f"anat/{STEM}_FLAIR.nii.gz", ramp(positions((9, 50, 45), **grid)), **grid)
    flair = nib.load(path)
    stale = flair.affine + np.outer([1, 0, 0, 0], [0, 0, 0, 6.0])
    flair.set_sform(flair.affine, 2)
    flair.set_qform(stale, 1)
    nib.save(flair, path.with_name("moved.nii.gz"))
    path.with_name("moved.nii.gz").replace(path)
    messages.forget_warnings()
    assert convert(tmp_path / "isles", tmp_path / "raw", "--channels", "dwi", "flair") == 0
    made = tmp_path / "raw/Dataset031_ISLES2022/imagesTr"
    dwi = read_geometry(session / f"dwi/{STEM}_dwi.nii.gz")
    expected = ramp(positions(dwi.shape, dwi.spacing_mm, dwi.direction, dwi.origin_mm))
    np.testing.assert_allclose(read_image(made / f"{CASE}_0001.nii.gz").pixels, expected, rtol=1e-4)
    (told,) = messages.warning_counts()
    assert "the sform is used" in told and f"{CASE}_0001.nii.gz" in told


def test_a_flair_that_was_registered_already_keeps_its_bytes(tmp_path):
    session = zenodo(tmp_path / "isles") / SESSION
    there = put(session / f"anat/{STEM}_FLAIR.nii.gz", image(3))
    assert convert(tmp_path / "isles", tmp_path / "raw", *ALL) == 0
    made = tmp_path / f"raw/Dataset031_ISLES2022/imagesTr/{CASE}_0002.nii.gz"
    assert made.read_bytes() == there.read_bytes()


def test_what_the_flair_does_not_reach_is_filled_and_said(tmp_path):
    """By hand: of five slices of 2 mm the FLAIR's two, with half a slice around, reach the first two."""
    session = zenodo(tmp_path / "isles") / SESSION
    flair = image(3, (2, *SHAPE[1:])) + 1000
    put(session / f"anat/{STEM}_FLAIR.nii.gz", flair)
    messages.forget_warnings()
    assert convert(tmp_path / "isles", tmp_path / "raw", "--channels", "dwi", "flair") == 0
    made = read_image(tmp_path / f"raw/Dataset031_ISLES2022/imagesTr/{CASE}_0001.nii.gz").pixels
    np.testing.assert_allclose(made[:2], flair, rtol=1e-5)
    assert np.all(made[2:] == flair.min())
    assert list(messages.warning_counts()) == [
        f"1 resampled image does not fill the grid; share left out: {CASE} (60%)"
    ]


def test_cases_without_lesion_are_kept_and_named(tmp_path):
    for name in ("sub-strokecase0149", "sub-strokecase0150", "sub-strokecase0170"):
        empty = np.zeros(SHAPE, np.uint16)
        zenodo(tmp_path / "isles", name, mask=None if name.endswith("49") else empty)
    messages.forget_warnings()
    assert convert(tmp_path / "isles", tmp_path / "raw") == 0
    made = tmp_path / "raw/Dataset031_ISLES2022"
    assert len(list((made / "imagesTr").iterdir())) == len(list((made / "labelsTr").iterdir())) == 3
    assert list(messages.warning_counts()) == [
        "2 masks are empty though nothing declares it: sub-strokecase0150, sub-strokecase0170"
    ]


def test_pixels_that_do_not_fit_are_refused_all_at_once(tmp_path, capsys):
    root = tmp_path / "isles"
    zenodo(root, "sub-strokecase0001", mask=lesion(2))
    zenodo(root, "sub-strokecase0002", mask=lesion()[:, :-1])
    zenodo(root, "sub-strokecase0003")
    (adc,) = root.rglob("sub-strokecase0003_*_adc.nii.gz")
    put(adc, image(2), spacing=(2.0, 2.5, 2.5))
    zenodo(root, "sub-strokecase0004", mask=lesion().astype(np.float32) / 2)
    zenodo(root, "sub-strokecase0005")
    (flair,) = root.rglob("sub-strokecase0005_*_FLAIR.nii.gz")
    put(flair, image(3), origin=(900.0, 0.0, 0.0))
    zenodo(root, "sub-strokecase0006")
    (dwi,) = root.rglob("sub-strokecase0006_*_dwi.nii.gz")
    dwi.write_bytes(gzip.compress(gzip.decompress(dwi.read_bytes())[:-40]))
    assert convert(root, tmp_path / "raw", *ALL) == 1
    error = capsys.readouterr().err
    for number, problem, found in (
        (1, "label values that the format does not have", "2 (12 voxels)"),
        (2, "its shape is not that of the image", "5 x 7 x 7"),
        (3, "its spacing is not that of the image", "2 x 2.5 x 2.5"),
        (4, "the mask holds values that are not whole numbers", "0.5"),
        (5, "lies elsewhere than the image whose grid it is put onto", "no voxel in common"),
        (6, "the file is truncated", "40 too few"),
    ):
        lines = [line for line in error.splitlines() if f"sub-strokecase000{number}_" in line]
        assert len(lines) == 1 and problem in lines[0] and found in lines[0], error
    assert list((tmp_path / "raw").iterdir()) == []


def test_a_dwi_of_several_volumes_is_refused(tmp_path, capsys):
    session = zenodo(tmp_path / "isles") / SESSION
    parts = [sitk.GetImageFromArray(image(seed)) for seed in (1, 2)]
    sitk.WriteImage(sitk.JoinSeries(parts), str(session / f"dwi/{STEM}_dwi.nii.gz"))
    assert convert(tmp_path / "isles", tmp_path / "raw") == 1
    error = capsys.readouterr().err
    assert "holds 2 volumes where one is expected" in error and "keep one in the file" in error


def test_a_mask_with_another_header_can_be_taken_voxel_by_voxel(tmp_path):
    zenodo(tmp_path / "isles")
    put(tmp_path / f"isles/derivatives/{CASE}/{SESSION}/{STEM}_msk.nii.gz", lesion(), origin=(0, 0, 0))
    assert convert(tmp_path / "isles", tmp_path / "raw") == 1
    assert convert(tmp_path / "isles", tmp_path / "raw", "--ignore_mask_headers") == 0


def test_an_earlier_conversion_is_replaced_only_when_asked(tmp_path, capsys):
    zenodo(tmp_path / "isles")
    raw = tmp_path / "raw"
    assert convert(tmp_path / "isles", raw) == 0
    assert convert(tmp_path / "isles", raw, "--channels", "dwi", "adc") == 1
    assert "the dataset is there already" in capsys.readouterr().err
    assert convert(tmp_path / "isles", raw, "--channels", "dwi", "adc", "--overwrite") == 0
    assert len(list((raw / "Dataset031_ISLES2022/imagesTr").iterdir())) == 2


def test_a_converter_leaves_one_channel_as_it_is(tmp_path):
    zenodo(tmp_path / "isles")
    conversion = describe(tmp_path / "isles")
    case: SourceCase = conversion.cases[0]
    images = tuple(replace(volume, resample=True) for volume in case.images)
    wrong = replace(conversion, cases=(replace(case, images=images),))
    with pytest.raises(AutosegError, match="at least one of them as it is"):
        write_dataset(wrong, tmp_path / "raw/Dataset031_Wrong", made_by={})


# -------------------------------------------------------------------------------------------------- the groups


def test_scanner_and_patient_become_groups(tmp_path):
    root = tmp_path / "isles"
    for number in range(1, 5):
        zenodo(root, f"sub-strokecase000{number}")
    # The entries of a published file, and one that lacks some.
    scanner = {
        "Manufacturer": "Philips Medical Systems",
        "ManufacturerModelName": "Achieva dStream",
        "MagneticFieldStrength": 3.0,
        "EchoTime": 55.0,
    }
    session = "ses-0001/dwi/sub-strokecase000"
    (root / f"sub-strokecase0001/{session}1_ses-0001_dwi.json").write_text(json.dumps(scanner))
    (root / f"sub-strokecase0002/{session}2_ses-0001_dwi.json").write_text('{"MagneticFieldStrength": 1.5}')
    (root / f"sub-strokecase0003/{session}3_ses-0001_dwi.json").write_text("{")
    table = "participant_id\tage\tsex\tweight\nsub-strokecase0001\t60\tF\t82\nsub-strokecase0003\tn/a\tM\t\n"
    (root / "participants.tsv").write_text(table)
    messages.forget_warnings()
    assert convert(root, tmp_path / "raw") == 0
    with (tmp_path / "raw/Dataset031_ISLES2022/groups.csv").open() as file:
        rows = list(csv.reader(file))
    assert rows == [
        ["case", "manufacturer", "scanner", "field_strength_t", "sex", "age"],
        ["sub-strokecase0001", "Philips Medical Systems", "Achieva dStream", "3", "F", "60"],
        ["sub-strokecase0002", "", "", "1.5", "", ""],
        ["sub-strokecase0003", "", "", "", "M", ""],
        ["sub-strokecase0004", "", "", "", "", ""],
    ]
    (warning,) = messages.warning_counts()
    assert warning.startswith(
        "sub-strokecase0003/ses-0001/dwi/sub-strokecase0003_ses-0001_dwi.json is not used"
    )


@pytest.mark.parametrize(
    ("content", "message"),
    [(b"id\tsex\n1\tF\n", "it has no column participant_id"), (b"\xff\xfe\xfa", "it cannot be read")],
)
def test_a_table_that_does_not_fit_is_said(tmp_path, content, message):
    zenodo(tmp_path)
    (tmp_path / "participants.tsv").write_bytes(content)
    messages.forget_warnings()
    assert describe(tmp_path).cases[0].groups == {}
    (warning,) = messages.warning_counts()
    assert warning.startswith("participants.tsv is not used: ") and message in warning


# ------------------------------------------------------------------------------------------------ the command


def test_the_help_shows_both_layouts_and_is_light():
    code = (
        "import sys\nfrom autoseg.cli.convert import main\n"
        "try:\n    main(['isles2022', '--help'])\nexcept SystemExit:\n"
        "    print('loaded:', [n for n in ('numpy', 'pydantic', 'SimpleITK', 'torch') if n in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.stdout.rstrip().endswith("loaded: []"), done.stdout + done.stderr
    for words in ("_FLAIR.nii.gz", "ROOT/rawdata/", "ROOT/derivatives/", "--channels"):
        assert words in done.stdout


def test_the_format_is_listed(capsys):
    assert command.main(["--list"]) == 0
    assert "isles2022       stroke DWI, ADC, FLAIR" in capsys.readouterr().out
