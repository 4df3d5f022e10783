"""--dicom_seg: read back by highdicom and pydicom, equal in voxels and geometry; refused where it cannot be."""

import numpy as np
import pytest
import SimpleITK as sitk

from autoseg import messages
from autoseg.cli import predict as command

pydicom = pytest.importorskip("pydicom", reason="pydicom is not installed")
hd = pytest.importorskip("highdicom", reason="highdicom is not installed")

import dicom_files  # noqa: E402


@pytest.fixture
def work(tmp_path, model_folder):
    model_folder.make_model(tmp_path / "results", thresholds=(500,))
    messages.forget_warnings()
    return tmp_path


def predict(work, *words):
    model = work / "results" / "Dataset900_Tiny" / "unet__tiny"
    given = ["-i", work / "in", "-o", work / "out", "-m", model, "-device", "cpu", "--dicom_seg"]
    return command.main([*map(str, given), *words])


def frames_by_position(seg):
    """ImagePositionPatient to the pixels of the segment there, by pydicom alone."""
    found = {}
    for frame, group in zip(
        np.atleast_3d(seg.pixel_array), seg.PerFrameFunctionalGroupsSequence, strict=True
    ):
        found[tuple(group.PlanePositionSequence[0].ImagePositionPatient)] = frame
    return found


@pytest.mark.parametrize("multi_frame", [False, True])
def test_the_segment_has_the_voxels_of_the_mask_at_their_places(work, multi_frame):
    pixels = dicom_files.volume()
    pixels[0] = 0  # a slice without lesion has no frame
    if multi_frame:
        fields = {"AcquisitionContextSequence": [], "ContentDate": "20260102", "ContentTime": "101112"}
        path = work / "in" / "x.dcm"
        dicom_files.write_multi_frame(path, pixels, description="AX T2", order=[3, 0, 1, 5, 2, 4], **fields)
    else:
        dicom_files.write_series(work / "in", pixels, description="AX T2", order=[3, 0, 1, 5, 2, 4])
    assert predict(work) == 0
    mask = sitk.GetArrayFromImage(sitk.ReadImage(str(work / "out" / "P01.nii.gz")))
    assert np.array_equal(mask, pixels > 500)
    seg = pydicom.dcmread(work / "out" / "P01.seg.dcm")
    assert seg.Modality == "SEG" and seg.PatientID == "P01"
    assert seg.FrameOfReferenceUID == dicom_files.uid("P01", 1, "frame")
    (segment,) = seg.SegmentSequence
    assert segment.SegmentLabel == "lesion" and segment.SegmentAlgorithmType == "AUTOMATIC"
    assert segment.SegmentedPropertyTypeCodeSequence[0].CodeValue == "52988006"
    found = frames_by_position(seg)
    where = dicom_files.places(6, (3.0,), (-40.0, -50.0, 12.5), dicom_files.OBLIQUE)
    assert len(found) == 5
    for i in range(1, 6):
        near = [frame for place, frame in found.items() if np.allclose(place, where[i], atol=1e-6)]
        assert np.array_equal(near[0], mask[i])
    shared = seg.SharedFunctionalGroupsSequence[0]
    assert shared.PixelMeasuresSequence[0].PixelSpacing == [0.8, 0.9]
    assert np.allclose(shared.PlaneOrientationSequence[0].ImageOrientationPatient, dicom_files.OBLIQUE)
    again = hd.seg.segread(work / "out" / "P01.seg.dcm").get_volume(combine_segments=True)
    assert again.array.sum() == mask.sum()


def test_no_lesion_is_a_segment_without_voxels(work):
    dicom_files.write_series(work / "in", dicom_files.volume() // 3, description="AX T2")
    assert predict(work) == 0
    assert not pydicom.dcmread(work / "out" / "P01.seg.dcm").pixel_array.any()


def test_files_made_anonymous_lack_fields(work):
    lost = ("PatientBirthDate", "StudyID", "AccessionNumber", "ReferringPhysicianName", "PatientSex")
    dicom_files.write_series(
        work / "in",
        dicom_files.volume(),
        description="AX T2",
        change=lambda i, dataset: [delattr(dataset, name) for name in lost] and None,
    )
    assert predict(work) == 0 and (work / "out" / "P01.seg.dcm").exists()


def test_what_is_not_dicom_is_refused_before_the_network_is_loaded(work, capsys):
    (work / "in").mkdir()
    sitk.WriteImage(sitk.GetImageFromArray(dicom_files.volume()), str(work / "in" / "a.nii.gz"))
    assert predict(work) == 1
    assert "1 case does not come from DICOM" in capsys.readouterr().err
    assert predict(work, "--bids") == 1
    assert "--bids writes a dataset of its own" in capsys.readouterr().err


def test_the_file_is_on_record_and_made_again_when_it_is_gone(work):
    dicom_files.write_series(work / "in", dicom_files.volume(), description="AX T2")
    assert predict(work) == 0
    (work / "out" / "P01.seg.dcm").unlink()
    assert predict(work, "--continue_prediction") == 0
    assert (work / "out" / "P01.seg.dcm").exists()
