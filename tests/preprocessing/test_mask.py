"""The mask role: grown by hand, on both grids, at training and prediction, and what goes wrong with it."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from scipy import ndimage
from storage import store_as

from autoseg import messages
from autoseg.dataset.examine import extract_fingerprint
from autoseg.dataset.imageio import Geometry, write_image, write_mask
from autoseg.dataset.images_to_predict import list_images
from autoseg.dataset.raw_layout import load_raw
from autoseg.errors import AutosegError, FaultsError
from autoseg.files import write_json
from autoseg.labels import LabelSet
from autoseg.plan import Inference, MaskRole, Named, Normalisation, Plan, Preprocessing, Recipe, Stage
from autoseg.preprocessing import fixed, mask, restore
from autoseg.preprocessing.case import Preprocessed, preprocess_case
from autoseg.preprocessing.fill_store import PreprocessReport, preprocess_dataset, stale_cases
from autoseg.preprocessing.store import Store

IDENTITY = (1.0, 0, 0, 0, 1, 0, 0, 0, 1)
NAMES = ("T2", "TTP")


def a_plan(**settings) -> Preprocessing:
    entries = settings.pop("normalisation", [Normalisation(scheme="none")] * 2)
    defaults = {"crop_to_nonzero": False, "spacing_mm": (None, None, None), "mask": MaskRole(channel="TTP")}
    return Preprocessing(normalisation=entries, **{**defaults, **settings})


def geometry(shape: tuple[int, ...], spacing_mm=(2.0, 1.0, 1.0)) -> Geometry:
    return Geometry(shape, spacing_mm, (0.0, 0.0, 0.0), IDENTITY)


def two_channels(ttp: np.ndarray) -> np.ndarray:
    return np.stack([np.random.default_rng(0).normal(100, 9, ttp.shape), ttp]).astype(np.float32)


def made(image: np.ndarray, plan: Preprocessing, label: np.ndarray | None = None, **options) -> Preprocessed:
    return preprocess_case("a", image, geometry(image.shape[1:]), plan, label, channel_names=NAMES, **options)


# ------------------------------------------------------------------------------------------------- its voxels


def test_one_step_of_dilation_is_a_cross_and_two_steps_are_an_octahedron():
    one = np.zeros((7, 7, 7), bool)
    one[3, 3, 3] = True
    distance = np.abs(np.indices(one.shape) - 3).sum(0)
    for steps in (0, 1, 2):
        found = mask.grown(one, MaskRole(channel="x", dilation=steps), 0)
        assert np.array_equal(found, distance <= steps)


PLANE = """
.....
.###.
.#.#.
.###.
....."""


def test_holes_are_filled_plane_by_plane():
    """A ring in one plane only is open above and below, so in 3D it has no hole; in its plane it has one voxel."""
    ring = np.array([[c == "#" for c in line] for line in PLANE.split()])
    for axis in range(3):
        volume = np.moveaxis(np.stack([np.zeros_like(ring), ring, np.zeros_like(ring)]), 0, axis)
        found = mask.fill_holes_of_planes(volume, axis)
        assert found.sum() == 9 and volume.sum() == 8
        assert np.array_equal(mask.fill_holes_of_planes(volume, (axis + 1) % 3), volume)
        unfilled = mask.grown(volume, MaskRole(channel="x", fill_holes=False), axis)
        assert np.array_equal(unfilled, volume)


@pytest.mark.parametrize("axis", [0, 1, 2])
def test_holes_equal_scipys_plane_by_plane(axis: int):
    noise = np.random.default_rng(axis).random((9, 14, 12)) < 0.6
    planes = np.moveaxis(noise, axis, 0)
    expected = np.moveaxis(np.stack([ndimage.binary_fill_holes(plane) for plane in planes]), 0, axis)
    assert (expected != noise).any()
    assert np.array_equal(mask.fill_holes_of_planes(noise, axis), expected)


def test_the_plane_is_across_the_first_working_axis():
    volume = np.zeros((5, 6, 7), np.float32)
    volume[1:4, 2, 1:4] = 1
    volume[2, 2, 2] = 0  # a hole in a plane across y
    for transpose, n in (((0, 1, 2), 8), ((1, 0, 2), 9)):
        found = mask.mask_of("a", two_channels(volume), a_plan(transpose=transpose), NAMES)
        assert found.sum() == n and found.shape == volume.shape


# --------------------------------------------------------------------------------------------------- the case


def test_outside_the_label_is_minus_one_and_lesions_stay_and_are_counted():
    ttp = np.zeros((4, 6, 6))
    ttp[:, 1:4, 1:4] = 7
    label = np.zeros(ttp.shape, np.uint8)
    label[1, 2, 2], label[1, 5, 5], label[2, 5, 5] = 1, 1, 2
    case = made(two_channels(ttp), a_plan(), label, ignore=2)
    expected = np.where(ttp > 0, 0, -1)
    expected[1, 2, 2], expected[1, 5, 5], expected[2, 5, 5] = 1, 1, 2
    assert np.array_equal(case.label, expected)
    assert np.array_equal(case.inside, ttp > 0)
    assert case.lesion_voxels_outside == 1  # 2 is the label that nobody scores
    assert np.array_equal(case.image, two_channels(ttp))  # nothing is normalised inside it


def test_the_mask_goes_to_the_working_grid_by_the_nearest_voxel():
    """Doubled in the plane: every voxel of the mask becomes two by two of them. Cropped and turned like the image."""
    ttp = np.zeros((4, 6, 8))
    ttp[1:3, 1:4, 2:7] = 1
    image = np.where(ttp > 0, 50, 0)
    image[0, 0, 0] = image[3, 5, 7] = 1  # the crop keeps all
    label = np.zeros(ttp.shape, np.uint8)
    plan = a_plan(transpose=(1, 0, 2), spacing_mm=(0.5, None, 0.5), crop_to_nonzero=True)
    case = made(np.stack([image, ttp]).astype(np.float32), plan, label)
    expected = ttp.transpose(1, 0, 2).repeat(2, 0).repeat(2, 2) > 0
    assert case.label.shape == expected.shape == (12, 4, 16)
    assert np.array_equal(case.label, np.where(expected, 0, -1))
    assert np.array_equal(case.inside, ttp > 0)  # on the grid of the file


def test_normalisation_inside_the_mask_equals_its_formula_and_needs_no_label():
    ttp = np.zeros((4, 6, 6))
    ttp[:, 1:4, 1:5] = 3
    image, inside = two_channels(ttp), ttp > 0
    plan = a_plan(normalisation=[Normalisation(inside_mask=True), Normalisation(scheme="none")])
    case = made(image, plan, np.zeros(ttp.shape, np.uint8))
    values = image[0][inside].astype(np.float64)
    np.testing.assert_allclose(case.image[0][inside], (values - values.mean()) / values.std(), atol=2e-6)
    assert (case.image[0][~inside] == 0).all() and np.array_equal(case.image[1], ttp)
    assert np.array_equal(made(image, plan).image, case.image)


def test_constants_inside_the_mask_leave_a_lesion_outside_at_zero(tmp_path: Path):
    """Were outside told by the label alone, a lesion drawn outside would shine in an image of zeros."""
    ttp = np.zeros((4, 6, 6))
    ttp[:, 1:4, 1:5] = 3
    image, inside = two_channels(ttp), ttp > 0
    label = np.zeros(ttp.shape, np.uint8)
    label[0, 5, 5] = 1
    plan = a_plan(
        normalisation=[Normalisation(scheme="fixed", inside_mask=True), Normalisation(scheme="none")]
    )
    case = made(image, plan, label)
    assert np.array_equal(np.isnan(case.image[0]), ~inside)
    found = fixed.FixedConstants(
        channels=(
            fixed.ChannelConstants(
                mean=100, spread=10, what="standard_deviation", inside="mask", n_voxels=48
            ),
            None,
        ),
        cases=1,
        cases_hash="",
    )
    fixed.apply(case.image, found)
    assert (case.image[0][~inside] == 0).all() and case.label[0, 5, 5] == 1
    np.testing.assert_allclose(case.image[0][inside], (image[0][inside] - 100) / 10, atol=1e-5)


def test_a_mask_from_a_file_gives_what_the_same_mask_from_a_channel_gives():
    ttp = np.zeros((4, 6, 6))
    ttp[1:, 1:4, 1:5] = 3
    entries = [Normalisation(inside_mask=True)] * 2
    of_channel = made(
        two_channels(ttp), a_plan(normalisation=entries, mask=MaskRole(channel="TTP", dilation=1))
    )
    role = MaskRole(folder="brains", dilation=1)
    of_file = made(
        two_channels(ttp), a_plan(normalisation=entries, mask=role), mask=(ttp > 0).astype(np.uint8)
    )
    assert np.array_equal(of_channel.image, of_file.image)
    assert np.array_equal(of_channel.inside, of_file.inside)


def test_without_the_word_nothing_is_marked_or_kept():
    case = made(two_channels(np.ones((3, 4, 5))), a_plan(mask=None), np.zeros((3, 4, 5), np.uint8))
    assert case.inside is None and (case.label == 0).all() and case.lesion_voxels_outside == 0


def test_masks_that_do_not_fit_are_refused():
    image = two_channels(np.zeros((3, 4, 5)))
    with pytest.raises(AutosegError, match=r"(?s)a, channel TTP: the mask is empty.*mask=null"):
        made(image, a_plan())
    folder = a_plan(mask=MaskRole(folder="brains"))
    with pytest.raises(AutosegError, match=r"(?s)a: the plan's mask is not there.*folder brains"):
        made(image, folder)
    with pytest.raises(AutosegError, match=r"(?s)does not fit the image.*\(3, 4, 4\).*\(3, 4, 5\)"):
        made(image, folder, mask=np.ones((3, 4, 4), np.uint8))
    with pytest.raises(ValueError, match="inside_mask, not inside_nonzero"):
        a_plan(normalisation=[Normalisation(inside_nonzero=True)])


# ------------------------------------------------------------------------------------------------ the way back


@pytest.mark.parametrize("spacing_mm", [(None, None, None), (None, 1.7, 0.6)])
@pytest.mark.parametrize(
    "labels",
    [
        LabelSet.from_labels({"background": 0, "a": 1}),
        LabelSet.from_labels({"background": 0, "whole": [1, 2], "core": [2]}, [1, 2]),
    ],
    ids=["classes", "regions"],
)
def test_nothing_is_predicted_outside_the_mask_of_the_file(spacing_mm, labels):
    ttp = np.zeros((4, 9, 9))
    ttp[1:3, 2:7, 2:7] = 1
    plan = a_plan(spacing_mm=spacing_mm)
    case = made(two_channels(ttp), plan)
    logits = np.full((labels.n_outputs, *case.properties.working_shape), -5, np.float32)
    logits[-1] = 5  # all of it is lesion
    found = restore.logits_to_mask(logits, case.properties, plan, labels, case.inside)
    assert np.array_equal(found > 0, ttp > 0)
    shares = restore.logits_to_probabilities(logits, case.properties, plan, labels, inside=case.inside)
    outside = shares[:, ttp == 0]
    assert (outside == (0 if labels.has_regions else [[1], [0]])).all()
    assert (shares[-1][ttp > 0] > 0.99).all()
    everywhere = restore.logits_to_mask(logits, case.properties, plan, labels)
    assert (everywhere > 0).all()


# --------------------------------------------------------------------------------------------------- the store


def a_dataset(folder: Path) -> Path:
    grid = geometry((6, 12, 12))
    for number, name in enumerate(("a", "b")):
        image = np.random.default_rng(number).normal(100, 9, grid.shape).astype(np.float32)
        lesion, brain = np.zeros(grid.shape, np.uint8), np.zeros(grid.shape, np.uint8)
        lesion[2:4, 4:6, 4:6] = 1
        brain[:, 2:10, 2:10] = 1
        write_image(folder / "imagesTr" / f"{name}_0000.nii.gz", image, grid)
        write_mask(folder / "labelsTr" / f"{name}.nii.gz", lesion, grid)
        write_mask(folder / "brains" / f"{name}.nii.gz", brain, grid)
    content = {"channel_names": {"0": "T2"}, "labels": {"background": 0, "lesion": 1}, "numTraining": 2}
    write_json(folder / "dataset.json", {**content, "file_ending": ".nii.gz"})
    return folder


ROLES = {"imagesTr": "_0000", "labelsTr": "", "brains": ""}


def prepare(dataset: Path, orientation: str | None = None) -> tuple[PreprocessReport, Store, dict[str, str]]:
    """What was done, the store, and what a training would call stale."""
    raw = load_raw(dataset)
    fingerprint = extract_fingerprint(raw)
    part = Named(name="x")
    stage = Stage(
        name="s", patch_size=[4] * 3, batch_size=1, epochs=1, loss=part, optimiser=part, schedule=part
    )
    plan = Plan(
        planner="test",
        trainer="test",
        dataset=raw.name,
        fingerprint_hash=fingerprint.content_hash,
        channel_names=["T2"],
        labels=raw.info.labels,
        preprocessing=a_plan(
            normalisation=[Normalisation(inside_mask=True)],
            mask=MaskRole(folder="brains"),
            orientation=orientation,
        ),
        networks={"main": part},
        recipe=Recipe(stages=[stage], inference=Inference(patch_size=[4] * 3)),
    )
    store = Store(dataset.parent / "store")
    report = preprocess_dataset(raw, fingerprint, plan, store.folder, 1)
    return report, store, stale_cases(store, fingerprint, plan, ["a", "b"])


def test_a_dataset_with_a_folder_of_masks_and_a_mask_that_changes(tmp_path: Path):
    dataset = a_dataset(tmp_path / "Dataset001_Tiny")
    report, store, stale = prepare(dataset)
    assert report.done == ["a", "b"] and report.outside == {} and stale == {}
    assert (store.read("a").label[...] == -1).sum() == 6 * (144 - 64)
    smaller = np.zeros((6, 12, 12), np.uint8)
    smaller[:, 2:10, 5:10] = 1
    write_mask(dataset / "brains" / "b.nii.gz", smaller, geometry(smaller.shape))
    messages.forget_warnings()
    report, store, stale = prepare(dataset)
    assert report.reused == ["a"] and report.stale == {"b": "the file of its mask changed"} and stale == {}
    assert report.outside == {"b": 4}
    (warning,) = messages.warning_counts()
    assert "4 lesion voxels of 1 case lie outside the plan's mask" in warning and "b (4)" in warning
    report, *_ = prepare(dataset)
    assert report.reused == ["a", "b"] and report.outside == {"b": 4}


def test_the_mask_is_turned_with_its_case(tmp_path: Path):
    """The second case, stored in another order with all its files, is stored as before."""
    dataset = a_dataset(tmp_path / "Dataset001_Tiny")
    _, store, _ = prepare(dataset, "LPS")
    before = store.read("b")
    arrays = [part[...].tobytes() for part in (before.image, before.label)]
    for path in (f"{part}/b{number}.nii.gz" for part, number in ROLES.items()):
        store_as(dataset / path, "SRA")
    report, store, stale = prepare(dataset, "LPS")
    assert report.done == ["b"] and report.outside == {} and stale == {}
    after = store.read("b")
    assert [part[...].tobytes() for part in (after.image, after.label)] == arrays


def test_a_case_without_its_mask_file_and_one_on_another_grid_are_named(tmp_path: Path):
    dataset = a_dataset(tmp_path / "Dataset001_Tiny")
    (dataset / "brains" / "a.nii.gz").unlink()
    write_mask(
        dataset / "brains" / "b.nii.gz",
        np.ones((6, 12, 12), np.uint8),
        geometry((6, 12, 12), (2.0, 2.0, 1.0)),
    )
    with pytest.raises(FaultsError) as caught:
        prepare(dataset)
    text = str(caught.value)
    assert "2 of 2 cases" in text and "no mask file" in text and str(dataset / "brains" / "a.nii.gz") in text
    assert "its spacing is not that of the image" in text


def test_the_mask_of_an_image_to_predict_is_found_in_or_beside_its_folder(tmp_path: Path):
    dataset = a_dataset(tmp_path / "Dataset001_Tiny")
    case = list_images(dataset / "imagesTr", load_raw(dataset).info)[0]
    role = MaskRole(folder="brains")
    found = mask.mask_beside_images(case, role)
    assert found == dataset / "brains" / "a.nii.gz"
    grid = geometry((6, 12, 12))
    assert mask.read_mask_file(found, grid, "a").sum() == 6 * 64
    nearer = dataset / "imagesTr" / "brains" / "a.mha"
    write_mask(nearer, np.ones(grid.shape, np.uint8), grid)
    assert mask.mask_beside_images(case, role) == nearer
    assert mask.mask_beside_images(case, MaskRole(channel="T2")) is None
    with pytest.raises(AutosegError, match=r"(?s)a: the case has no mask file.*imagesTr.heads.a.nii.gz"):
        mask.mask_beside_images(case, MaskRole(folder="heads"))
