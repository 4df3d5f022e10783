"""DICOM folders: what is taken for which channel, where its voxels lie, and what is refused."""

import shutil
from pathlib import Path

import numpy as np
import pytest
import SimpleITK as sitk

from autoseg import messages
from autoseg.dataset.dataset_json import DatasetJson
from autoseg.errors import AutosegError
from autoseg.scans.given import GivenScans, cases_of

pydicom = pytest.importorskip("pydicom", reason="pydicom is not installed")

import dicom_files  # noqa: E402


@pytest.fixture(autouse=True)
def _no_warnings_before():
    messages.forget_warnings()


def info(*channels):
    return DatasetJson(
        channel_names={str(i): name for i, name in enumerate(channels)},
        labels={"background": 0, "lesion": 1},
        numTraining=1,
        file_ending=".nii.gz",
    )


def cases(folder, *channels, **options):
    return cases_of(GivenScans(folder, **options), info(*(channels or ("T1",))))


def read(case, channel=0):
    return case.origin.series[channel].read()


def refused(folder, *channels, **options):
    """The text about the only case, which cannot be predicted."""
    with pytest.raises(AutosegError) as caught:
        cases(folder, *channels, **options)
    return str(caught.value)


# ---------------------------------------------------------------------------------------------------- geometry


def by_gdcm(folder):
    """The volume and geometry as SimpleITK's own series reader has them."""
    reader = sitk.ImageSeriesReader()
    reader.SetFileNames(reader.GetGDCMSeriesFileNames(str(folder)))
    return reader.Execute()


@pytest.mark.parametrize("order", [None, [3, 0, 5, 1, 4, 2]])
def test_a_series_is_sorted_by_position_and_lies_where_gdcm_puts_it(tmp_path, order):
    pixels = dicom_files.volume()
    dicom_files.write_series(tmp_path / "a" / "b", pixels, order=order)
    (case,) = cases(tmp_path)
    image, geometry = read(case)
    theirs = by_gdcm(tmp_path / "a" / "b")
    assert np.array_equal(image, pixels) and np.array_equal(image, sitk.GetArrayFromImage(theirs))
    assert np.allclose(geometry.spacing_mm, theirs.GetSpacing()[::-1], atol=1e-6)
    assert np.allclose(geometry.origin_mm, theirs.GetOrigin(), atol=1e-6)
    assert np.allclose(geometry.direction, theirs.GetDirection(), atol=1e-6)
    assert case.name == "P01" and case.origin.channels == ("series 1 'AX T1', 6 slices",)


def test_stored_values_are_rescaled_slice_by_slice(tmp_path):
    def change(i, dataset):
        dataset.RescaleSlope, dataset.RescaleIntercept = i + 0.5, -3

    pixels = dicom_files.volume()
    dicom_files.write_series(tmp_path, pixels, change=change)
    image, _ = read(cases(tmp_path)[0])
    assert np.array_equal(image[2], pixels[2] * np.float32(2.5) - 3)


def test_an_enhanced_multi_frame_file_is_the_same_image(tmp_path):
    pixels = dicom_files.volume()
    dicom_files.write_series(tmp_path / "single", pixels)
    dicom_files.write_multi_frame(
        tmp_path / "multi" / "x.dcm", pixels, order=[4, 0, 1, 5, 2, 3], slopes={4: 2.0}
    )
    (single,), (multi,) = cases(tmp_path / "single"), cases(tmp_path / "multi")
    image, geometry = read(multi)
    assert geometry == read(single)[1]
    expected = pixels.astype(np.float32)
    expected[4] *= 2
    assert np.array_equal(image, expected)


def test_compressed_files_hold_the_pixels_of_the_plain_one():
    """pydicom's own test files: one MR image, packed by RLE, JPEG 2000 and JPEG-LS."""
    from autoseg.scans.dicom_pixels import stored_frames

    folder = Path(pydicom.__file__).parent / "data" / "test_files"
    plain = stored_frames(folder / "MR_small.dcm", [0])[0]
    assert np.array_equal(plain, sitk.GetArrayFromImage(sitk.ReadImage(str(folder / "MR_small.dcm")))[0])
    for name in ("RLE", "jp2klossless", "jpeg_ls_lossless", "bigendian", "implicit"):
        assert np.array_equal(stored_frames(folder / f"MR_small_{name}.dcm", [0])[0], plain), name
    with pytest.raises(AutosegError, match="MR_truncated.dcm: its pixels cannot be read"):
        stored_frames(folder / "MR_truncated.dcm", [0])
    with pytest.raises(AutosegError, match="colours, where grey values are expected"):
        stored_frames(folder / "SC_rgb_rle.dcm", [0])


def test_a_compressed_multi_frame_file_is_read_frame_by_frame(tmp_path):
    pytest.importorskip("jpeg_ls", reason="pyjpegls, which packs JPEG-LS for the test, is not installed")
    pixels = dicom_files.volume()
    path = dicom_files.write_multi_frame(tmp_path / "x.dcm", pixels, PixelRepresentation=0)
    dataset = pydicom.dcmread(path)
    dataset.compress(pydicom.uid.JPEGLSLossless)
    dataset.save_as(path)
    assert np.array_equal(read(cases(tmp_path)[0])[0], pixels)


def test_a_single_slice_takes_its_thickness(tmp_path):
    dicom_files.write_series(tmp_path, dicom_files.volume(shape=(1, 8, 8)))
    assert read(cases(tmp_path)[0])[1].spacing_mm == (3.0, 0.8, 0.9)


# ------------------------------------------------------------------------------------------------- refused stacks


def test_a_missing_slice_is_named(tmp_path):
    dicom_files.write_series(tmp_path, dicom_files.volume(), change=lambda i, dataset: i != 3)
    text = refused(tmp_path)
    assert "1 slice is missing" in text and "6.00 mm between slices 3 and 5, where 3.00 mm is usual" in text
    assert "copy the series again" in text


def test_duplicate_positions_are_named(tmp_path):
    def change(i, dataset):
        if i == 3:
            dataset.ImagePositionPatient = dicom_files.places(
                3, (3.0,), (-40.0, -50.0, 12.5), dicom_files.OBLIQUE
            )[2]

    dicom_files.write_series(tmp_path, dicom_files.volume(), change=change)
    assert "1 position holds two different slices" in refused(tmp_path)


def test_copies_of_files_are_left_out_with_a_warning(tmp_path):
    (first, *_) = dicom_files.write_series(tmp_path / "a", dicom_files.volume())
    shutil.copy(first, tmp_path / "a" / "copy of it")
    (case,) = cases(tmp_path)
    assert len(read(case)[0]) == 6 and case.origin.channels == ("series 1 'AX T1', 6 slices",)
    assert [n for text, n in messages.warning_counts().items() if "1 copy of files" in text] == [1]


@pytest.mark.parametrize("uid", ["1.2.3", ""])
def test_slices_that_share_an_instance_or_have_none_are_no_copies(tmp_path, uid):
    """As programs that remove names leave them: all slices are read, where one alone was taken before."""
    pixels = dicom_files.volume()
    for path in dicom_files.write_series(tmp_path, pixels):
        dataset = pydicom.dcmread(path)
        dataset.SOPInstanceUID = uid
        dataset.save_as(path)
    assert np.array_equal(read(cases(tmp_path)[0])[0], pixels)


def test_folders_that_are_links_are_looked_into_once(tmp_path):
    pixels = dicom_files.volume()
    dicom_files.write_series(tmp_path / "archive" / "a", pixels)
    given = tmp_path / "given"
    given.mkdir()
    (given / "patient").symlink_to(tmp_path / "archive")
    (tmp_path / "archive" / "round").symlink_to(given)
    (case,) = cases(given)
    assert np.array_equal(read(case)[0], pixels) and not messages.warning_counts()


def test_of_several_channels_no_other_series_is_proposed_for_the_missing_one(tmp_path):
    dicom_files.write_series(tmp_path, dicom_files.volume())
    text = refused(tmp_path, "T1", "FLAIR")
    assert "no series is FLAIR" in text and "--series FLAIR=NUMBER" in text


def test_parts_of_a_series_say_how_many_slices_they_have(tmp_path):
    def change(i, dataset):
        if i >= 4:
            dataset.ImageOrientationPatient = [1, 0, 0, 0, 0, -1]

    dicom_files.write_series(tmp_path, dicom_files.volume(shape=(20, 12, 10)), change=change)
    assert "part 1, 4 slices, series 1 'AX T1' part 2, 16 slices" in refused(tmp_path)


def test_a_tilted_gantry_is_named(tmp_path):
    def change(i, dataset):
        x, y, z = dataset.ImagePositionPatient
        dataset.ImagePositionPatient = [x, y + i * 3.0 * np.tan(np.radians(12)), z]

    dicom_files.write_series(tmp_path, dicom_files.volume(), change=change)
    text = refused(tmp_path)
    assert "a tilt of 12.0 degrees" in text and "_Tilt" in text


def test_uneven_distances_are_named(tmp_path):
    def change(i, dataset):
        x, y, z = dataset.ImagePositionPatient
        normal = np.cross(dicom_files.OBLIQUE[:3], dicom_files.OBLIQUE[3:])
        dataset.ImagePositionPatient = [float(v) for v in np.array((x, y, z)) + 0.3 * (i == 2) * normal]

    dicom_files.write_series(tmp_path, dicom_files.volume(), change=change)
    assert "the slices lie at uneven distances" in refused(tmp_path)


@pytest.mark.parametrize(
    ("tag", "words"),
    [
        ("PixelSpacing", "has no spacing (PixelSpacing)"),
        ("ImagePositionPatient", "does not say its position"),
        ("ImageOrientationPatient", "does not say its ImageOrientationPatient"),
    ],
)
def test_what_the_header_does_not_say_is_named(tmp_path, tag, words):
    dicom_files.write_series(tmp_path, dicom_files.volume(), change=lambda i, dataset: delattr(dataset, tag))
    assert words in refused(tmp_path)


def test_a_slice_of_another_size_is_no_part_of_the_image(tmp_path):
    def change(i, dataset):
        if i == 2:
            dataset.PixelSpacing = [0.5, 0.5]

    dicom_files.write_series(tmp_path, dicom_files.volume(), change=change)
    assert "slices of different pixel_spacing_mm" in refused(tmp_path)


# ----------------------------------------------------------------------------------------------------- channels


def test_series_are_matched_to_channels_by_their_descriptions(tmp_path):
    for number, text in enumerate(
        ["AX T1 SE", "T1 MPRAGE +C", "AX T2 TSE", "AX T2 FLAIR fs", "ep2d_diff ADC"], 1
    ):
        dicom_files.write_series(
            tmp_path / str(number), dicom_files.volume(number), number=number, description=text
        )
    (case,) = cases(tmp_path, "FLAIR", "T1", "T1ce", "T2w", "ADC")
    assert [text.split(",")[0] for text in case.origin.channels] == [
        "series 4 'AX T2 FLAIR fs'",
        "series 1 'AX T1 SE'",
        "series 2 'T1 MPRAGE +C'",
        "series 3 'AX T2 TSE'",
        "series 5 'ep2d_diff ADC'",
    ]
    assert np.array_equal(read(case, 0)[0], dicom_files.volume(4))


def test_two_series_that_could_be_a_channel_are_asked_about(tmp_path):
    for number, text in ((3, "AX T1"), (7, "SAG T1 MPRAGE")):
        dicom_files.write_series(tmp_path, dicom_files.volume(number), number=number, description=text)
    text = refused(tmp_path)
    assert "2 series could be T1" in text and "series 3 'AX T1', series 7 'SAG T1 MPRAGE'" in text
    assert "--series T1=3" in text
    for which in ("7", "*mprage*"):
        (case,) = cases(tmp_path, series={"T1": which})
        assert np.array_equal(read(case)[0], dicom_files.volume(7))
    assert "no series fits --series T1=9" in refused(tmp_path, series={"T1": "9"})
    with pytest.raises(AutosegError, match="the model has no channel T5"):
        cases(tmp_path, series={"T5": "9"})


def test_a_model_of_another_sequence_gets_nothing(tmp_path):
    dicom_files.write_series(tmp_path, dicom_files.volume(), description="AX T1")
    assert "no series is FLAIR" in refused(tmp_path, "FLAIR")


def test_times_tell_what_a_description_does_not(tmp_path):
    dicom_files.write_series(
        tmp_path,
        dicom_files.volume(),
        description="AX",
        RepetitionTime=9000,
        EchoTime=100,
        InversionTime=2500,
    )
    (case,) = cases(tmp_path, "FLAIR")
    assert "by its times (9000 / 100 / 2500 ms)" in case.origin.channels[0]


def test_the_only_series_may_say_nothing_of_itself(tmp_path):
    dicom_files.write_series(tmp_path, dicom_files.volume(), description="brain")
    assert len(cases(tmp_path)) == 1
    assert any("does not say what it is, and is taken for T1" in text for text in messages.warning_counts())


def test_localisers_reports_and_screens_are_left_out(tmp_path, caplog):
    caplog.set_level("INFO", "autoseg")
    few = dicom_files.volume(1, (3, 8, 8))
    dicom_files.write_series(tmp_path / "1", few, number=1, description="3-plane loc T1")
    dicom_files.write_series(tmp_path / "2", dicom_files.volume(2), number=2, description="AX T1")
    dicom_files.write_series(tmp_path / "3", few, number=3, description="T1 dose", Modality="SR")
    dicom_files.write_series(
        tmp_path / "4", few, number=4, description="T1 screen", SOPClassUID="1.2.840.10008.5.1.4.1.1.7"
    )
    (case,) = cases(tmp_path)
    assert case.origin.channels == ("series 2 'AX T1', 6 slices",)
    for words in ("'3-plane loc T1': a localiser", "'T1 dose': modality SR, no scan", "a secondary capture"):
        assert words in caplog.text


def test_b_values_part_a_series_and_the_highest_is_the_dwi(tmp_path):
    for b in (0, 1000):
        dicom_files.write_series(
            tmp_path / str(b), dicom_files.volume(b), number=4, description="ep2d_diff",
            change=lambda i, dataset, b=b: setattr(dataset, "SOPInstanceUID", dicom_files.uid(b, i)),
            DiffusionBValue=float(b),
        )  # fmt: skip
    (case,) = cases(tmp_path, "DWI")
    assert np.array_equal(read(case)[0], dicom_files.volume(1000))
    assert "b1000" in case.origin.channels[0] and "the highest of 2 b-values" in case.origin.channels[0]
    (case,) = cases(tmp_path, "DWI", series={"DWI": "*b0"})
    assert np.array_equal(read(case)[0], dicom_files.volume(0))


def test_patients_and_studies_are_cases(tmp_path, caplog):
    caplog.set_level("INFO", "autoseg")
    dicom_files.write_series(tmp_path / "x", dicom_files.volume(1), patient="Müller^Eva 7")
    dicom_files.write_series(tmp_path / "x", dicom_files.volume(2), patient="P02", number=2)
    dicom_files.write_series(
        tmp_path / "y", dicom_files.volume(3), patient="P02", study=2, StudyDate="20270101"
    )
    found = cases(tmp_path)
    assert [case.name for case in found] == ["Müller_Eva 7", "P02_20260102", "P02_20270101"]
    assert "holds 3 cases" in caplog.text


def test_the_example_of_pydicom_is_sorted_out(tmp_path):
    """Three patients with CT, CR and MR of real scanners, some cut to a few slices, some without geometry."""
    folder = Path(pydicom.__file__).parent / "data" / "test_files" / "dicomdirtests"
    if not folder.is_dir():
        pytest.skip("pydicom came without its test files")
    from autoseg.scans.dicom_cases import find_studies

    studies = {study.name: study for study in find_studies(folder)}
    gated = studies["98890234_20010101"]
    assert [stack.label for stack in gated.stacks] == ["series 5 'SmartScore - Gated 0.5 sec'"]
    assert gated.left_out[0].startswith("series 4 'Scout'") and gated.left_out[0].endswith("a localiser")
    theirs = sitk.ReadImage([str(path) for path in gated.stacks[0].files])
    image, geometry = gated.stacks[0].read()
    assert np.array_equal(image, sitk.GetArrayFromImage(theirs))
    assert np.allclose(geometry.origin_mm, theirs.GetOrigin()) and np.allclose(geometry.spacing_mm[0], 2.5)
    with pytest.raises(AutosegError, match="161 slices are missing"):
        studies["77654033_19950903"].stacks[0].read()
    with pytest.raises(AutosegError, match="does not say its position"):
        studies["12345678"].stacks[0].read()
    assert [name for name, study in studies.items() if not study.stacks]
    assert all(study.left_out for study in studies.values() if not study.stacks)


def test_a_patient_without_a_scan_costs_only_himself(tmp_path):
    dicom_files.write_series(tmp_path / "1", dicom_files.volume(), description="scout", patient="A")
    dicom_files.write_series(tmp_path / "2", dicom_files.volume(), patient="B")
    first, second = cases(tmp_path)
    assert second.fault is None and first.fault
    assert first.fault.problem == "has no series that could be a scan" and "a localiser" in first.fault.found


def test_one_file_stands_for_its_series(tmp_path):
    dicom_files.write_series(tmp_path, dicom_files.volume(1), number=1)
    paths = dicom_files.write_series(tmp_path, dicom_files.volume(2), number=2)
    (case,) = cases(paths[3])
    assert np.array_equal(read(case)[0], dicom_files.volume(2))


def test_channels_of_different_frames_of_reference_are_warned_of(tmp_path):
    dicom_files.write_series(tmp_path / "1", dicom_files.volume(1), number=1, description="T1")
    moved = {"FrameOfReferenceUID": dicom_files.uid("another")}
    dicom_files.write_series(tmp_path / "2", dicom_files.volume(2), number=2, description="FLAIR", **moved)
    (case,) = cases(tmp_path, "T1", "FLAIR")
    assert case.fault is None
    assert any("different frames of reference" in text for text in messages.warning_counts())


def test_dicom_beside_other_images_is_not_chosen_from(tmp_path):
    dicom_files.write_series(tmp_path / "1", dicom_files.volume())
    (tmp_path / "scan.nii.gz").touch()
    with pytest.raises(AutosegError, match="(?s)holds DICOM and other image files.*such as scan.nii.gz"):
        cases(tmp_path)


def test_a_folder_without_a_scan_says_what_is_there(tmp_path):
    dicom_files.write_series(tmp_path, dicom_files.volume(), Modality="SEG", description="lesion")
    text = refused(tmp_path)
    assert "no DICOM series that could be a scan" in text and "'lesion': modality SEG, no scan" in text


def test_frames_that_do_not_say_where_they_lie_are_named(tmp_path):
    pixels = dicom_files.volume()
    path = dicom_files.write_multi_frame(tmp_path / "x.dcm", pixels)
    dataset = pydicom.dcmread(path)
    del dataset.PerFrameFunctionalGroupsSequence
    dataset.save_as(path)
    assert "has several frames that do not say where they lie" in refused(tmp_path)


def test_hostile_files_cost_themselves_alone(tmp_path):
    dicom_files.write_series(tmp_path, dicom_files.volume())
    whole = next(tmp_path.iterdir()).read_bytes()
    random = np.random.default_rng(0)
    for i in range(40):
        damaged = bytearray(whole[: random.integers(133, len(whole))])
        for place in random.integers(132, len(damaged), 6):
            damaged[place] = random.integers(256)
        (tmp_path / "odd").mkdir(exist_ok=True)
        (tmp_path / "odd" / f"{i}.dcm").write_bytes(damaged)
        try:
            for case in cases(tmp_path / "odd"):
                read(case)
        except AutosegError:
            continue
        finally:
            (tmp_path / "odd" / f"{i}.dcm").unlink()
